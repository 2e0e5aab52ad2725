"""Checkpoints: one safetensors file with weights, averaged weights and optimiser state; its record is inside and, as JSON, beside it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from depth_anything_ros.errors import ConfigError

from .config import TrainingConfig


@dataclass(frozen=True)
class TrainingRecord:
    """What a checkpoint says about itself.

    Attributes:
        step: optimiser steps done.
        minutes: that they took.
        config: the full configuration, as `TrainingConfig.to_dict` gives it.
        data: manifests of the sources by their role.
        origin: git revision, versions, and the hashes of the files that the run started from.
        validation: last figures.
    """

    step: int
    minutes: float
    config: dict[str, Any]
    data: dict[str, Any]
    origin: dict[str, Any]
    validation: dict[str, float]


def save_checkpoint(path: Path, model: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer | None, record: TrainingRecord) -> None:
    """Write the file, then its record with the file's hash beside it, each under a temporary name that is renamed."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()} if average else {}
    for index, state in (optimiser.state_dict()["state"] if optimiser else {}).items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    stored = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    save_file(stored, temporary, {"record": json.dumps(asdict(record))})
    digest = sha256_of(temporary)
    temporary.replace(path)
    write_json(path.with_suffix(".json"), {"file": path.name, "sha256": digest, **asdict(record)})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], TrainingRecord]:
    """Return all tensors by their prefixed names, and the record.

    Raises:
        ConfigError: the file is damaged, or no checkpoint of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = TrainingRecord(**json.loads(file.metadata()["record"]))
            names = file.keys()  # a method of its own: the file is no dict
            return {name: file.get_tensor(name) for name in names}, record
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"'{path}' is no checkpoint of this version of training ({error}); published weights are given by --pretrained or network.initial"
        ) from error


def is_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint of this package, not a published weight file."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return "record" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def served_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that are used after training: the averaged ones where there are any."""
    prefix = "average." if any(name.startswith("average.") for name in tensors) else "model."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load_weights(model: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Load the weights under a prefix (`model` or `average`); every key must fit."""
    model.load_state_dict({key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{prefix}.")})


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the optimiser's moments and step counts, each in its parameter's memory layout (the fused step relies on it)."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".")
            parameter = parameters[int(index)]
            restored = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
            state.setdefault(int(index), {})[name] = restored.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def origin(config: TrainingConfig, processes: int) -> dict[str, Any]:
    """Describe what a run started from: git revision of this checkout, version of torch, processes, and hashes of weight files."""
    return {"git": git_revision(), "torch": torch.__version__, "processes": processes, "files": weight_files(config)}


def weight_files(config: TrainingConfig) -> dict[str, str]:
    """Return the SHA-256 of the weight files that a configuration names and that are there, by their keys."""
    named = {f"network.{key}": getattr(config.network, key) for key in ("initial", "frozen_encoder")}
    return {key: sha256_of(Path(file)) for key, file in named.items() if file and Path(file).is_file()}


def git_revision() -> str:
    """Return the revision of the checkout, with `-dirty` where files differ from it; `unknown` outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    temporary.replace(path)
