"""The node's own services."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
Trigger = pytest.importorskip("std_srvs.srv", reason="needs std_srvs").Trigger

from depth_anything_ros.snapshot import ply_from_points  # noqa: E402

from .measured import LASER, NETWORK_HW, laser_scan, truth_m  # noqa: E402
from .models import write_tiny_model  # noqa: E402
from .raytraced import relative  # noqa: E402
from .rig import camera_info, coded_image, pixels, rgb_image  # noqa: E402
from .test_node_scale import Scene  # noqa: E402

pytestmark = pytest.mark.ros
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def call(r, name):
    return r.call(r.client(Trigger, name), Trigger.Request())


def test_snapshot_holds_everything_that_a_bug_report_needs(rig, tmp_path):
    model = write_tiny_model(tmp_path / "m.onnx")
    r = rig(
        engine="onnxruntime",
        model=str(model),
        snapshot__dir=str(tmp_path / "shots"),
        scale__factor=1.5e-6,
        scale__reference__translation_m=[0.0, 1e-7, -2.5],
        scale__reference__quat_xyzw=[0.0, 0.0, 0.0, 1.0],
    )
    depth = pixels(r.exchange(rgb_image(PICTURE, 12_000_000_345)))
    r.wait(lambda: r.total("published"), "the end of the frame")
    answer = call(r, "save_snapshot")
    assert answer.success, answer.message
    folder = Path(answer.message)
    assert folder == tmp_path / "shots" / "12.000000345"
    assert sorted(path.name for path in folder.iterdir()) == ["cloud.ply", "depth.npy", "image.png", "parameters.yaml", "versions.json"]
    np.testing.assert_array_equal(cv2.imread(str(folder / "image.png"))[..., ::-1], PICTURE)
    np.testing.assert_array_equal(np.load(folder / "depth.npy"), depth)
    header, _, body = (folder / "cloud.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 3072\n" in header
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    np.testing.assert_allclose(points["xyz"].reshape(48, 64, 3)[10, 20], np.array([-12 / 50, -14 / 50, 1]) * depth[10, 20], rtol=1e-5)
    np.testing.assert_array_equal(points["rgb"].reshape(48, 64, 3), PICTURE)
    versions = json.loads((folder / "versions.json").read_text())
    assert len(versions["model"]["sha256"]) == 64
    assert versions["diagnostics"]["model_sha256"] == versions["model"]["sha256"]
    assert (versions["left_out"], versions["engine"]) == ({}, "onnxruntime")
    again = rig(cli_args=["--params-file", str(folder / "parameters.yaml")], autostart=False, engine="onnxruntime")
    assert again.node.config == r.node.config


def test_second_snapshot_of_a_frame_gets_a_folder_of_its_own(rig, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    r = rig()
    r.exchange(coded_image(1, stamp_ns=5))
    r.wait(lambda: r.total("published"), "the end of the frame")
    assert [Path(call(r, "save_snapshot").message).name for _ in range(2)] == ["0.000000005", "0.000000005_2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.000000005", "0.000000005_2"]


def test_snapshot_says_what_it_could_not_save(rig, tmp_path):
    r = rig(subscribe=("depth/relative",), synthetic__output_kind="disparity_affine_invariant", snapshot__dir=str(tmp_path))
    nothing = call(r, "save_snapshot")
    assert not nothing.success
    assert "there is no frame to save" in nothing.message
    r.exchange(coded_image(1), "depth/relative")
    r.wait(lambda: r.total("published"), "the end of the frame")
    folder = Path(call(r, "save_snapshot").message)
    assert {path.name for path in folder.iterdir()} == {"image.png", "relative.npy", "parameters.yaml", "versions.json"}
    left_out = json.loads((folder / "versions.json").read_text())["left_out"]
    assert "the model is relative" in left_out["depth.npy"]


def test_snapshot_that_cannot_be_written_is_a_failure(rig, tmp_path):
    (tmp_path / "file").write_text("")
    r = rig(snapshot__dir=str(tmp_path / "file" / "below"))
    r.exchange(coded_image(1))
    r.wait(lambda: r.total("published"), "the end of the frame")
    answer = call(r, "save_snapshot")
    assert not answer.success
    assert "file" in answer.message
    r.exchange(coded_image(2, stamp_ns=1), info=camera_info(coded_image(2)))


def test_reset_scale_forgets_the_scale(rig):
    seen = relative(truth_m(NETWORK_HW), 0.37, 0.05)
    scene = Scene(rig, seen, scale__mode="reference", **{f"scale__reference__{key}": value for key, value in LASER.items()})
    scene.frame(laser_scan)
    assert scene.frame() is not None, "held"
    answer = call(scene.rig, "reset_scale")
    assert answer.success, answer.message
    assert scene.frame(step_ns=10**9) is None
    assert scene.frame(laser_scan) is not None


def test_without_a_measured_scale_there_is_none_to_reset(rig):
    answer = call(rig(), "reset_scale")
    assert not answer.success
    assert "scale.mode is model" in answer.message


def test_ply_by_hand():
    ply = ply_from_points(np.array([[1, 2, 3]], np.float32), np.array([[9, 8, 7]], np.uint8))
    assert ply.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\n")
    assert ply.endswith(b"end_header\n" + np.array([1, 2, 3], "<f4").tobytes() + bytes([9, 8, 7]))
