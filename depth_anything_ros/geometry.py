"""Stage 5/6: DepthMap + camera -> points in the camera's optical frame (REP 103: z forward, x right, y down)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .structs import Intrinsics


def intrinsics_from_k(k: Sequence[float], size_hw: tuple[int, int]) -> Intrinsics | None:
    """Read a row-major 3x3 camera matrix.

    Returns:
        The intrinsics, or None where the matrix is not of a calibrated camera (zero or negative focal length, NaN, Inf).
    """
    fx, fy, cx, cy = float(k[0]), float(k[4]), float(k[2]), float(k[5])
    if not all(math.isfinite(v) for v in (fx, fy, cx, cy)) or fx <= 0 or fy <= 0:
        return None
    return Intrinsics(fx, fy, cx, cy, size_hw)


def intrinsics_from_hfov(hfov_deg: float, size_hw: tuple[int, int]) -> Intrinsics:
    """Return an ideal camera of the given horizontal field of view in degrees, with its centre in the middle."""
    focal_px = size_hw[1] / 2 / math.tan(math.radians(hfov_deg) / 2)
    return Intrinsics(focal_px, focal_px, size_hw[1] / 2, size_hw[0] / 2, size_hw)


def scaled(intrinsics: Intrinsics, size_hw: tuple[int, int]) -> Intrinsics:
    """Return the intrinsics of the same camera for an image of another size.

    K is multiplied by the ratio of sizes, principal point included, as image_proc's ResizeNode and image_geometry's binning do it.
    """
    sx, sy = size_hw[1] / intrinsics.size_hw[1], size_hw[0] / intrinsics.size_hw[0]
    return Intrinsics(intrinsics.fx * sx, intrinsics.fy * sy, intrinsics.cx * sx, intrinsics.cy * sy, size_hw)


@dataclass(frozen=True)
class Level:
    """How a camera stands in the world: what is up, and how high it is.

    Attributes:
        up: unit vector against gravity, in the camera's optical frame; (0, -1, 0) for a camera that looks at the horizon.
        height_m: metres of the camera above the floor; heights of points are measured from there.
    """

    up: tuple[float, float, float]
    height_m: float

    @classmethod
    def from_roll_pitch(cls, roll_rad: float, pitch_rad: float, height_m: float) -> Level:
        """Return the level of a camera whose mount is rolled and pitched in radians (REP 103: pitch > 0 looks down, roll > 0 tips right)."""
        cos_pitch = math.cos(pitch_rad)
        return cls((-cos_pitch * math.sin(roll_rad), -cos_pitch * math.cos(roll_rad), -math.sin(pitch_rad)), height_m)

    @classmethod
    def from_rotation(cls, base_R_camera: npt.NDArray[np.floating], height_m: float) -> Level:
        """Return the level of a camera from the 3x3 rotation of its optical frame in a frame whose z is up, as TF gives it."""
        x, y, z = (float(v) for v in base_R_camera[2])
        return cls((x, y, z), height_m)

    @property
    def level_R_camera(self) -> npt.NDArray[np.float64]:
        """3x3 rotation into the level frame: origin at the camera, x where it looks (level), y left, z up.

        Raises:
            ConfigError: the camera looks straight up or down, which gives x no direction.
        """
        up = np.asarray(self.up)
        forward = np.array((0.0, 0.0, 1.0)) - up[2] * up
        length = float(np.linalg.norm(forward))
        if not length > 1e-3:
            raise ConfigError(f"the camera looks straight {'up' if up[2] > 0 else 'down'} (up is {self.up}): it has no level direction of view")
        forward /= length
        return np.stack([forward, np.cross(up, forward), up])

    @property
    def camera_quat_level(self) -> tuple[float, float, float, float]:
        """Unit quaternion (x, y, z, w) of the level frame in the camera's optical frame, as a TF from the one to the other has it.

        Raises:
            ConfigError: as `level_R_camera`.
        """
        vector = cv2.Rodrigues(self.level_R_camera.T)[0].ravel()  # axis times angle, which is never 0: up is not the optical z
        angle = float(np.linalg.norm(vector))
        x, y, z = (float(v) for v in vector * (math.sin(angle / 2) / angle))
        return x, y, z, math.cos(angle / 2)


class CloudBuilder:
    """Builds organised point clouds; keeps the rays of the last camera and one output buffer. Not thread-safe."""

    def __init__(self) -> None:
        """Start with empty caches."""
        self._camera: Intrinsics | npt.NDArray[np.float32] | None = None
        self._stride = 0
        self._rayless: npt.NDArray[np.bool_] | None = None
        self._level: Level | None = None
        self._rise = np.empty((0, 0), np.float32)
        self._ray_x = self._ray_y = np.empty(0, np.float32)
        self._x = self._y = np.empty((0, 0), np.float32)
        self._points = np.empty((0, 0, 0), np.float32)

    def __call__(
        self,
        depth_m: npt.NDArray[np.float32],
        intrinsics: Intrinsics | npt.NDArray[np.float32],
        rgb: npt.NDArray[np.uint8] | None = None,
        stride: int = 1,
        range_m: tuple[float, float] = (0.0, math.inf),
        level: Level | None = None,
        height_m: tuple[float, float] = (-math.inf, math.inf),
    ) -> npt.NDArray[np.float32]:
        """Back-project every `stride`-th pixel.

        Args:
            depth_m: (H, W) float32 metres along +Z, NaN or +Inf = no point.
            intrinsics: camera of an image of the depth's size; of a distorted one the rays of every `stride`-th pixel, (h, w, 2) float32
                (`rays.RayTable.xy`), which must not change from call to call.
            rgb: (H', W', 3) uint8 of the same view, any size, or None for points without colour.
            stride: in pixels, in both directions.
            range_m: nearest and farthest Z in metres that make a point.
            level: how the camera stands; None = points of any height.
            height_m: lowest and highest metres above the floor that make a point.

        Returns:
            (ceil(H / stride), ceil(W / stride), 3 or 4) float32: X, Y, Z in metres, NaN where there is no point, and with
            `rgb` the colour as 0x00RRGGBB in the bits of a float32 (PCL's `rgb`). Overwritten by the next call.

        Raises:
            ValueError: rays of another size than the points.
        """
        z = depth_m[::stride, ::stride]
        self._prepare(intrinsics, stride, (z.shape[0], z.shape[1]), 3 if rgb is None else 4)
        nearest, farthest = max(range_m[0], np.finfo(np.float32).tiny), min(range_m[1], np.finfo(np.float32).max)
        z = np.where((z >= np.float32(nearest)) & (z <= np.float32(farthest)), z, np.float32(np.nan))
        if self._rayless is not None:
            z[self._rayless] = np.nan
        if level is not None:
            self._cut_to_heights(z, level, height_m)
        planes = [np.multiply(z, self._ray_x, out=self._x), np.multiply(z, self._ray_y, out=self._y), z]
        if rgb is not None:
            planes.append(_packed_colour(rgb, (depth_m.shape[0], depth_m.shape[1]), stride))
        return cv2.merge(planes, dst=self._points)  # type: ignore[return-value]

    def _prepare(self, intrinsics: Intrinsics | npt.NDArray[np.float32], stride: int, size_hw: tuple[int, int], channels: int) -> None:
        if not isinstance(intrinsics, Intrinsics) and intrinsics.shape != (*size_hw, 2):
            raise ValueError(f"rays have shape {intrinsics.shape}, the points need {(*size_hw, 2)}")
        if self._points.shape != (*size_hw, channels):
            self._x, self._y = np.empty(size_hw, np.float32), np.empty(size_hw, np.float32)
            self._points = np.empty((*size_hw, channels), np.float32)
        if not self._same_camera(intrinsics) or self._stride != stride:
            self._camera, self._stride, self._level = intrinsics, stride, None
            if isinstance(intrinsics, Intrinsics):
                columns, rows = np.arange(size_hw[1]) * stride, np.arange(size_hw[0]) * stride
                self._ray_x = ((columns - intrinsics.cx) / intrinsics.fx).astype(np.float32)[None, :]
                self._ray_y = ((rows - intrinsics.cy) / intrinsics.fy).astype(np.float32)[:, None]
            else:
                self._ray_x, self._ray_y = (np.ascontiguousarray(intrinsics[..., axis]) for axis in (0, 1))
            rayless = np.isnan(self._ray_x)
            self._rayless = rayless if rayless.any() else None

    def _same_camera(self, camera: Intrinsics | npt.NDArray[np.float32]) -> bool:
        return camera is self._camera or (isinstance(camera, Intrinsics) and isinstance(self._camera, Intrinsics) and camera == self._camera)

    def _cut_to_heights(self, z: npt.NDArray[np.float32], level: Level, height_m: tuple[float, float]) -> None:
        if self._level != level:
            x, y, straight = (np.float32(v) for v in level.up)
            self._rise, self._level = x * self._ray_x + y * self._ray_y + straight, level
        above_camera_m = np.multiply(z, self._rise, out=self._x)
        low, high = np.float32(height_m[0] - level.height_m), np.float32(height_m[1] - level.height_m)
        z[~((above_camera_m >= low) & (above_camera_m <= high))] = np.nan


def _packed_colour(rgb: npt.NDArray[np.uint8], size_hw: tuple[int, int], stride: int) -> npt.NDArray[np.float32]:
    if rgb.shape[:2] != size_hw:
        rgb = cv2.resize(rgb, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
    bgra = cv2.cvtColor(rgb[::stride, ::stride], cv2.COLOR_RGB2BGRA)
    # Alpha 0: with alpha 255 a bright red is a NaN, and tools that skip NaN in any field drop the point.
    return (bgra.view("<u4")[..., 0] & np.uint32(0x00FFFFFF)).view(np.float32)
