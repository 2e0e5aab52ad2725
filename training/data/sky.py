"""Sky masks of labelled photographs: one 1-bit PNG per sample, and the source that puts them where the label says nothing.

Stereo, structure from motion and LiDAR give no depth in the sky. A network that is trained on such labels alone is free to put
anything there; with the masks the sky is at disparity 0, the farthest there is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .samples import BrokenFileError, DatasetError, LabelledSample
from .source import Source

RECORD = "sky_masks.json"


def mask_path(folder: Path, name: str) -> Path:
    """Return the mask file of a sample by its name."""
    return folder / f"{name}.png"


def encode_mask(sky: npt.NDArray[np.bool_]) -> bytes:
    """Store a mask, (H, W) bool, True = sky, as a PNG of one bit per pixel."""
    return cv2.imencode(".png", sky.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read a mask: (H, W) bool, True = sky.

    Raises:
        BrokenFileError: it is missing or cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenFileError("sky mask missing", path, str(error)) from error
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if stored is None or stored.ndim != 2:
        raise BrokenFileError("unreadable sky mask", path, f"{len(content)} bytes that are no grey PNG")
    return stored > 0


class WithSky:
    """A source whose unlabelled sky is filled in; itself a `Source`.

    Where the mask says sky and the label is not valid, the label becomes +Inf (depth) or 0 (disparity) and valid, and
    `sky_mask` True. What the label knows is not changed: a mask that covers a roof does no harm there.

    Source: Depth Anything (Yang et al. 2024, arXiv:2401.10891), section 3.1: disparity 0 where a segmentation network sees
        sky; its authors, LiheYoung/Depth-Anything, issue 206: only where there is no label, and these pixels enter the loss.
    """

    def __init__(self, source: Source, masks: Path | str) -> None:
        """Wrap a source.

        Args:
            source: labelled images.
            masks: output folder of make_sky_masks for the same data set.

        Raises:
            DatasetError: `masks` is not such a folder.
        """
        self.source, self.masks = source, Path(masks)
        try:
            self._settings = json.loads((self.masks / RECORD).read_text())["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"'{masks}' is no output folder of make_sky_masks ({error!r})") from error

    @property
    def block_sizes(self) -> Sequence[int]:
        """Return those of the wrapped source."""
        return self.source.block_sizes

    def __len__(self) -> int:
        """Return the number of samples, broken ones included."""
        return len(self.source)

    def __getitem__(self, index: int) -> LabelledSample:
        """Read one sample with its sky.

        Raises:
            BrokenFileError: the sample or its mask cannot be used.
        """
        sample = self.source[index]
        path = mask_path(self.masks, sample.name)
        mask = read_mask(path)
        if mask.shape != sample.values.shape:
            sizes = "x".join(map(str, mask.shape)), "x".join(map(str, sample.values.shape))
            raise BrokenFileError("sky mask and label differ in size", path, f"{sizes[0]} and {sizes[1]}, height x width")
        sky = mask & ~sample.valid_mask
        farthest = np.float32(0 if sample.kind == "disparity_affine_invariant" else np.inf)
        return replace(
            sample,
            values=np.where(sky, farthest, sample.values),
            valid_mask=sample.valid_mask | sky,
            sky_mask=sky if sample.sky_mask is None else sample.sky_mask | sky,
        )

    def manifest(self) -> dict[str, Any]:
        """Return that of the wrapped source, and what the masks were made with."""
        return self.source.manifest() | {"sky_masks": self._settings}
