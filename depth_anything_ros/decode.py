"""Stage 1/6: sensor_msgs/Image | CompressedImage -> RgbFrame.

Every encoding is one row of `ENCODINGS`; what is not in the table goes to cv_bridge where that is installed. Messages come
from other programs and are checked as such: a bad one raises `DecodeError` and the next one is looked at afresh.
What is in the table is checked at once but decoded when somebody asks for its pixels: a GPU reads the raw bytes itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from .errors import DecodeError
from .structs import RgbFrame

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

MAX_SIDE_PX = 16384
MAX_PIXELS = 2**26
MAX_STEP = 2**31 - 1
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Encoding:
    """How an encoding lies in memory and how it becomes RGB.

    Attributes:
        bytes_per_pixel: of one row.
        to_rgb: (H * rows_per_row, W, bytes_per_pixel) uint8 -> (H, W, 3) uint8.
        planar_420: a half-size plane of interleaved chroma follows the luma plane.
        even_width: two pixels share their chroma.
    """

    bytes_per_pixel: int
    to_rgb: Callable[[Pixels], Pixels]
    planar_420: bool = False
    even_width: bool = False


def _cvt(code: int) -> Callable[[Pixels], Pixels]:
    def convert(pixels: Pixels) -> Pixels:
        return cv2.cvtColor(pixels, code)  # type: ignore[return-value]

    return convert


def _rgb_from_rgb(pixels: Pixels) -> Pixels:
    return pixels


# ROS names a Bayer pattern by its first row, OpenCV's older codes by the second row's second and third pixel: RGGB is "BG".
ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding(3, _rgb_from_rgb),
    "bgr8": Encoding(3, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba8": Encoding(4, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra8": Encoding(4, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono8": Encoding(1, _cvt(cv2.COLOR_GRAY2RGB)),
    "mono16": Encoding(2, _cvt(cv2.COLOR_GRAY2RGB)),
    "yuv422": Encoding(2, _cvt(cv2.COLOR_YUV2RGB_UYVY), even_width=True),
    "uyvy": Encoding(2, _cvt(cv2.COLOR_YUV2RGB_UYVY), even_width=True),
    "yuv422_yuy2": Encoding(2, _cvt(cv2.COLOR_YUV2RGB_YUY2), even_width=True),
    "yuyv": Encoding(2, _cvt(cv2.COLOR_YUV2RGB_YUY2), even_width=True),
    "nv12": Encoding(1, _cvt(cv2.COLOR_YUV2RGB_NV12), planar_420=True, even_width=True),
    "nv21": Encoding(1, _cvt(cv2.COLOR_YUV2RGB_NV21), planar_420=True, even_width=True),
    "bayer_rggb8": Encoding(1, _cvt(cv2.COLOR_BayerBG2RGB)),
    "bayer_bggr8": Encoding(1, _cvt(cv2.COLOR_BayerRG2RGB)),
    "bayer_gbrg8": Encoding(1, _cvt(cv2.COLOR_BayerGR2RGB)),
    "bayer_grbg8": Encoding(1, _cvt(cv2.COLOR_BayerGB2RGB)),
}


@dataclass(frozen=True)
class ImageLayout:
    """How a raw image in an encoding of `ENCODINGS` lies in memory: the fields of sensor_msgs/Image without the pixels.

    Raises:
        DecodeError: an encoding that is not in the table, or sizes that contradict each other or are absurd.
    """

    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: bool = False

    def __post_init__(self) -> None:
        """Refuse what would be read beside the image."""
        kind = ENCODINGS.get(self.encoding)
        if kind is None:
            raise DecodeError(f"image encoding {self.encoding!r} is not one of {', '.join(ENCODINGS)}")
        _check_size(self.width, self.height)
        row_bytes, what = self.width * kind.bytes_per_pixel, f"{self.encoding} image of {self.width}x{self.height} pixels"
        if self.step < row_bytes:
            raise DecodeError(f"{what}: step {self.step} is below the {row_bytes} bytes of a row")
        if self.step > MAX_STEP:
            raise DecodeError(f"{what}: step {self.step} is above {MAX_STEP}")
        if (kind.even_width and self.width % 2) or (kind.planar_420 and self.height % 2):
            raise DecodeError(f"{what}: chroma is shared by two pixels, sides must be even")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes from one pixel of a row to the next."""
        return ENCODINGS[self.encoding].bytes_per_pixel

    @property
    def rows(self) -> int:
        """Rows of bytes: nv12 and nv21 carry 1.5 * height of them, as video drivers give them."""
        return self.height * 3 // 2 if ENCODINGS[self.encoding].planar_420 else self.height

    @property
    def nbytes(self) -> int:
        """Bytes of the whole image, padding of every row included."""
        return self.step * self.rows


