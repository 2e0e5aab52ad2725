"""How a raw image of each encoding lies in device memory, and which kernel reads it. Sizes are checked here: a kernel cannot."""

from __future__ import annotations

from dataclasses import dataclass

from ..decode import ENCODINGS, MAX_PIXELS, MAX_SIDE_PX
from ..errors import DecodeError


@dataclass(frozen=True)
class PixelFormat:
    """One encoding: the `Image` reader of image.h that takes it, and its offsets as explained in arguments.h."""

    source: str
    offset: tuple[int, int, int]


FORMATS: dict[str, PixelFormat] = {
    "rgb8": PixelFormat("packed", (0, 1, 2)),
    "bgr8": PixelFormat("packed", (2, 1, 0)),
    "rgba8": PixelFormat("packed", (0, 1, 2)),
    "bgra8": PixelFormat("packed", (2, 1, 0)),
    "mono8": PixelFormat("packed", (0, 0, 0)),
    "mono16": PixelFormat("packed", (1, 1, 1)),  # the high byte; see `ImageLayout.offset`
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


@dataclass(frozen=True)
class ImageLayout:
    """A raw image as a message describes it: the fields of sensor_msgs/Image without the pixels.

    Raises:
        DecodeError: an encoding that the GPU does not read, or sizes that contradict each other.
    """

    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: bool = False

    def __post_init__(self) -> None:
        """Refuse what would make a kernel read beside the image."""
        encoding = ENCODINGS.get(self.encoding)
        if encoding is None or self.encoding not in FORMATS:
            raise DecodeError(f"image encoding {self.encoding!r} is not one that the GPU reads: {', '.join(FORMATS)}")
        if not (0 < self.height <= MAX_SIDE_PX and 0 < self.width <= MAX_SIDE_PX and self.height * self.width <= MAX_PIXELS):
            raise DecodeError(
                f"image of {self.width}x{self.height} pixels: both sides must be 1 .. {MAX_SIDE_PX}, at most {MAX_PIXELS} pixels in all"
            )
        if not self.width * encoding.bytes_per_pixel <= self.step < 2**31:
            raise DecodeError(f"{self.encoding} image of {self.width} pixels a row cannot have a step of {self.step}")
        if (encoding.even_width and self.width % 2) or (encoding.planar_420 and self.height % 2):
            raise DecodeError(f"{self.encoding} image of {self.width}x{self.height} pixels: chroma is shared by two pixels, sides must be even")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def nbytes(self) -> int:
        """Bytes of the whole image, padding of every row included."""
        return self.step * (self.height * 3 // 2 if ENCODINGS[self.encoding].planar_420 else self.height)

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes from one pixel of a row to the next."""
        return ENCODINGS[self.encoding].bytes_per_pixel

    @property
    def source(self) -> str:
        """Which reader of image.h takes it; part of kernels' names."""
        return FORMATS[self.encoding].source

    @property
    def offset(self) -> tuple[int, int, int]:
        """The reader's offsets."""
        return (0, 0, 0) if self.encoding == "mono16" and self.is_bigendian else FORMATS[self.encoding].offset
