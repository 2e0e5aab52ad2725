"""The node over real topics: the laser scan that it makes of depth."""

import math

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")

from depth_anything_ros.geometry import Level  # noqa: E402

from .rig import camera_info, coded_image, rgb_image  # noqa: E402

pytestmark = pytest.mark.ros
SIZE, FOCAL = (480, 640), 400.0


def bearings(scan):
    return scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges))


def ranges(scan):
    return np.array(scan.ranges)


def two_metres(**kwargs):
    """An image that the synthetic engine takes for a wall 2 m away."""
    return coded_image(1750, SIZE, **kwargs)


def scan_of(r, image, **changes):
    info = camera_info(image, FOCAL)
    for name, value in changes.items():
        setattr(info, name, value)
    return r.exchange(image, "scan", info)


def test_a_wall_at_two_metres_is_at_two_metres_at_every_bearing(rig):
    r = rig(subscribe=("scan",), camera__height_m=0.5)
    image = two_metres(stamp_ns=123_000_000_456, frame_id="left_optical")
    scan = scan_of(r, image)
    ahead_m = ranges(scan) * np.cos(bearings(scan))
    assert len(ahead_m) > 500
    assert np.abs(ahead_m - 2).max() < 0.01, "no bearing may be without a range, either"
    assert (scan.header.stamp, scan.header.frame_id) == (image.header.stamp, "left_optical_level")
    assert (scan.angle_min, scan.angle_max) == pytest.approx((-math.atan(319 / 400), math.atan(320 / 400)), abs=0.003)
    assert (scan.range_min, scan.range_max) == pytest.approx((0.2, 8.0))
    assert (scan.scan_time, scan.time_increment, len(scan.intensities)) == (0, 0, 0)


@pytest.mark.parametrize(("roll_deg", "pitch_deg"), [(0.0, 20.0), (10.0, -5.0)])
def test_an_upright_wall_seen_by_a_tilted_camera(rig, roll_deg, pitch_deg):
    """The synthetic engine reads 1 m + brightness, so a wall at 1.6 m is drawn as the depth that a tilted camera sees of it."""
    r = rig(subscribe=("scan",), camera__height_m=0.6, camera__roll_deg=roll_deg, camera__pitch_deg=pitch_deg, scan__max_m=3.0)
    forward = Level.from_roll_pitch(math.radians(roll_deg), math.radians(pitch_deg), 0.6).level_R_camera[0]
    u, v = np.meshgrid((np.arange(640) - 320) / FOCAL, (np.arange(480) - 240) / FOCAL)
    brightness = np.clip(1.6 / (forward[0] * u + forward[1] * v + forward[2]) - 1, 0, 1)
    scan = scan_of(r, rgb_image(np.repeat(np.rint(brightness * 255).astype(np.uint8)[..., None], 3, axis=2)))
    ahead_m, middle = ranges(scan) * np.cos(bearings(scan)), np.abs(bearings(scan)) < 0.3
    assert middle.sum() > 100
    assert np.abs(ahead_m[middle] - 1.6).max() < 0.01


def test_a_distorted_camera_sees_the_same_wall(rig):
    r = rig(subscribe=("scan",), camera__height_m=0.5)
    scan = scan_of(r, two_metres(), d=[-0.3, 0.1, 0.0, 0.0, 0.0], distortion_model="plumb_bob")
    assert np.abs(ranges(scan) * np.cos(bearings(scan)) - 2).max() < 0.01
    assert scan.angle_max > math.atan(320 / 400) + 0.05, "a barrel lens sees more"


def test_what_is_beyond_range_is_inf_and_what_is_too_near_is_unknown(rig):
    r = rig(subscribe=("scan",), camera__height_m=0.5, scan__max_m=1.5)
    assert np.isposinf(ranges(scan_of(r, two_metres()))).all()
    assert r.set_parameters(scan__max_m=8.0, depth__max_m=1.5)[0].successful
    assert np.isnan(ranges(scan_of(r, two_metres()))).all(), "what is known to be farther than 1.5 m is not known to be free up to 8 m"
    assert r.set_parameters(scan__max_m=1.5)[0].successful
    assert np.isposinf(ranges(scan_of(r, two_metres()))).all()
    assert r.set_parameters(depth__max_m=0.0, scan__max_m=8.0, scan__min_m=5.0)[0].successful
    assert np.isnan(ranges(scan_of(r, two_metres()))).all()


def test_heights_and_frame_follow_the_parameters(rig):
    """At 2 m the camera sees from -0.7 m to 1.7 m above the floor; a bar of 1 m depth lies at 0.8 m to 0.9 m."""
    r = rig(subscribe=("scan",), camera__height_m=0.5, scan__frame_id="scanner", scan__min_height_m=0.1, scan__max_height_m=0.7)
    rgb = np.full((*SIZE, 3), 255, np.uint8)
    rgb[80:120] = 0
    scan = scan_of(r, rgb_image(rgb))
    assert scan.header.frame_id == "scanner"
    np.testing.assert_allclose(ranges(scan) * np.cos(bearings(scan)), 2, atol=0.01)
    assert r.set_parameters(scan__max_height_m=1.0)[0].successful
    scan = scan_of(r, rgb_image(rgb))
    np.testing.assert_allclose(ranges(scan) * np.cos(bearings(scan)), 1, atol=0.01)
    (refused,) = r.set_parameters(scan__max_height_m=0.05)
    assert "scan.max_height_m (0.05) must be above scan.min_height_m (0.1)" in refused.reason


def test_a_scan_that_cannot_be_made_says_why_and_harms_nothing_else(rig):
    r = rig(subscribe=("scan", "depth/image"), camera__height_m=0.5, scan__min_height_m=50.0, scan__max_height_m=60.0)
    image = two_metres()
    r.exchange(image, info=camera_info(image, FOCAL))
    status, values = r.status(lambda s: "no scan" in s.message)
    assert "the camera sees nothing between 50 and 60 m above the floor at 8 m" in status.message
    assert values["scan"] == status.message
    assert not r.got["scan"]
    assert (r.total("failed"), r.total("published")) == (0, 1)
    assert r.set_parameters(scan__min_height_m=0.1, scan__max_height_m=1.0)[0].successful
    scan_of(r, two_metres())
    assert r.status(lambda s: s.message == "running")[1]["scan"] == "ok"


def test_without_a_height_a_scan_is_not_made_and_nothing_is_inferred_for_it(rig):
    """On many robots a subscriber of /scan takes another sensor's: it must neither cost time nor raise a warning."""
    r = rig(subscribe=("scan",))
    image = two_metres()
    r.send(image, camera_info(image, FOCAL))
    r.wait(lambda: r.total("idle") == 1, "an idle frame")
    assert r.status()[1]["scan"] == "off: camera.height_m is not set"


def test_a_scan_is_only_made_for_a_subscriber(rig):
    r = rig(camera__height_m=0.5)
    made = []
    r.channel.outputs._publish_scan = lambda *args: made.append(args)
    r.exchange(two_metres())
    assert r.total("published") == 1
    assert not made
