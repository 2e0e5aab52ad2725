"""A depth node and a peer (camera, subscriber, operator) in one process, over real ROS 2 topics."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from depth_anything_ros.engines.synthetic_engine import draw_frame_number
from depth_anything_ros.messages import fill_data
from depth_anything_ros.node import DepthNode

RELIABLE = QoSProfile(depth=50)
BEST_EFFORT = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
KINDS = {
    "depth/image": Image, "depth/relative": Image, "depth/confidence": Image,
    "depth/color": Image, "depth/camera_info": CameraInfo, "depth/points": PointCloud2,
    "scan": LaserScan,
}  # fmt: skip


def coded_image(number: int, size_hw: tuple[int, int] = (48, 64), stamp_ns: int = 0, frame_id: str = "cam") -> Image:
    """Return an rgb8 image that carries a frame number for the synthetic engine."""
    rgb = np.zeros((*size_hw, 3), np.uint8)
    draw_frame_number(rgb, number)
    return rgb_image(rgb, stamp_ns, frame_id)


def rgb_image(rgb: np.ndarray, stamp_ns: int = 0, frame_id: str = "cam") -> Image:
    image = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8", step=rgb.shape[1] * 3)
    image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    image.header.frame_id = frame_id
    fill_data(image, rgb)
    return image


def camera_info(image: Image, focal_px: float = 50.0) -> CameraInfo:
    info = CameraInfo(header=image.header, height=image.height, width=image.width)
    info.k = [focal_px, 0.0, image.width / 2, 0.0, focal_px, image.height / 2, 0.0, 0.0, 1.0]
    info.p = [focal_px, 0.0, image.width / 2, 0.0, 0.0, focal_px, image.height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def pixels(image: Image) -> np.ndarray:
    dtype = {"32FC1": np.float32, "16UC1": np.uint16, "rgb8": np.uint8}[image.encoding]
    shape = (image.height, image.width, 3) if image.encoding == "rgb8" else (image.height, image.width)
    return np.frombuffer(image.data, dtype).reshape(shape)


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


class Rig:
    """Attributes: node, peer, `got` (messages by topic), `diagnostics` (all status messages, oldest first)."""

    def __init__(
        self,
        autostart: bool = True,
        subscribe: tuple[str, ...] = ("depth/image",),
        compressed: bool = False,
        qos=RELIABLE,
        camera_qos=RELIABLE,
        cli_args=(),
        **parameters,
    ) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        values = {"engine": "synthetic", "diagnostics.period_s": 0.1} | {k.replace("__", "."): v for k, v in parameters.items()}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = DepthNode(context=self.context, parameter_overrides=overrides, cli_args=["--ros-args", *cli_args] if cli_args else None)
        self.peer = Node("peer", context=self.context)
        self.executors = [SingleThreadedExecutor(context=self.context) for _ in range(2)]
        self.threads = []
        for executor, member in zip(self.executors, (self.node, self.peer)):
            executor.add_node(member)
        self.got: dict[str, list[Any]] = {}
        self.clients: dict[str, Any] = {}
        self.diagnostics: list[Any] = []
        self.image_publisher = self.peer.create_publisher(
            CompressedImage if compressed else Image, "image/compressed" if compressed else "image", camera_qos
        )
        self.info_publisher = self.peer.create_publisher(CameraInfo, "camera_info", camera_qos)
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 10)
        for topic in subscribe:
            self.subscribe(topic, qos)
        if autostart:
            self.node.autostart()
        for executor in self.executors:
            self.threads.append(threading.Thread(target=executor.spin, daemon=True))
            self.threads[-1].start()

    def subscribe(self, topic: str, qos=RELIABLE) -> None:
        self.got[topic] = []
        self.peer.create_subscription(KINDS[topic], topic, self.got[topic].append, qos)

    def wait_connected(self) -> None:
        def connected() -> bool:
            inputs = self.image_publisher.get_subscription_count() and self.info_publisher.get_subscription_count()
            return bool(inputs) and all(self.node.count_subscribers(topic) and self.peer.count_publishers(topic) for topic in self.got)

        self.wait(connected, "discovery")
        wanted = {
            "depth/image": "depth",
            "depth/relative": "relative",
            "depth/color": "color",
            "depth/confidence": "confidence",
            "depth/camera_info": "camera_info",
            "depth/points": "points",
            "scan": "scan",
        }
        self.wait(lambda: self.node._outputs.wanted() >= {wanted[topic] for topic in self.got}, "matching")

    def wait(self, condition, what: str = "condition", timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s; counts {dict(self.node.meter._counts)}"
            time.sleep(0.005)

    def send(self, image: Image | CompressedImage, info: CameraInfo | None = None) -> None:
        """Publish an image and its camera_info (made up for raw images, unless given)."""
        if info is None and isinstance(image, Image):
            info = camera_info(image)
        if info is not None:
            self.info_publisher.publish(info)
        self.image_publisher.publish(image)

    def exchange(self, image: Image | CompressedImage, topic: str = "depth/image", info: CameraInfo | None = None) -> Any:
        """Publish an image and return the next message of an output."""
        before = len(self.got[topic])
        self.send(image, info)
        self.wait(lambda: len(self.got[topic]) > before, topic)
        return self.got[topic][-1]

    def set_parameters(self, atomically: bool = True, **values) -> list[Any]:
        """Set parameters through the node's service; returns the results."""
        parameters = [Parameter(k.replace("__", "."), value=v).to_parameter_msg() for k, v in values.items()]
        if atomically:
            client = self.client(SetParametersAtomically, "set_parameters_atomically")
            request: Any = SetParametersAtomically.Request(parameters=parameters)
        else:
            client = self.client(SetParameters, "set_parameters")
            request = SetParameters.Request(parameters=parameters)
        response = self.call(client, request)
        return [response.result] if atomically else response.results

    def client(self, kind, name: str):
        """Return the one client of a service of the node, connected."""
        if name not in self.clients:
            self.clients[name] = self.peer.create_client(kind, f"/depth_anything/{name}")
            assert self.clients[name].wait_for_service(10)
        return self.clients[name]

    def call(self, client, request, timeout_s: float = 10.0) -> Any:
        future = client.call_async(request)
        self.wait(future.done, "service", timeout_s)
        return future.result()

    def status(self, accept=lambda s: True, what: str = "diagnostics") -> tuple[Any, dict[str, str]]:
        """Return the next diagnostics status that is acceptable, and its values."""
        self.diagnostics.clear()
        self.wait(lambda: any(accept(s) for s in list(self.diagnostics)), what)
        status = next(s for s in self.diagnostics if accept(s))
        return status, {pair.key: pair.value for pair in status.values}

    def total(self, event: str) -> int:
        return self.node.meter.total(event)

    def close(self) -> None:
        for executor in self.executors:
            executor.shutdown()
        for thread in self.threads:
            thread.join(10)
        self.node.close()
        self.peer.destroy_node()
        rclpy.try_shutdown(context=self.context)
