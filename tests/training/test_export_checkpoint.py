"""Checkpoint -> ONNX: contract by stage and network, the same numbers as torch, nothing in it that belongs to this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")
pytest.importorskip("safetensors", reason="training needs safetensors")
onnxruntime = pytest.importorskip("onnxruntime", reason="export is checked with onnxruntime")
onnx = pytest.importorskip("onnx", reason="export needs onnx")

from depth_anything_ros.contract import read_model_file  # noqa: E402
from training.checkpoint import TrainingRecord, save_checkpoint  # noqa: E402
from training.config import load_config  # noqa: E402
from training.export import main  # noqa: E402
from training.export_checkpoint import ExportMismatch, export_free_size  # noqa: E402
from training.half_weights import LEAST_VALUES, TOLERANCE, with_half_weights  # noqa: E402
from training.networks import build_network, open_network  # noqa: E402
from training.predictors import open_predictor  # noqa: E402

from ..models import tiny_onnx  # noqa: E402
from .made_up import COMPACT, VIT, scene  # noqa: E402


def _checkpoint(folder: Path, stage: str, *overrides: str) -> Path:
    torch.manual_seed(0)
    config = load_config(stage, None, ["run.out=/somewhere/here", "data.labelled=[shards:/my/data]", *overrides])
    network = build_network(config)
    side = 4 * network.size_multiple
    with torch.no_grad():  # batch statistics that folding must not lose
        for _ in range(30):
            network.train()(torch.randn(4, 3, side, side))
    path = folder / f"{stage}.safetensors"
    save_checkpoint(
        path, network, None, None, TrainingRecord(7, 1.25, config.to_dict(), {"labelled": {"samples": 3}}, {"git": "abc"}, {"abs_rel": 0.5})
    )
    return path


@pytest.mark.parametrize(
    ("stage", "options", "kind", "focal", "limit"),
    [
        ("student", [], "disparity_affine_invariant", None, None),
        ("metric", ["metric.kind=depth_m", "metric.max_depth_m=20"], "depth_m", None, 20.0),
        ("metric", [], "depth_canonical_focal", 100.0, 80.0),
    ],
)
def test_a_compact_network_says_what_it_is_and_computes_the_same(stage: str, options: list[str], kind: str, focal, limit, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path, stage, COMPACT, "data.sizes_hw=[[96, 128]]", *options)
    assert main([str(path), "--out", str(tmp_path / "m.onnx"), "--command", "how"]) == 0
    contract = read_model_file(tmp_path / "m.onnx").contract
    assert (contract.output_kind, contract.canonical_focal_px, contract.max_depth_m) == (kind, focal, limit)
    assert (contract.input_sizes_hw, contract.resize, contract.size_multiple) == (((96, 128),), "lower_bound", 32)
    assert (contract.training["steps"], contract.training["commands"], contract.training["origin"]) == (7, ["how"], {"git": "abc"})
    assert "/somewhere" not in str(contract.training)
    assert "/my/data" not in str(contract.training)
    image = np.random.default_rng(1).normal(size=(2, 3, 96, 32)).astype(np.float32)
    got = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"image": image})[0]
    np.testing.assert_allclose(got, open_network(path)[0].serve(torch.from_numpy(image)).numpy(), rtol=1e-4)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


def test_a_depth_anything_checkpoint_is_exported_for_one_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the exporter of Depth Anything networks needs onnxscript")
    path = _checkpoint(tmp_path, "student", "network.name=vits", VIT, "data.sizes_hw=[[56, 84]]")
    assert main([str(path), "--out", str(tmp_path / "m.onnx"), "--size", "42x70", "--resize", "letterbox"]) == 0
    contract = read_model_file(tmp_path / "m.onnx").contract
    assert (contract.input_sizes_hw, contract.resize, contract.size_multiple) == (((42, 70),), "letterbox", 14)
    assert contract.training["difference_to_torch"] < 1e-4


def test_a_checkpoint_and_its_export_predict_the_same(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path, "metric", COMPACT, "data.sizes_hw=[[64, 96]]")
    assert main([str(path), "--out", str(tmp_path / "m.onnx")]) == 0
    rgb = scene(0)[0]
    one, other = (open_predictor(file)(rgb, 40.0) for file in (path, tmp_path / "m.onnx"))
    assert one.kind == other.kind == "depth_m"
    np.testing.assert_allclose(one.values, other.values, rtol=1e-3)


def test_a_pretrained_encoder_or_no_checkpoint_is_refused(tmp_path: Path, capsys) -> None:
    assert main([str(_checkpoint(tmp_path, "encoder", COMPACT)), "--out", str(tmp_path / "m.onnx")]) == 2
    assert "predicts no depth" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_a_graph_that_computes_something_else_is_not_shipped(tmp_path: Path) -> None:
    class Restless(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.abs().sum(1) * (2.0 if torch.onnx.is_in_onnx_export() else 1.0)

    from training.contracts import checkpoint_contract

    with pytest.raises(ExportMismatch, match="ONNX Runtime differs from torch by 1.0"):
        export_free_size(Restless(), checkpoint_contract(load_config("student", None, ["data.sizes_hw=[[64, 96]]"]), {}))


def test_half_weights_halve_the_file_and_hardly_change_the_output(tmp_path: Path) -> None:
    wide = "network.architecture={channels: [8, 16, 32, 64, 64], blocks: [1, 1, 1], context_layers: 1, decoder: 32}"
    path = _checkpoint(tmp_path, "metric", wide, "data.sizes_hw=[[96, 128]]")
    full, half = tmp_path / "full.onnx", tmp_path / "half.onnx"
    assert main([str(path), "--out", str(full)]) == main([str(path), "--out", str(half), "--half-weights"]) == 0
    types = [weight.data_type for weight in onnx.load(half).graph.initializer if np.prod(weight.dims) >= LEAST_VALUES]
    assert set(types) == {onnx.TensorProto.FLOAT16}
    assert sum(len(weight.raw_data) for weight in onnx.load(half).graph.initializer) < 0.55 * sum(
        len(weight.raw_data) for weight in onnx.load(full).graph.initializer
    )
    image = np.random.default_rng(1).normal(size=(2, 3, 96, 160)).astype(np.float32)
    outputs = [onnxruntime.InferenceSession(str(model)).run(None, {"image": image})[0] for model in (full, half)]
    assert outputs[1].dtype == np.float32
    assert np.abs(outputs[1] / outputs[0] - 1).max() < TOLERANCE
    assert not np.array_equal(*outputs)


def test_weights_that_do_not_bear_half_precision_are_refused(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(tiny_onnx())
    large = onnx.numpy_helper.from_array(np.full(LEAST_VALUES, 1e-9, np.float32), "tiny")  # nothing is left of it in half precision
    model.graph.initializer.append(large)
    last = model.graph.node[-1]
    wanted, last.output[0] = last.output[0], "before"
    total = onnx.helper.make_node("ReduceSum", ["tiny"], ["total"], keepdims=0)
    model.graph.node.extend([total, onnx.helper.make_node("Div", ["before", "total"], [wanted])])
    with pytest.raises(ExportMismatch, match="half precision"):
        with_half_weights(model.SerializeToString(), (32, 32))
