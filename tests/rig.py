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
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depth_anything_ros.channel import Channel
from depth_anything_ros.engines.synthetic_engine import draw_frame_number
from depth_anything_ros.messages import fill_data
from depth_anything_ros.node import DepthNode
from depth_anything_ros.outputs import TOPICS

RELIABLE = QoSProfile(depth=50)
BEST_EFFORT = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
OUTPUTS = {topic: (name, kind) for name, (topic, kind) in TOPICS.items()}
"""Name and message type of the node's outputs by topic."""


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


def camera_and_output(topic: str) -> tuple[str, str]:
    """Split an output's topic into the camera's name, empty for the only one, and the rest."""
    camera, _, rest = topic.partition("/")
    return (camera, rest) if rest in OUTPUTS else ("", topic)


class Rig:
    """Attributes: node, peer, `got` (messages by topic), `diagnostics` (all status messages, oldest first).

    `publishers` has those of image and camera_info by camera.
    """

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
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self.publishers = {}
        for camera in parameters.get("cameras", [""]):
            prefix = f"{camera}/" if camera else ""
            image = self.peer.create_publisher(kind, prefix + topic, camera_qos)
            self.publishers[camera] = image, self.peer.create_publisher(CameraInfo, f"{prefix}camera_info", camera_qos)
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 10)
        for topic in subscribe:
            self.subscribe(topic, qos)
        if autostart:
            self.node.autostart()
        for executor in self.executors:
            self.threads.append(threading.Thread(target=executor.spin, daemon=True))
            self.threads[-1].start()

    @property
    def channel(self) -> Channel:
        """The node's only camera, or the first."""
        return self.node.channels[0]

    @property
    def image_publisher(self) -> Publisher:
        """Of the node's only camera, or the first."""
        return next(iter(self.publishers.values()))[0]

    @property
    def info_publisher(self) -> Publisher:
        """Of the node's only camera, or the first."""
        return next(iter(self.publishers.values()))[1]

    def channel_of(self, camera: str) -> Channel:
        return next(channel for channel in self.node.channels if channel.name == camera)

    def subscribe(self, topic: str, qos=RELIABLE) -> None:
        self.got[topic] = []
        self.peer.create_subscription(OUTPUTS[camera_and_output(topic)[1]][1], topic, self.got[topic].append, qos)

    def wait_connected(self) -> None:
        def connected() -> bool:
            inputs = all(publisher.get_subscription_count() for pair in self.publishers.values() for publisher in pair)
            return inputs and all(self.node.count_subscribers(topic) and self.peer.count_publishers(topic) for topic in self.got)

        def matched() -> bool:
            split = map(camera_and_output, self.got)
            return all(OUTPUTS[output][0] in self.channel_of(camera).outputs.wanted() for camera, output in split)

        self.wait(connected, "discovery")
        self.wait(matched, "matching")

    def wait(self, condition, what: str = "condition", timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s; counts {dict(self.channel.meter._counts)}"
            time.sleep(0.005)

    def send(self, image: Image | CompressedImage, info: CameraInfo | None = None, camera: str = "") -> None:
        """Publish an image and its camera_info (made up for raw images, unless given) of a camera."""
        image_publisher, info_publisher = self.publishers[camera]
        if info is None and isinstance(image, Image):
            info = camera_info(image)
        if info is not None:
            info_publisher.publish(info)
        image_publisher.publish(image)

    def exchange(self, image: Image | CompressedImage, topic: str = "depth/image", info: CameraInfo | None = None) -> Any:
        """Publish an image, to the camera that the topic belongs to, and return the next message of an output."""
        before = len(self.got[topic])
        self.send(image, info, camera_and_output(topic)[0])
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
        return self.channel.meter.total(event)

    def close(self) -> None:
        for executor in self.executors:
            executor.shutdown()
        for thread in self.threads:
            thread.join(10)
        self.node.close()
        self.peer.destroy_node()
        rclpy.try_shutdown(context=self.context)
