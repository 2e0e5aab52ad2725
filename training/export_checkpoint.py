"""Checkpoint of a training stage -> ONNX file with its contract, checked against torch."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from depth_anything_ros.contract import ModelContract, with_contract

from .checkpoint import TrainingRecord
from .config import TrainingConfig
from .contracts import checkpoint_contract
from .export_pretrained import compare_with_torch, graph_of
from .networks import DepthAnythingNetwork, Served, open_network

OPSET = 17
TOLERANCE = 1e-4
"""Largest relative difference between ONNX Runtime and torch."""
PATHS = {"network": ("initial", "frozen_encoder"), "data": ("labelled", "pseudo", "validation"), "run": ("out",)}
"""Keys of a configuration that are of no use on another machine."""


class ExportMismatch(RuntimeError):
    """The exported graph does not compute what the checkpoint does; do not ship it."""


def export_checkpoint(
    path: Path, size_hw: tuple[int, int] | None = None, resize: str = "stretch", commands: list[str] | None = None
) -> tuple[bytes, ModelContract]:
    """Export a checkpoint, and check the result.

    Args:
        path: checkpoint of `train_teacher`, `train_student` or `finetune_metric`.
        size_hw: input of a Depth Anything network, in pixels; None: its first training size. Compact networks take any size.
        resize: how camera images are brought to that one size: `stretch` or `letterbox`.
        commands: what made the checkpoint, for the record.

    Raises:
        ConfigError: it is no such checkpoint.
        ExportMismatch, PretrainedError: the exported graph does not compute what torch does.
    """
    network, config, record = open_network(path)
    contract = checkpoint_contract(config, training_notes(config, record, commands or []))
    if not isinstance(network, DepthAnythingNetwork):
        return export_free_size(Served(network), contract), contract
    contract = replace(contract, input_sizes_hw=(size_hw or config.data.sizes_hw[0],), resize=resize)
    graph = graph_of(network.net, contract.input_sizes_hw[0])
    difference = compare_with_torch(network.net, graph, contract)
    contract = replace(contract, training={**contract.training, "difference_to_torch": float(f"{difference:.1e}")})
    content = with_contract(graph, contract)
    onnx.checker.check_model(content, full_check=True)
    return content, contract


def export_free_size(model: nn.Module, contract: ModelContract) -> bytes:
    """Export a convolutional network in evaluation mode, and check the result at three sizes.

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
    for size_hw in ((height, width), (height, 2 * width), (height + contract.size_multiple, height)):
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


def training_notes(config: TrainingConfig, record: TrainingRecord, commands: list[str]) -> dict[str, Any]:
    """Return what the contract says about the training: configuration, data, origin, validation, commands; no paths."""
    values = config.to_dict()
    for section, keys in PATHS.items():
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    notes = {"steps": record.step, "minutes": round(record.minutes, 1), "config": values, "data": record.data, "origin": record.origin}
    return {**notes, "validation": record.validation, "commands": commands}
