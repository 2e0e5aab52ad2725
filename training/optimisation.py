"""Optimiser, learning rate and averaged weights of a run."""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import OptimiserConfig
from .muon import Muon, is_orthogonal
from .networks import Network

COSINE_FLOOR = 0.002
"""The cosine schedule ends at this share of the learning rate."""


def make_optimiser(model: nn.Module, network: Network, config: OptimiserConfig) -> torch.optim.AdamW:
    """Return AdamW or Muon over what learns, in groups: encoder or the rest, and with weight decay or (biases, norms) without.

    Args:
        model: all that is trained.
        network: the depth network inside it, which knows what its encoder is.
        config: rates.
    """
    encoder = {id(parameter) for name, parameter in network.named_parameters() if network.is_encoder(name)}
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            orthogonal = config.name == "muon" and is_orthogonal(parameter)
            groups.setdefault((id(parameter) in encoder, parameter.ndim > 1, orthogonal), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "orthogonal": orthogonal,
            "weight_decay": config.weight_decay if decays else 0.0,
            "lr": config.learning_rate * (1 if in_encoder else config.decoder_factor),
        }
        for (in_encoder, decays, orthogonal), parameters in groups.items()
    ]
    optimiser = (Muon if config.name == "muon" else torch.optim.AdamW)(settings, betas=(0.9, 0.999), fused=True)
    for group in optimiser.param_groups:
        group["full_lr"] = group["lr"]
    return optimiser


def schedule_factor(step: int, steps: int, config: OptimiserConfig) -> float:
    """Return the factor on the learning rates at a step (0 is the first): warm-up, then falling until `steps`."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    progress = min(1.0, step / steps)
    return warmup * (1 - progress if config.schedule == "linear" else max(COSINE_FLOOR, 0.5 * (1 + math.cos(math.pi * progress))))


def set_learning_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Scale the full learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * factor


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights towards the model's; early on faster, so that the random start is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    means, values = average.state_dict().values(), model.state_dict().values()
    pairs = [(mean, value) for mean, value in zip(means, values, strict=True) if mean.is_floating_point()]
    torch._foreach_lerp_([mean for mean, _ in pairs], [value for _, value in pairs], 1 - decay)
