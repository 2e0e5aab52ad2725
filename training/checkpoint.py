"""Checkpoints: one safetensors file with weights, averaged weights, optimiser state and, as metadata, step and configuration."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingRecord:
    """What is stored beside the tensors: steps done, minutes run, configuration, data manifest, metrics."""

    step: int
    minutes: float
    config: dict[str, Any]
    data: dict[str, Any]
    validation: dict[str, float]


def save_checkpoint(path: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer | None, record: TrainingRecord) -> None:
    """Write the file under a temporary name, then rename it: a reader never sees half a checkpoint."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    for index, state in (optimiser.state_dict()["state"] if optimiser else {}).items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(
        {key: value.detach().contiguous().clone() for key, value in tensors.items()},
        temporary,
        {"record": json.dumps(record.__dict__)},
    )
    temporary.replace(path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], TrainingRecord]:
    """Return all tensors by their prefixed names, and the record."""
    with safe_open(path, framework="pt") as file:
        record = TrainingRecord(**json.loads(file.metadata()["record"]))
        names = file.keys()  # a method of its own: the file is no dict
        return {name: file.get_tensor(name) for name in names}, record


def load_weights(model: nn.Module, tensors: dict[str, Tensor], prefix: str = "average") -> None:
    """Load the weights under a prefix; every key must fit."""
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
