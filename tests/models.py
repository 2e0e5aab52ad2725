"""Tiny ONNX models for tests, built with the onnx library: depth = 1 + mean of the three input channels."""

from __future__ import annotations

from pathlib import Path

import pytest

from depth_anything_ros.contract import ModelContract, with_contract

onnx = pytest.importorskip("onnx", reason="builds its test models with the onnx library")
helper, TensorProto = onnx.helper, onnx.TensorProto


def tiny_contract(**changes) -> ModelContract:
    values = {
        "name": "tiny",
        "input_sizes_hw": ((24, 32),),
        "resize": "lower_bound",
        "size_multiple": 8,
        "output_kind": "depth_m",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "licence": "Apache-2.0",
    }
    return ModelContract(**(values | changes))


def tiny_onnx(size_hw: tuple[int | str, int | str] = ("h", "w"), outputs: int = 1) -> bytes:
    """Return a model without a contract."""
    shape, names = [1, 3, *size_hw], [f"depth{i}" for i in range(outputs)]
    nodes = [helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0)]
    nodes += [helper.make_node("Add", ["mean", "one"], [name]) for name in names]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *size_hw]) for name in names],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1]), helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_tiny_model(path: Path, size_hw: tuple[int | str, int | str] = ("h", "w"), **changes) -> Path:
    """Write a model with a contract; `changes` go to the contract."""
    path.write_bytes(with_contract(tiny_onnx(size_hw), tiny_contract(**changes)))
    return path
