"""Stage of training: checkpoint -> ONNX file with its contract, checked against torch.

Run: python -m training.export RUN/checkpoint.safetensors --out depth_anything_ros/models/student_metric.onnx.
"""

from __future__ import annotations

import argparse
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from depth_anything_ros.contract import ModelContract, read_model_file, with_contract

from .checkpoint import TrainingRecord, load_weights, read_checkpoint
from .config import StudentConfig
from .contracts import student_contract
from .model import SIZE_MULTIPLE, CompactStudent

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


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--command", action="append", default=[], help="a command that made the checkpoint, for the record; repeatable")
    args = parser.parse_args(argv)
    tensors, record = read_checkpoint(args.checkpoint)
    model = CompactStudent().eval()
    load_weights(model, tensors)
    contract = student_contract(StudentConfig(**record.config), training_notes(record, args.command))
    content = export_onnx(model, contract)
    temporary = args.out.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(args.out)
    print(f"{args.out}: {len(content) / 1e6:.2f} MB, sha256 {read_model_file(args.out).sha256}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
