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
MAX_WAITING = 20
SAMPLE_EVERY = 15
OUTCOMES = ("published", "dropped", "refused", "failed", "idle", "withheld")
"""What the node's diagnostics may say of an image received; each one is counted once."""
SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Recorder(Node):
    """Counts depth images and keeps a few of them with their camera image and known depth.

    Attributes:
        depth_count: depth images received.
        latency_s: from the image's stamp to the depth image's arrival here.
        started_s: since when camera images, depth images and known depths (where there are any) have all been arriving; monotonic, 0 before.
        samples: by stamp (RGB, depth in metres) of images seen with their depth.
        errors: per frame with known depth: (abs_rel, delta1, median ratio predicted / known).
        truths: known depths by stamp, at most `MAX_SAMPLES` of them.
        cloud: the newest point cloud; camera_info: the newest of the depth image.
        node_status: the depth node's newest diagnostics as a dictionary; status_count: how many came.
    """

    def __init__(self, depth_is_known: bool) -> None:
        """Subscribe, to the known depth only where the camera publishes one."""
        super().__init__("demo_recorder")
        self.depth_count = self.status_count = 0
        self.latency_s: list[float] = []
        self.first_s = self.last_s = self.started_s = 0.0
        self.samples: dict[Stamp, tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]] = {}
        self.truths: dict[Stamp, npt.NDArray[np.float32]] = {}
        self.errors: dict[Stamp, tuple[float, float, float]] = {}
        self.cloud: PointCloud2 | None = None
        self.camera_info: CameraInfo | None = None
        self.node_status: dict[str, str] = {}
        self._depth_is_known = depth_is_known
        self._sampled_at = -SAMPLE_EVERY
        self._images: OrderedDict[Stamp, Image] = OrderedDict()
        self._depths: OrderedDict[Stamp, npt.NDArray[np.float32]] = OrderedDict()
        self.create_subscription(Image, "image", self._on_image, SENSOR_QOS)
        self.create_subscription(Image, "depth/image", self._on_depth, 10)
        self.create_subscription(CameraInfo, "depth/camera_info", lambda info: setattr(self, "camera_info", info), 10)
        self.create_subscription(PointCloud2, "depth/points", lambda cloud: setattr(self, "cloud", cloud), 1)
        if depth_is_known:
            self.create_subscription(Image, TRUTH_TOPIC, self._on_truth, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def all_counted(self) -> bool:
        """Whether the node's newest diagnostics account for every image that it received, and all depth images that it published came."""
        counts = {key: int(self.node_status.get(key, 0)) for key in ("received", *OUTCOMES)}
        return counts.pop("received") == sum(counts.values()) and self.depth_count >= counts["published"]

    def _on_image(self, image: Image) -> None:
        self._images[_stamp(image)] = image
        self._match(_stamp(image))

    def _on_depth(self, image: Image) -> None:
        now = self.get_clock().now().nanoseconds / 1e9
        stamp = _stamp(image)
        self.latency_s.append(now - stamp[0] - stamp[1] / 1e9)
        self.depth_count += 1
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self._depths[stamp] = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
        self._match(stamp)

    def _on_truth(self, image: Image) -> None:
        if len(self.truths) < MAX_SAMPLES:
            self.truths[_stamp(image)] = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
            self._match(_stamp(image))

    def _match(self, stamp: Stamp) -> None:
        """Compare and keep what belongs to one stamp; its messages come in any order."""
        for waiting in (self._images, self._depths):
            if len(waiting) > MAX_WAITING:
                waiting.popitem(last=False)
        depth_m, truth_m, image = self._depths.get(stamp), self.truths.get(stamp), self._images.get(stamp)
        if depth_m is None:
            return
        if truth_m is not None and stamp not in self.errors:
            self._compare(stamp, depth_m, truth_m)
        due = truth_m is not None or self.depth_count - self._sampled_at >= SAMPLE_EVERY
        if image is not None and due and stamp not in self.samples and len(self.samples) < MAX_SAMPLES:
            self.samples[stamp] = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3), depth_m
            self._sampled_at = self.depth_count
        if self.samples and (self.truths or not self._depth_is_known):
            self.started_s = self.started_s or time.monotonic()

    def _compare(self, stamp: Stamp, depth_m: npt.NDArray[np.float32], truth_m: npt.NDArray[np.float32]) -> None:
        valid = np.isfinite(depth_m)
        if valid.any():
            ratio = depth_m[valid] / truth_m[valid]
            within = np.maximum(ratio, 1 / ratio) < 1.25
            self.errors[stamp] = float(np.abs(ratio - 1).mean()), float(within.mean()), float(np.median(ratio))

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.endswith("depth_anything: depth"):
                self.status_count += 1
                self.node_status = {pair.key: pair.value for pair in status.values} | {"message": status.message}


def _stamp(message: Any) -> Stamp:  # noqa: ANN401 - any message with a header
    return message.header.stamp.sec, message.header.stamp.nanosec
