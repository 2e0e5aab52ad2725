import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs the ROS 2 message packages")
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depth_anything_ros import messages
from depth_anything_ros.camera import CameraInfoBuffer

HEADER = Header(stamp=Time(sec=7, nanosec=9), frame_id="left_optical")
DEPTH = np.array([[1.5, np.nan, np.inf], [70.0, 0.0004, 65.535]], np.float32)


def as_array(message, dtype):
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def test_float_depth_image_is_the_values():
    image = messages.depth_image(HEADER, DEPTH, "32FC1")
    assert (image.header, image.encoding, image.step, image.is_bigendian) == (HEADER, "32FC1", 12, 0)
    np.testing.assert_array_equal(as_array(image, np.float32), DEPTH)


def test_millimetre_image_saturates_and_marks_unknown_with_zero():
    image = messages.depth_image(HEADER, DEPTH, "16UC1")
    assert (image.encoding, image.step) == ("16UC1", 6)
    assert as_array(image, np.uint16).tolist() == [[1500, 0, 65535], [65535, 0, 65535]]


def test_fast_path_equals_the_public_setter():
    fast, public = Image(), Image()
    messages.fill_data(fast, DEPTH)
    public.data = DEPTH.tobytes()
    assert bytes(fast.data) == bytes(public.data)
    from rclpy.serialization import serialize_message

    assert serialize_message(fast) == serialize_message(public)


def test_message_without_the_private_attribute_still_works():
    class Plain:
        data = None

    plain = Plain()
    messages.fill_data(plain, DEPTH)
    assert plain.data.tobytes() == DEPTH.tobytes()


def test_slices_are_written_as_they_look():
    image = messages.relative_image(HEADER, DEPTH[:, ::2])
    assert (image.width, image.step) == (2, 8)
    np.testing.assert_array_equal(as_array(image, np.float32), DEPTH[:, ::2])


def test_camera_info_is_scaled_with_the_image():
    source = CameraInfo(height=720, width=1280, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0])
    source.k = [900.0, 0.0, 640.0, 0.0, 800.0, 360.0, 0.0, 0.0, 1.0]
    source.p = [910.0, 0.0, 641.0, -91.0, 0.0, 810.0, 361.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = messages.depth_camera_info(HEADER, source, (720, 1280), (360, 640))
    assert (info.header, info.height, info.width, info.distortion_model) == (HEADER, 360, 640, "plumb_bob")
    assert info.k.tolist() == [450, 0, 320, 0, 400, 180, 0, 0, 1]
    assert info.p.tolist() == [455, 0, 320.5, -45.5, 0, 405, 180.5, 0, 0, 0, 1, 0]
    assert source.k[0] == 900


def test_unknown_camera_is_uncalibrated_not_invented():
    info = messages.depth_camera_info(HEADER, None, (4, 4), (2, 2))
    assert (info.height, info.width, info.k.tolist()) == (2, 2, [0.0] * 9)


@pytest.mark.parametrize(("channels", "names"), [(3, "x y z"), (4, "x y z rgb")])
def test_cloud_layout(channels, names):
    points = np.arange(2 * 3 * channels, dtype=np.float32).reshape(2, 3, channels)
    cloud = messages.cloud(HEADER, points)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (2, 3, 4 * channels, 12 * channels)
    assert " ".join(f.name for f in cloud.fields) == names
    assert [f.offset for f in cloud.fields] == [0, 4, 8, 12][:channels]
    assert not cloud.is_dense
    np.testing.assert_array_equal(np.frombuffer(cloud.data, np.float32).reshape(points.shape), points)


def calibrated(width=4, sec=0, fx=100.0):
    info = CameraInfo(height=3, width=width)
    info.header.stamp.sec = sec
    info.k = [fx, 0.0, 2.0, 0.0, 50.0, 1.0, 0.0, 0.0, 1.0]
    return info


def test_calibration_of_the_same_stamp_wins_over_the_newest():
    buffer, image = CameraInfoBuffer(), Image(height=3, width=4)
    image.header.stamp.sec = 5
    for sec, fx in ((5, 111.0), (6, 222.0)):
        buffer.add(calibrated(sec=sec, fx=fx))
    assert buffer.calibration_for(image, (3, 4)).intrinsics.fx == 111.0
    image.header.stamp.sec = 9
    assert buffer.calibration_for(image, (3, 4)).intrinsics.fx == 222.0
    for sec in range(100, 200):
        buffer.add(calibrated(sec=sec))
    assert len(buffer._by_stamp) <= 16


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        (None, "no camera_info has arrived"),
        (calibrated(width=8), "camera_info is for 8x3 pixels, the image has 4x3"),
        (calibrated(fx=0.0), "camera_info is not calibrated: K is [0.0, 0.0, 2.0, 0.0, 50.0"),
        (calibrated(fx=float("nan")), "camera_info is not calibrated: K is [nan, 0.0, 2.0"),
    ],
)
def test_unusable_camera_info_says_why(info, problem):
    buffer = CameraInfoBuffer()
    if info is not None:
        buffer.add(info)
    calibration = buffer.calibration_for(Image(height=3, width=4), (3, 4))
    assert calibration.intrinsics is None
    assert calibration.info is None
    assert calibration.problem.startswith(problem)
