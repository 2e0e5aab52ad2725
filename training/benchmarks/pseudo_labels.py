"""Pseudo-labels per second with 1, 2, ... workers, start of the processes included and apart; JSON.

Run: python -m training.benchmarks.pseudo_labels IMAGES --teacher MODEL.onnx [--workers 1 2].
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from depth_anything_ros.contract import read_model_file

from ..data.teacher import LabelJob
from ..make_pseudo_labels import find_shards, run_here


def measure(images: Path, teacher: Path, workers: int) -> dict[str, float]:
    """Label all shards; the steady rate counts from the first finished shard of every worker on."""
    shards = find_shards([images])
    with tempfile.TemporaryDirectory() as folder:
        file = read_model_file(teacher)
        job = LabelJob(folder, str(teacher.resolve()), file.sha256, "benchmark", "network")
        started, ends, labels = time.perf_counter(), list[float](), list[int]()
        for record in run_here(shards, job, workers):
            ends.append(time.perf_counter() - started)
            labels.append(record["labels"])
    steady = sum(labels[workers:]) / (ends[-1] - ends[workers - 1]) if len(ends) > workers else float("nan")
    return {"labels": sum(labels), "shards": len(labels), "labels_per_s": round(sum(labels) / ends[-1], 2), "steady_labels_per_s": round(steady, 2)}


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.benchmarks.pseudo_labels", description=__doc__)
    parser.add_argument("images", type=Path, help="folder of tar shards or of images")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args(argv)
    rates = {workers: measure(args.images, args.teacher, workers) for workers in args.workers}
    first = rates[args.workers[0]]["steady_labels_per_s"]
    speed_up = {workers: round(row["steady_labels_per_s"] / first, 2) for workers, row in rates.items()}
    print(json.dumps({"workers": rates, "speed_up": speed_up}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
