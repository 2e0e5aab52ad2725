"""What users start the node with: the launch file, its parameters file, the Fast DDS profile and the RViz set-up."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from depth_anything_ros.config import PARAMETERS, RuntimeConfig
from depth_anything_ros.config_cameras import camera_configs
from depth_anything_ros.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"
LAUNCH_FILE = ROOT / "launch" / "depth.launch.py"
SHM_BYTES = 16777216


def parsed_yaml(text: str) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.full_load(text)  # launch_ros writes lists as Python's tuples; ROS reads them


def dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def node_parameters(text: str) -> dict[str, Any]:
    """Return a ROS parameters file's values by dotted name; it must speak to a node of any name."""
    document = parsed_yaml(text)
    assert list(document) == ["/**"]
    assert list(document["/**"]) == ["ros__parameters"]
    assert isinstance(document["/**"]["ros__parameters"], dict), "ROS refuses a file whose ros__parameters is empty"
    return dotted(document["/**"]["ros__parameters"])


# Parameters file


def test_parameters_file_only_has_values_that_the_node_accepts() -> None:
    RuntimeConfig().updated(node_parameters((CONFIG / "depth.yaml").read_text()))


def test_parameters_file_of_many_cameras_is_accepted_and_repeats_nothing() -> None:
    values = node_parameters((CONFIG / "many_cameras.yaml").read_text())
    configs = camera_configs(values)
    assert list(configs) == ["front", "left", "right"]
    assert {camera: config.depth.max_m for camera, config in configs.items()} == {"front": 15.0, "left": 8.0, "right": 8.0}
    for name, value in values.items():
        shared = name.partition(".")[2] if name.partition(".")[0] in configs else name
        assert value != (values.get(shared, PARAMETERS[shared].default) if shared != name else PARAMETERS[name].default), name


def test_parameters_file_repeats_no_default() -> None:
    for name, value in node_parameters((CONFIG / "depth.yaml").read_text()).items():
        assert value != PARAMETERS[name].default


def test_commented_examples_of_the_parameters_file_are_accepted_and_differ_from_the_defaults() -> None:
    lines = (CONFIG / "depth.yaml").read_text().splitlines()
    text = "\n".join(line.replace("    # ", "    ", 1) for line in lines if line.strip() != "{}")
    examples = node_parameters(text)
    assert len(examples) >= 5
    RuntimeConfig().updated(examples)
    assert [name for name, value in examples.items() if value == PARAMETERS[name].default] == []


def test_a_wrong_name_in_a_parameters_file_would_be_found() -> None:
    with pytest.raises(ConfigError, match="^no_such: no such parameter$"):
        RuntimeConfig().updated(node_parameters("/**:\n  ros__parameters:\n    no_such: 1\n"))


# Fast DDS profile


