"""Training losses. All take (N, H, W) tensors and a mask of usable pixels, and average over the images that have enough."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_PIXELS = 16
"""An image with fewer usable pixels than this contributes nothing."""


def _mean_over_images(per_image: Tensor, mask: Tensor) -> Tensor:
    """Average (N,) over the images with at least MIN_PIXELS usable pixels; 0 (with a gradient of 0) where there is none."""
    usable = mask.flatten(1).sum(1) >= MIN_PIXELS
    return torch.where(usable, per_image, 0.0).sum() / usable.sum().clamp(min=1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Per image mean over usable pixels: (N, H, W) -> (N,); 0 where there is none."""
    return torch.where(mask, values, 0.0).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def silog_loss(log_depth: Tensor, log_target: Tensor, mask: Tensor, scale_invariance: float = 0.5) -> Tensor:
    """Compare log depth per image: sqrt(mean(g^2) - scale_invariance * mean(g)^2) with g = prediction - target.

    Source: Eigen et al. 2014 (arXiv:1406.2283), equation 4, in the square-root form of BTS (arXiv:1907.10326), equation 4.

    Args:
        log_depth: (N, H, W) predicted log metres.
        log_target: (N, H, W) log metres; anything (also NaN or Inf) where not usable.
        mask: (N, H, W) bool, True = usable.
        scale_invariance: 0 punishes a wrong scale fully, 1 not at all.
    """
    error = torch.where(mask, log_depth - log_target, 0.0)
    variance = _masked_mean(error**2, mask) - scale_invariance * _masked_mean(error, mask) ** 2
    return _mean_over_images(torch.sqrt(variance.clamp(min=0) + 1e-8), mask)


def normalise_affine(values: Tensor, mask: Tensor) -> Tensor:
    """Bring each image to median 0 and mean absolute deviation 1, both over usable pixels only.

    The median is that of the usable pixels (nanmedian). A median over `mask * values` counts every unusable pixel as 0,
    and the loss is then no longer invariant to a shift.

    Source: MiDaS (Ranftl et al. 2020, arXiv:1907.01341), equation 5; Depth Anything (arXiv:2401.10891), equation 2.

    Args:
        values: (N, H, W).
        mask: (N, H, W) bool, True = usable.

    Returns:
        (N, H, W); 0 where not usable.
    """
    flat, usable = values.flatten(1), mask.flatten(1)
    median = torch.nanmedian(torch.where(usable, flat, torch.nan), dim=1, keepdim=True).values.nan_to_num(0.0)
    centred = torch.where(usable, flat - median, 0.0)
    deviation = centred.abs().sum(1, keepdim=True) / usable.sum(1, keepdim=True).clamp(min=1)
    return (centred / deviation.clamp(min=1e-6)).view_as(values)


def affine_invariant_loss(disparity: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of the two normalised disparities: blind to any scale (> 0) and shift of either.

    Source: Depth Anything (Yang et al. 2024, arXiv:2401.10891), equations 1 to 3.

    Args:
        disparity: (N, H, W) predicted 1/depth.
        target: (N, H, W) 1/depth; 0 in the sky, which is usable.
        mask: (N, H, W) bool, True = usable.
    """
    difference = (normalise_affine(disparity, mask) - normalise_affine(target, mask)).abs()
    return _mean_over_images(_masked_mean(difference, mask), mask)


def gradient_matching_loss(prediction: Tensor, target: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    """Compare horizontal and vertical differences at several scales, so that edges are sharp and surfaces smooth.

    Source: MegaDepth (Li and Snavely 2018, arXiv:1804.00607), equation 3; MiDaS (arXiv:1907.01341), equation 11.

    Args:
        prediction: (N, H, W), e.g. log depth.
        target: (N, H, W) of the same kind.
        mask: (N, H, W) bool, True = usable; a difference counts where both of its pixels are usable.
        scales: every scale halves the resolution.
    """
    difference = torch.where(mask, prediction - target, 0.0)
    total = prediction.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        d, m = difference[:, ::step, ::step], mask[:, ::step, ::step]
        across, down = m[:, :, 1:] & m[:, :, :-1], m[:, 1:] & m[:, :-1]
        total = total + _mean_over_images(_masked_mean((d[:, :, 1:] - d[:, :, :-1]).abs(), across), across)
        total = total + _mean_over_images(_masked_mean((d[:, 1:] - d[:, :-1]).abs(), down), down)
    return total / scales


def beyond_range_loss(log_depth: Tensor, log_at_least: Tensor | float, mask: Tensor) -> Tensor:
    """Punish what is predicted nearer than `log_at_least` in the sky and beyond the range; farther is right.

    Args:
        log_depth: (N, H, W) predicted log metres.
        log_at_least: log of the depth that counts as far enough; a number, or one of a shape that goes with (N, H, W).
        mask: (N, H, W) bool, True = sky or beyond range.
    """
    return _mean_over_images(_masked_mean((log_at_least - log_depth).clamp(min=0), mask), mask)


def stability_loss(log_depth: Tensor, log_depth_retaken: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of what is predicted for an image and for the same one with other noise.

    Source: stability training (Zheng et al. 2016, arXiv:1604.04326), equation 2, for log depth.

    Args:
        log_depth: (N, H, W) predicted log metres.
        log_depth_retaken: (N, H, W) of the same images with other noise.
        mask: (N, H, W) bool, True = usable.
    """
    return _mean_over_images(_masked_mean((log_depth - log_depth_retaken).abs(), mask), mask)
