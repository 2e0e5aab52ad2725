"""Golden data in exported files: it is there, it is small, and it tells a damaged network from the right one."""

import json

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.contract import DEFAULT_MODEL, read_model_file
from depth_anything_ros.engines import open_engine
from depth_anything_ros.errors import EngineError
from training import golden
from training.depth_anything import DepthAnything

from .export_fixtures import TINY, export, write_pth

SHIPPED = DEFAULT_MODEL.read_bytes()


@pytest.fixture(scope="module")
def checked_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "m.onnx"
    path.write_bytes(golden.with_golden(SHIPPED))
    return path


def damaged(content, change):
    """Return the network with its largest weights changed."""
    model = onnx.load_model_from_string(content)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), weights.name))
    return model.SerializeToString()


def test_picture_is_always_the_same_and_has_structure():
    picture = golden.golden_picture()
    assert picture.shape == (*golden.PICTURE_HW, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, golden.golden_picture())
    assert picture.std() > 20
    red, blue = picture[140, 40], picture[110, 150]
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]


def test_golden_data_is_small_and_the_file_stays_valid(checked_model):
    content = checked_model.read_bytes()
    assert 10_000 < len(read_model_file(checked_model).golden) < 80_000
    assert abs(len(content) - len(SHIPPED)) < 10_000, "golden data takes the place of what the shipped model has"
    onnx.checker.check_model(onnx.load_model_from_string(content))
    assert read_model_file(checked_model).contract == read_model_file(DEFAULT_MODEL).contract


def test_right_network_passes_and_damaged_ones_do_not(checked_model):
    text = read_model_file(checked_model).golden
    assert golden.deviation_of(SHIPPED, text).abs_rel < 1e-4
    for change in (lambda weights: weights * 1.5, lambda weights: weights * 0, lambda weights: np.roll(weights, 1, 0)):
        deviation = golden.deviation_of(damaged(SHIPPED, change), text)
        assert not deviation.acceptable, deviation


def test_engine_with_a_damaged_network_is_refused(checked_model, tmp_path):
    config = RuntimeConfig().updated({"model": str(checked_model)})
    assert open_engine(config).self_check.startswith("AbsRel 0.0000")
    path = tmp_path / "damaged.onnx"
    path.write_bytes(damaged(checked_model.read_bytes(), lambda weights: weights * 1.5))
    with pytest.raises(EngineError, match="self-check failed: onnxruntime"):
        open_engine(config.updated({"model": str(path)}))


def test_export_writes_golden_data(tmp_path):
    torch.manual_seed(0)
    weights = write_pth(tmp_path / "own.pth", DepthAnything(TINY).eval())
    (tmp_path / "tiny.json").write_text(json.dumps(TINY.to_dict()))
    out = tmp_path / "m.onnx"
    assert export(weights, out, "--architecture", str(tmp_path / "tiny.json"), "--licence", "MIT") == 0
    assert golden.deviation_of(out.read_bytes(), read_model_file(out).golden).acceptable
    assert open_engine(RuntimeConfig().updated({"model": str(out)})).self_check.startswith("AbsRel")


def test_command_line_adds_it_with_a_picture_of_ones_own(tmp_path, capsys):
    picture = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    out = tmp_path / "m.onnx"
    assert golden.main([str(DEFAULT_MODEL), "--out", str(out), "--image", str(tmp_path / "p.png")]) == 0
    assert "bytes of golden data" in capsys.readouterr().out
    assert golden.deviation_of(SHIPPED, read_model_file(out).golden).acceptable
    (tmp_path / "text.onnx").write_text("text")
    assert golden.main([str(tmp_path / "text.onnx"), "--out", str(out)]) == 2
    assert "not ONNX" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        golden.main([str(DEFAULT_MODEL), "--out", str(out), "--image", str(tmp_path / "none.png")])
