"""Scale from the ground: a map and the floor that the camera stands above -> scale and shift of inverse depth.

At a known height and attitude the floor's inverse depth is known for every pixel below the horizon (it is linear in row
and column). The pixels that show the floor are those that agree with it; whether they can be a floor is checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .rays import ImageCamera
from .scale_filter import Fit, ScaleLimits, beyond_infinity, fit_inverse_depth, inverse_depth
from .structs import DepthMap, Intrinsics

_GRAVITY = 9.80665
_MAX_PIXELS = 5000
_MIN_ASKED = 0.1
_CELLS = 8
_MIN_CELLS = 3
_MAX_BELOW_FLOOR = 0.15


@dataclass(frozen=True)
class GroundPlane:
    """The floor as the camera has it.

    Attributes:
        height_m: of the camera's optical centre above the floor, along the floor's normal; above 0.
        down: unit vector in the camera's optical frame (x right, y down, z forward) that points at the floor.

    Raises:
        ConfigError: the height is not above 0, or `down` is not of length 1.
    """

    height_m: float
    down: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Refuse what is no plane below a camera."""
        if not (math.isfinite(self.height_m) and self.height_m > 0):
            raise ConfigError(f"the camera's height above the floor must be above 0 m, not {self.height_m:g} m")
        if not abs(math.hypot(*self.down) - 1) < 1e-6:
            raise ConfigError(f"the direction down must be of length 1, not {self.down}")


def plane_from_mounting(height_m: float, pitch_deg: float, roll_deg: float = 0.0) -> GroundPlane:
    """Return the floor of a camera mounted at a height in metres.

    Args:
        height_m: above the floor; above 0.
        pitch_deg: degrees; 0 looks at the horizon, positive looks down (REP 103), -90 .. 90.
        roll_deg: degrees; positive tilts the camera's right side down, -180 .. 180.

    Raises:
        ConfigError: out of range.
    """
    if not (abs(pitch_deg) <= 90 and abs(roll_deg) <= 180):
        raise ConfigError(f"pitch {pitch_deg:g} and roll {roll_deg:g} degrees are not within 90 and 180 degrees of level")
    p, r = math.radians(pitch_deg), math.radians(roll_deg)
    return GroundPlane(height_m, (math.cos(p) * math.sin(r), math.cos(p) * math.cos(r), math.sin(p)))


def plane_from_transform(floor_T_camera: npt.NDArray[np.float64]) -> GroundPlane:
    """Return the floor z = 0 of a frame with z up (`base_footprint`) for a camera at floor_T_camera (4, 4) in it.

    Raises:
        ConfigError: the camera is not above the floor.
    """
    down = -floor_T_camera[2, :3]
    x, y, z = (float(v) for v in down / np.linalg.norm(down))
    return GroundPlane(float(floor_T_camera[2, 3]), (x, y, z))


def plane_from_acceleration(height_m: float, acceleration: Sequence[float]) -> GroundPlane | None:
    """Return the level floor below a camera whose attitude an accelerometer gives.

    Args:
        height_m: above the floor; above 0.
        acceleration: of sensor_msgs/Imu, turned into the camera's optical frame, m/s^2; at rest it points up (REP 145).

    Returns:
        The plane, or None while the acceleration is not gravity alone (its length is off by more than 5 %, or not finite).

    Raises:
        ConfigError: the height is not above 0.
    """
    length = math.hypot(*acceleration)
    if not abs(length / _GRAVITY - 1) <= 0.05:
        return None
    x, y, z = (-float(a) / length for a in acceleration)
    return GroundPlane(height_m, (x, y, z))


