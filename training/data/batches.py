"""Sources -> training batches: batch number in, tensors out, so that a resumed run, and every process of it, gets the same batches."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from depth_anything_ros.contract import ModelContract

from ..config import TrainingConfig
from .augment import Sample, crop_and_resize, flip, photometric, retaken
from .order import ShuffledOrder
from .perturb import perturb
from .samples import BrokenFileError, DatasetError, LabelledSample
from .source import Source

_log = logging.getLogger(__name__)
MEAN, STD = ModelContract.mean, ModelContract.std
RELATIVE = ("teacher", "student")
MAX_BROKEN = 100
"""So many samples in a row that cannot be used end the run."""
PREFETCH = 2
"""Batches that each worker keeps ready; they lie in shared memory."""
LABELLED, PSEUDO, SIZE, PERTURB, RETAKEN = 1, 2, 3, 4, 5
"""Streams of chance, so that a stream does not depend on how much another one draws."""


@dataclass(frozen=True)
class PseudoBatch:
    """The pseudo-labelled part of a batch.

    Attributes:
        disparity: (U, h, w) float32, the teacher's on the clean images; NaN = unknown.
        partner: (U,) int64, which image was pasted into each; see `StudentBatch`.
        own_region: (U, h, w) bool.
        frozen_image: (U, 3, h, w) float32, normalised: what the frozen encoder sees; None: the same as the student.
    """

    disparity: Tensor
    partner: Tensor
    own_region: Tensor
    frozen_image: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None}


@dataclass(frozen=True)
class Batch:
    """Network input and labels.

    Attributes:
        image: (L + U, 3, h, w) float32, normalised; the labelled images come first, those of them that are retaken last (see
            `TrainingConfig.retaken_per_batch`), the perturbed unlabelled ones follow.
        label: (L, h, w) of the labelled images: disparity in 0..1 per image (NaN = unknown), metres (+Inf in the sky and beyond
            range, NaN = unknown) or class numbers (int64), by the stage.
        far_m: (L,) float32, where 'beyond range' begins in the label's metres (metric stage; else 0).
        pseudo: the rest of what is known of the last U images; None: U = 0.
        names: of all images, for the record.
        skipped: (reason, message) of every sample that could not be used while this batch was made.
    """

    image: Tensor
    label: Tensor
    far_m: Tensor
    pseudo: PseudoBatch | None
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        pseudo = self.pseudo.tensors() if self.pseudo else {}
        return {"image": self.image, "label": self.label, "far_m": self.far_m, **pseudo}

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a batch with every tensor changed."""
        changed = {name: change(value) for name, value in self.pseudo.tensors().items()} if self.pseudo else {}
        pseudo = replace(self.pseudo, **changed) if self.pseudo else None
        return replace(self, image=change(self.image), label=change(self.label), far_m=change(self.far_m), pseudo=pseudo)

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory (torch's loader calls this)."""
        return self.map(Tensor.pin_memory)


class BatchMaker:
    """Makes the batches of one process of a run."""

    def __init__(self, config: TrainingConfig, labelled: Source, pseudo: Source | None, rank: int = 0, world: int = 1) -> None:
        """Take the sources; `rank` of `world` processes gets its own share of every batch's images."""
        self._config, self._rank, self._world = config, rank, world
        self._labelled, self._pseudo = labelled, pseudo
        self._labelled_order = ShuffledOrder(labelled.block_sizes, config.run.seed)
        self._pseudo_order = ShuffledOrder(pseudo.block_sizes, config.run.seed + 1) if pseudo else None

    def batch(self, number: int) -> Batch:
        """Return batch `number` (0, 1, ...) of this process.

        Raises:
            DatasetError: too many samples in a row cannot be used.
        """
        data, seed = self._config.data, self._config.run.seed
        sizes = data.sizes_hw
        size_hw = sizes[int(np.random.default_rng([seed, SIZE, number]).integers(len(sizes)))]
        skipped: list[tuple[str, str]] = []
        labelled = self._draw(self._labelled, self._labelled_order, LABELLED, number, size_hw, skipped)
        chance = np.random.default_rng([seed, RETAKEN, number, self._rank])
        labelled += [(name, replace(sample, rgb=retaken(sample.rgb, chance))) for name, sample in labelled[: self._config.retaken_per_batch]]
        label = torch.from_numpy(np.stack([sample.label for _, sample in labelled]))
        image, names = _images([sample for _, sample in labelled]), [name for name, _ in labelled]
        far_m = far_limits([sample for _, sample in labelled], self._config)
        if self._pseudo is None or self._pseudo_order is None:
            return Batch(normalise(image), label, far_m, None, tuple(names), tuple(skipped))
        drawn = self._draw(self._pseudo, self._pseudo_order, PSEUDO, number, size_hw, skipped)
        generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, PERTURB, number, self._rank]).integers(1 << 62)))
        view = perturb(_images([sample for _, sample in drawn]), generator, self._config.perturb)
        disparity = torch.from_numpy(np.stack([sample.label for _, sample in drawn]))
        frozen_image = None if view.frozen_image is view.image else normalise(view.frozen_image)
        pseudo = PseudoBatch(disparity, view.partner, view.own_region, frozen_image)
        names += [name for name, _ in drawn]
        return Batch(normalise(torch.cat([image, view.image])), label, far_m, pseudo, tuple(names), tuple(skipped))

    def _draw(
        self, source: Source, order: ShuffledOrder, stream: int, number: int, size_hw: tuple[int, int], skipped: list[tuple[str, str]]
    ) -> list[tuple[str, Sample]]:
        """Read, cut and flip this process's images of a batch; a broken one is replaced by another at random."""
        data = self._config.data
        count = data.labelled_per_batch if stream == LABELLED else data.pseudo_per_batch
        drawn = []
        for position in range(count * (number * self._world + self._rank), count * (number * self._world + self._rank + 1)):
            rng = np.random.default_rng([self._config.run.seed, stream, position])
            index, broken = order[position], len(skipped)
            while True:
                try:
                    sample = source[index]
                    drawn.append((f"{sample.dataset}/{sample.name}", self._cut(sample, size_hw, stream, rng)))
                    break
                except BrokenFileError as error:
                    skipped.append((error.reason, str(error)))
                    if len(skipped) - broken >= MAX_BROKEN:
                        raise DatasetError(f"{MAX_BROKEN} samples in a row cannot be used; the last: {error}") from error
                    index = int(rng.integers(order.total))
        return drawn

    def _cut(self, sample: LabelledSample, size_hw: tuple[int, int], stream: int, rng: np.random.Generator) -> Sample:
        label = sample.disparity() if stream == PSEUDO else label_of_stage(sample, self._config)
        focal = np.nan if sample.focal_px is None else sample.focal_px
        cut = crop_and_resize(Sample(sample.rgb, label, focal), size_hw, rng, self._config.data.min_zoom)
        if rng.random() < 0.5:
            cut = flip(cut)
        if stream == LABELLED and self._config.data.camera_effects:
            cut = replace(cut, rgb=photometric(cut.rgb, rng))
        return finish_label(cut, self._config) if stream == LABELLED else replace(cut, label=unit_range(cut.label))


