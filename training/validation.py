"""Figures on scenes that are not trained on: aligned errors of every depth network, metric ones too where there are metres."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .config import TrainingConfig
from .data.batches import Batch, validation_batches
from .data.source import Source
from .metrics import MIN_PIXELS, align_disparity, compare_depth
from .networks import Network
from .objectives import SemanticObjective
from .watch import Rgb, depth_panel

CAP_OF_MEDIAN = 50.0
"""Aligned depth is capped at this many times the image's median depth: the labels' unit may be unknown."""
FloatArray = npt.NDArray[np.float64]


@torch.no_grad()
def validate_depth(network: Network, config: TrainingConfig, source: Source, device: torch.device) -> tuple[dict[str, float], Rgb | None]:
    """Return the mean errors over the validation images, and a panel of the first of them."""
    network.eval()
    rows, panel = list[dict[str, float]](), None
    for batch in validation_batches(config, source):
        served = network.serve(batch.image.to(device)).double().cpu().numpy()
        disparity = 1 / served if network.max_depth_m else served
        label = batch.label.double().numpy()
        label_disparity = 1 / label if config.stage == "metric" else label  # 1 / Inf: the sky is at 0
        for one, truth in zip(disparity, label_disparity, strict=True):
            rows += [_errors(one, truth, metric=config.stage == "metric")] if (truth > 0).sum() >= MIN_PIXELS else []
        panel = depth_panel(batch, disparity, label_disparity) if panel is None else panel
    names = rows[0] if rows else {}
    return {name: round(float(np.mean([row[name] for row in rows])), 5) for name in names}, panel


def _errors(disparity: FloatArray, truth: FloatArray, metric: bool) -> dict[str, float]:
    """Compare one image; `truth` is disparity, NaN = unknown, 0 = sky (not compared)."""
    known = truth > 0
    depth = 1 / np.where(known, truth, 1.0)
    aligned = compare_depth(align_disparity(disparity, depth, known, CAP_OF_MEDIAN * float(np.median(depth[known]))), depth, known)
    errors = {"abs_rel": aligned.abs_rel, "delta1": aligned.delta1}
    if metric:
        plain = compare_depth(1 / disparity, depth, known)
        errors |= {"metric_abs_rel": plain.abs_rel, "metric_delta1": plain.delta1}
    return errors


@torch.no_grad()
def validate_semantics(
    model: nn.Module, objective: SemanticObjective, config: TrainingConfig, source: Source, device: torch.device
) -> dict[str, float]:
    """Return cross-entropy and accuracy of the tokens' main class over the validation images."""
    model.eval()
    rows = [objective(model, _on(batch, device)) for batch in validation_batches(config, source)]
    return {name: round(float(torch.stack([row[name] for row in rows]).mean()), 5) for name in rows[0]} if rows else {}


def _on(batch: Batch, device: torch.device) -> Batch:
    return batch.map(lambda tensor: tensor.to(device))