class RawFrame(RgbFrame):
    """A camera image as it came: its layout and bytes were checked; its pixels are decoded when they are asked for, once.

    Attributes:
        layout: of the bytes.
        data: (nbytes,) uint8, a view into the message: read only.
    """

    layout: ImageLayout
    data: Pixels

    def __init__(self, layout: ImageLayout, data: Pixels, stamp_ns: int = 0, frame_id: str = "") -> None:
        """Take the bytes of an image.

        Raises:
            DecodeError: they are not as many as the layout says.
        """
        if len(data) != layout.nbytes:
            what = f"{layout.encoding} image of {layout.width}x{layout.height} pixels, step {layout.step}"
            raise DecodeError(f"{what}: data has {len(data)} bytes, not {layout.nbytes}")
        fields = {"layout": layout, "data": data, "stamp_ns": stamp_ns, "frame_id": frame_id, "decode_s": 0.0}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:  # without decoding
        return f"RawFrame({self.layout}, stamp_ns={self.stamp_ns}, frame_id={self.frame_id!r})"

    @cached_property
    def rgb(self) -> Pixels:  # type: ignore[override]  # a field there, read-only as well
        """(H, W, 3) uint8, as in `RgbFrame`. Raises DecodeError where OpenCV cannot convert the pixels."""
        started = time.perf_counter()
        layout, kind = self.layout, ENCODINGS[self.layout.encoding]
        row_bytes = layout.width * kind.bytes_per_pixel
        pixels = self.data.reshape(layout.rows, layout.step)[:, :row_bytes]
        if layout.encoding == "mono16":  # the high byte, wherever it is
            pixels = pixels[:, 0 if layout.is_bigendian else 1 :: 2]
        elif kind.bytes_per_pixel > 1:
            contiguous = layout.step == row_bytes
            pixels = pixels.reshape(layout.rows, layout.width, kind.bytes_per_pixel) if contiguous else _split_rows(pixels, kind.bytes_per_pixel)
        try:
            rgb = kind.to_rgb(pixels)
        except cv2.error as error:
            raise DecodeError(f"{layout.encoding} image of {layout.width}x{layout.height} pixels cannot be converted: {error.err}") from error
        object.__setattr__(self, "decode_s", time.perf_counter() - started)
        return rgb

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.layout.size_hw


def rgb_frame_from_image(message: Image) -> RgbFrame:
    """Take a raw image.

    Args:
        message: sensor_msgs/Image in an encoding of `ENCODINGS`, any padded step, either byte order.

    Returns:
        The frame, with a view into the message. It is a `RawFrame`, not decoded yet, unless cv_bridge had to decode it.

    Raises:
        DecodeError: sizes that contradict each other or are absurd, or an encoding that nothing here can read.
    """
    encoding = message.encoding.lower()
    if encoding not in ENCODINGS:
        _check_size(message.width, message.height)
        started = time.perf_counter()
        return _frame(_rgb_from_cv_bridge(message), message.header, started)
    layout = ImageLayout(encoding, message.height, message.width, message.step, bool(message.is_bigendian))
    return RawFrame(layout, np.frombuffer(message.data, np.uint8), stamp_ns_of(message.header), message.header.frame_id)


