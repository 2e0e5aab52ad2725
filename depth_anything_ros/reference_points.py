"""Messages of range sensors -> points -> where the camera sees them. Plain numbers and arrays, no ROS.

A scan, cloud or range becomes (N, 3) points in the sensor's frame; a transform and the camera make `ReferencePixels` of
them. A registered depth image gives those directly.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import ConfigError, DecodeError
from .structs import Intrinsics

Points = npt.NDArray[np.float64]
"""(N, 3) X, Y, Z in metres; (N, 2) or (N,) where a docstring says so."""

Project = Callable[[Points], Points]
"""(N, 3) points in the camera's optical frame, Z > 0 -> (N, 2) share of the image's width and height, 0..1 inside; NaN = not seen."""

_POINT_FIELD_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_CONE_RINGS = 6
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class ReferencePixels:
    """Known depths at known places of the camera's view.

    Attributes:
        share_xy: (N, 2) float64, share of the image's width and height: (0, 0) is the outer corner of the first pixel, (1, 1)
            that of the last one, so they fit a map of any size of the same view. Outside 0..1 or NaN = not seen.
        depth_m: (N,) float64 metres along the camera's optical +Z, finite and above 0.
        stamp_ns: of the sensor's message.
        one_surface: all points stand for one measured distance (Range).
    """

    share_xy: Points
    depth_m: Points
    stamp_ns: int
    one_surface: bool = False


def points_from_scan(ranges: npt.ArrayLike, angle_min: float, angle_increment: float, range_min: float, range_max: float) -> Points:
    """Return the points of a sensor_msgs/LaserScan in its frame (x forward, y left, z = 0).

    Args:
        ranges: (N,) metres; NaN, Inf and what is outside range_min..range_max make no point.
        angle_min: of the first range, in radians.
        angle_increment: between two ranges, in radians; not 0.
        range_min: metres.
        range_max: metres.

    Raises:
        DecodeError: the numbers describe no scan.
    """
    _check_range_limits(range_min, range_max)
    if not (math.isfinite(angle_min) and math.isfinite(angle_increment)) or angle_increment == 0:
        raise DecodeError(f"scan: angle_min {angle_min} and angle_increment {angle_increment} must be finite, the increment not 0")
    r = np.asarray(ranges, np.float64).ravel()
    angles = angle_min + angle_increment * np.arange(r.size)
    hit = (r >= range_min) & (r <= range_max)  # False for NaN
    hit &= np.isfinite(r) & (r > 0)
    r, angles = r[hit], angles[hit]
    return np.column_stack([r * np.cos(angles), r * np.sin(angles), np.zeros(r.size)])


def points_from_cloud(
    data: Any,  # noqa: ANN401 - any buffer
    fields: Sequence[tuple[str, int, int]],
    point_step: int,
    row_step: int,
    width: int,
    height: int,
    is_bigendian: bool,
) -> Points:
    """Return the points of a sensor_msgs/PointCloud2 in its frame, organised or not.

    Args:
        data: the message's bytes: bytes, bytearray, array.array or uint8 array.
        fields: (name, offset, datatype) of each PointField, in any order; x, y and z may be of any datatype.
        point_step: bytes of a point.
        row_step: bytes of a row; not used where there is one row (many drivers leave it 0).
        width: points of a row.
        height: rows.
        is_bigendian: byte order of the fields.

    Returns:
        (N, 3) float64 metres. A point with NaN or Inf, and one at exactly (0, 0, 0) ("no return" of many LiDARs), is left out.

    Raises:
        DecodeError: x, y or z is missing or does not fit into a point, or the data is shorter than the sizes say.
    """
    by_name = {name: (offset, datatype) for name, offset, datatype in fields}
    missing = [name for name in "xyz" if name not in by_name]
    if missing:
        raise DecodeError(f"cloud: no field {', '.join(missing)}; it has {', '.join(by_name) or 'none'}")
    if width == 0 or height == 0:
        return np.empty((0, 3))
    row_step = row_step if height > 1 else width * point_step
    buffer = memoryview(data).cast("B")
    needed = row_step * (height - 1) + width * point_step
    if row_step < width * point_step or len(buffer) < needed:
        raise DecodeError(f"cloud: {width}x{height} points of {point_step} bytes, rows of {row_step} bytes do not fit into {len(buffer)} bytes")
    xyz = np.empty((3, height, width))
    for axis, name in enumerate("xyz"):
        dtype = _field_dtype(name, *by_name[name], point_step, is_bigendian)
        xyz[axis] = np.ndarray((height, width), dtype, buffer, by_name[name][0], (row_step, point_step))
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(xyz.sum(axis=0))
    return xyz[:, finite & xyz.any(axis=0)].T


def _field_dtype(name: str, offset: int, datatype: int, point_step: int, is_bigendian: bool) -> np.dtype[Any]:
    if datatype not in _POINT_FIELD_TYPES:
        raise DecodeError(f"cloud: field {name} has datatype {datatype}, which sensor_msgs/PointField does not know")
    dtype = np.dtype((">" if is_bigendian else "<") + _POINT_FIELD_TYPES[datatype])
    if offset < 0 or offset + dtype.itemsize > point_step:
        raise DecodeError(f"cloud: field {name} at byte {offset} does not fit into a point of {point_step} bytes")
    return dtype


def points_from_range(range_m: float, field_of_view: float, min_range: float, max_range: float) -> Points:
    """Return points all over the cone of a sensor_msgs/Range (x forward), each at the measured distance.

    The sensor says that something in its cone is that far, not where in the cone, and one distance cannot give scale and
    shift. So the points are one surface: they are used where the map, too, has one depth all over the cone, and give a
    factor for a metric map; for a relative map they are not enough.

    Args:
        range_m: metres; NaN, -Inf ("something nearer than the minimum"), +Inf ("nothing") and what is outside the limits
            make no point (REP 117).
        field_of_view: full angle of the cone in radians, 0 .. pi; 0 gives one point on the axis.
        min_range: metres.
        max_range: metres.

    Raises:
        DecodeError: the numbers describe no range sensor.
    """
    _check_range_limits(min_range, max_range)
    if not 0 <= field_of_view < math.pi:
        raise DecodeError(f"range: field_of_view {field_of_view} is outside 0 .. pi")
    if not (math.isfinite(range_m) and min_range <= range_m <= max_range and range_m > 0):
        return np.empty((0, 3))
    directions = [(1.0, 0.0, 0.0)]
    for ring in range(1, _CONE_RINGS + 1 if field_of_view > 0 else 1):
        off_axis = field_of_view / 2 * ring / _CONE_RINGS
        for around in np.arange(6 * ring) * (math.pi / (3 * ring)):
            directions.append((math.cos(off_axis), math.sin(off_axis) * math.cos(around), math.sin(off_axis) * math.sin(around)))
    return range_m * np.array(directions)


def _check_range_limits(low: float, high: float) -> None:
    if not 0 <= low < high:
        raise DecodeError(f"the sensor says that it measures from {low} m to {high} m")


def rigid_transform(translation_m: Sequence[float], quat_xyzw: Sequence[float]) -> Points:
    """Return target_T_source (4, 4) float64 of a translation in metres and a unit quaternion, as TF has them.

    Raises:
        ConfigError: a number is missing or not finite, or the quaternion's length is not 1: nothing stands for the identity.
    """
    translation, quaternion = np.asarray(translation_m, np.float64), np.asarray(quat_xyzw, np.float64)
    if translation.shape != (3,) or not np.isfinite(translation).all():
        raise ConfigError(f"translation_m: {list(translation_m)} is not three finite numbers")
    if quaternion.shape != (4,) or not abs(np.linalg.norm(quaternion) - 1) < 1e-3:
        raise ConfigError(f"quat_xyzw: {list(quat_xyzw)} is not a quaternion of length 1")
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    transform = np.eye(4)
    transform[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    transform[:3, 3] = translation
    return transform


def pinhole(intrinsics: Intrinsics) -> Project:
    """Return the projection of a camera without distortion; `intrinsics` are those of the camera image, not of the map."""
    height, width = intrinsics.size_hw

    def project(points: Points) -> Points:
        x, y, z = points.T
        u, v = x / z * intrinsics.fx + intrinsics.cx, y / z * intrinsics.fy + intrinsics.cy
        return np.stack([(u + 0.5) / width, (v + 0.5) / height]).T  # a pixel's centre is at a whole number

    return project


def pixels_from_points(points: Points, camera_T_sensor: Points, project: Project, stamp_ns: int, one_surface: bool = False) -> ReferencePixels:
    """Return where a camera sees the points of a sensor.

    Args:
        points: (N, 3) in the sensor's frame.
        camera_T_sensor: (4, 4) from the sensor's frame to the camera's optical frame, see `rigid_transform`.
        project: the camera, see `pinhole`. Points behind it never get there.
        stamp_ns: of the sensor's message.
        one_surface: see `ReferencePixels`; True for `points_from_range`.
    """
    in_camera = camera_T_sensor[:3, :3] @ points.T + camera_T_sensor[:3, 3:]
    in_camera = in_camera[:, in_camera[2] > 0]
    return ReferencePixels(project(in_camera.T), in_camera[2], stamp_ns, one_surface)


def pixels_from_depth_image(depth: npt.NDArray[Any], stamp_ns: int) -> ReferencePixels:
    """Return the pixels of a depth image that is registered to the camera: the same view, of any size.

    Args:
        depth: (H, W) float metres (32FC1) or uint16 millimetres (16UC1), REP 118. 0, negative, NaN and Inf are no pixels.
        stamp_ns: of the image.

    Raises:
        DecodeError: neither of the two.
    """
    if depth.ndim != 2 or depth.dtype.kind not in "fu" or depth.dtype == np.uint8:
        raise DecodeError(f"depth image: {depth.dtype} of shape {depth.shape} is neither 32FC1 nor 16UC1")
    known = np.isfinite(depth) & (depth > 0)
    rows, columns = np.nonzero(known)
    depth_m = depth[known].astype(np.float64) * (1.0 if depth.dtype.kind == "f" else 1e-3)
    return ReferencePixels(np.stack([(columns + 0.5) / depth.shape[1], (rows + 0.5) / depth.shape[0]]).T, depth_m, stamp_ns)


MAX_KEPT = 200
"""Messages that are kept at most, whatever their stamps say."""


class NearestInTime(Generic[_Item]):
    """Keeps the messages of the last moments and finds the one of an image. One thread may add while another asks."""

    def __init__(self, keep_s: float) -> None:
        """Keep what is at most `keep_s` seconds older than the newest: at least the time from an image to its inference."""
        self._keep_ns = int(keep_s * 1e9)
        self._items: list[tuple[int, _Item]] = []
        self._lock = threading.Lock()

    def add(self, stamp_ns: int, item: _Item) -> None:
        """Store a message, in place of one of the same stamp. Where time jumps back by more than what is kept, forget the others."""
        with self._lock:
            near = [kept for kept in self._items if 0 < abs(kept[0] - stamp_ns) <= self._keep_ns]
            self._items = [*near[-MAX_KEPT + 1 :], (stamp_ns, item)]

    def find(self, stamp_ns: int) -> _Item | None:
        """Return the message nearest in time, however far; None where there is none."""
        with self._lock:
            return min(self._items, key=lambda kept: abs(kept[0] - stamp_ns))[1] if self._items else None

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items = []
