"""The one training loop, for all stages: batches -> losses -> weights; logs, validates, checkpoints, resumes, stops on NaN."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections import Counter
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from depth_anything_ros.errors import ConfigError

from .checkpoint import (
    TrainingRecord,
    git_revision,
    load_optimiser,
    load_weights,
    origin,
    read_checkpoint,
    save_checkpoint,
    weight_files,
    write_json,
)  # fmt: skip
from .config import TrainingConfig
from .data.batches import Batch, BatchMaker, batches
from .data.classes import CLASSES
from .data.open_sources import open_labelled, open_pseudo
from .distributed import Process
from .networks import build_network, frozen_encoder, load_initial
from .objectives import Losses, MetricObjective, Objective, RelativeObjective, SemanticEncoder, SemanticObjective
from .optimisation import make_optimiser, schedule_factor, set_learning_rates, update_average
from .validation import validate_depth, validate_semantics
from .watch import Watch

_log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.safetensors"
BAD_BATCH = "not_a_number.safetensors"


class NotANumber(RuntimeError):
    """The loss is no longer finite; the batch is saved, and the last checkpoint is the last good one."""


class Training:
    """One run in one folder: `run` starts it, or continues from its checkpoint."""

    def __init__(self, config: TrainingConfig, process: Process | None = None) -> None:
        """Open the data, build the network, load what the run starts from, and write its configuration into its folder.

        Raises:
            ConfigError, DatasetError: something that the configuration names is not there or does not fit.
        """
        self.config, self.process = config, process or Process(0, 1, torch.device("cpu"))
        self.out, self.stop = Path(config.run.out), False
        torch.set_num_threads(config.run.threads)
        torch.manual_seed(config.run.seed)
        self.labelled, self.pseudo = open_labelled(config.data.labelled), open_pseudo(config.data.pseudo)
        self._validation = open_labelled(config.data.validation) if config.data.validation else None
        sources = {"labelled": self.labelled, "pseudo": self.pseudo, "validation": self._validation}
        self._data = {role: source.manifest() if source else None for role, source in sources.items()}
        self.step, self.minutes, self.validation, self.skipped = 0, 0.0, dict[str, float](), Counter[str]()
        self._build(resumes=self.checkpoint.exists())
        if self.checkpoint.exists():
            self._resume()
        else:
            self._origin = origin(config, self.process.world)

    @property
    def checkpoint(self) -> Path:
        """The run's newest checkpoint."""
        return self.out / CHECKPOINT

    def run(self) -> dict[str, float]:
        """Train to the last step, or until `stop` is set; return the last validation.

        Raises:
            NotANumber: the loss is not finite.
        """
        run, accumulate = self.config.run, self.config.optimiser.accumulate
        if self.step == run.steps:  # a finished run is left as it is, to the byte
            return self.validation
        watch = self._open_folder() if self.process.writes else None
        maker = BatchMaker(self.config, self.labelled, self.pseudo, self.process.rank, self.process.world)
        coming = batches(maker, self.step * accumulate, run.steps * accumulate, self.config.data.workers, self.process.device.type == "cuda")
        bar = tqdm(initial=self.step, total=run.steps, unit="step", mininterval=2, disable=None if self.process.writes else True)
        tally = _Tally()
        with closing(coming), bar:
            while self.step < run.steps and not self.stop:
                started = time.monotonic()
                given = [next(coming) for _ in range(accumulate)]
                waited_s = time.monotonic() - started
                tally.add(self.train_step(given), sum(len(batch.names) for batch in given), waited_s, time.monotonic() - started)
                self.minutes += (time.monotonic() - started) / 60
                bar.update()
                if watch and (self._due(run.log_every) or self.step == run.steps):
                    watch.log(self.step, "train", {**tally.flush(), "minutes": round(self.minutes, 3), "skipped": dict(self.skipped)})
                if self._due(run.validate_every) or self.step == run.steps:
                    self.validate(watch)
                if self._due(run.save_every) and self.step < run.steps:
                    self.save()
        self.save()
        if watch:
            watch.close()
        self.process.wait()
        return self.validation

    def _open_folder(self) -> Watch:
        """Make the run's folder, clear what a killed run left, and open the log."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run.out: cannot make the folder '{self.out}': {error}") from error
        for left in self.out.glob("checkpoint.*.tmp"):
            left.unlink()
        write_json(self.out / "config.json", self.config.to_dict())
        return Watch(self.out, self.step, self.config.run.tensorboard)

    def train_step(self, given: list[Batch]) -> dict[str, float]:
        """Do one optimiser step over the batches that it accumulates; return the mean losses.

        Raises:
            NotANumber: a loss is not finite. The batch is in the run's folder.
        """
        self._model.train()
        factor = schedule_factor(self.step, self.config.run.steps, self.config.optimiser)
        set_learning_rates(self._optimiser, factor)
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for number, batch in enumerate(given, 1):
            self._count_skipped(batch)
            losses = self._backward(batch, 1 / len(given), last=number == len(given))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(given)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self.config.optimiser.clip_norm)
        if not torch.isfinite(norm):
            raise NotANumber(self._keep(given[-1], {"gradient_norm": norm}))
        self._optimiser.step()
        self.step += 1
        if self._average is not None:
            update_average(self._average, self._model, self.config.optimiser.average_decay, self.step)
        return {**sums, "gradient_norm": float(norm), "learning_rate": self.config.optimiser.learning_rate * factor}

    def validate(self, watch: Watch | None = None) -> None:
        """Measure the weights that would be used now; the writing process alone does it."""
        if self._validation is None or not self.process.writes:
            return
        model = self._average if self._average is not None else self._model
        if isinstance(self._objective, SemanticObjective):
            self.validation, panel = validate_semantics(model, self._objective, self.config, self._validation, self.process.device), None
        else:
            self.validation, panel = validate_depth(model, self.config, self._validation, self.process.device)
        if watch:
            watch.log(self.step, "validation", self.validation)
            if panel is not None:
                watch.show(self.step, panel)

    def save(self) -> None:
        """Write the checkpoint and, beside it, its record."""
        if self.process.writes:
            record = TrainingRecord(self.step, round(self.minutes, 4), self.config.to_dict(), self._data, self._origin, self.validation)
            save_checkpoint(self.checkpoint, self._model, self._average, self._optimiser, record)

    def _build(self, resumes: bool) -> None:
        config, device = self.config, self.process.device
        network = build_network(config)
        if config.network.initial and not resumes:
            load_initial(network, Path(config.network.initial), config.network.initial_parts)
        for height, width in config.data.sizes_hw:
            if height % network.size_multiple or width % network.size_multiple:
                raise ConfigError(f"data.sizes_hw has {height}x{width}; this network needs multiples of {network.size_multiple}")
        self._objective: Objective | SemanticObjective
        self._model: Any = network
        if config.stage == "encoder":
            self._model, self._objective = SemanticEncoder(network, len(CLASSES)), SemanticObjective(network.token_px, len(CLASSES))
        elif config.stage == "metric":
            self._objective = MetricObjective(config)
        else:
            frozen = frozen_encoder(config)
            self._objective = RelativeObjective(config, frozen.to(device) if frozen else None)
        self._model = self._model.to(device, memory_format=torch.channels_last)
        self._average = copy.deepcopy(self._model).eval().requires_grad_(False) if config.optimiser.average_decay else None
        self._optimiser = make_optimiser(self._model, network, config.optimiser)
        self._wrapped: Any = self.process.wrap(self._model)
        self._called = torch.compile(self._wrapped) if config.run.compile else self._wrapped

    def _backward(self, batch: Batch, weight: float, last: bool) -> Losses:
        """Compute the losses of one batch and add its gradients; processes exchange them with the last batch of a step only."""
        batch = batch.map(lambda tensor: tensor.to(self.process.device, non_blocking=True))
        with nullcontext() if last or self.process.world == 1 else self._wrapped.no_sync():
            with torch.autocast(self.process.device.type, torch.bfloat16, enabled=self.config.run.precision == "bf16"):
                losses = self._objective(self._called, batch)
            if not torch.isfinite(losses["total"]):
                raise NotANumber(self._keep(batch, losses))
            (losses["total"] * weight).backward()
        return {name: value.detach() for name, value in losses.items()}

    def _keep(self, batch: Batch, losses: Losses) -> str:
        """Save the batch that gave no number; return what to say."""
        path = self.out / f"rank{self.process.rank}_{BAD_BATCH}"
        save_file({name: tensor.contiguous().cpu() for name, tensor in batch.tensors().items()}, path, {"names": "\n".join(batch.names)})
        shown = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        return f"losses at step {self.step}: {shown}; the batch is in '{path}', the last checkpoint is good: lower the learning rate or mend the data"

    def _resume(self) -> None:
        """Take over the checkpoint.

        Raises:
            ConfigError: it is of another configuration, other data, other weight files or another number of processes.
        """
        tensors, record = read_checkpoint(self.checkpoint)
        other = self.config.differences(record.config)
        other += [f"data.{role}'s content" for role, manifest in self._data.items() if json.loads(json.dumps(manifest)) != record.data[role]]
        other += [f"{key}'s content" for key, digest in weight_files(self.config).items() if digest != record.origin["files"].get(key)]
        if record.origin["processes"] != self.process.world:
            other.append(f"the number of processes ({record.origin['processes']}, now {self.process.world})")
        if other:
            raise ConfigError(f"'{self.out}' holds a run with other values of {', '.join(other)}; choose another run.out, or the same values")
        load_weights(self._model, tensors, "model")
        if self._average is not None:
            load_weights(self._average, tensors, "average")
        load_optimiser(self._optimiser, tensors)
        self.step, self.minutes, self.validation, self._origin = record.step, record.minutes, record.validation, record.origin
        if self.step < self.config.run.steps:
            self._origin["resumed_by"] = [*self._origin.get("resumed_by", []), git_revision()]

    def _count_skipped(self, batch: Batch) -> None:
        """Count by reason what could not be read; the first of each reason is shown."""
        for reason, message in batch.skipped:
            if not self.skipped[reason]:
                _log.warning("skipped %s; more with this reason are counted in the log only", message)
            self.skipped[reason] += 1

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0


class _Tally:
    """Means of what the steps since the last flush gave."""

    def __init__(self) -> None:
        self._sums, self._steps = Counter[str](), 0
        self._images, self._waited_s, self._spent_s = 0, 0.0, 0.0

    def add(self, values: dict[str, float], images: int, waited_s: float, spent_s: float) -> None:
        for name, value in values.items():
            self._sums[name] += value  # type: ignore[assignment]
        self._steps, self._images = self._steps + 1, self._images + images
        self._waited_s, self._spent_s = self._waited_s + waited_s, self._spent_s + spent_s

    def flush(self) -> dict[str, float]:
        means = {name: round(value / self._steps, 7) for name, value in self._sums.items()}
        rates = {"images_per_s": round(self._images / self._spent_s, 2), "waiting_share": round(self._waited_s / self._spent_s, 4)}
        self.__init__()  # type: ignore[misc]
        return {**means, **rates}
