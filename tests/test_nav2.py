"""What a navigation developer starts with: the launch file for Nav2, the costmap layers whose ranges fit it, the example."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depth_anything_ros.config import PARAMETERS, RuntimeConfig
from depth_anything_ros.geometry import Level

from .test_launch import STAND_IN, node_parameters, overrides, parsed_yaml

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"


def module_from(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Numbers that belong together


def depth_config() -> RuntimeConfig:
    return RuntimeConfig().updated(node_parameters((CONFIG / "nav2_depth.yaml").read_text()))


def layer(name: str) -> dict[str, Any]:
    costmap = parsed_yaml((CONFIG / f"nav2_{name}.yaml").read_text())["local_costmap"]["local_costmap"]["ros__parameters"]
    assert name in costmap["plugins"]
    values: dict[str, Any] = costmap[name]
    return values


def sources(name: str) -> list[dict[str, Any]]:
    return [layer(name)[source] for source in layer(name)["observation_sources"].split()]


def test_parameters_for_nav2_are_accepted_and_repeat_no_default() -> None:
    assert depth_config().cloud.far_policy == "clamp"
    for name, value in node_parameters((CONFIG / "nav2_depth.yaml").read_text()).items():
        assert value != PARAMETERS[name].default, name


@pytest.mark.parametrize("name", ["voxel_layer", "obstacle_layer"])
def test_what_lies_at_the_end_of_the_range_is_cleared_up_to_and_never_marked(name: str) -> None:
    config = depth_config()
    far_m = config.cloud.max_m if name == "voxel_layer" else config.scan.max_m
    (marks_m,) = [source["obstacle_max_range"] for source in sources(name) if source["marking"]]
    (clears_m,) = [source["raytrace_max_range"] for source in sources(name) if source["clearing"]]
    assert marks_m < clears_m <= far_m, "an obstacle that was marked must be in reach of what clears it"
    assert marks_m < far_m, "or the end of the range becomes a wall"


def test_topics_and_types_are_those_of_the_node() -> None:
    for name, topic, kind in (("voxel_layer", "/depth/points", "PointCloud2"), ("obstacle_layer", "/scan", "LaserScan")):
        for source in sources(name):
            assert (source["topic"], source["data_type"]) == (topic, kind)
    assert all(source["inf_is_valid"] for source in sources("obstacle_layer"))


def test_the_floor_clears_and_does_not_mark() -> None:
    marks, clears = sources("voxel_layer")
    assert (marks["marking"], marks["clearing"], clears["marking"], clears["clearing"]) == (True, False, False, True)
    assert marks["min_obstacle_height"] > 0 > clears["min_obstacle_height"]
    assert clears["max_obstacle_height"] > marks["max_obstacle_height"]
    assert not depth_config().cloud.has_heights, "the cloud keeps the floor"
    voxels = layer("voxel_layer")
    assert voxels["z_voxels"] <= 16
    assert voxels["origin_z"] + voxels["z_voxels"] * voxels["z_resolution"] >= marks["max_obstacle_height"]


# Launch file


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that launches stand-ins for the processes and returns what each was given."""
    pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 installation, PyPI has none")
    from launch import LaunchService

    prefix = tmp_path / "prefix"
    for package, executable in (("depth_anything_ros", "depth_node"), ("tf2_ros", "static_transform_publisher")):
        (prefix / "share" / "ament_index" / "resource_index" / "packages").mkdir(parents=True, exist_ok=True)
        (prefix / "share" / "ament_index" / "resource_index" / "packages" / package).touch()
        script = prefix / "lib" / package / executable
        script.parent.mkdir(parents=True)
        script.write_text(STAND_IN.format(python=sys.executable, report=str(tmp_path / f"{executable}.json")))
        script.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")]))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))

    def launch(**arguments: str) -> dict[str, Any]:
        service = LaunchService(noninteractive=True)
        service.context.launch_configurations.update({name.replace("__", "."): value for name, value in arguments.items()})
        service.include_launch_description(module_from(ROOT / "launch" / "nav2_depth.launch.py").generate_launch_description())
        assert service.run() == 0
        return {report.stem: json.loads(report.read_text()) for report in tmp_path.glob("*.json")}

    return launch


def test_the_node_gets_the_parameters_for_nav2_and_its_mount(launched: Any) -> None:
    heard = launched(image="/camera/image_raw", engine="synthetic", camera__height_m="0.4", camera__pitch_deg="15")
    assert list(heard) == ["depth_node"], "no frame was given, so nothing else starts"
    node = heard["depth_node"]
    assert node["files"][0] == str(CONFIG / "nav2_depth.yaml")
    assert overrides(node) == {"engine": "synthetic", "camera.height_m": 0.4, "camera.pitch_deg": 15.0}
    assert node["remappings"]["image"] == "/camera/image_raw"
    assert node["remappings"]["depth/points"] == "depth/points"


def test_outputs_can_take_the_names_of_a_tutorial(launched: Any) -> None:
    node = launched(points="/intel_realsense_r200_depth/points", scan="/depth_scan")["depth_node"]
    assert node["remappings"]["depth/points"] == "/intel_realsense_r200_depth/points"
    assert node["remappings"]["scan"] == "/depth_scan"


def test_the_level_frame_undoes_the_mount(launched: Any) -> None:
    words = launched(camera_frame="cam_optical", camera__roll_deg="3", camera__pitch_deg="15")["static_transform_publisher"]["words"]
    after = dict(zip(words, words[1:]))
    assert (after["--frame-id"], after["--child-frame-id"]) == ("cam_optical", "cam_optical_level")
    given = [float(after[f"--q{name}"]) for name in "xyzw"]
    expected = Level.from_roll_pitch(np.radians(3), np.radians(15), 1.0).camera_quat_level
    np.testing.assert_allclose(given, expected, atol=1e-8)


# Example


def test_the_example_needs_neither_cv_bridge_nor_sensor_msgs_py() -> None:
    """It reads depth in metres of either encoding, and points, from messages as they are."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
    code = f"""
import sys
sys.modules["cv_bridge"] = sys.modules["sensor_msgs_py"] = None
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "examples")!r}]
import depth_subscriber as example
import numpy as np
from std_msgs.msg import Header
from depth_anything_ros import messages
depth = np.array([[1.5, np.nan, np.inf], [2.0, 3.0, 4.0]], np.float32)
for encoding in ("32FC1", "16UC1"):
    read = example.depth_from_image(messages.depth_image(Header(), depth, encoding))
    np.testing.assert_array_equal(read, depth, encoding)
points = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
points[0, 1] = np.nan
read = example.points_from_cloud(messages.cloud(Header(), points))
np.testing.assert_array_equal(read, points.reshape(-1, 4)[[0, 2, 3, 4, 5], :3])
print(example.summary(depth))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "nearest 1.50 m; 4 of 6 pixels have a depth, 1 see beyond range"
