import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from depth_anything_ros.demo.scene import FRAMES_PER_LOOP, MovingScene

from .models import write_tiny_model


def test_floor_is_where_geometry_says():
    """A camera 1.3 m above the floor, pitched down by 12 degrees: a pixel's depth is 1.3 / (its ray's fall per metre of depth)."""
    scene = MovingScene((120, 160))
    _, depth = scene.render(0)
    row, pitch = 119, np.radians(12)
    fall = (row - scene.intrinsics.cy) / scene.intrinsics.fy * np.cos(pitch) + np.sin(pitch)
    assert depth[row, 80] == pytest.approx(1.3 / fall, rel=1e-5)


def test_every_pixel_is_drawn_and_repeats_with_the_loop():
    scene = MovingScene((60, 80))
    rgb, depth = scene.render(7)
    assert rgb.shape == (60, 80, 3)
    assert np.isfinite(depth).all()
    assert 0.5 < depth.min() < depth.max() < 10
    again_rgb, again = MovingScene((60, 80)).render(7 + FRAMES_PER_LOOP)
    np.testing.assert_array_equal(rgb, again_rgb)
    np.testing.assert_array_equal(depth, again)
    assert not np.array_equal(depth, scene.render(8)[1])


def test_near_things_hide_far_ones():
    """The table's top is in front of the wall: along its upper edge the depth jumps, and colour changes with it."""
    _, depth = MovingScene((240, 320)).render(0)
    assert np.abs(np.diff(depth, axis=0)).max() > 2


@pytest.fixture
def demo(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
    root = Path(__file__).parent.parent

    def run(*arguments, model=None):
        command = [sys.executable, "-m", "depth_anything_ros.demo", "--output-dir", str(tmp_path / "out"), *arguments]
        command += ["--model", str(model or write_tiny_model(tmp_path / "m.onnx", input_sizes_hw=((96, 128),)))]
        environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"}
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120), tmp_path / "out"

    return run


@pytest.mark.ros
@pytest.mark.slow
def test_demo_of_the_rendered_scene_leaves_what_it_promises(demo):
    done, out = demo("--seconds", "3", "--rate-hz", "15")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    summary = json.loads((out / "summary.json").read_text())
    frames = summary["frames"]
    assert frames["received"] >= frames["published"] >= 30
    assert frames["received"] == sum(frames[key] for key in ("published", "dropped", "idle", "withheld"))
    assert frames["published"] >= summary["depth_images_recorded"] >= 30, "the node's queue of one may lose a few on a busy machine"
    assert summary["error_against_known_depth"]["frames"] >= 3
    assert 0.2 < summary["error_against_known_depth"]["abs_rel"] < 0.9, "the tiny model knows nothing, and the figures must show it"
    assert summary["stamp_to_depth_published"]["p50_ms"] > 0
    sheet = cv2.imread(str(out / "depth.png"))
    assert sheet.shape[1] > 3 * 400
    header, _, body = (out / "cloud.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {summary['cloud_points']}".encode() in header
    assert len(body) == 15 * summary["cloud_points"] > 0


@pytest.mark.ros
@pytest.mark.slow
def test_demo_of_a_video(demo, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    for i in range(20):
        writer.write(np.full((120, 160, 3), i * 10, np.uint8))
    writer.release()
    done, out = demo("--video", str(tmp_path / "v.avi"), "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert "error_against_known_depth" not in json.loads((out / "summary.json").read_text())
    assert (out / "depth.png").stat().st_size > 1000


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "reason"), [(("--image", "nothing.png"), "cannot read image 'nothing.png'"), ((), "cannot read model file")])
def test_demo_without_depth_says_why_and_fails(demo, arguments, reason):
    done, out = demo(*arguments, model="/no/such.onnx" if not arguments else None)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "demo: no depth" in done.stderr
    assert not out.exists()
