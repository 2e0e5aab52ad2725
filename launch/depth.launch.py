"""Start the depth node, and RViz where wanted: `ros2 launch depth_anything_ros depth.launch.py image:=/camera/image_raw`.

Several cameras in one node: `cameras:=front,left,right image:=/{camera}/image_raw`.

A parameter that is not given here keeps the value of `params_file`, and then the node's own default: defaults are written in
`depth_anything_ros/config.py` alone, so an empty argument means "not given". Arguments are listed by `--show-args`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from depth_anything_ros.transport import profile_environment

CONFIG = Path(__file__).resolve().parent.parent / "config"
FASTDDS_PROFILE = CONFIG / "fastdds_shm16.xml"

PARAMETER_TYPES: dict[str, type] = {"model": str, "engine": str, "image_transport": str, "autostart": bool, "use_sim_time": bool}
PARAMETER_TYPES |= {"camera.height_m": float, "camera.roll_deg": float, "camera.pitch_deg": float}
"""Arguments that are parameters of the node under the same name."""

ARGUMENTS: dict[str, tuple[str, str]] = {
    "namespace": ("", "namespace of the node and of its topics: the depth image is <namespace>/depth/image"),
    "name": ("depth_anything", "name of the node"),
    "image": ("image", "topic of the camera's raw images; with image_transport:=compressed its base name: <image>/compressed is subscribed"),
    "camera_info": ("", "topic of the camera's calibration; empty = camera_info beside the image topic"),
    "cameras": ("", "names of several cameras, with commas between; {camera} in image and camera_info stands for each name; empty = one camera"),
    "model": ("", "path of the ONNX model; empty = from params_file, else the node's default"),
    "engine": ("", "inference engine; empty = from params_file, else the node's default"),
    "image_transport": ("", "raw or compressed; empty = from params_file, else the node's default"),
    "autostart": ("", "true: configure and activate at start; false: wait for transitions; empty = from params_file, else the node's default"),
    "use_sim_time": ("", "true: take the time from /clock; empty = from params_file, else the wall clock"),
    "camera.height_m": ("", "metres of the camera above the floor; empty = from params_file, else unknown"),
    "camera.roll_deg": ("", "degrees, positive tips the camera to its right; empty = from params_file, else 0"),
    "camera.pitch_deg": ("", "degrees, positive looks down; empty = from params_file, else 0"),
    "params_file": (str(CONFIG / "depth.yaml"), "YAML file with parameters of the node"),
    "log_level": ("", "debug, info, warn, error or fatal; empty = ROS's default"),
    "rviz": ("false", "true: show image, depth and point cloud (of the first camera) in RViz"),
}
"""Default and description by name."""


def camera_info_topic(image: str) -> str:
    """Return the topic of the calibration that belongs to an image topic: `camera_info` in the same place, as cameras publish it."""
    return f"{image.rpartition('/')[0]}/camera_info" if "/" in image else "camera_info"


def inputs(image: str, camera_info: str, cameras: list[str]) -> list[tuple[str, str]]:
    """Return the node's input topics and where they come from, the first camera's images first.

    Raises:
        RuntimeError: several cameras, and a topic without {camera}: all would take the same messages. Or {camera}, and no names for it.
    """
    if cameras and image == ARGUMENTS["image"][0]:
        image = "{camera}/image"
    topics = [("image", image), ("image/compressed", f"{image}/compressed"), ("camera_info", camera_info or camera_info_topic(image))]
    for name, topic in topics:
        if "{camera}" in topic and not cameras:
            raise RuntimeError(f"{name}:={topic}: {{camera}} stands for the names in cameras:=, which is empty (those of params_file do not count)")
        if "{camera}" not in topic and len(cameras) > 1:
            raise RuntimeError(f"{name}:={topic} with several cameras: write {{camera}} where the name stands, such as {name}:=/{{camera}}/{name}")
    each = [(f"{camera}/{name}", topic.replace("{camera}", camera)) for camera in cameras for name, topic in topics]
    return each or topics


def actions(context: LaunchContext) -> list[Action]:
    """Make the processes from the arguments' values."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = [name.strip() for name in given["cameras"].split(",") if name.strip()]
    remappings = inputs(given["image"], given["camera_info"], cameras)
    overrides: dict[str, Any] = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, kind in PARAMETER_TYPES.items() if given[name]
    }
    if cameras:
        overrides["cameras"] = cameras
    node = Node(
        package="depth_anything_ros",
        executable="depth_node",
        namespace=given["namespace"],
        name=given["name"],
        parameters=[given["params_file"], overrides] if overrides else [given["params_file"]],
        remappings=remappings,
        ros_arguments=["--log-level", given["log_level"]] if given["log_level"] else [],
        additional_env=profile_environment(context.environment, FASTDDS_PROFILE),
        output="screen",
    )
    shown = f"{cameras[0]}/" if cameras else ""
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        arguments=["-d", str(CONFIG / "depth.rviz")],
        parameters=[{"use_sim_time": overrides["use_sim_time"]}] if "use_sim_time" in overrides else [],
        remappings=[("/image", remappings[0][1]), *((f"/{topic}", shown + topic) for topic in ("depth/image", "depth/color", "depth/points"))],
        condition=IfCondition(given["rviz"]),
    )
    return [rviz, node]  # a missing RViz is found before the node runs, which would otherwise outlive the failed launch


def generate_launch_description() -> LaunchDescription:
    """Return what `ros2 launch` runs."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=actions)])
