"""The command line that all training stages share: configuration in, run, figures out."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import fields
from pathlib import Path

from depth_anything_ros.errors import ConfigError, DepthAnythingError

from .config import Stage, TrainingConfig, load_config
from .distributed import this_process
from .loop import NotANumber, Training
from .weights import WeightsError

EPILOG = "Several GPUs: torchrun --nproc-per-node=N -m training.STAGE ... --set run.device=cuda. All keys: --keys."


def run_stage(stage: Stage, doc: str, argv: list[str] | None) -> int:
    """Run one stage; returns 0: done, 2: nothing can go on (the message says why), 130: stopped, and the same command goes on."""
    parser = argparse.ArgumentParser(description=doc, epilog=EPILOG)
    parser.add_argument("--config", type=Path, help="YAML file with sections of training.config.TrainingConfig")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one key; repeatable")
    parser.add_argument("--keys", action="store_true", help="print all keys with their values, and stop")
    args = parser.parse_args(argv)
    try:
        config = load_config(stage, args.config, args.set)
        if args.keys:
            print(_keys(config))
            return 0
        return _train(config)
    except (DepthAnythingError, WeightsError, NotANumber) as error:
        print(f"{stage}: {error}", file=sys.stderr)
        return 2


def _train(config: TrainingConfig) -> int:
    _check(config)
    with this_process(config.run.device) as process:
        training = Training(config, process)
        if process.world == 1:  # processes that stopped at different steps would wait for each other
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: setattr(training, "stop", True))
        figures = training.run()
        if process.writes:
            print(json.dumps({"checkpoint": str(training.checkpoint), "step": training.step, **figures}))
        return 130 if training.stop and training.step < config.run.steps else 0


def _check(config: TrainingConfig) -> None:
    """Refuse what contradicts the stage; the rest is checked where it is used."""
    if config.stage == "student" and not config.data.pseudo:
        raise ConfigError("a student learns from pseudo-labels: give data.pseudo (LABELS::IMAGES); without them train_teacher is the stage")
    if config.stage in ("encoder", "teacher") and config.data.pseudo:
        raise ConfigError("data.pseudo belongs to train_student and finetune_metric")
    if config.stage != "student" and config.network.frozen_encoder:
        raise ConfigError("network.frozen_encoder belongs to train_student")


def _keys(config: TrainingConfig) -> str:
    """Return all keys and values, a line each."""
    plain = config.to_dict()
    lines = [f"{section.name}.{key}={json.dumps(value)}" for section in fields(config)[1:] for key, value in plain[section.name].items()]
    return "\n".join(lines)
