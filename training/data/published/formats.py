"""Files -> arrays, with one error for whatever can be wrong with a file and one for a package that is not installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..samples import BrokenFileError, DatasetError

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def decode_rgb(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image file's content to (H, W, 3) uint8, R, G, B; grey, 16-bit and transparent images are converted.

    Raises:
        ValueError: not an image, or the file ends early. Of a JPEG that ends early, OpenCV 4 fills the rest with grey.
    """
    return cv2.cvtColor(_decoded(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8, R, G, B.

    Raises:
        BrokenFileError: it cannot be decoded or ends early.
    """
    try:
        return decode_rgb(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BrokenFileError("unreadable image", path, str(error)) from error


def read_grey(path: Path, dtype: type[np.unsignedinteger[Any]] | None = None) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Read a single-channel image file (H, W) as it is stored; of three equal channels the first is taken.

    Args:
        path: the file.
        dtype: the expected type; None takes any.

    Raises:
        BrokenFileError: it cannot be decoded, ends early, is coloured or has another type.
    """
    try:
        image = _decoded(path.read_bytes(), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError) as error:
        raise BrokenFileError("unreadable label", path, str(error)) from error
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    if image.ndim != 2 or (dtype is not None and image.dtype != dtype):
        raise BrokenFileError("label of unexpected type", path, f"{image.dtype}, {image.ndim} axes")
    return image


def _decoded(data: bytes, flags: int) -> npt.NDArray[Any]:
    if not data:
        raise ValueError("empty file")
    if data.startswith(_JPEG_START) and data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN):  # a thumbnail has an end, too
        raise ValueError("JPEG ends early")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(str(error)) from error
    if image is None:
        raise ValueError("OpenCV cannot decode it")
    return image


def read_npy(path: Path) -> npt.NDArray[np.float32]:
    """Read a .npy file (H, W) as float32.

    Raises:
        BrokenFileError: it cannot be read or has other axes.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BrokenFileError("unreadable label", path, str(error)) from error
    if array.ndim != 2:
        raise BrokenFileError("label of unexpected type", path, f"{array.ndim} axes")
    return array.astype(np.float32)


def read_pfm(path: Path) -> npt.NDArray[np.float32]:
    """Read a single-channel .pfm file as (H, W) float32, first row at the top.

    Raises:
        BrokenFileError: the header is not one of a single-channel PFM, or the file ends early.

    Source: PFM format (Debevec): 'Pf', width and height, a scale whose sign is the byte order (negative: little endian),
        rows from bottom to top.
    """
    try:
        magic, size, scale, data = path.read_bytes().split(b"\n", 3)
        if magic.strip() != b"Pf":
            raise ValueError("not a single-channel PFM")
        width, height = map(int, size.split())
        array = np.frombuffer(data, "<f4" if float(scale) < 0 else ">f4", width * height)
    except (OSError, ValueError) as error:
        raise BrokenFileError("unreadable label", path, str(error)) from error
    return array.reshape(height, width)[::-1].astype(np.float32)


def read_exr(path: Path) -> npt.NDArray[np.float32]:
    """Read one channel of an OpenEXR file as (H, W) float32: G where there are several, otherwise the only one.

    Raises:
        DatasetError: the package OpenEXR is not installed.
        BrokenFileError: it cannot be read or ends early.
    """
    openexr = package("OpenEXR", "OpenEXR files")
    try:
        with openexr.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            channel = channels["G"] if "G" in channels else next(iter(channels.values()))
            return np.array(channel.pixels, np.float32)
    except Exception as error:  # the bindings raise ValueError, RuntimeError and others, as the damage has it
        raise BrokenFileError("unreadable label", path, str(error)) from error


def read_h5(path: Path, key: str, index: int | None = None) -> npt.NDArray[Any]:
    """Read a data set of an HDF5 file (MATLAB 7.3 files are such), whole or one element of its first axis.

    Raises:
        DatasetError: the package h5py is not installed.
        BrokenFileError: it cannot be read, ends early or has no such data set.
    """
    h5py = package("h5py", "HDF5 files")
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[key][() if index is None else index])
    except (OSError, LookupError, ValueError, RuntimeError) as error:
        raise BrokenFileError("unreadable HDF5 file", path, str(error)) from error


def package(name: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DatasetError(f"reading {purpose} needs the package {name.split('.')[0]}: pip install {name.split('.')[0]}") from error
