"""A camera's output topics: what is wanted, and how a prediction becomes messages."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Header

from . import messages
from .camera import Calibration
from .color import rgb_from_map
from .config import RuntimeConfig
from .errors import ConfigError
from .geometry import CloudBuilder
from .laser_scan import ScanBuilder
from .obstacles import points_from_depth, scan_from_depth
from .prediction import Prediction
from .rays import ImageCamera
from .structs import DepthMap, RgbFrame

TOPICS: dict[str, tuple[str, type]] = {
    "depth": ("depth/image", Image),
    "points": ("depth/points", PointCloud2),
    "scan": ("scan", LaserScan),
    "relative": ("depth/relative", Image),
    "confidence": ("depth/confidence", Image),
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
    """Return which maps (`depth`, `relative`, `confidence`) have to be made for the wanted outputs; empty where nothing can come of the frame.

    Args:
        wanted: outputs with a subscriber.
        has_depth: whether metric depth can come of the frame.
        is_relative: whether the model is relative.
    """
    maps = set()
    if has_depth and wanted & {"depth", "points", "scan", "color"}:
        maps.add("depth")
    if is_relative and ("relative" in wanted or ("color" in wanted and not has_depth)):
        maps.add("relative")
    if "confidence" in wanted:
        maps.add("confidence")
    return frozenset(maps)


class Outputs:
    """Publishers of all outputs of a camera. Made in configure, asked and used by the worker's thread."""

    def __init__(self, node: LifecycleNode, prefix: str = "") -> None:
        """Create the publishers: reliable, newest only, which connects to every kind of subscriber; overridable. Topics begin with `prefix`."""
        self._node = node
        overridable = QoSOverridingOptions.with_default_policies()
        self._publishers: dict[str, Any] = {}
        self._cloud_builder, self._scan_builder = CloudBuilder(), ScanBuilder()
        self._cloud_made_s = -math.inf
        self.scan_problem = ""
        try:
            for name, (topic, kind) in TOPICS.items():
                self._publishers[name] = node.create_lifecycle_publisher(kind, prefix + topic, _qos(), qos_overriding_options=overridable)
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

    def due(self, wanted: frozenset[str], config: RuntimeConfig) -> frozenset[str]:
        """Return which of the wanted outputs are to be made of a frame that comes now.

        A cloud is made no more often than it may be. Without `camera.height_m` a subscriber of `scan` does not count: on many robots it
        takes another sensor's.
        """
        early = {"points"} if time.monotonic() < self._cloud_made_s + _cloud_period_s(config) else set()
        return wanted - early - ({"scan"} if config.camera.height_m == 0 else set())

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
        """Publish cloud, scan, confidence, relative map and picture; returns whether there was any of them to publish."""
        depth, relative, color = result.prediction.depth, result.prediction.relative, result.config.color
        sure_depth = result.prediction.points_depth
        made, published = depth or relative, False
        self.scan_problem = ""
        if sure_depth is not None and result.calibration.camera is not None:
            if "points" in wanted:
                self._publishers["points"].publish(self._cloud(result, sure_depth, result.calibration.camera))
                published = True
            if "scan" in wanted:
                published |= self._publish_scan(result, sure_depth, result.calibration.camera)
        if result.prediction.confidence is not None and "confidence" in wanted:
            self._publishers["confidence"].publish(messages.confidence_image(result.header, result.prediction.confidence))
            published = True
        if relative is not None and "relative" in wanted:
            self._publishers["relative"].publish(messages.relative_image(result.header, relative.values))
            published = True
        if made is not None and "color" in wanted:
            rgb = result.prediction.color
            if rgb is None:
                rgb = rgb_from_map(made, color.colormap, color.near_m, color.far_m)
            self._publishers["color"].publish(messages.color_image(result.header, rgb))
            published = True
        return published

    def _cloud(self, result: FrameResult, depth: DepthMap, camera: ImageCamera) -> PointCloud2:
        now_s, period_s = time.monotonic(), _cloud_period_s(result.config)
        due_s = self._cloud_made_s + period_s
        self._cloud_made_s = due_s if due_s <= now_s < due_s + period_s else now_s  # one that comes a little late delays none after it
        points, limit_m = result.prediction.points, result.prediction.range_limit_m
        if points is None:
            points = points_from_depth(self._cloud_builder, depth.values, camera, result.frame.rgb, result.config, limit_m)
        return messages.cloud(result.header, points)

    def _publish_scan(self, result: FrameResult, depth: DepthMap, camera: ImageCamera) -> bool:
        try:
            scan = scan_from_depth(self._scan_builder, depth.values, camera, result.config, result.prediction.range_limit_m)
        except ConfigError as error:
            self.scan_problem = f"no scan: {error}"
            return False
        header = Header(stamp=result.header.stamp, frame_id=result.config.scan.frame_id or f"{result.header.frame_id}_level")
        message = messages.laser_scan(header, scan.ranges_m, scan.angle_min_rad, scan.angle_increment_rad, scan.range_m)
        self._publishers["scan"].publish(message)
        return True


def _cloud_period_s(config: RuntimeConfig) -> float:
    return 1 / config.cloud.max_hz if config.cloud.max_hz > 0 else 0.0


def _qos() -> QoSProfile:
    """Return a new profile: rclpy writes a user's overrides into the one that it is given."""
    return QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
