"""The student's shapes, size budget, and what its ONNX file says and computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")
pytest.importorskip("yaml", reason="training needs yaml")
onnxruntime = pytest.importorskip("onnxruntime", reason="export is checked with onnxruntime")
pytest.importorskip("onnx", reason="export needs onnx")

from depth_anything_ros.contract import read_model_file  # noqa: E402
from training.config import StudentConfig  # noqa: E402
from training.contracts import student_contract  # noqa: E402
from training.export import export_onnx  # noqa: E402
from training.model import MAX_DEPTH_M, MIN_DEPTH_M, CompactStudent, parameter_count  # noqa: E402

TINY = {"channels": (4, 8, 8, 8, 16), "blocks": (1, 1, 1), "context_layers": 1, "decoder": 8}


@pytest.mark.parametrize("size_hw", [(32, 32), (64, 96), (96, 320)])
def test_output_has_the_input_size_and_stays_in_range(size_hw: tuple[int, int]) -> None:
    depth = CompactStudent(**TINY).eval()(100 * torch.randn(2, 3, *size_hw))
    assert depth.shape == (2, *size_hw)
    assert depth.min() >= MIN_DEPTH_M
    assert depth.max() <= MAX_DEPTH_M * (1 + 1e-5)


def test_the_student_fits_into_four_megabytes() -> None:
    assert 4 * parameter_count(CompactStudent()) < 3.8e6


def test_export_computes_the_same_and_carries_its_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CompactStudent(**TINY)
    with torch.no_grad():  # batch statistics that folding must not lose
        model.train()(torch.randn(4, 3, 64, 64))
    contract = student_contract(StudentConfig(height=96), {"seed": 0})
    path = tmp_path / "tiny.onnx"
    path.write_bytes(export_onnx(model, contract))
    assert read_model_file(path).contract == contract
    image = np.random.default_rng(1).normal(size=(2, 3, 96, 32)).astype(np.float32)
    got = onnxruntime.InferenceSession(str(path)).run(None, {"image": image})[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, model(torch.from_numpy(image)).numpy(), rtol=1e-4)


def test_the_canonical_camera_shrinks_with_the_training_height() -> None:
    contract = student_contract(StudentConfig(height=192, canonical_height=288, canonical_focal_px=300.0), {})
    assert contract.input_sizes_hw == ((192, 256),)
    assert contract.canonical_focal_px == pytest.approx(200.0)


def test_the_exported_graph_has_no_batch_normalisation_left() -> None:
    import onnx

    content = export_onnx(CompactStudent(**TINY), student_contract(StudentConfig(height=96), {}))
    assert "BatchNormalization" not in {node.op_type for node in onnx.load_model_from_string(content).graph.node}
