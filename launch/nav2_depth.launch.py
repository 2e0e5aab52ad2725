"""Start the depth node for Nav2: `ros2 launch depth_anything_ros nav2_depth.launch.py image:=/camera/image_raw camera.height_m:=0.4`.

All other arguments of depth.launch.py (its `--show-args` lists them) work here, too. docs/nav2.md has the numbers that belong together.
"""

from __future__ import annotations

import math
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, SetRemap

from depth_anything_ros.geometry import Level

HERE = Path(__file__).resolve().parent

ARGUMENTS: dict[str, tuple[str, str]] = {
    "params_file": (str(HERE.parent / "config" / "nav2_depth.yaml"), "YAML file with parameters of the node"),
    "points": ("depth/points", "topic of the point cloud, for example /intel_realsense_r200_depth/points as Nav2's tutorials have it"),
    "scan": ("scan", "topic of the laser scan; give another name where a laser scanner publishes scan"),
    "camera.height_m": ("", "metres of the camera above the floor; the scan needs it; empty = from params_file"),
    "camera.roll_deg": ("", "degrees, positive tips the camera to its right; empty = from params_file for the node, and 0 for the level frame"),
    "camera.pitch_deg": ("", "degrees, positive looks down; empty = from params_file for the node, and 0 for the level frame"),
    "camera_frame": ("", "frame_id of the camera's images: publish the TF to <camera_frame>_level, which the scan needs; empty = do not"),
}
"""Default and description by name."""


def level_frame(camera_frame: str, roll_deg: str, pitch_deg: str) -> Node:
    """Return the publisher of the TF from the camera's optical frame to the level one of the scan."""
    level = Level.from_roll_pitch(math.radians(float(roll_deg or 0)), math.radians(float(pitch_deg or 0)), height_m=0.0)
    rotation = [word for name, value in zip("xyzw", level.camera_quat_level) for word in (f"--q{name}", f"{value:.9f}")]
    frames = ["--frame-id", camera_frame, "--child-frame-id", f"{camera_frame}_level"]
    return Node(package="tf2_ros", executable="static_transform_publisher", arguments=[*rotation, *frames], output="screen")


def actions(context: LaunchContext) -> list[Action]:
    """Make the processes from the arguments' values."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    depth_node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / "depth.launch.py")), launch_arguments={"params_file": given["params_file"]}.items()
    )
    group = GroupAction([SetRemap("depth/points", given["points"]), SetRemap("scan", given["scan"]), depth_node])
    if not given["camera_frame"]:
        return [group]
    return [level_frame(given["camera_frame"], given["camera.roll_deg"], given["camera.pitch_deg"]), group]


def generate_launch_description() -> LaunchDescription:
    """Return what `ros2 launch` runs."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=actions)])
