"""Build a model's TensorRT engine ahead of time, on the machine that will run it, and check it: what `configure` does at the first start."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from .config import PARAMETERS, RuntimeConfig
from .engines import BuildWatch, open_engine, prepare_engine
from .errors import DepthAnythingError

OPTIONS = ("self_check", *(name for name in PARAMETERS if name.startswith("tensorrt.")))
"""Parameters that are options here; `tensorrt.workspace_mib` is `--workspace-mib`."""


def main(argv: list[str] | None = None) -> int:
    """Build one model's engine; returns 0, or 2 where it cannot be built or used."""
    args = _parser().parse_args(argv)
    started_s = time.monotonic()
    try:
        values = {"engine": "tensorrt", "model": str(args.model), **{name: getattr(args, name) for name in OPTIONS}}
        config = RuntimeConfig().updated(values)
        prepare_engine(config, BuildWatch(lambda line: print(line, file=sys.stderr)))
        engine = open_engine(config)
    except DepthAnythingError as error:
        print(f"build_engine: {error}", file=sys.stderr)
        return 2
    result = {"model": engine.contract.name, "platform": engine.platform, "self_check": engine.self_check, **engine.details()}
    engine.close()
    print(json.dumps({**result, "seconds": round(time.monotonic() - started_s, 1)}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m depth_anything_ros.build_engine", description=__doc__)
    parser.add_argument("model", type=Path, help="ONNX model with its contract")
    for name in OPTIONS:
        parameter = PARAMETERS[name]
        option = "--" + name.removeprefix("tensorrt.").replace("_", "-")
        default = "" if parameter.default == "" else f" (default: {parameter.default})"
        parser.add_argument(option, dest=name, type=parameter.type, default=parameter.default, help=parameter.text + default)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
