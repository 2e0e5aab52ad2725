"""Stage of training: checkpoint, or published Depth Anything weights -> ONNX file with its contract, checked against torch.

Run: python -m training.export RUN/checkpoint.safetensors --out depth_anything_ros/models/student_metric.onnx
or:  python -m training.export --pretrained depth_anything_v2_vits.pth --size 252x336 --out model.onnx
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors import SafetensorError
from torch import nn

from depth_anything_ros.contract import ModelContract, read_model_file, with_contract

from .checkpoint import TrainingRecord, load_weights, read_checkpoint
from .config import StudentConfig
from .contracts import student_contract
from .encoder import PATCH
from .export_pretrained import PUBLISHED, PretrainedError, architecture_from_text, export_pretrained, find_weights
from .model import SIZE_MULTIPLE, CompactStudent
from .weights import WeightsError

OPSET = 17
TOLERANCE = 1e-4
"""Largest relative difference between ONNX Runtime and torch."""


class ExportMismatch(RuntimeError):
    """The exported graph does not compute what the checkpoint does; do not ship it."""


def export_onnx(model: nn.Module, contract: ModelContract) -> bytes:
    """Export a network in evaluation mode, and check the result.

    Args:
        model: (N, 3, h, w) float32 -> (N, h, w) float32. Batch normalisation is folded into the convolutions.
        contract: put into the file.

    Returns:
        The bytes of the ONNX file; batch, height and width are free.

    Raises:
        ExportMismatch: ONNX Runtime and torch differ by more than TOLERANCE, at the contract's size or at another.
    """
    height, width = contract.input_sizes_hw[0]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the legacy exporter is deprecated; the new one writes larger graphs here
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, height, width),),
            buffer,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["depth"],
            dynamic_axes={"image": {0: "batch", 2: "height", 3: "width"}, "depth": {0: "batch", 1: "height", 2: "width"}},
            dynamo=False,
        )
    content = with_contract(buffer.getvalue(), contract)
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    for size_hw in ((height, width), (height, 2 * width), (height + SIZE_MULTIPLE, height)):
        _compare(model, content, size_hw)
    return content


def _compare(model: nn.Module, content: bytes, size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(1, 3, *size_hw)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image)).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    got = session.run(None, {"image": image})[0]
    difference = float((np.abs(got - expected) / expected).max())
    if not difference <= TOLERANCE:
        raise ExportMismatch(f"ONNX Runtime differs from torch by {difference:.2e} (relative) at {size_hw}; allowed: {TOLERANCE:.0e}")


def training_notes(record: TrainingRecord, commands: list[str]) -> dict[str, Any]:
    """Return what the contract says about the training: data, seed, steps, validation, commands; no paths."""
    config = {key: value for key, value in record.config.items() if key not in ("data", "validation", "out", "initial_weights")}
    return {
        "steps": record.step,
        "minutes": round(record.minutes, 1),
        "config": config,
        "data": record.data,
        "validation": record.validation,
        "commands": commands,
    }


def size_from_text(text: str) -> tuple[int, int]:
    """Return height and width in pixels from `HEIGHTxWIDTH`.

    Raises:
        argparse.ArgumentTypeError: another form, or a side that is no multiple of 14.
    """
    match = re.fullmatch(r"(\d{1,4})[xX](\d{1,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH in pixels, such as 252x336")
    height, width = int(match[1]), int(match[2])
    nearest = [max(1, round(side / PATCH)) * PATCH for side in (height, width)]
    if nearest != [height, width]:
        raise argparse.ArgumentTypeError(f"{text}: both sides must be multiples of {PATCH}; the nearest size is {nearest[0]}x{nearest[1]}")
    return height, width


def argument_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="checkpoint of the compact student")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--command", action="append", default=[], help="a command that made the checkpoint, for the record; repeatable")
    group = parser.add_argument_group("published weights")
    group.add_argument(
        "--pretrained",
        metavar="NAME_OR_FILE",
        help="official .pth, .safetensors beside its config.json, a folder with either, or a Hugging Face name",
    )
    group.add_argument("--size", metavar="HEIGHTxWIDTH", type=size_from_text, help="the network's input in pixels, multiples of 14, such as 252x336")
    group.add_argument("--resize", choices=("stretch", "letterbox"), help="how camera images are brought to that size (default: stretch)")
    group.add_argument(
        "--architecture", metavar="NETWORK", help=f"for files that do not say what they are: {', '.join(PUBLISHED)}, or a JSON file with all values"
    )
    group.add_argument("--max-depth-m", type=float, help="with --architecture: a metric network's largest depth, 20 (indoor) or 80 (outdoor)")
    group.add_argument("--licence", help="SPDX name of the weights' licence, for files without an official name")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Export one file; returns 0, or 2 where there is nothing to export or it cannot be written."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    _check_arguments(parser, args)
    try:
        content = _student(args) if args.pretrained is None else _pretrained(args)
        _write(args.out, content)
    except (OSError, ExportMismatch, PretrainedError, WeightsError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(content) / 1e6:.2f} MB, sha256 {read_model_file(args.out).sha256}")
    return 0


def _check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what cannot work before the work begins."""
    if (args.checkpoint is None) == (args.pretrained is None):
        parser.error("give either a checkpoint of the student, or --pretrained NAME_OR_FILE")
    for name in ("size", "resize", "architecture", "max_depth_m", "licence"):
        if args.checkpoint and getattr(args, name) is not None:
            parser.error(f"--{name.replace('_', '-')} goes with --pretrained; the student's checkpoint says it itself")
    if args.pretrained and args.size is None:
        parser.error("--pretrained needs --size HEIGHTxWIDTH; 252x336 is fast, 518x518 is the size of its training")
    if args.pretrained and args.command:
        parser.error("--command goes with a checkpoint of the student")
    if args.max_depth_m is not None and args.architecture is None:
        parser.error("--max-depth-m goes with --architecture")
    if args.out.is_dir() or not args.out.parent.is_dir():
        parser.error(
            f"--out {args.out}: {'is a folder; give the name of a file' if args.out.is_dir() else 'its folder does not exist; make it first'}"
        )


def _student(args: argparse.Namespace) -> bytes:
    try:
        tensors, record = read_checkpoint(args.checkpoint)
    except (SafetensorError, TypeError, KeyError) as error:  # not its format, no record, another record
        raise WeightsError(f"'{args.checkpoint}' is no checkpoint of the student; published weights are given by --pretrained") from error
    model = CompactStudent().eval()
    load_weights(model, tensors)
    return export_onnx(model, student_contract(StudentConfig(**record.config), training_notes(record, args.command)))


def _pretrained(args: argparse.Namespace) -> bytes:
    architecture = architecture_from_text(args.architecture, args.max_depth_m) if args.architecture else None
    content, contract = export_pretrained(find_weights(args.pretrained), args.size, args.resize or "stretch", architecture, args.licence)
    if contract.licence == "unknown":
        print(
            "export: warning: nothing says which licence these weights have; find out before you use or share them, and say it by --licence",
            file=sys.stderr,
        )
    difference = contract.training["difference_to_torch"]
    print(f"{contract.name}: {contract.output_kind}, licence {contract.licence}, differs from torch by {difference:.1e} of the output's range")
    return content


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename: a file under its own name is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit(main())
