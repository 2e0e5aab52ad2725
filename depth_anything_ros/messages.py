"""Stage 6/6: DepthMap, points and pictures -> ROS messages. The only place that fills messages.

Headers are the input's own objects, so stamp and frame_id go out as they came in.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

_XYZ = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyz")]
_RGB = PointField(name="rgb", offset=12, datatype=PointField.FLOAT32, count=1)
_IS_BIGENDIAN = sys.byteorder == "big"


def depth_image(header: Header, depth_m: npt.NDArray[np.float32], encoding: str) -> Image:
    """Return a depth image as REP 118 says.

    Args:
        header: of the camera image.
        depth_m: (H, W) float32 metres, NaN = unknown, +Inf = beyond range.
        encoding: `32FC1`: the values as they are. `16UC1`: millimetres, 0 = unknown, 65535 = that far or farther.
    """
    return _image(header, millimetres_from_depth(depth_m) if encoding == "16UC1" else depth_m, encoding)


def relative_image(header: Header, disparity: npt.NDArray[np.float32]) -> Image:
    """Return an affine-invariant disparity (H, W) float32 as a 32FC1 image: larger is nearer, no unit, NaN = unknown."""
    return _image(header, disparity, "32FC1")


def confidence_image(header: Header, confidence: npt.NDArray[np.float32]) -> Image:
    """Return a confidence (H, W) float32 as a 32FC1 image: 0 .. 1, NaN = unknown."""
    return _image(header, confidence, "32FC1")


def color_image(header: Header, rgb: npt.NDArray[np.uint8]) -> Image:
    """Return an (H, W, 3) uint8 picture as an rgb8 image."""
    return _image(header, rgb, "rgb8")


def millimetres_from_depth(depth_m: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return millimetres as uint16: NaN -> 0, what is beyond 65.535 m (also +Inf) -> 65535."""
    millimetres = np.rint(np.minimum(depth_m * np.float32(1000), np.float32(65535)))
    return np.nan_to_num(millimetres, copy=False, nan=0.0).astype(np.uint16)


def depth_camera_info(header: Header, source: CameraInfo | None, source_size_hw: tuple[int, int], size_hw: tuple[int, int]) -> CameraInfo:
    """Return the camera_info that belongs to a depth image.

    Args:
        header: of the camera image.
        source: the camera's own, or None where there is none that fits: the result is then uncalibrated (K of zeros).
        source_size_hw: size of the camera image in pixels.
        size_hw: size of the depth image in pixels; K and P are multiplied by the ratio (see `geometry.scaled`).
    """
    info = CameraInfo(header=header, height=size_hw[0], width=size_hw[1])
    if source is None:
        return info
    sx, sy = size_hw[1] / source_size_hw[1], size_hw[0] / source_size_hw[0]
    info.distortion_model, info.d, info.r = source.distortion_model, source.d, source.r
    info.k = (np.asarray(source.k).reshape(3, 3) * [[sx], [sy], [1.0]]).ravel()
    info.p = (np.asarray(source.p).reshape(3, 4) * [[sx], [sy], [1.0]]).ravel()
    return info


def cloud(header: Header, points: npt.NDArray[np.float32]) -> PointCloud2:
    """Return an organised cloud.

    Args:
        header: of the camera image.
        points: (h, w, 3) XYZ or (h, w, 4) XYZ + packed colour, float32, NaN = no point.
    """
    height, width, channels = points.shape
    message = PointCloud2(header=header, height=height, width=width, is_bigendian=_IS_BIGENDIAN, is_dense=False)
    message.fields = _XYZ + [_RGB] * (channels == 4)
    message.point_step, message.row_step = 4 * channels, 4 * channels * width
    fill_data(message, points)
    return message


def laser_scan(
    header: Header, ranges_m: npt.NDArray[np.float32], angle_min_rad: float, angle_increment_rad: float, range_m: tuple[float, float]
) -> LaserScan:
    """Return a scan, all of it taken at one time.

    Args:
        header: with the camera image's stamp, and the level frame.
        ranges_m: (n,) float32 metres, bearings increasing; +Inf = free as far as can be told, NaN = unknown.
        angle_min_rad: bearing of the first one.
        angle_increment_rad: from one to the next.
        range_m: nearest and farthest metres that can be told.
    """
    message = LaserScan(header=header, angle_min=angle_min_rad, angle_increment=angle_increment_rad, range_min=range_m[0], range_max=range_m[1])
    message.angle_max = angle_min_rad + angle_increment_rad * (len(ranges_m) - 1)
    message.ranges = array("f", ranges_m.tobytes())
    return message


def _image(header: Header, pixels: npt.NDArray[Any], encoding: str) -> Image:
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=_IS_BIGENDIAN)
    message.step = pixels.itemsize * pixels[0].size
    fill_data(message, pixels)
    return message


def fill_data(message: Any, pixels: npt.NDArray[Any]) -> None:  # noqa: ANN401 - any message with uint8[] data
    """Put an array into a message's `data` without copying it or checking every byte.

    The generated setter copies (array.array) or looks at each element (anything else: 0.1 s and more a frame). rclpy takes
    any buffer when it converts the message, so the private attribute is set where it exists. The message then shares the
    array's memory: publish it before the array changes.
    """
    buffer = np.ascontiguousarray(pixels).data.cast("B")
    if hasattr(message, "_data"):
        message._data = buffer
    else:
        message.data = array("B", buffer)