def label_of_stage(sample: LabelledSample, config: TrainingConfig) -> npt.NDArray[Any]:
    """Return what a stage learns from a sample: class numbers, metres or disparity.

    Raises:
        BrokenFileError: the sample does not have it.
    """
    if config.stage == "encoder":
        if sample.class_ids is None:
            raise BrokenFileError("image without class ids", sample.name)
        return sample.class_ids
    if config.stage in RELATIVE:
        return sample.disparity()
    if sample.kind != "depth_m":
        raise BrokenFileError("label that is not in metres", sample.name)
    if config.metric.kind == "depth_canonical_focal" and sample.focal_px is None:
        raise BrokenFileError("image of unknown focal length", sample.name)
    return sample.values


def canonical_focal_px(config: TrainingConfig) -> float:
    """Return the focal length of the canonical camera, in pixels of the training images."""
    return config.metric.canonical_focal_px * config.data.sizes_hw[0][0] / config.metric.canonical_height


def finish_label(sample: Sample, config: TrainingConfig) -> Sample:
    """Give a cut label its final form; canonical depth is depth * canonical / focal length.

    Source: label transformation of Metric3D (Yin et al. 2023, arXiv:2307.10984), section 3.1.
    """
    if config.stage == "encoder":
        return replace(sample, label=sample.label.astype(np.int64))
    if config.stage in RELATIVE:
        return replace(sample, label=unit_range(sample.label))
    metres = np.where(sample.label >= config.metric.max_depth_m, np.inf, sample.label).astype(np.float32)
    return replace(sample, label=metres * np.float32(_label_metres_per_metre(sample, config)))


