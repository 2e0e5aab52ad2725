"""What the adapters have in common: an entry, a label, and the data set that checks, completes and counts."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..samples import BrokenFileError, DatasetError, LabelKind, LabelledSample, SkipLog
from .formats import read_rgb

BLOCK_SIZE = 1000
"""Entries that lie together in the order of their names, and therefore on disk."""
LISTED_ON_ERROR = 8


@dataclass(frozen=True)
class Entry:
    """One labelled image of a data set, not yet read.

    Attributes:
        name: unique within the data set.
        rgb: the image file; it may be missing, which is found out (and counted) when the entry is read.
        label: the label file; it was found.
        extra: a further file (mask, camera), if the data set has one.
        index: position in files that hold many images.
    """

    name: str
    rgb: Path
    label: Path
    extra: Path | None = None
    index: int = 0


@dataclass(frozen=True)
class Label:
    """A label as an adapter reads it.

    Attributes:
        values: (H, W) float32 of the adapter's kind; any value where not valid and in the sky.
        valid_mask: (H, W) bool, True = usable, the labelled sky included.
        sky_mask: (H, W) bool, or None where the sky is not labelled.
        focal_px: horizontal focal length in pixels, or None.
    """

    values: npt.NDArray[np.float32]
    valid_mask: npt.NDArray[np.bool_]
    sky_mask: npt.NDArray[np.bool_] | None = None
    focal_px: float | None = None


class Adapter(ABC):
    """How one published data set is laid out and encoded.

    Attributes:
        name: as in the registry.
        kind: what its labels are.
        layout: the expected folders, for error messages.
    """

    name: str
    kind: LabelKind
    layout: str

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the splits that can be opened in `root`, the default first."""
        return ("all",)

    @abstractmethod
    def entries(self, root: Path, split: str) -> list[Entry]:
        """List the labels of a split and the images that belong to them; images without a label are not entries."""

    @abstractmethod
    def label(self, entry: Entry) -> Label:
        """Read the label of one entry.

        Raises:
            BrokenFileError: it cannot be read or holds no depth.
        """

    def rgb(self, entry: Entry) -> npt.NDArray[np.uint8]:
        """Read the image of one entry, (H, W, 3) uint8."""
        return read_rgb(entry.rgb)


class PublishedDataset:
    """A split of a published data set, a `Source`; iterating skips and counts what is broken, indexing raises instead.

    Attributes:
        adapter: the layout.
        split: which part.
        entries: all its labels, sorted by name.
        block_sizes: runs of `BLOCK_SIZE` entries.
        skipped: what iterating left out so far, in this process.
    """

    def __init__(self, adapter: Adapter, root: Path, split: str | None = None) -> None:
        """List the files; see `open_dataset`."""
        if not root.is_dir():
            raise DatasetError(f"{adapter.name}: '{root}' is not a folder. Expected there: {adapter.layout}")
        splits = adapter.splits(root)
        self.adapter, self.split = adapter, split or splits[0]
        if self.split not in splits:
            raise DatasetError(f"{adapter.name} has no split '{split}' in '{root}'; it has: {', '.join(splits)}")
        self.entries = sorted(adapter.entries(root, self.split), key=lambda entry: entry.name)
        self.block_sizes = tuple(min(BLOCK_SIZE, len(self) - start) for start in range(0, len(self), BLOCK_SIZE))
        self.skipped = SkipLog()
        if not self.entries:
            raise DatasetError(
                f"{adapter.name}: no labels of split '{self.split}' in '{root}'. Expected there: {adapter.layout}. Found: {_contents(root)}"
            )

    def __len__(self) -> int:
        """Return the number of labels, broken ones included."""
        return len(self.entries)

    def __getitem__(self, index: int) -> LabelledSample:
        """Read one sample.

        Raises:
            BrokenFileError: it cannot be used; the error says why.
        """
        entry = self.entries[index]
        rgb, label = self.rgb(index), self.adapter.label(entry)
        if rgb.shape[:2] != label.values.shape:
            sizes = "x".join(map(str, rgb.shape[:2])), "x".join(map(str, label.values.shape))
            raise BrokenFileError("image and label differ in size", entry.label, f"{sizes[0]} and {sizes[1]}, height x width")
        valid, values = label.valid_mask, label.values.astype(np.float32)
        if not valid.any():
            raise BrokenFileError("label without a valid pixel", entry.label)
        if label.sky_mask is not None:
            values = np.where(label.sky_mask, np.float32(0 if self.adapter.kind == "disparity_affine_invariant" else np.inf), values)
        values = np.where(valid, values, np.float32(np.nan))
        return LabelledSample(rgb, values, self.adapter.kind, valid, label.sky_mask, label.focal_px, entry.name, self.adapter.name)

    def rgb(self, index: int) -> npt.NDArray[np.uint8]:
        """Read the image of one sample without its label, (H, W, 3) uint8.

        Raises:
            BrokenFileError: it is missing or cannot be read.
        """
        entry = self.entries[index]
        if not entry.rgb.is_file():
            raise BrokenFileError("label without its image", entry.label, f"expected '{entry.rgb}'")
        return self.adapter.rgb(entry)

    def manifest(self) -> dict[str, Any]:
        """Return the name, the split, the number of labels, and the SHA-256 of their names, each followed by a line feed."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(f"{entry.name}\n".encode())
        return {"dataset": self.adapter.name, "split": self.split, "labels": len(self), "names_sha256": digest.hexdigest()}

    def samples(self, worker: int = 0, workers: int = 1) -> Iterator[LabelledSample]:
        """Yield the usable samples of one worker's share, which are the entries worker, worker + workers, ..."""
        for index in range(worker, len(self.entries), workers):
            try:
                yield self[index]
            except BrokenFileError as error:
                self.skipped.add(error)

    def __iter__(self) -> Iterator[LabelledSample]:
        """Yield all usable samples."""
        return self.samples()


def folders_named(root: Path, name: str) -> list[Path]:
    """Return the folders of that name below `root`, links followed, sorted; the search does not go into what it found."""
    found, seen = [], set()
    for folder, names, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            names.clear()
            continue
        seen.add(real)
        if name in names:
            names.remove(name)
            found.append(Path(folder) / name)
    return sorted(found)


def _contents(root: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    more = f" and {len(names) - LISTED_ON_ERROR} more" if len(names) > LISTED_ON_ERROR else ""
    return (", ".join(names[:LISTED_ON_ERROR]) or "an empty folder") + more
