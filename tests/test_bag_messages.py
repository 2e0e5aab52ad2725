"""Messages for bags: the same values and the same bytes as the node's."""

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the package rosbags")

from depth_anything_ros.bag import messages as bag_messages
from depth_anything_ros.errors import DecodeError

DEPTH = np.array([[1.5, np.nan, np.inf], [70.0, 0.0004, 65.535]], np.float32)
TYPES = bag_messages.STORE.types
HEADER = TYPES["std_msgs/msg/Header"](stamp=TYPES["builtin_interfaces/msg/Time"](sec=7, nanosec=9), frame_id="left_optical")
SOURCE = {
    "height": 720,
    "width": 1280,
    "distortion_model": "plumb_bob",
    "d": [0.1, 0.0, 0.0, 0.0, 0.5],
    "k": [900.0, 0.0, 640.0, 0.0, 800.0, 360.0, 0.0, 0.0, 1.0],
    "r": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
    "p": [910.0, 0.0, 641.0, -91.0, 0.0, 810.0, 361.0, 0.0, 0.0, 0.0, 1.0, 0.0],
}


def read(data, msgtype):
    return bag_messages.message_from_bytes(bytes(data), msgtype)


def bag_camera_info():
    lists = {name: np.asarray(SOURCE[name]) for name in "dkrp"}
    roi = TYPES["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return TYPES["sensor_msgs/msg/CameraInfo"](header=HEADER, **(SOURCE | lists), binning_x=0, binning_y=0, roi=roi)


def test_float_depth_is_the_values_under_the_header_of_the_image():
    image = read(bag_messages.depth_image(HEADER, DEPTH, "32FC1"), bag_messages.IMAGE)
    assert (image.header, image.encoding, image.height, image.width, image.step, image.is_bigendian) == (HEADER, "32FC1", 2, 3, 12, 0)
    np.testing.assert_array_equal(image.data.view(np.float32).reshape(2, 3), DEPTH)


def test_millimetres_saturate_and_mark_unknown_with_zero():
    image = read(bag_messages.depth_image(HEADER, DEPTH, "16UC1"), bag_messages.IMAGE)
    assert (image.encoding, image.step) == ("16UC1", 6)
    assert image.data.view(np.uint16).tolist() == [1500, 0, 65535, 65535, 0, 65535]


def test_camera_info_is_scaled_with_the_image_and_never_invented():
    info = read(bag_messages.depth_camera_info(HEADER, bag_camera_info(), (720, 1280), (360, 640)), bag_messages.CAMERA_INFO)
    assert (info.height, info.width, info.distortion_model, info.d.tolist()) == (360, 640, "plumb_bob", SOURCE["d"])
    assert info.k.tolist() == [450, 0, 320, 0, 400, 180, 0, 0, 1]
    assert info.p.tolist() == [455, 0, 320.5, -45.5, 0, 405, 180.5, 0, 0, 0, 1, 0]
    unknown = read(bag_messages.depth_camera_info(HEADER, None, (4, 4), (2, 2)), bag_messages.CAMERA_INFO)
    assert (unknown.height, unknown.k.tolist()) == (2, [0.0] * 9)


def test_bytes_that_are_no_message_are_refused():
    data = bytes(bag_messages.depth_image(HEADER, DEPTH, "32FC1"))
    for broken in (b"", data[:3], data[:20], data[:-1]):
        with pytest.raises(DecodeError, match="cannot be deserialised"):
            bag_messages.message_from_bytes(broken, bag_messages.IMAGE)


@pytest.mark.ros
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("frame_id", ["", "cam", "camera_optical"])
def test_every_message_is_the_nodes_to_the_byte(channels, frame_id):
    pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
    from builtin_interfaces.msg import Time
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header

    from depth_anything_ros import messages

    ros = Header(stamp=Time(sec=7, nanosec=9), frame_id=frame_id)
    bag = TYPES["std_msgs/msg/Header"](stamp=HEADER.stamp, frame_id=frame_id)
    points = np.arange(2 * 3 * channels, dtype=np.float32).reshape(2, 3, channels)
    pairs = [
        (messages.depth_image(ros, DEPTH, "32FC1"), bag_messages.depth_image(bag, DEPTH, "32FC1")),
        (messages.depth_image(ros, DEPTH, "16UC1"), bag_messages.depth_image(bag, DEPTH, "16UC1")),
        (messages.relative_image(ros, DEPTH[:, ::2]), bag_messages.relative_image(bag, DEPTH[:, ::2])),
        (messages.depth_camera_info(ros, None, (4, 4), (2, 3)), bag_messages.depth_camera_info(bag, None, (4, 4), (2, 3))),
        (
            messages.depth_camera_info(ros, CameraInfo(header=ros, **SOURCE), (720, 1280), (240, 426)),
            bag_messages.depth_camera_info(bag, bag_camera_info(), (720, 1280), (240, 426)),
        ),
        (messages.cloud(ros, points), bag_messages.cloud(bag, points)),
    ]
    for expected, made in pairs:
        data, msgtype = serialize_message(expected), f"sensor_msgs/msg/{type(expected).__name__}"
        assert len(made) == len(data)
        # rclpy leaves the padding between fields as it was in memory; the bag's has zeros there.
        assert bytes(made) == bytes(bag_messages.STORE.serialize_cdr(read(data, msgtype), msgtype)), msgtype
        assert deserialize_message(bytes(made), type(expected)) == expected