def rgb_frame_from_compressed(message: CompressedImage) -> RgbFrame:
    """Decode a JPEG or PNG image; the orientation tag is ignored, as camera_info is about the pixels as they are stored.

    Raises:
        DecodeError: another format, or data that is broken or cut short.
    """
    started, data = time.perf_counter(), bytes(message.data)
    if "compresseddepth" in message.format.lower():
        raise DecodeError(f"compressed image of format {message.format!r} is a depth image; this node takes JPEG and PNG pictures")
    if data[:2] == b"\xff\xd8":
        size_wh = _jpeg_size_wh(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        size_wh = _png_size_wh(data)
    else:
        raise DecodeError(f"compressed image of format {message.format!r} with {len(data)} bytes is neither JPEG nor PNG")
    if size_wh is None:
        raise DecodeError(f"compressed image of format {message.format!r} is broken or cut short after {len(data)} bytes")
    _check_size(*size_wh)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DecodeError(f"compressed image of format {message.format!r} is broken: {error.err}") from error
    if bgr is None:
        raise DecodeError(f"compressed image of format {message.format!r} is broken: {len(data)} bytes that do not decode")
    return _frame(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr), message.header, started)  # type: ignore[arg-type]


def _check_size(width: int, height: int) -> None:
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX and width * height <= MAX_PIXELS):
        raise DecodeError(f"image of {width}x{height} pixels: both sides must be 1 .. {MAX_SIDE_PX}, at most {MAX_PIXELS} pixels in all")


def _png_size_wh(data: bytes) -> tuple[int, int] | None:
    """Return width and height, or None unless every chunk up to the end is there: OpenCV allocates what a chunk claims."""
    at, size_wh = 8, None
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IHDR" and at == 8 and length == 13:
            size_wh = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        at += 12 + length
        if kind == b"IEND":
            return size_wh if at <= len(data) else None
    return None


def _jpeg_size_wh(data: bytes) -> tuple[int, int] | None:
    """Return width and height from the frame header, or None where there is none or the end-of-image marker is missing."""
    if b"\xff\xd9" not in data[-4096:]:
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _split_rows(rows: Pixels, bytes_per_pixel: int) -> Pixels:
    """View padded rows as (H, W, bytes_per_pixel) without copying."""
    height, row_bytes = rows.shape
    shape, strides = (height, row_bytes // bytes_per_pixel, bytes_per_pixel), (rows.strides[0], bytes_per_pixel, 1)
    return np.lib.stride_tricks.as_strided(rows, shape, strides, writeable=False)


def _rgb_from_cv_bridge(message: Image) -> Pixels:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError as error:
        if error.name != "cv_bridge" or not isinstance(error, ModuleNotFoundError):  # such as one built for another numpy
            raise DecodeError(f"image encoding {message.encoding!r} needs cv_bridge, and the one that is installed is broken: {error}") from error
        known = ", ".join(ENCODINGS)
        raise DecodeError(
            f"image encoding {message.encoding!r} is not one of {known}; for others install cv_bridge (apt: ros-$ROS_DISTRO-cv-bridge)"
        ) from None
    try:
        rgb: Pixels = CvBridge().imgmsg_to_cv2(message, "rgb8")
    except (CvBridgeError, cv2.error, ValueError, TypeError) as error:
        raise DecodeError(f"cv_bridge cannot convert image encoding {message.encoding!r}: {error}") from error
    return rgb


def _frame(rgb: Pixels, header: Header, started: float) -> RgbFrame:
    return RgbFrame(rgb, stamp_ns_of(header), header.frame_id, time.perf_counter() - started)


def stamp_ns_of(header: Header) -> int:
    """Return the stamp of a header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
