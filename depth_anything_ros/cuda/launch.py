"""The structs of arguments.h as numpy dtypes, and how many threads a kernel needs."""

from __future__ import annotations

from typing import cast

import numpy as np

from ..decode import ImageLayout
from .formats import FORMATS

_EXTENT: list[tuple[str, str]] = [("height", "<i4"), ("width", "<i4")]
IMAGE = np.dtype(
    [("bytes", "<u8"), ("height", "<i4"), ("width", "<i4"), ("step", "<i4"), ("bytes_per_pixel", "<i4"), ("offset", "<i4", 3), ("unused", "<i4")]
)
NUMBERS = np.dtype(
    [
        *[(name, "<f4") for name in ("raw_scale", "model_max_m", "scale_factor", "scale_offset", "max_depth_m")],
        *[(name, "<f4") for name in ("clamp_m", "nearest_m", "farthest_m")],
        ("up", "<f4", 3),
        *[(name, "<f4") for name in ("lowest_m", "highest_m", "color_low", "color_gain")],
    ]
)
PREPROCESS_ARGS = np.dtype(
    [
        *_EXTENT,
        ("image", IMAGE),
        *[(name, "<u8") for name in ("column_taps", "row_taps", "tensor")],
        *[(f"content_{name}", "<i4") for name in ("top", "left", "height", "width")],
        ("channel", "<i4", 3),
        ("gain", "<f4", 3),
        ("bias", "<f4", 3),
        ("unused", "<i4"),
    ]
)
NETWORK_MAP_ARGS = np.dtype(
    [
        *_EXTENT,
        *[(name, "<u8") for name in ("raw", "map", "numbers")],
        *[(name, "<i4") for name in ("raw_width", "content_top", "content_left", "unused")],
    ]
)
ENLARGE_ARGS = np.dtype(
    [
        *_EXTENT,
        *[(name, "<u8") for name in ("map", "published", "numbers", "column_taps", "row_taps")],
        *[(name, "<i4") for name in ("map_width", "unused")],
    ]
)
CLOUD_ARGS = np.dtype(
    [
        *_EXTENT,
        *[(name, "<u8") for name in ("depth", "points", "numbers", "ray_x", "ray_y", "color_column", "color_row")],
        ("image", IMAGE),
        ("ray_x_step", "<i4", 2),
        ("ray_y_step", "<i4", 2),
        *[(name, "<i4") for name in ("depth_width", "stride")],
    ]
)
PICTURE_ARGS = np.dtype([*_EXTENT, *[(name, "<u8") for name in ("map", "rgb", "palette", "numbers")]])

BLOCK = (32, 8, 1)
"""Threads of a block along x, y, z: a row of 32 writes neighbouring bytes."""


def arguments(dtype: np.dtype[np.void], size_hw: tuple[int, int], **values: object) -> np.void:
    """Return a kernel's argument struct.

    Args:
        dtype: one of the structs above.
        size_hw: extent of the kernel's output.
        **values: all other fields (`unused` apart).
    """
    missing = set(dtype.names or ()) - set(values) - {"height", "width", "unused"}
    if missing:
        raise TypeError(f"arguments without {', '.join(sorted(missing))}")
    struct = np.zeros((), dtype)
    struct["height"], struct["width"] = size_hw
    for name, value in values.items():
        struct[name] = value
    return cast(np.void, struct[()])


def image(layout: ImageLayout, address: int) -> np.void:
    """Return the `Image` struct of a raw image at a device address."""
    struct = np.zeros((), IMAGE)
    mono16_high_byte_first = layout.encoding == "mono16" and layout.is_bigendian
    struct["bytes"], struct["offset"] = address, (0, 0, 0) if mono16_high_byte_first else FORMATS[layout.encoding].offset
    struct["height"], struct["width"], struct["step"] = layout.height, layout.width, layout.step
    struct["bytes_per_pixel"] = layout.bytes_per_pixel
    return cast(np.void, struct[()])


def grid_for(args: np.void) -> tuple[int, int, int]:
    """Return how many blocks of `BLOCK` threads cover a kernel's output, along x, y, z."""
    return -(-int(args["width"]) // BLOCK[0]), -(-int(args["height"]) // BLOCK[1]), 1
