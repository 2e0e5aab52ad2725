"""Stage of training: shards -> checkpoint of the compact student. Run: python -m training.train_student --config FILE."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .config import load_config
from .loop import StudentTraining


def main(argv: list[str] | None = None) -> int:
    """Command line: start a run, or continue it when its folder holds a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m training.train_student", description=__doc__)
    parser.add_argument("--config", type=Path, help="YAML file with keys of training.config.StudentConfig")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key; repeatable")
    args = parser.parse_args(argv)
    validation = StudentTraining(load_config(args.config, args.set)).run()
    print(json.dumps(validation))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
