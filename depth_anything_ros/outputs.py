"""The node's output topics: what is wanted, and how a prediction becomes messages."""

from __future__ import annotations

import math
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
from .structs import DepthMap, RgbFrame

TOPICS: dict[str, tuple[str, type]] = {
    "depth": ("depth/image", Image),
    "points": ("depth/points", PointCloud2),
    "relative": ("depth/relative", Image),
    "color": ("depth/color", Image),
    "camera_info": ("depth/camera_info", CameraInfo),
}


class Outputs:
    """Publishers of all outputs. Made in configure, asked and used by the worker's thread."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers: reliable, newest only, which connects to every kind of subscriber; overridable."""
        self._node = node
        overridable = QoSOverridingOptions.with_default_policies()
        self._publishers: dict[str, Any] = {
            name: node.create_lifecycle_publisher(kind, topic, _qos(), qos_overriding_options=overridable) for name, (topic, kind) in TOPICS.items()
        }
        self._cloud_builder = CloudBuilder()

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)

    def wanted(self) -> frozenset[str]:
        """Return the outputs that have a subscriber; an output that nobody takes is not made."""
        return frozenset(name for name, publisher in self._publishers.items() if publisher.get_subscription_count() > 0)

    def publish_depth(
        self, header: Header, prediction: Prediction, frame: RgbFrame, calibration: Calibration, config: RuntimeConfig, wanted: frozenset[str]
    ) -> None:
        """Publish the depth image and its camera_info, the outputs that others wait for."""
        if prediction.depth is not None and "depth" in wanted:
            self._publishers["depth"].publish(messages.depth_image(header, prediction.depth.values, config.depth.encoding))
        made = prediction.depth or prediction.relative
        if made is not None and "camera_info" in wanted:
            size_hw = made.values.shape[0], made.values.shape[1]
            self._publishers["camera_info"].publish(messages.depth_camera_info(header, calibration.info, frame.size_hw, size_hw))

    def publish_rest(
        self, header: Header, prediction: Prediction, frame: RgbFrame, calibration: Calibration, config: RuntimeConfig, wanted: frozenset[str]
    ) -> None:
        """Publish cloud, relative map and picture."""
        if prediction.depth is not None and calibration.intrinsics is not None and "points" in wanted:
            self._publishers["points"].publish(self._cloud(header, prediction.depth, frame, calibration, config))
        if prediction.relative is not None and "relative" in wanted:
            self._publishers["relative"].publish(messages.relative_image(header, prediction.relative.values))
        made = prediction.depth or prediction.relative
        if made is not None and "color" in wanted:
            rgb = rgb_from_map(made, config.color.colormap, config.color.near_m, config.color.far_m)
            self._publishers["color"].publish(messages.color_image(header, rgb))

    def _cloud(self, header: Header, depth: DepthMap, frame: RgbFrame, calibration: Calibration, config: RuntimeConfig) -> PointCloud2:
        assert calibration.intrinsics is not None
        intrinsics = scaled(calibration.intrinsics, (depth.values.shape[0], depth.values.shape[1]))
        rgb = frame.rgb if config.cloud.fields == "xyzrgb" else None
        range_m = config.cloud.min_m, config.cloud.max_m or math.inf
        return messages.cloud(header, self._cloud_builder(depth.values, intrinsics, rgb, config.cloud.stride, range_m))


def _qos() -> QoSProfile:
    """Return a new profile: rclpy writes a user's overrides into the one that it is given."""
    return QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
