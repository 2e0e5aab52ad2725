"""The node's output topics: what is wanted, and how a prediction becomes messages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from . import messages
from .camera import Calibration
from .color import rgb_from_map
from .config import RuntimeConfig
from .geometry import CloudBuilder, scaled
from .pipeline import Prediction
from .structs import DepthMap, Intrinsics, RgbFrame

TOPICS: dict[str, tuple[str, type]] = {
    "depth": ("depth/image", Image),
    "points": ("depth/points", PointCloud2),
    "relative": ("depth/relative", Image),
    "color": ("depth/color", Image),
    "camera_info": ("depth/camera_info", CameraInfo),
}


@dataclass(frozen=True)
class FrameResult:
    """Everything that the outputs of one frame are made from."""

    header: Header
    frame: RgbFrame
    calibration: Calibration
    prediction: Prediction
    config: RuntimeConfig


def maps_for(wanted: frozenset[str], has_depth: bool, is_relative: bool) -> frozenset[str]:
    """Return which maps (`depth`, `relative`) have to be made for the wanted outputs; empty where nothing can come of the frame.

    Args:
        wanted: outputs with a subscriber.
        has_depth: whether metric depth can come of the frame.
        is_relative: whether the model is relative.
    """
    maps = set()
    if has_depth and wanted & {"depth", "points", "color"}:
        maps.add("depth")
    if is_relative and ("relative" in wanted or ("color" in wanted and not has_depth)):
        maps.add("relative")
    return frozenset(maps)


class Outputs:
    """Publishers of all outputs. Made in configure, asked and used by the worker's thread."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers: reliable, newest only, which connects to every kind of subscriber; overridable."""
        self._node = node
        overridable = QoSOverridingOptions.with_default_policies()
        self._publishers: dict[str, Any] = {}
        self._cloud_builder = CloudBuilder()
        try:
            for name, (topic, kind) in TOPICS.items():
                self._publishers[name] = node.create_lifecycle_publisher(kind, topic, _qos(), qos_overriding_options=overridable)
        except BaseException:
            self.destroy()
            raise

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)

    def wanted(self) -> frozenset[str]:
        """Return the outputs that have a subscriber; an output that nobody takes is not made."""
        return frozenset(name for name, publisher in self._publishers.items() if publisher.get_subscription_count() > 0)

    def publish_depth(self, result: FrameResult, wanted: frozenset[str]) -> bool:
        """Publish the depth image and its camera_info, which others wait for; returns whether there was a depth image to publish."""
        depth, made = result.prediction.depth, result.prediction.depth or result.prediction.relative
        if made is not None and "camera_info" in wanted:
            info = messages.depth_camera_info(result.header, result.calibration.info, result.frame.size_hw, made.size_hw)
            self._publishers["camera_info"].publish(info)
        if depth is None or "depth" not in wanted:
            return False
        self._publishers["depth"].publish(messages.depth_image(result.header, depth.values, result.config.depth.encoding))
        return True

    def publish_rest(self, result: FrameResult, wanted: frozenset[str]) -> bool:
        """Publish cloud, relative map and picture; returns whether there was any of them to publish."""
        depth, relative, color = result.prediction.depth, result.prediction.relative, result.config.color
        made, published = depth or relative, False
        if depth is not None and result.calibration.intrinsics is not None and "points" in wanted:
            self._publishers["points"].publish(self._cloud(result, depth, result.calibration.intrinsics))
            published = True
        if relative is not None and "relative" in wanted:
            self._publishers["relative"].publish(messages.relative_image(result.header, relative.values))
            published = True
        if made is not None and "color" in wanted:
            rgb = rgb_from_map(made, color.colormap, color.near_m, color.far_m)
            self._publishers["color"].publish(messages.color_image(result.header, rgb))
            published = True
        return published

    def _cloud(self, result: FrameResult, depth: DepthMap, intrinsics: Intrinsics) -> PointCloud2:
        cloud = result.config.cloud
        rgb = result.frame.rgb if cloud.fields == "xyzrgb" else None
        range_m = cloud.min_m, cloud.max_m or math.inf
        return messages.cloud(result.header, self._cloud_builder(depth.values, scaled(intrinsics, depth.size_hw), rgb, cloud.stride, range_m))


def _qos() -> QoSProfile:
    """Return a new profile: rclpy writes a user's overrides into the one that it is given."""
    return QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
