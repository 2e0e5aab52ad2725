"""Strong perturbations of unlabelled images for the student: colours, blur and CutMix. The teacher's clean images stay as they are.

Depth Anything (Yang et al. 2024, arXiv:2401.10891, section 3.2) names "color jittering and Gaussian blurring" and CutMix
with probability 0.5, and gives no strengths; for CutMix its author refers to UniMatch (LiheYoung/UniMatch, `obtain_cutmix_box`
of dataset/transform.py). What the sources leave open is an option of `PerturbConfig`:

| option | default | source or 'inferred' |
|---|---|---|
| `jitter_probability` | 0.8 | inferred: UniMatch |
| `brightness`, `contrast`, `saturation` | 0.5 each | inferred: UniMatch; the factor is U(1 - x, 1 + x) |
| `hue` | 0.25 | inferred: UniMatch; the shift is U(-x, x) turns |
| `grayscale_probability` | 0 | the paper has no grayscale; UniMatch: 0.2 |
| `blur_probability` | 0.5 | inferred: UniMatch |
| `blur_sigma_px` | (0.1, 2) | inferred: UniMatch; uniform, in pixels of the crop |
| `cutmix_probability` | 0.5 | section 3.2 |
| `cutmix_area` | (0.02, 0.4) | UniMatch, to which the author refers; uniform, of the crop's area |
| `cutmix_aspect` | (0.3, 1 / 0.3) | as above; height / width, uniform |
| `frozen_input` | "mixed" | inferred: the frozen encoder sees the student's image; "clean_mixed": the same mix of clean images |
| order: colours, grayscale, blur, then CutMix | fixed | section 3.2: CutMix is applied to images that are colour-distorted already |
| order of brightness, contrast, saturation, hue | random per image | inferred: torchvision's ColorJitter, which UniMatch uses |
| every draw is per image | fixed | inferred: UniMatch; except the area, a box's draws are repeated until it fits (UniMatch) |
| the box shows the partner | fixed | inferred: UniMatch; the loss is the same with the regions named the other way round |
| partners | random cycle through the batch | "random" pairs, section 3.2; nobody is paired with itself (inferred) |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B (ITU-R BT.601)."""
MAX_TRIES = 10_000
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
AtLeast0 = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
"""Ranges, checked where a configuration is read (`training.config`)."""


@dataclass(frozen=True)
class PerturbConfig:
    """Strengths and probabilities; the table at the head of this module says where each default comes from."""

    jitter_probability: Probability = 0.8
    brightness: AtLeast0 = 0.5
    contrast: AtLeast0 = 0.5
    saturation: AtLeast0 = 0.5
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    grayscale_probability: Probability = 0.0
    blur_probability: Probability = 0.5
    blur_sigma_px: tuple[Above0, Above0] = (0.1, 2.0)
    cutmix_probability: Probability = 0.5
    cutmix_area: tuple[Share, Share] = (0.02, 0.4)
    cutmix_aspect: tuple[Above0, Above0] = (0.3, 1 / 0.3)
    frozen_input: Literal["mixed", "clean_mixed"] = "mixed"

    def __post_init__(self) -> None:
        """Refuse an unknown choice."""
        if self.frozen_input not in ("mixed", "clean_mixed"):
            raise ValueError(f"frozen_input '{self.frozen_input}' is not mixed or clean_mixed")


@dataclass(frozen=True)
class StudentBatch:
    """What the student sees of a batch of clean images.

    Attributes:
        image: (N, 3, H, W) floating, RGB in 0..1: perturbed and mixed.
        partner: (N,) int64, index of the image that was pasted into each; of itself where nothing was.
        own_region: (N, H, W) bool, True = the pixel shows the image itself, False = its partner.
        frozen_image: (N, 3, H, W) the same geometry for the frozen encoder; see `PerturbConfig.frozen_input`.
    """

    image: Tensor
    partner: Tensor
    own_region: Tensor
    frozen_image: Tensor


def perturb(clean: Tensor, generator: Generator, config: PerturbConfig | None = None) -> StudentBatch:
    """Make the student's view of a batch.

    With the teacher's maps `target` of the clean images, `target` and `target[view.partner]` are what `cutmix_loss` compares with.

    Args:
        clean: (N, 3, H, W) floating, RGB in 0..1, on any device; not changed. The teacher's labels belong to these.
        generator: source of chance, on the CPU; the same state gives the same result.
        config: strengths; None: the defaults.
    """
    config = config or PerturbConfig()
    distorted = torch.stack([_blur(_colours(image, generator, config), generator, config) for image in clean])
    partner, boxes = random_pairs(len(clean), generator), list[tuple[int, int, int, int] | None]()
    for index in range(len(clean)):
        mixes = len(clean) > 1 and _happens(config.cutmix_probability, generator)
        boxes.append(cutmix_box((clean.shape[2], clean.shape[3]), generator, config) if mixes else None)
        partner[index] = partner[index] if mixes else index
    own_region = torch.ones(len(clean), *clean.shape[2:], dtype=torch.bool, device=clean.device)
    for region, box in zip(own_region, boxes, strict=True):
        if box:
            top, left, height, width = box
            region[top : top + height, left : left + width] = False
    image = mix(distorted, partner, own_region)
    return StudentBatch(image, partner, own_region, image if config.frozen_input == "mixed" else mix(clean, partner, own_region))


