"""Stage 6/6 without ROS: maps and points -> serialised messages for a bag, and back; byte for byte what the node publishes.

`messages` fills the classes of a ROS installation, this module those that the library `rosbags` brings. The message types that
are written here are the same in every ROS 2 release.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.typesys import Stores, get_typestore

from ..decode import rgb_frame_from_compressed, rgb_frame_from_image
from ..errors import DecodeError
from ..structs import RgbFrame

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, POINT_CLOUD = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2"
STORE: Any = get_typestore(Stores.ROS2_HUMBLE)

_Image, _CameraInfo, _PointCloud2 = STORE.types[IMAGE], STORE.types[CAMERA_INFO], STORE.types[POINT_CLOUD]
_PointField, _RegionOfInterest = STORE.types["sensor_msgs/msg/PointField"], STORE.types["sensor_msgs/msg/RegionOfInterest"]
_FIELDS = [_PointField(name=n, offset=4 * i, datatype=_PointField.FLOAT32, count=1) for i, n in enumerate(("x", "y", "z", "rgb"))]
_IS_BIGENDIAN = sys.byteorder == "big"


def message_from_bytes(data: bytes, msgtype: str) -> Any:  # noqa: ANN401 - of a generated class
    """Deserialise a message; its arrays are views into `data`.

    Raises:
        DecodeError: the bytes are not such a message.
    """
    try:
        return STORE.deserialize_cdr(data, msgtype)
    except Exception as error:  # the generated code checks little and fails in many ways
        raise DecodeError(f"{msgtype} of {len(data)} bytes cannot be deserialised: {type(error).__name__}: {error}") from error


def rgb_frame_from_message(message: Any) -> RgbFrame:  # noqa: ANN401 - of a generated class
    """Decode an Image or a CompressedImage.

    Raises:
        DecodeError: see `decode`.
    """
    return rgb_frame_from_compressed(message) if message.__msgtype__ == COMPRESSED_IMAGE else rgb_frame_from_image(message)


def depth_image(header: Any, depth_m: npt.NDArray[np.float32], encoding: str) -> memoryview:  # noqa: ANN401 - std_msgs/Header
    """Return a depth image as REP 118 says.

    Args:
        header: of the camera image.
        depth_m: (H, W) float32 metres, NaN = unknown, +Inf = beyond range.
        encoding: `32FC1`: the values as they are. `16UC1`: millimetres, 0 = unknown, 65535 = that far or farther.
    """
    return _image(header, _millimetres_from_depth(depth_m) if encoding == "16UC1" else depth_m, encoding)


def relative_image(header: Any, disparity: npt.NDArray[np.float32]) -> memoryview:  # noqa: ANN401 - std_msgs/Header
    """Return an affine-invariant disparity (H, W) float32 as a 32FC1 image: larger is nearer, no unit, NaN = unknown."""
    return _image(header, disparity, "32FC1")


def depth_camera_info(header: Any, source: Any, source_size_hw: tuple[int, int], size_hw: tuple[int, int]) -> memoryview:  # noqa: ANN401
    """Return the camera_info that belongs to a depth image.

    Args:
        header: of the camera image.
        source: the camera's own CameraInfo, or None where there is none that fits: the result is then uncalibrated (K of zeros).
        source_size_hw: size of the camera image in pixels.
        size_hw: size of the depth image in pixels; K and P are multiplied by the ratio (see `geometry.scaled`).
    """
    model, d, r, k, p = "", np.zeros(0), np.zeros(9), np.zeros(9), np.zeros(12)
    if source is not None:
        scale = [[size_hw[1] / source_size_hw[1]], [size_hw[0] / source_size_hw[0]], [1.0]]
        model, d, r = source.distortion_model, source.d, source.r
        k, p = (source.k.reshape(3, 3) * scale).ravel(), (source.p.reshape(3, 4) * scale).ravel()
    whole = _RegionOfInterest(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    info = _CameraInfo(header, height=size_hw[0], width=size_hw[1], distortion_model=model, d=d, k=k, r=r, p=p, binning_x=0, binning_y=0, roi=whole)
    return _serialised(info)


def cloud(header: Any, points: npt.NDArray[np.float32]) -> memoryview:  # noqa: ANN401 - std_msgs/Header
    """Return an organised cloud.

    Args:
        header: of the camera image.
        points: (h, w, 3) XYZ or (h, w, 4) XYZ + packed colour, float32, NaN = no point.
    """
    height, width, channels = points.shape
    layout = {"fields": _FIELDS[:channels], "point_step": 4 * channels, "row_step": 4 * channels * width}
    return _serialised(_PointCloud2(header, height=height, width=width, is_bigendian=_IS_BIGENDIAN, is_dense=False, data=_bytes_of(points), **layout))


def _millimetres_from_depth(depth_m: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    millimetres = np.rint(np.minimum(depth_m * np.float32(1000), np.float32(65535)))
    return np.nan_to_num(millimetres, copy=False, nan=0.0).astype(np.uint16)


def _image(header: Any, pixels: npt.NDArray[Any], encoding: str) -> memoryview:  # noqa: ANN401
    height, width = pixels.shape
    step = pixels.itemsize * width
    return _serialised(_Image(header, height=height, width=width, encoding=encoding, is_bigendian=_IS_BIGENDIAN, step=step, data=_bytes_of(pixels)))


def _bytes_of(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _serialised(message: Any) -> memoryview:  # noqa: ANN401 - of a generated class
    return STORE.serialize_cdr(message, message.__msgtype__)
