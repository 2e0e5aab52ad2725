"""Configuration of a training run: one frozen dataclass, overridden by a YAML file and by --set key=value."""

from __future__ import annotations

import typing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from depth_anything_ros.errors import ConfigError


@dataclass(frozen=True)
class StudentConfig:
    """Everything that decides a run besides the data's content.

    Attributes:
        data: folder of training shards.
        validation: folder of shards of other scenes; hyperparameters are chosen on it.
        out: folder for checkpoints, log and records.
        initial_weights: checkpoint to start from (its averaged weights); empty: random.
        seed: of weights, batches and augmentation.
        height: of the training images in pixels, a multiple of 32; labels are scaled so that the same scene has the same
            label at every training height (see `canonical_focal_px`).
        batch_pixels: pixels per batch; the number of images follows from their size.
        steps, max_minutes: the learning rate falls to 0 at whichever comes first; pauses and restarts count only while running.
        learning_rate, weight_decay, warmup_steps, clip_norm: of AdamW.
        ema_decay: of the averaged weights, which are the ones exported.
        affine_weight, gradient_weight, beyond_weight: of the losses besides SiLog, which has 1.
        canonical_focal_px: focal length of the canonical camera at an image height of `canonical_height` pixels.
        log_every, validate_every: steps.
        checkpoint_minutes: time between checkpoints.
        threads: of torch.
    """

    data: str = "data/train"
    validation: str = "data/val"
    out: str = "runs/student"
    initial_weights: str = ""
    seed: int = 0
    height: int = 192
    batch_pixels: int = 16 * 192 * 256
    steps: int = 20_000
    max_minutes: float = 1e9
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    affine_weight: float = 1.0
    gradient_weight: float = 0.5
    beyond_weight: float = 0.3
    canonical_focal_px: float = 300.0
    canonical_height: int = 288
    log_every: int = 50
    validate_every: int = 500
    checkpoint_minutes: float = 3.0
    threads: int = 2

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def load_config(path: Path | None, overrides: list[str]) -> StudentConfig:
    """Read a YAML file of `StudentConfig` keys, then apply `key=value` overrides.

    Raises:
        ConfigError: an unknown key or a value of the wrong type.
    """
    values: dict[str, Any] = yaml.safe_load(path.read_text()) or {} if path else {}
    for override in overrides:
        key, _, text = override.partition("=")
        values[key] = yaml.safe_load(text)
    types = typing.get_type_hints(StudentConfig)
    known = {field.name: types[field.name] for field in fields(StudentConfig)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"unknown training keys: {', '.join(unknown)}; known are {', '.join(known)}")
    try:
        return StudentConfig(**{key: known[key](value) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training configuration: {error}") from error
