"""Photographs with truth, one at a time: from a folder with an index, or from a data set in its published layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .data.published import PublishedDataset, open_dataset
from .data.published.formats import read_grey, read_rgb
from .data.samples import BrokenFileError, DatasetError, SkipLog
from .metrics import Range
from .protocols import PROTOCOLS, Crop, Protocol

DISPARITY_CAP = 2.0
"""For truth in pixels (no unit is known): an aligned prediction is clamped to this multiple of the image's range of depth."""


@dataclass(frozen=True)
class Pair:
    """One photograph with truth.

    Attributes:
        name, domain: from the index; of a published data set its own name and the data set's.
        rgb: (H, W, 3) uint8.
        true_depth: (h, w) floating; metres, or 1/pixels where `is_metric` is False; anything where the mask is False.
        mask: (h, w) bool, True = valid truth.
        focal_px: along x, in pixels of `rgb`; None = unknown.
        is_metric: whether `true_depth` is metres.
        dataset: key of `PROTOCOLS`.
    """

    name: str
    domain: str
    rgb: npt.NDArray[np.uint8]
    true_depth: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_]
    focal_px: float | None
    is_metric: bool
    dataset: str = "index"

    def cropped(self, crop: Crop) -> Pair:
        """Return the pair with image and truth cropped; they must be of one size unless the crop keeps everything.

        Raises:
            ValueError: the crop does not fit the size.
        """
        window = crop(self.mask.shape)
        if (window[0].start, window[1].start, window[0].stop, window[1].stop) == (0, 0, *self.mask.shape):
            return self
        return replace(self, rgb=np.ascontiguousarray(self.rgb[window]), true_depth=self.true_depth[window], mask=self.mask[window])

    def limits(self, protocol: Protocol) -> Range:
        """Return what an aligned prediction is clamped to, in the unit of `true_depth`."""
        if self.is_metric:
            return protocol.prediction_m
        low = float(self.true_depth[self.mask].min()) / DISPARITY_CAP if protocol.prediction_m[0] else 0.0
        return low, DISPARITY_CAP * float(self.true_depth[self.mask].max())


def read_pair(folder: Path, entry: dict[str, Any]) -> Pair:
    """Read one entry of an index.

    Raises:
        BrokenFileError: a file cannot be read, or has no valid pixel.
        DatasetError: the entry lacks a key, or its kind is unknown.
    """
    try:
        files, scale, invalid, kind = (folder / entry["rgb"], folder / entry["gt"]), entry["gt_scale"], entry["invalid"], entry["kind"]
        name, domain, focal_px = entry["id"], entry["domain"], float(entry["K"][0]) if entry.get("K") else None
    except KeyError as error:
        raise DatasetError(f"'{folder / 'index.json'}': an entry lacks {error}; needed are id, domain, rgb, gt, gt_scale, invalid, kind") from error
    if kind not in ("depth", "disparity"):
        raise DatasetError(f"'{folder / 'index.json'}': kind '{kind}' of '{name}' is unknown; known are depth, disparity")
    rgb, stored = read_rgb(files[0]), read_grey(files[1])
    mask = stored != invalid
    if not mask.any():
        raise BrokenFileError("label without a valid pixel", files[1])
    value = np.where(mask, stored, 1).astype(np.float64) / scale
    return Pair(name, domain, rgb, value if kind == "depth" else 1 / value, mask, focal_px, kind == "depth")


class EvaluationSet:
    """What one `--data` argument names; pairs are read one at a time.

    Attributes:
        label: for tables: the folder's name of an index, or name@split.
        dataset: key of `PROTOCOLS`.
    """

    def __init__(self, label: str, dataset: str, numbers: Sequence[int], read: Callable[[int], Pair]) -> None:
        """Keep what is needed to read pair by number."""
        self.label, self.dataset, self._numbers, self._read = label, dataset, numbers, read

    def __len__(self) -> int:
        """Return the number of pairs, broken ones included."""
        return len(self._numbers)

    def pairs(self, skipped: SkipLog) -> Iterator[Pair]:
        """Yield the pairs that can be read; the others go into `skipped`."""
        for number in self._numbers:
            try:
                yield self._read(number)
            except BrokenFileError as error:
                skipped.add(error)

    def limited(self, count: int | None) -> EvaluationSet:
        """Return `count` pairs of the set, evenly spread, or all of them."""
        if count is None or count >= len(self):
            return self
        kept = [self._numbers[i * len(self) // count] for i in range(count)]
        return EvaluationSet(self.label, self.dataset, kept, self._read)


def open_set(argument: str) -> EvaluationSet:
    """Open what `[NAME[@SPLIT]:]DIR` names.

    Raises:
        DatasetError: unknown name or split, no such folder, or not that data set; the message says what was expected.
    """
    head, colon, folder = argument.partition(":")
    name, at, split = head.partition("@")
    if not colon or (name not in PROTOCOLS and Path(argument).is_dir()):
        name, at, folder = "index", "", argument
    if name not in PROTOCOLS:
        raise DatasetError(f"unknown data set '{name}' in '{argument}'; known are {', '.join(PROTOCOLS)}")
    if name == "index":
        if at:
            raise DatasetError(f"'{argument}': a folder with index.json has no splits")
        return _open_index(Path(folder))
    data = open_dataset(name, Path(folder), split or PROTOCOLS[name].split)
    return EvaluationSet(f"{name}@{data.split}", name, range(len(data)), lambda number: _published_pair(data, number))


def open_sets(arguments: Sequence[str]) -> list[EvaluationSet]:
    """Open several; see `open_set`.

    Raises:
        DatasetError: as there, or two have the same label.
    """
    found = [open_set(argument) for argument in arguments]
    for label in {chosen.label for chosen in found}:
        if sum(chosen.label == label for chosen in found) > 1:
            raise DatasetError(f"two data sets are called '{label}'; rename a folder, or evaluate them one after the other")
    return found


def _open_index(folder: Path) -> EvaluationSet:
    path = folder / "index.json"
    if not path.is_file():
        raise DatasetError(f"there is no '{path}'; for a published data set give --data NAME:DIR with NAME of {', '.join(PROTOCOLS)}")
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"'{path}' is not JSON: {error}") from error
    if not entries or not isinstance(entries, list):
        raise DatasetError(f"'{path}' lists no pairs; expected a list of objects")
    return EvaluationSet(folder.resolve().name, "index", range(len(entries)), lambda number: read_pair(folder, entries[number]))


def _published_pair(data: PublishedDataset, number: int) -> Pair:
    sample = data[number]
    known = sample.valid_mask & np.isfinite(sample.values)
    return Pair(sample.name, sample.dataset, sample.rgb, np.where(known, sample.values, 1), known, sample.focal_px, True, sample.dataset)
