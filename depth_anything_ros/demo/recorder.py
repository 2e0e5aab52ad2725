"""Subscribes to what the node publishes, as a user's program would, and keeps what the report needs."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from .camera import TRUTH_TOPIC

Stamp = tuple[int, int]
MAX_SAMPLES = 100
SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Recorder(Node):
    """Counts depth images and keeps a few of them with their camera image and known depth.

    Attributes:
        depth_count: depth images received.
        latency_s: from the image's stamp to the depth image's arrival here.
        samples: (stamp, RGB, depth in metres) of images seen with their depth.
        errors: per frame with known depth: (abs_rel, delta1, median ratio predicted / known).
        truths: known depths by stamp, at most `MAX_SAMPLES` of them.
        cloud: the newest point cloud; camera_info: the newest of the depth image.
        node_status: the depth node's newest diagnostics as a dictionary.
    """

    def __init__(self) -> None:
        """Subscribe."""
        super().__init__("demo_recorder")
        self.depth_count = 0
        self.latency_s: list[float] = []
        self.first_s = self.last_s = 0.0
        self.samples: list[tuple[Stamp, npt.NDArray[np.uint8], npt.NDArray[np.float32]]] = []
        self.truths: dict[Stamp, npt.NDArray[np.float32]] = {}
        self.errors: dict[Stamp, tuple[float, float, float]] = {}
        self.cloud: PointCloud2 | None = None
        self.camera_info: CameraInfo | None = None
        self.node_status: dict[str, str] = {}
        self._images: OrderedDict[Stamp, Image] = OrderedDict()
        self._depths: OrderedDict[Stamp, npt.NDArray[np.float32]] = OrderedDict()
        self.create_subscription(Image, "image", self._on_image, SENSOR_QOS)
        self.create_subscription(Image, "depth/image", self._on_depth, 10)
        self.create_subscription(CameraInfo, "depth/camera_info", lambda info: setattr(self, "camera_info", info), 10)
        self.create_subscription(PointCloud2, "depth/points", lambda cloud: setattr(self, "cloud", cloud), 1)
        self.create_subscription(Image, TRUTH_TOPIC, self._on_truth, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_image(self, image: Image) -> None:
        self._images[_stamp(image)] = image
        if len(self._images) > 20:
            self._images.popitem(last=False)

    def _on_depth(self, image: Image) -> None:
        now = self.get_clock().now().nanoseconds / 1e9
        stamp = _stamp(image)
        self.latency_s.append(now - stamp[0] - stamp[1] / 1e9)
        self.depth_count += 1
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        depth_m = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
        self._depths[stamp] = depth_m
        if len(self._depths) > 20:
            self._depths.popitem(last=False)
        self._compare(stamp)
        if stamp in self._images and (stamp in self.truths or self.depth_count % 15 == 0) and len(self.samples) < MAX_SAMPLES:
            camera = self._images[stamp]
            rgb = np.frombuffer(camera.data, np.uint8).reshape(camera.height, camera.width, 3)
            self.samples.append((stamp, rgb, depth_m))

    def _on_truth(self, image: Image) -> None:
        if len(self.truths) < MAX_SAMPLES:
            self.truths[_stamp(image)] = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
            self._compare(_stamp(image))

    def _compare(self, stamp: Stamp) -> None:
        if stamp not in self.truths or stamp not in self._depths or stamp in self.errors:
            return
        truth, depth = self.truths[stamp], self._depths[stamp]
        valid = np.isfinite(depth)
        if valid.any():
            ratio = depth[valid] / truth[valid]
            within = np.maximum(ratio, 1 / ratio) < 1.25
            self.errors[stamp] = float(np.abs(ratio - 1).mean()), float(within.mean()), float(np.median(ratio))

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.endswith("depth_anything: depth"):
                self.node_status = {pair.key: pair.value for pair in status.values} | {"message": status.message}


def _stamp(message: Any) -> Stamp:  # noqa: ANN401 - any message with a header
    return message.header.stamp.sec, message.header.stamp.nanosec
