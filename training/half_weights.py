"""ONNX file -> the same network with its weights stored in half precision: half the size; all arithmetic stays in float32.

Each large weight is followed by a Cast to float32, which runtimes compute once, when they load the file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from .export_checkpoint import ExportMismatch

LEAST_VALUES = 256
"""Smaller tensors (biases, shapes, scales) stay as they are."""
TOLERANCE = 1e-2
"""Largest relative difference of the outputs; a weight's own rounding is 5e-4."""


def with_half_weights(content: bytes, size_hw: tuple[int, int]) -> bytes:
    """Return the file with its large weights in half precision; the metadata stays.

    Args:
        content: ONNX file of a network (N, 3, h, w) -> (N, h, w), all float32.
        size_hw: of the picture on which both are compared.

    Raises:
        ExportMismatch: the outputs differ by more than TOLERANCE, so that these weights do not bear it.
    """
    model = onnx.load_model_from_string(content)
    large = [weight for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= LEAST_VALUES]
    casts = []
    for weight in large:
        casts.append(helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], name=f"{weight.name}.cast", to=TensorProto.FLOAT))
        half = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}.half")
        model.graph.initializer.remove(weight)
        model.graph.initializer.append(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    stored = model.SerializeToString()
    before, after = _output(content, size_hw), _output(stored, size_hw)
    difference = float((np.abs(after - before) / np.abs(before).clip(1e-6)).max())
    if not difference <= TOLERANCE:
        raise ExportMismatch(f"weights in half precision change the output by {difference:.1e} (relative); allowed: {TOLERANCE:.0e}")
    return stored


def _output(content: bytes, size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(1, 3, *size_hw)).astype(np.float32)
    output: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: image})[0]
    return output
