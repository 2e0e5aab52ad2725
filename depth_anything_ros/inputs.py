"""A camera's input topics: subscriptions that connect to every driver, made only while the node is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .camera import CameraInfoBuffer
from .config import RuntimeConfig
from .sensors import Sensors, SharedTransforms


class Inputs:
    """Subscriptions to the images, their camera_info, and the sensors that the scale is measured against."""

    def __init__(self, node: Node, on_image: Callable[[Any], None], transforms: SharedTransforms, prefix: str = "") -> None:
        """Remember where images go; nothing is subscribed before `open`. All topics begin with `prefix`."""
        self._node, self._on_image, self._prefix = node, on_image, prefix
        self._image: Any = None
        self._info: Any = None
        self.camera_infos, self.sensors = CameraInfoBuffer(), Sensors(node, transforms, prefix)

    def open(self, config: RuntimeConfig) -> str:
        """Subscribe: best effort, newest only; where every frame counts, reliable and all of them. Returns the image topic."""
        kind, topic = (CompressedImage, "image/compressed") if config.image_transport == "compressed" else (Image, "image")
        qos = _newest()
        if config.frame_policy == "all":
            qos.history, qos.reliability = HistoryPolicy.KEEP_ALL, ReliabilityPolicy.RELIABLE
        overridable = QoSOverridingOptions.with_default_policies()
        self._image = self._node.create_subscription(kind, self._prefix + topic, self._on_image, qos, qos_overriding_options=overridable)
        self._info = self._node.create_subscription(
            CameraInfo, f"{self._prefix}camera_info", self.camera_infos.add, _newest(), qos_overriding_options=overridable
        )
        self.sensors.follow(config.scale)
        self.camera_infos.image_topic = str(self._image.topic_name)
        return self.camera_infos.image_topic

    def close(self) -> None:
        """Unsubscribe and forget the camera and the sensors."""
        for subscription in filter(None, (self._image, self._info)):
            self._node.destroy_subscription(subscription)
        self._image = self._info = None
        self.camera_infos.clear()
        self.sensors.close()

    def follow_best_effort_publishers(self) -> None:
        """Where every frame is wanted (reliable) but the camera is best effort, take what it gives rather than nothing."""
        if self._image is None or self._image.qos_profile.reliability != ReliabilityPolicy.RELIABLE:
            return
        topic, kind, qos = self._image.topic_name, self._image.msg_type, self._image.qos_profile
        publishers = self._node.get_publishers_info_by_topic(topic)
        if all(publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE for publisher in publishers):
            return
        self._node.get_logger().warning(f"{topic} is published best effort: frames may be lost on their way although frame_policy is 'all'")
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
        self._node.destroy_subscription(self._image)
        self._image = self._node.create_subscription(kind, topic, self._on_image, qos)


def _newest() -> QoSProfile:
    """Return a new profile: rclpy writes a user's overrides into the one that it is given."""
    return QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
