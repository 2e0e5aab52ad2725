"""Messages of range sensors -> arrays for `reference_points`. They come from other programs: a bad one raises `DecodeError`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DecodeError
from .reference_points import Points, points_from_cloud, points_from_range, points_from_scan

_DEPTH_TYPES = {"32FC1": "f4", "16UC1": "u2", "mono16": "u2"}


def points_from_message(message: Any) -> Points:  # noqa: ANN401 - no ROS here
    """Return the points of a LaserScan, PointCloud2 or Range in the sensor's frame: (N, 3) metres, see `reference_points`.

    Raises:
        DecodeError: numbers that describe no scan, cloud or range.
    """
    kind = type(message).__name__
    if kind == "LaserScan":
        return points_from_scan(message.ranges, message.angle_min, message.angle_increment, message.range_min, message.range_max)
    if kind == "PointCloud2":
        fields = [(field.name, field.offset, field.datatype) for field in message.fields]
        steps, sizes = (message.point_step, message.row_step), (message.width, message.height)
        return points_from_cloud(message.data, fields, *steps, *sizes, message.is_bigendian)
    return points_from_range(message.range, message.field_of_view, message.min_range, message.max_range)


def depth_from_image(message: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - no ROS here
    """Return a depth image as REP 118 has it: (H, W) float32 metres or uint16 millimetres, a view into the message.

    Raises:
        DecodeError: another encoding, or sizes that contradict each other.
    """
    if message.encoding not in _DEPTH_TYPES:
        raise DecodeError(f"depth image: encoding '{message.encoding}' is neither 32FC1 nor 16UC1")
    dtype = np.dtype((">" if message.is_bigendian else "<") + _DEPTH_TYPES[message.encoding])
    buffer, height, width, step = memoryview(message.data).cast("B"), message.height, message.width, message.step
    if step < width * dtype.itemsize or len(buffer) < step * height:
        raise DecodeError(f"depth image: {width}x{height} pixels with rows of {step} bytes do not fit into {len(buffer)} bytes")
    return np.ndarray((height, width), dtype, buffer, 0, (step, dtype.itemsize))
