"""ONNX file in float32 -> the same network in mixed fp16 or in int8 with explicit Q/DQ, and what that costs in accuracy.

TensorRT takes the precision of every layer from the graph, so it is settled here, by NVIDIA ModelOpt on the CPU. The pictures of a
calibration folder go through the runtime's own preprocessing; every fourth is held back, and the loss is measured on those.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from depth_anything_ros.contract import ModelContract, with_contract

from .calibration import CalibrationImages, PrecisionError, Rgb, calibration_tensors, read_images
from .precision_loss import contract_of, measure_loss

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_METHODS = ("max", "entropy")
FLOAT_GROUPS = ("narrow", "depthwise", "last", "attention")
"""What int8 may leave in float32: convolutions of few input channels (colours; coordinates, which exceed their calibrated range in a
wider image); depthwise ones; the last one; products of two activations."""
NARROW_CHANNELS = 16
INT8_OPS = ("Conv", "Gemm", "MatMul")
"""What is quantised. Sums of residual connections stay in float32: to quantise them, too, doubled the loss after alignment."""
FP32_OPS = ("LayerNormalization", "Softmax", "Exp", "Log", "Pow", "Sqrt", "ReduceMean", "ReduceSum")
"""Kept in float32 by fp16: sums over many values, and functions that overflow or lose their small results."""
FP16_LARGEST = 512.0
"""fp16 keeps nodes with larger inputs or outputs in float32 (AutoCast's own limit): beyond it, fp16 steps by 0.5 and more."""
RANGE_IMAGES = 32
"""fp16 looks for large values in at most this many pictures: all values of the graph are kept while one is looked at."""


def require_modelopt() -> None:
    """Import ModelOpt.

    Raises:
        PrecisionError: it is not installed, or not all that it needs.
    """
    with _modelopt("import"):
        import modelopt.onnx.autocast
        import modelopt.onnx.quantization  # noqa: F401


def convert(
    content: bytes, precision: str, images: CalibrationImages, method: str = "max", keep_float: Sequence[str] = FLOAT_GROUPS
) -> tuple[bytes, dict[str, Any]]:
    """Convert an ONNX file, measure what it lost, and write that into its contract.

    Args:
        content: a float32 ONNX file with its contract.
        precision: `fp16` or `int8`.
        images: see `calibration.find_images`.
        method: see `to_int8`.
        keep_float: see `to_int8`.

    Returns:
        The converted file, and the record that its contract holds under `training["precision"]`.

    Raises:
        PrecisionError: ModelOpt is missing or fails, or the converted network gives no depth where the original does.
    """
    if precision == "fp16":
        converted, choices = to_fp16(content, read_images(images.used)), {"tool": _tool("AutoCast"), "float32": list(FP32_OPS)}
    else:
        converted = to_int8(content, read_images(images.used), method, keep_float)
        choices = {"tool": _tool("PTQ, explicit Q/DQ"), "method": method, "float32": list(keep_float)}
    record = {
        "kind": precision,
        **choices,
        "calibration": {"images": len(images.used), "sha256": images.sha256},
        "loss": measure_loss(content, converted, read_images(images.held_out)),
    }
    contract = contract_of(content)
    return _with_only_contract(onnx.load_model_from_string(converted), replace(contract, training=contract.training | {"precision": record})), record


def to_fp16(content: bytes, images: Iterable[Rgb]) -> bytes:
    """Convert to mixed fp16 by ModelOpt AutoCast; input, output, `FP32_OPS` and nodes with values above `FP16_LARGEST` stay float32.

    Args:
        content: a float32 ONNX file with its contract.
        images: (H, W, 3) uint8 RGB; the ranges are the largest over all of them (AutoCast by itself may look at one alone).

    Raises:
        PrecisionError: ModelOpt is missing or fails.
    """
    require_modelopt()
    contract, model = contract_of(content), _named(content)
    tensors = calibration_tensors(images, contract)
    ranges = _ranges(model, tensors[:: -(-len(tensors) // RANGE_IMAGES)])
    with _modelopt("AutoCast") as folder:
        from modelopt.onnx.autocast import convert_to_mixed_precision

        wide = [n.name for n in model.graph.node if any(ranges.get(value, 0) > FP16_LARGEST for value in (*n.input, *n.output))]
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "one.npz", **{model.graph.input[0].name: tensors[:1]})
        converted = convert_to_mixed_precision(
            str(folder / "model.onnx"),
            low_precision_type="fp16",
            keep_io_types=True,
            nodes_to_exclude=_patterns(wide),
            op_types_to_exclude=list(FP32_OPS),
            data_max=FP16_LARGEST,
            calibration_data=str(folder / "one.npz"),
            providers=["cpu"],
        )
    if not any(value.data_type == onnx.TensorProto.FLOAT16 for value in converted.graph.initializer):
        raise PrecisionError("no weight could be converted to fp16; export with --precision fp32")
    return _with_only_contract(converted, contract)


def to_int8(content: bytes, images: Iterable[Rgb], method: str = "max", keep_float: Sequence[str] = FLOAT_GROUPS) -> bytes:
    """Quantise `INT8_OPS` by ModelOpt's post-training quantisation: symmetric, weights per channel, activations per tensor.

    Args:
        content: a float32 ONNX file with its contract.
        images: (H, W, 3) uint8 RGB, for the ranges of the activations.
        method: `max` takes the whole range; `entropy` cuts off rare large values.
        keep_float: groups of `FLOAT_GROUPS` that stay float32, as all other operators do.

    Returns:
        The file with int8 weights and explicit QuantizeLinear and DequantizeLinear; input and output stay float32.

    Raises:
        PrecisionError: ModelOpt is missing or fails, or nothing could be quantised.
    """
    require_modelopt()
    contract, model = contract_of(content), _named(content)
    tensors = calibration_tensors(images, contract)
    with _modelopt("quantisation") as folder:
        from modelopt.onnx.quantization import quantize

        onnx.save(model, folder / "model.onnx")
        quantize(
            str(folder / "model.onnx"),
            quantize_mode="int8",
            calibration_data=tensors,
            calibration_method=method,
            calibration_shapes=f"{model.graph.input[0].name}:{'x'.join(map(str, (1, *tensors.shape[1:])))}",
            calibration_eps=["cpu"],
            op_types_to_quantize=list(INT8_OPS),
            nodes_to_exclude=_patterns(_float_nodes(model.graph, keep_float)),
            high_precision_dtype="fp32",
            dq_only=True,  # weights are stored as int8: a third of the file, and the same numbers
            output_path=str(folder / "int8.onnx"),
            log_level="ERROR",
        )
        converted = onnx.load(folder / "int8.onnx")
    if not any(node.op_type == "QuantizeLinear" for node in converted.graph.node):
        raise PrecisionError("no layer of this network could be quantised; export with --precision fp16")
    return _with_only_contract(converted, contract)


def _ranges(model: onnx.ModelProto, tensors: npt.NDArray[np.float32]) -> dict[str, float]:
    """Run every picture alone, and return the largest magnitude of every floating-point value of the graph."""
    every = onnx.ModelProto()
    every.CopyFrom(model)
    known = {output.name for output in every.graph.output}
    names = [name for node in every.graph.node for name in node.output if name and name not in known]
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(every.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names, given = [output.name for output in session.get_outputs()], session.get_inputs()[0].name
    ranges = {given: float(np.abs(tensors).max())}
    for tensor in tensors:
        for name, value in zip(names, session.run(names, {given: tensor[None]})):
            if value.dtype == np.float32 and value.size:
                ranges[name] = max(ranges.get(name, 0.0), float(np.abs(value).max()))
    return ranges


def _named(content: bytes) -> onnx.ModelProto:
    """Give every node a name, by which ModelOpt leaves nodes out."""
    model = onnx.load_model_from_string(content)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def _patterns(names: Iterable[str]) -> list[str]:
    return [f"{re.escape(name)}$" for name in names]


def _float_nodes(graph: onnx.GraphProto, groups: Sequence[str]) -> list[str]:
    """Return the names of the nodes in groups of `FLOAT_GROUPS`."""
    shapes = {value.name: value.dims for value in graph.initializer}
    constant = shapes.keys() | {node.output[0] for node in graph.node if node.op_type == "Constant"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    depthwise = [node.name for node in convolutions if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    found = {
        "narrow": [n.name for n in convolutions if n.name not in depthwise and n.input[1] in shapes and shapes[n.input[1]][1] < NARROW_CHANNELS],
        "depthwise": depthwise,
        "last": _last_convolution(graph, constant),
        "attention": [node.name for node in graph.node if node.op_type == "MatMul" and not constant & set(node.input)],
    }
    return [name for group in groups for name in found[group]]


def _last_convolution(graph: onnx.GraphProto, constant: set[str]) -> list[str]:
    """Walk back from the output along the data (an operator's first input that is not constant)."""
    maker = {name: node for node in graph.node for name in node.output}
    node = maker.get(graph.output[0].name)
    while node is not None and node.op_type != "Conv":
        node = maker.get(next((name for name in node.input if name not in constant), ""))
    return [] if node is None else [node.name]


def _with_only_contract(model: onnx.ModelProto, contract: ModelContract) -> bytes:
    """Serialise and check a model; its contract becomes its only metadata."""
    del model.metadata_props[:]
    del model.graph.value_info[:]  # some versions of ModelOpt leave types there that are no longer true
    content = with_contract(model.SerializeToString(), contract)
    onnx.checker.check_model(content, full_check=True)
    return content


def _tool(part: str) -> str:
    import modelopt

    return f"nvidia-modelopt {modelopt.__version__}, {part}"


@contextlib.contextmanager
def _modelopt(what: str) -> Iterator[Path]:
    """Give ModelOpt a folder of its own, keep its chatter from the terminal, and say in one line what went wrong."""
    silent, before = io.StringIO(), logging.root.manager.disable
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        logging.disable(logging.ERROR)
        try:
            yield Path(folder)
        except ImportError as error:
            reason = str(error).splitlines()[0]
            raise PrecisionError(f"fp16 and int8 need NVIDIA ModelOpt ({reason}); install it with: pip install '.[quantise]'") from error
        except Exception as error:  # ModelOpt raises what its parts raise: onnx, ONNX Runtime, polygraphy
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise PrecisionError(f"ModelOpt's {what} failed ({reason}); other versions of nvidia-modelopt and onnx may work") from error
        finally:
            logging.disable(before)
