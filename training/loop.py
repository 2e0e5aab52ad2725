"""The training loop: batches -> losses -> weights; logs, averages, validates, checkpoints, resumes, stops on NaN."""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .checkpoint import TrainingRecord, load_optimiser, load_weights, read_checkpoint, save_checkpoint
from .config import StudentConfig
from .data.labelled import Batch, BatchSource, prefetch, validation_batches
from .data.shards import manifest
from .losses import affine_invariant_loss, beyond_range_loss, gradient_matching_loss, silog_loss
from .metrics import align_disparity, compare_depth
from .model import MAX_DEPTH_M, CompactStudent

FAR_M = 0.8 * MAX_DEPTH_M
"""Canonical depth from which on a surface is treated as sky: 'at least this far'."""


class NotANumber(RuntimeError):
    """The loss is no longer finite; resume from the last checkpoint with a lower learning rate."""


def student_losses(log_depth: Tensor, depth_canonical_m: Tensor, config: StudentConfig) -> dict[str, Tensor]:
    """Compute the losses of a batch; `total` is their weighted sum.

    Args:
        log_depth: (N, h, w) predicted log canonical metres.
        depth_canonical_m: (N, h, w) labels; +Inf = sky, NaN = unknown.
        config: the weights.
    """
    far = depth_canonical_m >= FAR_M
    near = (depth_canonical_m > 0) & ~far
    log_target = torch.log(torch.where(near, depth_canonical_m, 1.0))
    disparity_target = torch.where(near, 1 / depth_canonical_m, 0.0)
    losses = {
        "silog": silog_loss(log_depth, log_target, near),
        "affine": affine_invariant_loss(torch.exp(-log_depth.clamp(min=-4)), disparity_target, near | far),
        "gradient": gradient_matching_loss(log_depth, log_target, near),
        "beyond": beyond_range_loss(log_depth, math.log(FAR_M), far),
    }
    losses["total"] = losses["silog"] + config.affine_weight * losses["affine"]
    losses["total"] = losses["total"] + config.gradient_weight * losses["gradient"] + config.beyond_weight * losses["beyond"]
    return losses


class StudentTraining:
    """One run in one folder: `run` starts it or continues from its last checkpoint."""

    def __init__(self, config: StudentConfig) -> None:
        """Build the network and write the resolved configuration into the run's folder."""
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.out = config, Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "config.json").write_text(json.dumps(config.as_dict(), indent=1))
        self.model: nn.Module = CompactStudent().to(memory_format=torch.channels_last)
        if config.initial_weights:
            load_weights(self.model, read_checkpoint(Path(config.initial_weights))[0])
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimiser = self._optimiser()
        self.step, self.minutes, self.validation = 0, 0.0, dict[str, float]()
        self.focal = config.canonical_focal_px * config.height / config.canonical_height
        if self.checkpoint_path.exists():
            self._resume()

    @property
    def checkpoint_path(self) -> Path:
        """The run's newest checkpoint."""
        return self.out / "checkpoint.safetensors"

    def run(self) -> dict[str, float]:
        """Train to the end of the schedule; return the last validation.

        Raises:
            NotANumber: the loss is not finite. The checkpoint is the last good one.
        """
        config = self.config
        source = BatchSource(Path(config.data), config.seed, config.height, config.batch_pixels, self.focal)
        bar = tqdm(initial=self.step, total=config.steps, unit="step", mininterval=10)
        saved, since_log = time.monotonic(), list[dict[str, float]]()
        for batch in prefetch(source, self.step, config.steps):
            started = time.monotonic()
            since_log.append(self.train_step(batch))
            if self.step % config.log_every == 0:
                self._log({name: float(np.mean([losses[name] for losses in since_log])) for name in since_log[0]})
                since_log = []
            if self.step % config.validate_every == 0:
                self.validate()
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
            self.minutes += (time.monotonic() - started) / 60
            bar.update()
            if self._progress() >= 1:
                break
        self.validate()
        self.save()
        return self.validation

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Do one optimiser step; return the losses."""
        self.model.train()
        rate = self._learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        losses = student_losses(self.model.log_depth(batch.image), batch.depth_canonical_m, self.config)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not np.isfinite(values["total"]):
            raise NotANumber(f"losses {values} at step {self.step}; learning rate {rate:.2e}")
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return values

    @torch.no_grad()
    def validate(self) -> None:
        """Measure the averaged weights on the validation shards: aligned and metric AbsRel and delta1."""
        rows: list[list[float]] = []
        for batch in validation_batches(Path(self.config.validation), self.config.height, self.focal):
            depths = self.average(batch.image).double().numpy()
            for depth, label in zip(depths, batch.depth_canonical_m.double().numpy(), strict=True):
                mask = (label > 0) & (label < FAR_M)
                aligned = compare_depth(align_disparity(1 / depth, label, mask, FAR_M), label, mask)
                metric = compare_depth(depth, label, mask)
                rows.append([aligned.abs_rel, aligned.delta1, metric.abs_rel, metric.delta1])
        if rows:
            names = ("abs_rel", "delta1", "metric_abs_rel", "metric_delta1")
            self.validation = dict(zip(names, np.mean(rows, axis=0).round(4).tolist(), strict=True))
            self._log({"validation": self.validation})

    def save(self) -> None:
        """Write the checkpoint and, beside it, its record."""
        record = TrainingRecord(self.step, self.minutes, self.config.as_dict(), manifest(Path(self.config.data)), self.validation)
        save_checkpoint(self.checkpoint_path, self.model, self.average, self.optimiser, record)
        (self.out / "record.json").write_text(json.dumps(record.__dict__, indent=1))

    def _resume(self) -> None:
        tensors, record = read_checkpoint(self.checkpoint_path)
        load_weights(self.model, tensors, "model")
        load_weights(self.average, tensors, "average")
        load_optimiser(self.optimiser, tensors)
        self.step, self.minutes, self.validation = record.step, record.minutes, record.validation

    def _optimiser(self) -> torch.optim.AdamW:
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.99), fused=True)

    def _progress(self) -> float:
        return max(self.step / self.config.steps, self.minutes / self.config.max_minutes)

    def _learning_rate(self) -> float:
        warmup = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
        return self.config.learning_rate * warmup * max(0.002, 0.5 * (1 + math.cos(math.pi * min(1.0, self._progress()))))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        means, values = self.average.state_dict().values(), self.model.state_dict().values()
        floating = [(mean, value) for mean, value in zip(means, values, strict=True) if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floating], [value for _, value in floating], 1 - decay)

    def _log(self, values: dict[str, Any]) -> None:
        line = {"step": self.step, "minutes": round(self.minutes, 2), "lr": self._learning_rate(), **values}
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
