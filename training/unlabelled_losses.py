"""Losses of the student on unlabelled images: pseudo-labels under CutMix, alignment with a frozen encoder, and the total.

Source: Depth Anything (Yang et al. 2024, arXiv:2401.10891), section 3.2 (equations 6 to 8), section 3.3 (equation 9).

| option | default | source or 'inferred' |
|---|---|---|
| median and deviation of each region on its own | always | "affine-invariant losses in valid regions defined by M and 1 - M", section 3.2 |
| unusable pixels of the teacher | left out of median, deviation and mean | inferred |
| `min_pixels` of a region | 16 | inferred; a smaller region counts as 0 and keeps its share of the area |
| mean of each image, then over the images that have a usable region | always | inferred |
| `trim`: share of the worst pixels of an image that is ignored | 0 | 0.1 in V2 (arXiv:2406.09414), section 5.2; V1's text has none |
| trimmed are pixels, over both regions together, after the normalisation | always | inferred |
| `margin` above which a token is left out of the alignment | 0.85 | section 3.3 |
| alignment averages over the tokens of the batch that are left in | always | inferred |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import MIN_PIXELS, normalise_affine


def cutmix_loss(
    disparity: Tensor,
    own_target: Tensor,
    partner_target: Tensor,
    own_mask: Tensor,
    partner_mask: Tensor,
    own_region: Tensor,
    trim: float = 0.0,
    min_pixels: int = MIN_PIXELS,
) -> Tensor:
    """Compare the student on mixed images with the teacher on the clean ones, region by region.

    Each region is normalised by its own median and deviation: the teacher saw two images, whose scales and shifts have nothing
    to do with each other. The two losses are weighted by the regions' areas.

    Source: Depth Anything (arXiv:2401.10891), equations 6 (own region), 7 (the partner's) and 8 (weighted sum).

    Args:
        disparity: (N, H, W) the student's, of the mixed image; any scale and shift.
        own_target: (N, H, W) the teacher's of the image itself; 0 in the sky, which is usable; anything where unusable.
        partner_target: (N, H, W) the teacher's of the image that was pasted in.
        own_mask: (N, H, W) bool, True = `own_target` is usable.
        partner_mask: (N, H, W) bool, True = `partner_target` is usable.
        own_region: (N, H, W) bool, M: True = the pixel shows the image itself, False = its partner. All True: not mixed.
        trim: share of an image's usable pixels with the largest differences that is ignored, 0 <= trim < 1.
        min_pixels: a region with fewer usable pixels counts as 0, and its area is not given to the other one.

    Returns:
        Scalar >= 0; 0 with a gradient of 0 where no image has a usable region.
    """
    if not 0 <= trim < 1:
        raise ValueError(f"trim is {trim}, not a share of at least 0 and below 1")
    regions, targets = torch.stack([own_region, ~own_region]), torch.stack([own_target, partner_target])
    masks = regions & torch.stack([own_mask, partner_mask])
    masks = masks & (_count(masks) >= min_pixels)[..., None, None]
    differences = torch.stack(
        [(normalise_affine(disparity, mask) - normalise_affine(target, mask)).abs() for target, mask in zip(targets, masks, strict=True)]
    )
    kept = masks & ~worst_pixels(differences.detach().sum(0), masks.any(0), trim) if trim else masks
    means = torch.where(kept, differences, 0.0).sum((-2, -1)) / _count(kept).clamp(min=1)
    per_image = (means * _count(regions) / own_region[0].numel()).sum(0)
    return per_image.sum() / masks.flatten(2).any(2).any(0).sum().clamp(min=1)


def worst_pixels(differences: Tensor, mask: Tensor, share: float) -> Tensor:
    """Mark the usable pixels of each image with the largest differences.

    Source: Depth Anything V2 (arXiv:2406.09414), section 5.2: the 10 % "top-n-largest-loss regions" are ignored.

    Args:
        differences: (N, H, W), finite where usable.
        mask: (N, H, W) bool, True = usable.
        share: of the usable pixels of each image; the number is rounded down.

    Returns:
        (N, H, W) bool, True = among the worst; exactly floor(share * usable pixels) per image, whatever is equal.
    """
    usable = mask.flatten(1)
    order = torch.where(usable, differences.flatten(1), -torch.inf).argsort(dim=1, descending=True, stable=True)
    chosen = torch.arange(usable.shape[1], device=mask.device) < (share * usable.sum(1, keepdim=True)).floor()
    return torch.zeros_like(usable).scatter(1, order, chosen).view_as(mask)


def feature_alignment_loss(student_tokens: Tensor, frozen_tokens: Tensor, margin: float = 0.85) -> Tensor:
    """Keep the student's features near those of a frozen pre-trained encoder, token by token.

    Tokens that agree well enough already are left out, each on its own: parts of one object may differ in depth, and the
    encoder's features do not.

    Source: Depth Anything (arXiv:2401.10891), equation 9 and the tolerance margin that follows it.

    Args:
        student_tokens: (N, T, C) patch tokens of the student's encoder, after its last normalisation.
        frozen_tokens: (N, T, C) those of the frozen encoder, of an image of the same geometry. Get no gradient.
        margin: tokens with a cosine above it are left out.

    Returns:
        Scalar, mean of 1 - cosine over the tokens left in; 0 with a gradient of 0 where there is none.

    Raises:
        ValueError: the shapes differ; project one side to the other's channels first.
    """
    if student_tokens.shape != frozen_tokens.shape or student_tokens.ndim != 3:
        raise ValueError(f"tokens of shapes {tuple(student_tokens.shape)} and {tuple(frozen_tokens.shape)} are not both the same (N, T, C)")
    cosine = F.cosine_similarity(student_tokens.float(), frozen_tokens.detach().float(), dim=-1)
    included = cosine.detach() <= margin
    return torch.where(included, 1 - cosine, 0.0).sum() / included.sum().clamp(min=1)


def student_total(labelled: Tensor, unlabelled: Tensor, features: Tensor) -> Tensor:
    """Average the three losses of a student: "an average combination of the three losses", no tuned weights.

    Source: Depth Anything (arXiv:2401.10891), section 3.3.

    Args:
        labelled: scalar L_l, the affine-invariant loss on labelled images.
        unlabelled: scalar L_u, `cutmix_loss`.
        features: scalar L_feat, `feature_alignment_loss` on the unlabelled images.
    """
    return (labelled + unlabelled + features) / 3


def _count(mask: Tensor) -> Tensor:
    """Number of True pixels: (..., H, W) -> (...)."""
    return mask.sum((-2, -1))
