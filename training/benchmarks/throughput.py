"""Images per second of the loader alone, of the loop on batches that are there already, and of both together; JSON.

Run: python -m training.benchmarks.throughput STAGE --config FILE --set ... [--batches N]. The run's folder is a temporary one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, get_args

import torch

from depth_anything_ros.errors import DepthAnythingError

from ..config import Stage, load_config
from ..data.batches import Batch, BatchMaker, batches
from ..distributed import this_process
from ..loop import Training

WARMUP = 3


def rate(given: Iterator[Batch], training: Training | None, count: int, device: torch.device) -> dict[str, float]:
    """Take `count` batches, and train on them if there is a training; return images per second and the share of time spent waiting."""
    images, waited_s, started = 0, 0.0, time.perf_counter()
    for _ in range(count):
        before = time.perf_counter()
        batch = next(given)
        waited_s += time.perf_counter() - before
        images += len(batch.names)
        if training:
            training.train_step([batch])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    spent_s = time.perf_counter() - started
    return {"images_per_s": round(images / spent_s, 2), "waiting_share": round(waited_s / spent_s, 4)}


def measure(training: Training, count: int) -> dict[str, Any]:
    """Measure the three rates of a run."""
    config, device = training.config, training.process.device

    def fresh(skip: int) -> Iterator[Batch]:
        maker = BatchMaker(config, training.labelled, training.pseudo)
        given = batches(maker, 0, 10 * count + 100, config.data.workers, device.type == "cuda")
        for _ in range(skip):
            next(given)
        return given

    loader = rate(fresh(WARMUP), None, count, device)
    cached = cycle([batch.map(lambda tensor: tensor.to(device)) for batch in islice(fresh(0), 4)])
    rate(cached, training, WARMUP, device)
    loop = rate(cached, training, count, device)
    together = rate(fresh(WARMUP), training, count, device)
    slower = min(loader["images_per_s"], loop["images_per_s"])
    share = round(together["images_per_s"] / slower, 3)
    return {"loader": loader["images_per_s"], "loop": loop["images_per_s"], "together": together, "together_of_slower": share}


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.benchmarks.throughput", description=__doc__)
    parser.add_argument("stage", choices=get_args(Stage))
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--batches", type=int, default=40)
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = load_config(args.stage, args.config, [*args.set, f"run.out={folder}", "run.tensorboard=false"])
            with this_process(config.run.device) as process:
                result = measure(Training(config, process), args.batches)
                device = process.device
    except DepthAnythingError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, {config.run.threads} threads"
    print(json.dumps({"stage": args.stage, "device": name, "batches": args.batches, "images_per_s": result, "config": config.to_dict()}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
