"""Several processes of one run, as `torchrun` starts them; one process needs nothing of this."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import nn

from depth_anything_ros.errors import ConfigError

VALIDATION_MAX = timedelta(hours=2)
"""How long processes wait for each other: one of them validates and saves while the others wait."""


@dataclass(frozen=True)
class Process:
    """This process among all of the run.

    Attributes:
        rank: 0 is the one that writes.
        world: number of processes.
        device: where its network is.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Return whether this process writes logs and checkpoints."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model as the loop calls it; gradients are averaged over the processes."""
        if self.world == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.world > 1:
            torch.distributed.barrier()


@contextmanager
def this_process(device: str) -> Iterator[Process]:
    """Join the processes that torchrun started, if it did.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: there is no such device; nothing else is taken in its place.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    if device == "cuda" and local >= torch.cuda.device_count():
        raise ConfigError(f"run.device is cuda, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices, not {local + 1}")
    if world > 1:
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=VALIDATION_MAX)
    if device == "cuda":
        torch.cuda.set_device(local)
    try:
        yield Process(rank, world, torch.device(device, local) if device == "cuda" else torch.device("cpu"))
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
