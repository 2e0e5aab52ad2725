"""A folder of rendered shards -> labelled samples by number, as a `source.Source`."""

from __future__ import annotations

import json
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from .classes import CLASSES
from .samples import BrokenFileError, DatasetError, LabelledSample
from .shards import Shard, manifest, open_shard, shard_paths

KEPT_SHARDS = 20
"""Shards that one process keeps open: the group that is shuffled together, and some for replacements of broken samples."""


class RenderedShards:
    """The images of a folder that `training.data.synthetic` has written; shards are opened, memory-mapped, when they are first read.

    Attributes:
        block_sizes: images per shard.
    """

    def __init__(self, folder: Path) -> None:
        """List the complete shards of the folder.

        Raises:
            DatasetError: there is none, or its classes are others than `CLASSES`.
        """
        self._folder, self._paths = folder, shard_paths(folder)
        if not self._paths:
            raise DatasetError(f"no shards in '{folder}'; render some: python -m training.data.synthetic --help")
        self.block_sizes = [_images_of(path) for path in self._paths]
        self._ends = list(accumulate(self.block_sizes))
        self._shards: OrderedDict[int, Shard] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of images."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> LabelledSample:
        """Read one image.

        Raises:
            BrokenFileError: its shard's files are missing or damaged.
            IndexError: there is no image of that number.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        i = index - (self._ends[number] - self.block_sizes[number])
        shard = self._shard(number)
        depth_m = shard.depth_m[i].astype(np.float32)
        valid = depth_m > 0
        return LabelledSample(
            rgb=np.array(shard.rgb[i]),
            values=np.where(valid, depth_m, np.float32(np.nan)),
            kind="depth_m",
            valid_mask=valid,
            sky_mask=np.isinf(depth_m),
            focal_px=float(shard.focal_px[i]),
            name=f"{self._paths[number].stem}/{i}",
            dataset="rendered",
            class_ids=None if shard.class_ids is None else np.array(shard.class_ids[i]),
        )

    def _shard(self, number: int) -> Shard:
        """Open a shard, or return it open; those read last stay open, the others would use up the process's file descriptors."""
        if number not in self._shards:
            path = self._paths[number]
            try:
                shard = open_shard(path)
            except (FileNotFoundError, ValueError) as error:  # numpy: too short, or not an array
                raise BrokenFileError("shard cannot be read", path, str(error)) from error
            if not len(shard.rgb) == len(shard.depth_m) == self.block_sizes[number]:
                raise BrokenFileError("shard has another number of images than its JSON file", path)
            self._shards[number] = shard
            while len(self._shards) > KEPT_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(number)
        return self._shards[number]

    def manifest(self) -> dict[str, Any]:
        """Describe the folder: counts per kind, class names, and one hash over all of its data."""
        return manifest(self._folder)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind: each loader process opens its own."""
        return self.__dict__ | {"_shards": OrderedDict()}


def _images_of(path: Path) -> int:
    """Return the number of images of a shard by its JSON file.

    Raises:
        DatasetError: it is no such file, or its classes are others than `CLASSES`.
    """
    try:
        record = json.loads(path.read_text())
        classes, count = tuple(record.get("classes") or CLASSES), len(record["images"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"'{path}' is no shard of training.data.synthetic; give the folder that it wrote, and nothing else in it") from error
    if classes != CLASSES:
        raise DatasetError(f"'{path}' has other classes than training.data.classes.CLASSES; render it again")
    return count
