"""What each stage minimises: (network, batch) -> named losses, `total` among them. The formulas are in `losses` and `unlabelled_losses`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import TrainingConfig
from .data.batches import Batch, PseudoBatch
from .losses import affine_invariant_loss, beyond_range_loss, gradient_matching_loss, normalise_affine, silog_loss, stability_loss
from .networks import Network, Prediction, disparity_of
from .unlabelled_losses import cutmix_loss, feature_alignment_loss

Losses = dict[str, Tensor]


class Objective(Protocol):
    """Losses of a batch; `network` may be wrapped for distributed training, so only its call is used."""

    def __call__(self, network: Callable[[Tensor], Prediction], batch: Batch) -> Losses:
        """Return scalars by name."""
        ...


class RelativeObjective:
    """Teacher and student: (L_l + L_u + L_feat) / 3 of those that are there.

    Source: Depth Anything (Yang et al. 2024, arXiv:2401.10891), equations 1 to 9: "an average combination of the three losses".
    """

    def __init__(self, config: TrainingConfig, frozen: Network | None = None) -> None:
        """Take the losses' options and the frozen encoder; None: no feature alignment."""
        self._loss, self._frozen = config.loss, frozen

    def __call__(self, network: Callable[[Tensor], Prediction], batch: Batch) -> Losses:
        """See `Objective`."""
        values, tokens = network(batch.image)
        count = len(batch.label)
        losses = {"labelled": self._labelled(values[:count], batch.label)}
        if batch.pseudo:
            losses["unlabelled"] = _unlabelled(values[count:], batch.pseudo, self._loss.trim)
            if self._frozen is not None:
                seen = batch.image[count:] if batch.pseudo.frozen_image is None else batch.pseudo.frozen_image
                with torch.no_grad():
                    frozen_tokens = self._frozen.tokens(seen)
                losses["features"] = feature_alignment_loss(tokens[count:], frozen_tokens, self._loss.margin)
        return {**losses, "total": torch.stack(list(losses.values())).mean()}

    def _labelled(self, values: Tensor, label: Tensor) -> Tensor:
        known = torch.isfinite(label)
        loss = affine_invariant_loss(values, label, known)
        if self._loss.gradient:
            pair = normalise_affine(values, known), normalise_affine(label, known)
            loss = loss + self._loss.gradient * gradient_matching_loss(*pair, known)
        return loss


def _unlabelled(disparity: Tensor, pseudo: PseudoBatch, trim: float) -> Tensor:
    """Compare (U, h, w) disparity of any scale and shift with pseudo-labels."""
    target, partner = pseudo.disparity, pseudo.partner
    known = torch.isfinite(target)
    return cutmix_loss(disparity, target, target[partner], known, known[partner], pseudo.own_region, trim)


class MetricObjective:
    """Metric fine-tuning: SiLog on log depth, optionally with the relative losses beside it; the sky is only 'far enough'.

    Pseudo-labelled images, where there are any, keep the shape of real scenes in a network whose metres come from others.
    """

    def __init__(self, config: TrainingConfig) -> None:
        """Take the weights."""
        self._loss, self._retaken = config.loss, config.retaken_per_batch

    def __call__(self, network: Callable[[Tensor], Prediction], batch: Batch) -> Losses:
        """See `Objective`."""
        values, label = network(batch.image).values, batch.label
        log_depth, log_depth_unlabelled = values[: len(label)], values[len(label) :]
        far = torch.isinf(label)
        near = (label > 0) & ~far
        log_target = torch.log(torch.where(near, label, 1.0))
        losses = {"silog": silog_loss(log_depth, log_target, near)}
        total = self._loss.silog * losses["silog"]
        if self._loss.metric_affine:
            disparity, target = disparity_of(log_depth), torch.where(near, 1 / label, 0.0)
            losses["affine"] = affine_invariant_loss(disparity, target, near | far)
            total = total + self._loss.metric_affine * losses["affine"]
        if self._loss.metric_gradient:
            losses["gradient"] = gradient_matching_loss(log_depth, log_target, near)
            total = total + self._loss.metric_gradient * losses["gradient"]
        if self._loss.beyond:
            losses["beyond"] = beyond_range_loss(log_depth, torch.log(batch.far_m)[:, None, None], far)
            total = total + self._loss.beyond * losses["beyond"]
        if self._retaken:
            first, last = slice(self._retaken), slice(-self._retaken, None)
            losses["stability"] = stability_loss(log_depth[first], log_depth[last], near[first] | far[first])
            total = total + self._loss.stability * losses["stability"]
        if batch.pseudo:
            losses["unlabelled"] = _unlabelled(disparity_of(log_depth_unlabelled), batch.pseudo, self._loss.trim)
            total = total + losses["unlabelled"]
        return {**losses, "total": total}


class SemanticObjective:
    """Encoder pre-training on class numbers: every token says which share of its square each class has (cross-entropy)."""

    def __init__(self, token_px: int, classes: int) -> None:
        """`token_px`: side of a token's square."""
        self._token_px, self._classes = token_px, classes

    def __call__(self, network: Callable[[Tensor], Tensor], batch: Batch) -> Losses:
        """`network` is a `SemanticEncoder`: image -> (N, T, classes) logits."""
        shares = class_shares(batch.label, self._token_px, self._classes)
        logits = network(batch.image)
        right = (logits.argmax(-1) == shares.argmax(-1)).float().mean()
        return {"total": functional.cross_entropy(logits.flatten(0, 1), shares.flatten(0, 1)), "accuracy": right.detach()}


class SemanticEncoder(nn.Module):
    """A network's encoder with one linear layer on its tokens; the decoder is along for the checkpoint's sake and does not learn."""

    def __init__(self, network: Network, classes: int) -> None:
        """Take the network over."""
        super().__init__()
        self.network = network
        self.head = nn.Linear(network.token_dim, classes)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and network.is_encoder(name))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, T, classes) logits."""
        return self.head(self.network.tokens(image).float())


def class_shares(class_ids: Tensor, token_px: int, classes: int) -> Tensor:
    """Return how much of each token's square every class covers.

    Args:
        class_ids: (N, h, w) int64, h and w multiples of `token_px`.
        token_px: side of a square in pixels.
        classes: their number.

    Returns:
        (N, h / token_px * w / token_px, classes) float32, rows sum to 1.
    """
    count, height, width = class_ids.shape
    squares = class_ids.view(count, height // token_px, token_px, width // token_px, token_px).permute(0, 1, 3, 2, 4).flatten(1, 2).flatten(2)
    shares = torch.zeros(*squares.shape[:2], classes, device=class_ids.device)
    return shares.scatter_add_(2, squares, torch.ones_like(squares, dtype=torch.float32)) / token_px**2
