import json

import cv2
import numpy as np
import pytest

from depth_anything_ros.predict import main

from .models import write_tiny_model


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((30, 50, 3), 51, np.uint8))
    return tmp_path / "gray.png"


@pytest.fixture
def model(tmp_path):
    return str(write_tiny_model(tmp_path / "m.onnx"))


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_writes_depth_and_picture_and_a_json_line(tmp_path, picture, model, capsys):
    assert main(["--model", model, "--output-dir", str(tmp_path / "out"), str(picture)]) == 0
    depth = np.load(tmp_path / "out" / "gray.npy")
    assert (depth.dtype, depth.shape) == (np.float32, (30, 50))
    np.testing.assert_allclose(depth, 1.2, rtol=1e-6)
    assert cv2.imread(str(tmp_path / "out" / "gray.png")).shape == (30, 50, 3)
    (line,) = lines(capsys)
    assert (line["kind"], line["unit"], line["size_hw"]) == ("depth_m", "m", [30, 50])
    assert line["infer_ms"] >= 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gray.npy", "gray.png"]


def test_relative_model_writes_disparity_and_says_so(tmp_path, picture, capsys):
    path = write_tiny_model(tmp_path / "r.onnx", output_kind="disparity_affine_invariant")
    assert main(["--model", str(path), "--output-dir", str(tmp_path / "out"), str(picture)]) == 0
    assert lines(capsys)[0]["kind"] == "disparity_affine_invariant"


def test_broken_image_is_reported_and_the_others_are_done(tmp_path, picture, model, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 not a picture")
    assert main(["--model", model, "--output-dir", str(tmp_path / "out"), str(tmp_path / "bad.jpg"), str(picture)]) == 1
    bad, good = lines(capsys)
    assert "not an image" in bad["error"]
    assert good["kind"] == "depth_m"


def test_unusable_model_and_engine_end_with_the_reason(tmp_path, picture, capsys):
    assert main(["--model", str(tmp_path / "no.onnx"), "--output-dir", str(tmp_path / "out"), str(picture)]) == 2
    assert "cannot read model file" in capsys.readouterr().err
    assert main(["--engine", "tpu", "--output-dir", str(tmp_path / "out"), str(picture)]) == 2
    assert "engine 'tpu' is unknown" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_of_the_same_name_are_refused_before_anything_is_lost(tmp_path, picture, model, capsys):
    with pytest.raises(SystemExit):
        main(["--model", model, "--output-dir", str(tmp_path / "out"), str(picture), str(tmp_path / "other" / "gray.jpg")])
    assert "would write 'gray.npy'" in capsys.readouterr().err


def test_an_input_is_never_overwritten(tmp_path, picture, model, capsys):
    before = picture.read_bytes()
    with pytest.raises(SystemExit):
        main(["--model", model, "--output-dir", str(tmp_path), str(picture)])
    assert "would overwrite an input" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_shipped_model_runs(tmp_path, picture, capsys):
    assert main(["--output-dir", str(tmp_path / "out"), str(picture)]) == 0
    assert lines(capsys)[0]["kind"] == "depth_m"
    assert np.isfinite(np.load(tmp_path / "out" / "gray.npy")).any()
