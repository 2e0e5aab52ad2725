"""Pictures of a folder -> inputs of a network, to set the ranges of fp16 and int8, and others to measure what they cost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from depth_anything_ros.contract import ModelContract
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import RgbFrame

from .data.published.formats import read_rgb
from .data.samples import DatasetError
from .data.unlabelled import ImageFolder

MIN_IMAGES, MAX_IMAGES = 16, 400
HELD_OUT_EVERY = 4
"""Every fourth picture is held back."""

Rgb = npt.NDArray[np.uint8]


class PrecisionError(ValueError):
    """The network cannot be converted; the message says what to do."""


@dataclass(frozen=True)
class CalibrationImages:
    """Pictures of a folder: those that set ranges, and those that are held back to measure the loss."""

    used: tuple[Path, ...]
    held_out: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Hash of the files that set ranges, in their order."""
        return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in self.used)).hexdigest()


def find_images(folder: Path) -> CalibrationImages:
    """List the pictures of a folder and all below it, sorted by path; of more than `MAX_IMAGES`, as many, evenly spread.

    Raises:
        PrecisionError: no folder, or too few pictures.
    """
    try:
        paths = ImageFolder(folder).files
    except DatasetError as error:
        raise PrecisionError(f"calibration: {error}; give a folder with pictures of the places where the model will be used") from error
    if len(paths) < MIN_IMAGES:
        raise PrecisionError(f"calibration: '{folder}' holds {len(paths)} pictures, at least {MIN_IMAGES} are needed, and 100 to 400 are better")
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), MAX_IMAGES)).round().astype(int)]
    used = (path for i, path in enumerate(chosen) if i % HELD_OUT_EVERY)
    return CalibrationImages(tuple(used), tuple(chosen[::HELD_OUT_EVERY]))


def read_images(paths: Iterable[Path]) -> Iterator[Rgb]:
    """Yield pictures one by one as (H, W, 3) uint8, R, G, B.

    Raises:
        PrecisionError: one cannot be read.
    """
    for path in paths:
        try:
            yield read_rgb(path)
        except DatasetError as error:
            raise PrecisionError(f"calibration: {error}; remove that file or replace it") from error


def calibration_tensors(images: Iterable[Rgb], contract: ModelContract) -> npt.NDArray[np.float32]:
    """Bring pictures to the contract's first input size by the runtime's own preprocessing.

    `lower_bound` makes inputs of any width; for one size, such pictures are cropped to its aspect ratio, around their middle.

    Returns:
        (N, 3, h, w) float32.
    """
    cropped = contract.resize == "lower_bound"
    fixed = replace(contract, input_sizes_hw=contract.input_sizes_hw[:1], resize="stretch" if cropped else contract.resize)
    preprocess = Preprocessor(fixed)
    return np.concatenate([preprocess(RgbFrame(_crop(rgb, fixed.input_sizes_hw[0]) if cropped else rgb)).tensor.copy() for rgb in images])


def _crop(rgb: Rgb, aspect_hw: tuple[int, int]) -> Rgb:
    scale = min(rgb.shape[0] / aspect_hw[0], rgb.shape[1] / aspect_hw[1])
    height, width = round(scale * aspect_hw[0]), round(scale * aspect_hw[1])
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return np.ascontiguousarray(rgb[top : top + height, left : left + width])
