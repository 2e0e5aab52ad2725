"""Small bags for tests, written and read with the library rosbags."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the package rosbags")

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from depth_anything_ros.bag.__main__ import main
from depth_anything_ros.bag.messages import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, STORE
from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number, draw_frame_number

START_NS, PERIOD_NS = 1_700_000_000_000_000_000, 33_333_333
STRING, THING = "std_msgs/msg/String", "made_up_msgs/msg/Thing"
THING_TEXT = "std_msgs/Header header\nfloat64[3] numbers\n"
FOREVER = QosTime(9223372036, 854775807)
QOS = Qos(
    QosHistory.KEEP_LAST, 7, QosReliability.BEST_EFFORT, QosDurability.TRANSIENT_LOCAL, FOREVER, FOREVER, QosLiveliness.AUTOMATIC, FOREVER, False
)
SIZE_HW = (48, 64)
SYNTHETIC = ["--engine", "synthetic"]


def _type(name):
    return STORE.types[name]


def header(number: int):
    stamp = START_NS + number * PERIOD_NS - 5_000_000  # taken before it was recorded
    return _type("std_msgs/msg/Header")(_type("builtin_interfaces/msg/Time")(stamp // 10**9, stamp % 10**9), "left_optical")


def picture(number: int, size_hw=SIZE_HW) -> np.ndarray:
    """Return an RGB picture that the synthetic engine answers with the depth of its number."""
    rgb = np.full((*size_hw, 3), 99, np.uint8)
    draw_frame_number(rgb, number)
    return rgb


def image(number: int, encoding: str = "rgb8", size_hw=SIZE_HW) -> bytes:
    rgb = picture(number, size_hw)
    fields = {"height": size_hw[0], "width": size_hw[1], "encoding": encoding, "is_bigendian": 0, "step": size_hw[1] * 3}
    return bytes(STORE.serialize_cdr(_type(IMAGE)(header(number), **fields, data=rgb.reshape(-1)), IMAGE))


def compressed(number: int, size_hw=SIZE_HW) -> bytes:
    png = cv2.imencode(".png", picture(number, size_hw)[..., ::-1])[1].reshape(-1)
    return bytes(STORE.serialize_cdr(_type(COMPRESSED_IMAGE)(header(number), "png", png), COMPRESSED_IMAGE))


def camera_info(number: int, size_hw=SIZE_HW) -> bytes:
    k = np.array([60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0])
    p = np.array([60.0, 0.0, 32.0, 0.0, 0.0, 60.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    roi = _type("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
    info = _type(CAMERA_INFO)(header(number), size_hw[0], size_hw[1], "plumb_bob", np.zeros(5), k, np.eye(3).reshape(-1), p, 0, 0, roi)
    return bytes(STORE.serialize_cdr(info, CAMERA_INFO))


def text(number: int) -> bytes:
    return bytes(STORE.serialize_cdr(_type(STRING)(f"message {number}"), STRING))


class BagWriter:
    """Writes a bag; topics appear with their first message. `compress`: storage (chunks of an MCAP file), message or file."""

    def __init__(self, path: Path, storage: str = "mcap", compress: str = ""):
        self.writer = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
        self.writer.set_custom_data("robot", "seven")
        if compress:
            self.writer.set_compression(CompressionMode[compress.upper()], CompressionFormat.ZSTD)
        self.connections = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def add(self, topic: str, msgtype: str, stamp_ns: int, data: bytes) -> None:
        if topic not in self.connections:
            store = STORE
            if msgtype == THING:
                store = get_typestore(Stores.ROS2_HUMBLE)
                store.register(get_types_from_msg(THING_TEXT, THING))
            qos = [QOS] if topic.startswith("/chatter") else []
            self.connections[topic] = self.writer.add_connection(topic, msgtype, typestore=store, offered_qos_profiles=qos)
        self.writer.write(self.connections[topic], stamp_ns, data)


def write_bag(path: Path, storage: str = "mcap", frames: int = 6, raw: bool = True, info: bool = True, compress: str = "", size_hw=SIZE_HW) -> Path:
    """Write a bag of one camera `/camera` and other topics between its images."""
    topic, msgtype, content = ("/camera/image_raw", IMAGE, image) if raw else ("/camera/image_raw/compressed", COMPRESSED_IMAGE, compressed)
    with BagWriter(path, storage, compress) as bag:
        for number in range(frames):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.add("/chatter", STRING, stamp_ns - 2, text(number))
            bag.add("/things", THING, stamp_ns - 1, bytes([0, 1, 0, 0, number]) + bytes(39))  # never looked into
            if info:
                bag.add("/camera/camera_info", CAMERA_INFO, stamp_ns, camera_info(number, size_hw))
            bag.add(topic, msgtype, stamp_ns, content(number, size_hw=size_hw))
    return path


def read_bag(path: Path) -> list[tuple[str, str, int, bytes]]:
    """Return topic, type, stamp and bytes of every message, in the order in which a reader gets them."""
    with Reader(path) as reader:
        return [(connection.topic, connection.msgtype, stamp_ns, bytes(data)) for connection, stamp_ns, data in reader.messages()]


def topics_of(path: Path) -> dict[str, tuple]:
    """Return type, definition, hash, format and QoS of every topic."""
    with Reader(path) as reader:
        return {c.topic: (c.msgtype, c.msgdef, c.digest, c.ext.serialization_format, c.ext.offered_qos_profiles) for c in reader.connections}


def values_of(data: bytes) -> np.ndarray:
    """Return the values of a 32FC1 image."""
    message = STORE.deserialize_cdr(data, IMAGE)
    return message.data.view(np.float32).reshape(message.height, message.width)


def convert(source: Path, output: Path, *options: str) -> int:
    return main([str(source), str(output), *SYNTHETIC, *options])


def of_topic(path, topic):
    return [(stamp_ns, data) for name, _, stamp_ns, data in read_bag(path) if name == topic]


def check_depths(path, topic, count, first=0):
    """Every depth image has the header, the stamp and the depth of its image."""
    found = of_topic(path, topic)
    assert len(found) == count
    for number, (stamp_ns, data) in enumerate(found, first):
        message = STORE.deserialize_cdr(data, IMAGE)
        assert message.header == header(number)
        assert stamp_ns == START_NS + number * PERIOD_NS
        np.testing.assert_allclose(values_of(data), depth_of_frame_number(number), atol=1e-6)