def mix(images: Tensor, partner: Tensor, own_region: Tensor) -> Tensor:
    """Paste the partners: u_ab = u_a * M + u_b * (1 - M).

    Source: Depth Anything (arXiv:2401.10891), equation 5.

    Args:
        images: (N, 3, H, W).
        partner: (N,) index of each image's partner.
        own_region: (N, H, W) bool, M.
    """
    return torch.where(own_region[:, None], images, images[partner.to(images.device)])


def random_pairs(count: int, generator: Generator) -> Tensor:
    """Return a partner for each of `count` images: (count,) int64, one random cycle, so nobody gets itself (unless alone)."""
    order = torch.randperm(count, generator=generator)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner


def cutmix_box(size_hw: tuple[int, int], generator: Generator, config: PerturbConfig) -> tuple[int, int, int, int]:
    """Draw a box: area once, then aspect and position until it lies inside.

    Source: UniMatch (LiheYoung/UniMatch, dataset/transform.py).

    Args:
        size_hw: height and width of the images in pixels.
        generator: source of chance.
        config: ranges of area and aspect.

    Returns:
        (top, left, height, width) in whole pixels, inside the image.

    Raises:
        ValueError: boxes of this area and aspect hardly ever fit the images; narrow the ranges.
    """
    height, width = size_hw
    area_px = _uniform(*config.cutmix_area, generator) * height * width
    for _ in range(MAX_TRIES):
        aspect = _uniform(*config.cutmix_aspect, generator)
        box_h, box_w = max(1, int(math.sqrt(area_px * aspect))), max(1, int(math.sqrt(area_px / aspect)))
        top, left = int(_uniform(0, height, generator)), int(_uniform(0, width, generator))
        if top + box_h <= height and left + box_w <= width:
            return top, left, box_h, box_w
    raise ValueError(
        f"no CutMix box of {area_px:.0f} pixels and aspect {config.cutmix_aspect} fits {height}x{width}; narrow cutmix_area or cutmix_aspect"
    )


def adjust_brightness(image: Tensor, factor: float) -> Tensor:
    """Scale (3, H, W) in 0..1; clipped to 0..1."""
    return (image * factor).clamp(0, 1)


def adjust_contrast(image: Tensor, factor: float) -> Tensor:
    """Scale the distance to the image's mean luma; (3, H, W) in 0..1, clipped. 0: uniform grey."""
    mean = _luma(image).mean()
    return (mean + (image - mean) * factor).clamp(0, 1)


def adjust_saturation(image: Tensor, factor: float) -> Tensor:
    """Scale the distance to each pixel's luma; (3, H, W) in 0..1, clipped. 0: grayscale."""
    luma = _luma(image)
    return (luma + (image - luma) * factor).clamp(0, 1)


def adjust_hue(image: Tensor, turns: float) -> Tensor:
    """Turn the hue of (3, H, W) in 0..1 by a fraction of the circle (1/3: red becomes green); value and saturation stay.

    Source: Smith 1978, "Color gamut transform pairs" (HSV hexcone).
    """
    high, low = image.amax(0), image.amin(0)
    chroma = high - low
    safe = torch.where(chroma > 0, chroma, 1.0)
    red, green, blue = image
    sixth = torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    sixth = torch.where(high == red, (green - blue) / safe, sixth) + 6 * turns
    # each channel falls from `high` to `low` with the distance on the hue circle from its own sector
    position = (sixth[None] + torch.tensor([5.0, 3.0, 1.0], dtype=image.dtype, device=image.device)[:, None, None]) % 6
    return high - chroma * torch.minimum(position, 4 - position).clamp(0, 1)


def gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    """Blur (3, H, W) with a Gaussian cut off at 3 sigma; edge pixels are repeated outwards."""
    radius = max(1, math.ceil(3 * sigma_px))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    if image.device.type == "cpu":  # the same sums, many times as fast as a convolution of three channels
        pixels, weights = np.ascontiguousarray(image.permute(1, 2, 0).numpy()), kernel.numpy()
        blurred = cv2.sepFilter2D(pixels, -1, weights, weights, borderType=cv2.BORDER_REPLICATE)
        return torch.from_numpy(blurred).permute(2, 0, 1).contiguous()
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]


def _colours(image: Tensor, generator: Generator, config: PerturbConfig) -> Tensor:
    if _happens(config.jitter_probability, generator):
        strengths = ((adjust_brightness, config.brightness), (adjust_contrast, config.contrast), (adjust_saturation, config.saturation))
        steps = [(adjust, _uniform(max(0.0, 1 - strength), 1 + strength, generator)) for adjust, strength in strengths]
        steps.append((adjust_hue, _uniform(-config.hue, config.hue, generator)))
        for index in torch.randperm(len(steps), generator=generator).tolist():
            adjust, amount = steps[index]
            image = adjust(image, amount)
    if _happens(config.grayscale_probability, generator):
        image = adjust_saturation(image, 0.0)
    return image


def _blur(image: Tensor, generator: Generator, config: PerturbConfig) -> Tensor:
    if not _happens(config.blur_probability, generator):
        return image
    return gaussian_blur(image, _uniform(*config.blur_sigma_px, generator))


def _luma(image: Tensor) -> Tensor:
    """(3, H, W) -> (H, W)."""
    return torch.tensordot(torch.tensor(LUMA, dtype=image.dtype, device=image.device), image, dims=1)


def _happens(probability: float, generator: Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
