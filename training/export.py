"""Stage of training: checkpoint, or published Depth Anything weights -> ONNX file with its contract, checked against torch.

Run: python -m training.export RUN/checkpoint.safetensors --out depth_anything_ros/models/student_metric.onnx
or:  python -m training.export --pretrained depth_anything_v2_vits.pth --size 252x336 --out model.onnx
Both with --precision fp16 or int8 and --calibration FOLDER; see docs/precision.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from depth_anything_ros.contract import read_model_file
from depth_anything_ros.errors import ConfigError, EngineError

from .calibration import CalibrationImages, PrecisionError, find_images
from .encoder import PATCH
from .export_checkpoint import ExportMismatch, export_checkpoint
from .export_pretrained import PUBLISHED, PretrainedError, architecture_from_text, export_pretrained, find_weights
from .golden import with_golden
from .half_weights import with_half_weights
from .precision import CALIBRATION_METHODS, FLOAT_GROUPS, PRECISIONS, contract_of, convert, require_modelopt
from .weights import WeightsError


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


def groups_from_text(text: str) -> tuple[str, ...]:
    """Return the groups of `FLOAT_GROUPS` that a comma-separated text names; `none` names none.

    Raises:
        argparse.ArgumentTypeError: there is no such group.
    """
    groups = () if text == "none" else tuple(text.split(","))
    unknown = [group for group in groups if group not in FLOAT_GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of {', '.join(FLOAT_GROUPS)}, none")
    return groups


def argument_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="checkpoint of a training stage")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--command", action="append", default=[], help="a command that made the checkpoint, for the record; repeatable")
    parser.add_argument(
        "--size",
        metavar="HEIGHTxWIDTH",
        type=size_from_text,
        help="input of a Depth Anything network in pixels, multiples of 14, such as 252x336 (default: a checkpoint's training size)",
    )
    parser.add_argument("--resize", choices=("stretch", "letterbox"), help="how camera images are brought to that size (default: stretch)")
    group = parser.add_argument_group("published weights")
    group.add_argument(
        "--pretrained",
        metavar="NAME_OR_FILE",
        help="official .pth, .safetensors beside its config.json, a folder with either, or a Hugging Face name",
    )
    group.add_argument(
        "--architecture", metavar="NETWORK", help=f"for files that do not say what they are: {', '.join(PUBLISHED)}, or a JSON file with all values"
    )
    group.add_argument("--max-depth-m", type=float, help="with --architecture: a metric network's largest depth, 20 (indoor) or 80 (outdoor)")
    group.add_argument("--licence", help="SPDX name of the weights' licence, for files without an official name")
    _add_precision(parser.add_argument_group("precision"))
    return parser


def _add_precision(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the network; input and output stay float32 (default: %(default)s)")
    group.add_argument("--half-weights", action="store_true", help="fp32: store the weights in half precision, which halves the file")
    group.add_argument(
        "--calibration", metavar="FOLDER", type=Path, help="fp16, int8: pictures that set the ranges; on every fourth of them the loss is measured"
    )
    group.add_argument("--calibration-method", choices=CALIBRATION_METHODS, help="int8: whole range, or without rare large values (default: max)")
    group.add_argument(
        "--keep-float",
        metavar="GROUPS",
        type=groups_from_text,
        help=f"int8: what stays float32: a list of {','.join(FLOAT_GROUPS)}, or none (default: all four)",
    )


def main(argv: list[str] | None = None) -> int:
    """Export one file; returns 0, or 2 where there is nothing to export or it cannot be written."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    _check_arguments(parser, args)
    try:
        images = None if args.precision == "fp32" else _ready_to_convert(args.calibration)
        content = _checkpoint(args) if args.pretrained is None else _pretrained(args)
        if args.half_weights:
            content = with_half_weights(content, contract_of(content).input_sizes_hw[0])
        content = with_golden(content if images is None else _converted(args, content, images))
        _write(args.out, content)
    except (OSError, ConfigError, EngineError, ExportMismatch, PrecisionError, PretrainedError, WeightsError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(content) / 1e6:.2f} MB, sha256 {read_model_file(args.out).sha256}")
    return 0


def _check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what cannot work before the work begins."""
    if (args.checkpoint is None) == (args.pretrained is None):
        parser.error("give either a checkpoint, or --pretrained NAME_OR_FILE")
    for name in ("architecture", "max_depth_m", "licence"):
        if args.checkpoint and getattr(args, name) is not None:
            parser.error(f"--{name.replace('_', '-')} goes with --pretrained; a checkpoint says it itself")
    if args.pretrained and args.size is None:
        parser.error("--pretrained needs --size HEIGHTxWIDTH; 252x336 is fast, 518x518 is the size of its training")
    if args.pretrained and args.command:
        parser.error("--command goes with a checkpoint")
    if args.max_depth_m is not None and args.architecture is None:
        parser.error("--max-depth-m goes with --architecture")
    _check_precision(parser, args)
    if args.out.is_dir() or not args.out.parent.is_dir():
        parser.error(
            f"--out {args.out}: {'is a folder; give the name of a file' if args.out.is_dir() else 'its folder does not exist; make it first'}"
        )


def _check_precision(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.precision != "fp32" and args.calibration is None:
        parser.error(f"--precision {args.precision} needs --calibration FOLDER: pictures of the places where the model will be used")
    if args.precision == "fp32" and args.calibration is not None:
        parser.error("--calibration goes with --precision fp16 or int8")
    if args.precision != "fp32" and args.half_weights:
        parser.error("--half-weights goes with --precision fp32; the others choose the type of every weight themselves")
    for name in ("calibration_method", "keep_float"):
        if args.precision != "int8" and getattr(args, name) is not None:
            parser.error(f"--{name.replace('_', '-')} goes with --precision int8")


def _checkpoint(args: argparse.Namespace) -> bytes:
    content, contract = export_checkpoint(args.checkpoint, args.size, args.resize or "stretch", args.command)
    print(f"{contract.name}: {contract.output_kind}")
    return content


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


def _ready_to_convert(folder: Path) -> CalibrationImages:
    """Find out before the export whether what comes after it can work."""
    require_modelopt()
    return find_images(folder)


def _converted(args: argparse.Namespace, content: bytes, images: CalibrationImages) -> bytes:
    keep_float = FLOAT_GROUPS if args.keep_float is None else args.keep_float
    print(f"{args.precision}: ranges from {len(images.used)} pictures, loss on {len(images.held_out)} others; this takes a while")
    content, record = convert(content, args.precision, images, args.calibration_method or CALIBRATION_METHODS[0], keep_float)
    loss = record["loss"]
    print(
        f"{args.precision} against fp32: AbsRel {loss['abs_rel_mean']:.4f} mean, {loss['abs_rel_max']:.4f} on the worst picture; "
        f"{loss['aligned_abs_rel_mean']:.4f} and {loss['aligned_abs_rel_max']:.4f} after alignment"
    )
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
