"""Which kernel reads a raw image of each encoding, and where in it the colours are. `decode.ImageLayout` has checked its sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PixelFormat:
    """One encoding: the reader of image.h that takes it (part of kernels' names), and its offsets as explained in arguments.h."""

    source: str
    offset: tuple[int, int, int]


FORMATS: dict[str, PixelFormat] = {
    "rgb8": PixelFormat("packed", (0, 1, 2)),
    "bgr8": PixelFormat("packed", (2, 1, 0)),
    "rgba8": PixelFormat("packed", (0, 1, 2)),
    "bgra8": PixelFormat("packed", (2, 1, 0)),
    "mono8": PixelFormat("packed", (0, 0, 0)),
    "mono16": PixelFormat("packed", (1, 1, 1)),  # the high byte of little-endian pixels
    "yuv422": PixelFormat("yuv422", (1, 0, 2)),
    "uyvy": PixelFormat("yuv422", (1, 0, 2)),
    "yuv422_yuy2": PixelFormat("yuv422", (0, 1, 3)),
    "yuyv": PixelFormat("yuv422", (0, 1, 3)),
    "nv12": PixelFormat("yuv420", (0, 0, 1)),
    "nv21": PixelFormat("yuv420", (0, 1, 0)),
    "bayer_rggb8": PixelFormat("bayer", (0, 0, 0)),
    "bayer_bggr8": PixelFormat("bayer", (1, 1, 0)),
    "bayer_gbrg8": PixelFormat("bayer", (1, 0, 0)),
    "bayer_grbg8": PixelFormat("bayer", (0, 1, 0)),
}