def test_fast_dds_profile_is_the_default_and_has_a_segment_for_whole_messages() -> None:
    root = ElementTree.parse(CONFIG / "fastdds_shm16.xml").getroot()
    space = {"d": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    transports = {descriptor.findtext("d:transport_id", None, space): descriptor for descriptor in root.iterfind(".//d:transport_descriptor", space)}
    kinds = {descriptor.findtext("d:type", None, space): descriptor for descriptor in transports.values()}
    assert set(kinds) == {"SHM", "UDPv4"}
    assert kinds["SHM"].findtext("d:segment_size", None, space) == str(SHM_BYTES)
    assert kinds["SHM"].findtext("d:maxMessageSize", None, space) == str(SHM_BYTES)
    (participant,) = root.iterfind(".//d:participant", space)
    assert participant.get("is_default_profile") == "true"
    assert participant.findtext("d:rtps/d:useBuiltinTransports", None, space) == "false"
    used = [element.text for element in participant.iterfind("d:rtps/d:userTransports/d:transport_id", space)]
    assert sorted(used) == sorted(transports)


def test_fast_dds_profile_holds_a_whole_full_hd_cloud_field_or_image() -> None:
    assert SHM_BYTES > 1920 * 1080 * 4, "a Full HD 32FC1 depth image"
    assert SHM_BYTES > 640 * 480 * 16, "a VGA cloud with colour"


# RViz


def rviz_displays() -> dict[str, Any]:
    document = parsed_yaml((CONFIG / "depth.rviz").read_text())
    return {display["Name"]: display for display in document["Visualization Manager"]["Displays"]}


def test_rviz_shows_image_depth_and_cloud() -> None:
    topics = {d["Topic"]["Value"]: d["Class"] for d in rviz_displays().values() if "Topic" in d}
    assert topics == {
        "/image": "rviz_default_plugins/Image",
        "/depth/color": "rviz_default_plugins/Image",
        "/depth/image": "rviz_default_plugins/Image",
        "/depth/points": "rviz_default_plugins/PointCloud2",
    }


def test_rviz_takes_best_effort_and_colours_the_cloud_by_its_pixels() -> None:
    for display in rviz_displays().values():
        if "Topic" in display:
            assert display["Topic"]["Reliability Policy"] == "Best Effort"
            assert display["Enabled"] == display["Value"], "RViz takes the second, people read the first"
    assert rviz_displays()["Point cloud"]["Color Transformer"] == "RGB8"


def test_rviz_topics_are_topics_of_the_node() -> None:
    outputs = (ROOT / "depth_anything_ros" / "outputs.py").read_text()
    for display in rviz_displays().values():
        topic = display.get("Topic", {}).get("Value", "")
        if topic.startswith("/depth/"):
            assert f'"{topic[1:]}"' in outputs


# Launch file


@pytest.fixture(scope="module")
def launch_file() -> ModuleType:
    pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 installation, PyPI has none")
    spec = importlib.util.spec_from_file_location("depth_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_profile(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_DISTRO"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def started(module: ModuleType, **arguments: str) -> tuple[Any, Any, Any]:
    """Return the launch context and the actions of node and RViz for arguments as given on a command line."""
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    described = module.generate_launch_description().entities
    for entity in described[:-1]:
        entity.execute(context)
    rviz, node = described[-1].execute(context)
    return context, node, rviz


STAND_IN = """#!{python}
import json, os, sys
files = [word for flag, word in zip(sys.argv, sys.argv[1:]) if flag == "--params-file"]
remappings = [word.split(":=", 1) for flag, word in zip(sys.argv, sys.argv[1:]) if flag == "-r"]
profiles = dict((name, value) for name, value in os.environ.items() if name.endswith("_DEFAULT_PROFILES_FILE"))
heard = dict(words=sys.argv, files=files, texts=[open(path).read() for path in files], remappings=dict(remappings), profiles=profiles)
json.dump(heard, open({report!r}, "w"))
"""
"""An executable in the node's place that writes down what it is started with."""


@pytest.fixture
def launched(launch_file: ModuleType, no_profile: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that launches a stand-in for the node and returns what it was given."""
    from launch import LaunchService

    prefix, report = tmp_path / "prefix", tmp_path / "heard.json"
    (prefix / "share" / "ament_index" / "resource_index" / "packages").mkdir(parents=True)
    (prefix / "share" / "ament_index" / "resource_index" / "packages" / "depth_anything_ros").touch()
    executable = prefix / "lib" / "depth_anything_ros" / "depth_node"
    executable.parent.mkdir(parents=True)
    executable.write_text(STAND_IN.format(python=sys.executable, report=str(report)))
    executable.chmod(0o755)
    no_profile.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")]))
    no_profile.setenv("ROS_LOG_DIR", str(tmp_path / "log"))

    def launch(**arguments: str) -> dict[str, Any]:
        service = LaunchService(noninteractive=True)
        service.context.launch_configurations.update(arguments)
        service.include_launch_description(launch_file.generate_launch_description())
        assert service.run() == 0
        heard: dict[str, Any] = json.loads(report.read_text())
        return heard

    return launch


def overrides(heard: dict[str, Any]) -> dict[str, Any]:
    """Return the values that override those of the parameters file."""
    values: dict[str, Any] = {}
    for text in heard["texts"][1:]:
        for node in parsed_yaml(text).values():
            values |= node["ros__parameters"]
    return values


def documented_arguments() -> set[str]:
    return set(re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs" / "ros2_install.md").read_text(), re.MULTILINE))


def test_launch_file_declares_the_documented_arguments_each_with_a_description(launch_file: ModuleType) -> None:
    declared = {argument.name: argument for argument in launch_file.generate_launch_description().get_launch_arguments()}
    assert set(declared) == documented_arguments()
    for name, argument in declared.items():
        assert argument.description, name
        assert argument.default_value is not None, f"{name} must not be obligatory"


def test_arguments_that_are_parameters_have_no_default_of_their_own(launch_file: ModuleType) -> None:
    names = set(launch_file.PARAMETER_TYPES) - {"use_sim_time"}
    assert names <= set(PARAMETERS)
    for name in launch_file.PARAMETER_TYPES:
        assert launch_file.ARGUMENTS[name][0] == ""
    for name in names:
        assert launch_file.PARAMETER_TYPES[name] is PARAMETERS[name].type


def test_node_name_is_the_one_that_the_node_gives_itself(launch_file: ModuleType) -> None:
    pytest.importorskip("rclpy", reason="needs rclpy")
    from depth_anything_ros.node import DepthNode

    assert launch_file.ARGUMENTS["name"][0] == inspect.signature(DepthNode).parameters["node_name"].default


@pytest.mark.parametrize("variable", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
@pytest.mark.parametrize("value", ["/my/profile.xml", ""])
def test_profile_of_the_user_is_left_alone(launch_file: ModuleType, no_profile: pytest.MonkeyPatch, variable: str, value: str) -> None:
    no_profile.setenv(variable, value)
    _, node, _ = started(launch_file)
    assert node.additional_env == []


def test_profile_is_set_for_the_node_alone(launch_file: ModuleType, no_profile: pytest.MonkeyPatch) -> None:
    _, node, rviz = started(launch_file, rviz="true")
    assert len(node.additional_env) == 1
    assert not rviz.additional_env
    assert not any("PROFILES_FILE" in variable for variable in os.environ)


def test_rviz_starts_only_where_wanted(launch_file: ModuleType, no_profile: pytest.MonkeyPatch) -> None:
    for wanted in (False, True):
        context, _, rviz = started(launch_file, rviz=str(wanted).lower())
        assert rviz.condition.evaluate(context) is wanted


@pytest.mark.parametrize(
    ("image", "camera_info"),
    [
        ("image", "camera_info"),
        ("/image", "/camera_info"),
        ("/camera/image_raw", "/camera/camera_info"),
        ("left/image_rect", "left/camera_info"),
    ],
)
def test_calibration_is_looked_for_beside_the_image(launch_file: ModuleType, image: str, camera_info: str) -> None:
    assert launch_file.camera_info_topic(image) == camera_info


def test_without_arguments_only_the_parameters_file_counts(launched: Any) -> None:
    heard = launched()
    assert heard["files"] == [str(CONFIG / "depth.yaml")]
    assert heard["profiles"] == {"FASTDDS_DEFAULT_PROFILES_FILE": str(CONFIG / "fastdds_shm16.xml")}
    assert "--log-level" not in heard["words"]


def test_arguments_override_the_parameters_file(launched: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**:\n  ros__parameters:\n    engine: onnxruntime\n")
    given = {"engine": "synthetic", "model": "123", "autostart": "false", "image_transport": "compressed", "use_sim_time": "true"}
    heard = launched(params_file=str(mine), **given)
    assert heard["files"][0] == str(mine)
    assert overrides(heard) == given | {"autostart": False, "use_sim_time": True}


def test_arguments_override_a_parameters_file_that_names_the_node(launched: Any) -> None:
    """ROS prefers the entry of a node's full name, so the overrides must be written under it too."""
    assert list(parsed_yaml(launched(namespace="robot", engine="synthetic")["texts"][1])) == ["/robot/depth_anything"]


def test_inputs_are_remapped_raw_and_compressed(launched: Any) -> None:
    assert launched(image="/camera/image_raw", namespace="robot", name="depth")["remappings"] == {
        "__ns": "/robot",
        "__node": "depth",
        "image": "/camera/image_raw",
        "image/compressed": "/camera/image_raw/compressed",
        "camera_info": "/camera/camera_info",
    }
    assert launched(image="/a/b", camera_info="/c")["remappings"]["camera_info"] == "/c"


def test_several_cameras_are_named_and_remapped_each(launched: Any) -> None:
    heard = launched(cameras="front, left", image="/{camera}/image_raw", camera_info="/info/{camera}")
    assert overrides(heard) == {"cameras": ("front", "left")}
    assert {name: topic for name, topic in heard["remappings"].items() if not name.startswith("__")} == {
        "front/image": "/front/image_raw",
        "front/image/compressed": "/front/image_raw/compressed",
        "front/camera_info": "/info/front",
        "left/image": "/left/image_raw",
        "left/image/compressed": "/left/image_raw/compressed",
        "left/camera_info": "/info/left",
    }
    one = launched(cameras="front")
    assert overrides(one) == {"cameras": ("front",)}
    assert one["remappings"]["front/camera_info"] == "front/camera_info"


def test_several_cameras_of_the_same_topic_are_refused(launch_file: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"image:=/image_raw with several cameras: write \{camera\} where the name stands"):
        launch_file.inputs("/image_raw", "", ["front", "left"])
    assert launch_file.inputs("/image_raw", "", ["front"])[0] == ("front/image", "/image_raw"), "of one camera there is nothing to mix up"


@pytest.mark.parametrize("topics", [("/{camera}/image_raw", ""), ("/image_raw", "/{camera}/info")])
def test_topics_of_cameras_that_nobody_named_are_refused(launch_file: ModuleType, topics: tuple[str, str]) -> None:
    with pytest.raises(RuntimeError, match=r"\{camera\} stands for the names in cameras:=, which is empty"):
        launch_file.inputs(*topics, [])


def test_log_level_is_passed_on(launched: Any) -> None:
    words = launched(log_level="debug")["words"]
    assert words[words.index("--log-level") + 1] == "debug"


def test_profile_of_the_user_reaches_the_node_unchanged(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "")
    assert launched()["profiles"] == {"FASTRTPS_DEFAULT_PROFILES_FILE": ""}
