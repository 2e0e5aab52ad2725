"""Shards -> training batches: step number in, tensors out, so that a resumed run continues with the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .augment import Sample, crop_and_resize, flip, photometric
from .shards import Shard, open_shard, shard_paths

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTHS = {4 / 3: (1.0, 1.167, 4 / 3, 4 / 3, 4 / 3), 3.0: (2.333, 2.667, 3.0)}
"""Aspect (width / height) of the stored images -> aspects of the training images."""
RESCAN_STEPS = 200


@dataclass(frozen=True)
class Batch:
    """Network input and labels.

    Attributes:
        image: (N, 3, h, w) float32, normalised.
        depth_canonical_m: (N, h, w) float32, metres of the canonical camera; +Inf in the sky.
    """

    image: Tensor
    depth_canonical_m: Tensor


def collate(samples: list[Sample], canonical_focal_px: float) -> Batch:
    """Normalise and stack; depth * canonical / focal length is the label.

    Source: label transformation of Metric3D (Yin et al. 2023, arXiv:2307.10984), section 3.1.
    """
    rgb = torch.from_numpy(np.stack([sample.rgb for sample in samples])).permute(0, 3, 1, 2).float() / 255
    image = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    depth = np.stack([sample.depth_m.astype(np.float32) * np.float32(canonical_focal_px / sample.focal_px) for sample in samples])
    return Batch(image.contiguous(memory_format=torch.channels_last), torch.from_numpy(depth))


class BatchSource:
    """Draws batches from a folder of shards, which it reads into memory; shards that appear later are found while it runs."""

    def __init__(self, folder: Path, seed: int, height: int, batch_pixels: int, canonical_focal_px: float) -> None:
        """Open the folder; `canonical_focal_px` belongs to images of `height` pixels."""
        self._folder, self._seed, self._height, self._pixels = folder, seed, height, batch_pixels
        self._focal = canonical_focal_px
        self._shards: dict[Path, Shard] = {}
        self._groups: dict[float, list[Shard]] = {}

    def batch(self, step: int) -> Batch:
        """Return the batch of one step: images of one stored shape, cropped, flipped and degraded at random.

        Raises:
            FileNotFoundError: the folder holds no complete shard.
        """
        if not self._groups or step % RESCAN_STEPS == 0:
            self._scan()
        rng = np.random.default_rng([self._seed, step])
        counts = {aspect: sum(len(shard.rows) for shard in shards) for aspect, shards in self._groups.items()}
        aspect = float(rng.choice(list(counts), p=np.array(list(counts.values())) / sum(counts.values())))
        width = round(self._height * float(rng.choice(WIDTHS.get(aspect, (aspect,)))) / 32) * 32
        count = max(1, round(self._pixels / (self._height * width)))
        return collate([self._sample(aspect, (self._height, width), rng) for _ in range(count)], self._focal)

    def _sample(self, aspect: float, size_hw: tuple[int, int], rng: np.random.Generator) -> Sample:
        shards = self._groups[aspect]
        ends = np.cumsum([len(shard.rows) for shard in shards])
        number = int(rng.integers(ends[-1]))
        k = int(np.searchsorted(ends, number, side="right"))
        shard, i = shards[k], number - int(ends[k])  # counted from the shard's end: -1 is its last image
        sample = Sample(np.asarray(shard.rgb[i]), np.asarray(shard.depth_m[i]), float(shard.focal_px[i]))
        sample = crop_and_resize(sample, size_hw, rng)
        if rng.random() < 0.5:
            sample = flip(sample)
        return Sample(photometric(sample.rgb, rng), sample.depth_m, sample.focal_px)

    def _scan(self) -> None:
        paths = shard_paths(self._folder)
        if not paths:
            raise FileNotFoundError(f"no shards in '{self._folder}'; render some: python -m training.data.synthetic --help")
        self._shards = {path: self._shards.get(path) or open_shard(path, in_memory=True) for path in paths}
        self._groups = {}
        for shard in self._shards.values():
            self._groups.setdefault(shard.rgb.shape[2] / shard.rgb.shape[1], []).append(shard)


def prefetch(source: BatchSource, first_step: int, last_step: int, depth: int = 6) -> Iterator[Batch]:
    """Yield the batches of the steps first..last-1, prepared by another process while the network computes.

    A thread would not do: it competes with the training step for Python's global lock, and both become slow.
    """
    cv2.setNumThreads(1)  # stops OpenCV's threads, which a forked worker would wait for in vain
    steps = range(first_step, last_step)
    loader = DataLoader(_Steps(source), batch_size=None, sampler=steps, num_workers=1, prefetch_factor=depth)
    yield from loader


class _Steps(Dataset[Batch]):
    """A batch source as torch's loader wants it."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source

    def __getitem__(self, step: int) -> Batch:
        return self._source.batch(step)


def validation_batches(folder: Path, height: int, canonical_focal_px: float, per_batch: int = 16) -> Iterator[Batch]:
    """Yield all images of a folder, whole and unchanged but for their size."""
    rng = np.random.default_rng(0)
    for path in shard_paths(folder):
        shard = open_shard(path)
        size_hw = (height, round(height * shard.rgb.shape[2] / shard.rgb.shape[1] / 32) * 32)
        for start in range(0, len(shard.rows), per_batch):
            samples = [
                crop_and_resize(
                    Sample(np.asarray(shard.rgb[i]), np.asarray(shard.depth_m[i]), float(shard.focal_px[i])),
                    size_hw,
                    rng,
                    min_zoom=1.0,
                )
                for i in range(start, min(start + per_batch, len(shard.rows)))
            ]
            yield collate(samples, canonical_focal_px)