def far_limits(samples: list[Sample], config: TrainingConfig) -> Tensor:
    """Return (L,) float32: `max_depth_m` in the metres of each label; 0 where labels are no metres."""
    metric = config.stage == "metric"
    limits = [config.metric.max_depth_m * _label_metres_per_metre(sample, config) if metric else 0.0 for sample in samples]
    return torch.tensor(limits, dtype=torch.float32)


def _label_metres_per_metre(sample: Sample, config: TrainingConfig) -> float:
    return canonical_focal_px(config) / sample.focal_px if config.metric.kind == "depth_canonical_focal" else 1.0


def unit_range(disparity: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Bring disparity to 0..1 over its known pixels: (H, W), NaN = unknown. A constant map becomes 0.

    The affine-invariant loss does not see this; it keeps data sets of any unit away from the limits of float32.
    Source: the authors, LiheYoung/Depth-Anything, issue 175.
    """
    known = np.isfinite(disparity)
    if not known.any():
        return np.full(disparity.shape, np.nan, np.float32)
    low, high = float(disparity[known].min()), float(disparity[known].max())
    return np.where(known, (disparity - low) / ((high - low) or 1.0), np.nan).astype(np.float32)


def normalise(image: Tensor) -> Tensor:
    """(N, 3, h, w) RGB in 0..1 -> normalised by ImageNet's mean and deviation, channels last in memory."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((image - mean) / std).contiguous(memory_format=torch.channels_last)


def _images(samples: list[Sample]) -> Tensor:
    return torch.from_numpy(np.stack([sample.rgb for sample in samples])).permute(0, 3, 1, 2).float() / 255


class _Batches(Dataset[Batch | DatasetError]):
    """Batches by number, as torch's loader wants them."""

    def __init__(self, maker: BatchMaker) -> None:
        self._maker = maker

    def __getitem__(self, number: int) -> Batch | DatasetError:
        try:
            return self._maker.batch(number)
        except DatasetError as error:  # raised here, it would reach the user as the worker's traceback
            return error


def batches(maker: BatchMaker, first: int, end: int, workers: int, pin: bool = False) -> Iterator[Batch]:
    """Yield the batches first .. end - 1, made by `workers` other processes while the network computes (0: by this one).

    Threads would not do: they compete with the training step for Python's global lock, and both become slow.
    """
    if not workers:
        yield from (maker.batch(number) for number in range(first, end))
        return
    cv2.setNumThreads(1)  # stops OpenCV's threads, which a forked worker would wait for in vain
    options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": PREFETCH, "pin_memory": pin, "worker_init_fn": _leave_signals}
    for given in DataLoader(_Batches(maker), None, sampler=range(first, end), **options):
        if isinstance(given, DatasetError):
            raise given
        yield given


def _leave_signals(_: int) -> None:
    """Let the run end its workers: a signal to the whole process group would end them first, and the run could not save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def validation_batches(config: TrainingConfig, source: Source) -> Iterator[Batch]:
    """Yield `validation_images` samples, evenly spread, whole (or the largest window of the training aspect), without any chance.

    Labels of relative stages are disparity in the label's own unit, not in 0..1: without its shift no error of depth can be told.
    """
    numbers = np.unique(np.linspace(0, len(source) - 1, min(config.data.validation_images, len(source))).astype(int)).tolist()
    drawn: list[tuple[str, Sample]] = []
    skipped: list[tuple[str, str]] = []
    for number in numbers:
        try:
            sample = source[number]
            focal = np.nan if sample.focal_px is None else sample.focal_px
            whole = Sample(sample.rgb, label_of_stage(sample, config), focal)
            cut = crop_and_resize(whole, config.data.sizes_hw[0], np.random.default_rng(0), min_zoom=1.0)
            if config.stage in RELATIVE and sample.kind == "disparity_affine_invariant":
                raise BrokenFileError("label of unknown shift, of which no error of depth can be told", sample.name)
            drawn.append((sample.name, cut if config.stage in RELATIVE else finish_label(cut, config)))
        except BrokenFileError as error:
            skipped.append((error.reason, str(error)))
        if drawn and (len(drawn) == config.data.labelled_per_batch or number == numbers[-1]):
            cuts, names = [cut for _, cut in drawn], tuple(name for name, _ in drawn)
            label = torch.from_numpy(np.stack([cut.label for cut in cuts]))
            yield Batch(normalise(_images(cuts)), label, far_limits(cuts, config), None, names, tuple(skipped))
            drawn, skipped = [], []
    if skipped:
        _log.warning("validation left out %d images; the last: %s", len(skipped), skipped[-1][1])