def floor_inverse_depth(plane: GroundPlane, camera: Intrinsics | ImageCamera, size_hw: tuple[int, int], stride: int = 1) -> npt.NDArray[np.float64]:
    """Return one over the depth (along +Z) at which each pixel sees the floor; not above 0 at and above the horizon.

    Args:
        plane: the floor.
        camera: of the camera image; the map may have another size.
        size_hw: of the map.
        stride: every n-th row and column.

    Returns:
        (ceil(h / stride), ceil(w / stride)) float64 1/metres: the plane down.X = height of X = depth * ray. NaN where the lens has no ray.
    """
    if isinstance(camera, ImageCamera) and camera.lens != "pinhole":
        rays = camera.ray_table(size_hw, stride).xy.astype(np.float64)
        return np.asarray((rays @ np.array(plane.down[:2]) + plane.down[2]) / plane.height_m)
    intrinsics = camera.intrinsics if isinstance(camera, ImageCamera) else camera
    scale_x, scale_y = intrinsics.size_hw[1] / size_hw[1], intrinsics.size_hw[0] / size_hw[0]
    ray_x = ((np.arange(0, size_hw[1], stride) + 0.5) * scale_x - 0.5 - intrinsics.cx) / intrinsics.fx
    ray_y = ((np.arange(0, size_hw[0], stride) + 0.5) * scale_y - 0.5 - intrinsics.cy) / intrinsics.fy
    return (plane.down[0] * ray_x[None, :] + plane.down[1] * ray_y[:, None] + plane.down[2]) / plane.height_m


def fit_to_ground(depth_map: DepthMap, camera: Intrinsics | ImageCamera | None, plane: GroundPlane | None, max_m: float, limits: ScaleLimits) -> Fit:
    """Fit a map to the floor: a factor for a metric map, scale and shift for a relative one.

    Everything below the horizon where the floor would be nearer than `max_m` is asked. A fit is refused where that is too
    little of the image, too few pixels agree, they are not spread over rows and columns, much of the map would lie below the
    floor, or much of it beyond infinity: those are walls, ceilings and table tops, not floors.

    Args:
        depth_map: what the model gave, of either kind, NaN = unknown.
        camera: of the camera image; None where it is not calibrated.
        plane: the floor; None where its direction is not known.
        max_m: floor farther away than this depth in metres is not used.
        limits: see `ScaleLimits`; up to 1 - min_inlier_ratio of those pixels may show something else.

    Returns:
        The fit of this frame, for `ScaleFilter.update`.
    """
    if camera is None or plane is None:
        return Fit(reason="the camera is not calibrated" if camera is None else "the direction of the floor is not known")
    stride = max(1, math.ceil(math.sqrt(depth_map.values.size / 2 / _MAX_PIXELS)))
    floor = floor_inverse_depth(plane, camera, depth_map.size_hw, stride)
    x = inverse_depth(depth_map)[::stride, ::stride].astype(np.float64)
    asked = floor >= 1 / max_m
    if asked.mean() < _MIN_ASKED:
        return Fit(reason=f"only {asked.mean():.0%} of the image look at the floor within {max_m:g} m, {_MIN_ASKED:.0%} are needed")
    fit = fit_inverse_depth(np.where(asked, x, np.nan).ravel(), floor.ravel(), limits, with_shift=depth_map.kind != "depth_m")
    return fit if fit.reason else replace(fit, reason=_no_floor(fit, x, floor, asked, limits.max_error))


def _no_floor(fit: Fit, x: npt.NDArray[np.float64], floor: npt.NDArray[np.float64], asked: npt.NDArray[np.bool_], max_error: float) -> str:
    """Return why the pixels that agree cannot be a floor; empty where they can."""
    asked = asked & np.isfinite(x)
    errors = np.where(asked, (fit.scale * x + fit.shift) / np.where(asked, floor, 1.0) - 1, np.nan)
    rows, columns = (_cells_with(np.abs(errors) <= max_error, asked, axis) for axis in (0, 1))
    if min(rows, columns) < _MIN_CELLS:
        return f"what agrees with a floor lies in {rows} of {_CELLS} row bands and {columns} of {_CELLS} column bands, {_MIN_CELLS} are needed"
    below = float((errors[asked] < -max_error).mean())
    if below > _MAX_BELOW_FLOOR:
        return f"{below:.0%} of what should show the floor lies below it, {_MAX_BELOW_FLOOR:.0%} may"
    return beyond_infinity(x, fit, max_error * float(np.nanmax(floor)))


def _cells_with(agree: npt.NDArray[np.bool_], asked: npt.NDArray[np.bool_], axis: int) -> int:
    """Return in how many of the bands along an axis a fair share of the pixels agrees."""
    used = np.flatnonzero(asked.any(axis=1 - axis))
    bands = np.array_split(np.arange(used[0], used[-1] + 1), _CELLS)
    counts = ((agree.take(band, axis).sum(), asked.take(band, axis).sum()) for band in bands if band.size)
    return sum(bool(total and share >= 0.2 * total) for share, total in counts)
