import math

import numpy as np
import pytest

from depth_anything_ros.errors import ConfigError
from depth_anything_ros.geometry import CloudBuilder, Level, intrinsics_from_hfov, intrinsics_from_k, scaled
from depth_anything_ros.structs import Intrinsics

CAMERA = Intrinsics(100.0, 50.0, 2.0, 1.0, (3, 4))


@pytest.mark.parametrize("k", [[0.0] * 9, [math.nan] * 9, [-1, 0, 1, 0, 1, 1, 0, 0, 1], [1, 0, math.inf, 0, 1, 1, 0, 0, 1]])
def test_uncalibrated_cameras_are_recognised(k):
    assert intrinsics_from_k(k, (3, 4)) is None


def test_k_is_row_major():
    assert intrinsics_from_k([100, 0, 2, 0, 50, 1, 0, 0, 1], (3, 4)) == CAMERA


def test_half_size_halves_everything():
    assert scaled(Intrinsics(900, 900, 640, 360, (720, 1280)), (360, 640)) == Intrinsics(450, 450, 320, 180, (360, 640))


def test_ninety_degrees():
    camera = intrinsics_from_hfov(90.0, (480, 640))
    assert camera.fx == pytest.approx(320)
    assert (camera.cx, camera.cy) == (320, 240)


def test_points_by_hand():
    """Pixel (3, 2) at 10 m: x = 10 * (3 - 2) / 100, y = 10 * (2 - 1) / 50."""
    depth = np.full((3, 4), np.nan, np.float32)
    depth[2, 3] = 10
    points = CloudBuilder()(depth, CAMERA)
    assert points.shape == (3, 4, 3)
    np.testing.assert_allclose(points[2, 3], [0.1, 0.2, 10], rtol=1e-6)
    assert np.isnan(points[np.isnan(depth)]).all()


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_point_projects_back_to_its_pixel(stride):
    depth = np.random.default_rng(0).uniform(0.3, 30, (48, 64)).astype(np.float32)
    camera = Intrinsics(51.3, 49.9, 30.2, 25.7, (48, 64))
    points = CloudBuilder()(depth, camera, stride=stride).astype(np.float64)
    assert points.shape[:2] == (math.ceil(48 / stride), math.ceil(64 / stride))
    u, v = points[..., 0] / points[..., 2] * camera.fx + camera.cx, points[..., 1] / points[..., 2] * camera.fy + camera.cy
    np.testing.assert_allclose(u, np.broadcast_to(np.arange(0, 64, stride), u.shape), atol=1e-3)
    np.testing.assert_allclose(v, np.broadcast_to(np.arange(0, 48, stride)[:, None], v.shape), atol=1e-3)


def test_range_and_unknown_make_no_points():
    depth = np.array([[0.5, 1.0, 3.0, 3.1, np.nan, np.inf]], np.float32)
    points = CloudBuilder()(depth, Intrinsics(1, 1, 0, 0, (1, 6)), range_m=(1.0, 3.0))
    assert np.isfinite(points[0]).all(axis=1).tolist() == [False, True, True, False, False, False]
    assert (~np.isnan(points[0])).any(axis=1).tolist() == [False, True, True, False, False, False]


def test_colour_is_packed_as_pcl_reads_it():
    rgb = np.array([[[255, 0, 0], [1, 2, 3]]], np.uint8)
    points = CloudBuilder()(np.ones((1, 2), np.float32), Intrinsics(1, 1, 0, 0, (1, 2)), rgb)
    assert points.view("<u4")[0, :, 3].tolist() == [0x00FF0000, 0x00010203]
    assert np.isfinite(points).all(), "a colour must never look like NaN"


def test_colour_of_a_downsampled_depth_image_and_a_stride():
    rgb = np.repeat(np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4, 1), 2, 0), 2, 1).repeat(3, axis=2)
    points = CloudBuilder()(np.ones((4, 4), np.float32), Intrinsics(1, 1, 0, 0, (4, 4)), rgb, stride=2)
    assert (points.view("<u4")[..., 3] & 0xFF).tolist() == [[0, 2], [8, 10]]


def test_caches_follow_camera_size_and_fields():
    build = CloudBuilder()
    first = build(np.ones((3, 4), np.float32), CAMERA).copy()
    build(np.ones((6, 8), np.float32), Intrinsics(10, 10, 1, 1, (6, 8)), np.zeros((6, 8, 3), np.uint8), stride=2)
    np.testing.assert_array_equal(build(np.ones((3, 4), np.float32), CAMERA), first)
    moved = build(np.ones((3, 4), np.float32), Intrinsics(100.0, 50.0, 0.0, 1.0, (3, 4)))
    assert moved[0, 0, 0] == 0


def rays_of(camera, stride=1):
    x, y = (np.arange(0, camera.size_hw[1], stride) - camera.cx) / camera.fx, (np.arange(0, camera.size_hw[0], stride) - camera.cy) / camera.fy
    return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
def test_rays_of_an_undistorted_camera_give_the_very_same_cloud(stride):
    depth = np.random.default_rng(0).uniform(0.3, 30, (3, 4)).astype(np.float32)
    rgb = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    from_camera = CloudBuilder()(depth, CAMERA, rgb, stride, (1.0, 20.0))
    np.testing.assert_array_equal(CloudBuilder()(depth, rays_of(CAMERA, stride), rgb, stride, (1.0, 20.0)), from_camera)


def test_a_pixel_without_a_ray_has_no_point_and_takes_no_other_with_it():
    rays = rays_of(CAMERA)
    rays[1, 2] = np.nan
    build = CloudBuilder()
    points = build(np.ones((3, 4), np.float32), rays)
    assert np.isnan(points[1, 2]).all()
    assert np.isnan(points).sum() == 3
    assert not np.isnan(build(np.ones((3, 4), np.float32), CAMERA)).any(), "the next camera has all of its rays"


def test_rays_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"rays have shape \(3, 4, 2\), the points need \(2, 2, 2\)"):
        CloudBuilder()(np.ones((3, 4), np.float32), rays_of(CAMERA), stride=2)


def test_only_points_between_two_heights_are_kept():
    """A camera 1 m above the floor looks at the horizon: at 2 m the rows v - cy = -2..2 of f = 4 are 2, 1.5, 1, 0.5 and 0 m high."""
    camera = Intrinsics(4.0, 4.0, 0.0, 2.0, (5, 1))
    points = CloudBuilder()(np.full((5, 1), 2, np.float32), camera, level=Level((0.0, -1.0, 0.0), 1.0), height_m=(0.25, 1.6))
    assert np.isfinite(points[:, 0, 2]).tolist() == [False, True, True, True, False]
    assert np.isfinite(points[:, 0]).all(axis=1).tolist() == [False, True, True, True, False]


def test_heights_follow_the_pitch_of_the_camera():
    """Looking 30 degrees down from 1 m, the axis meets the floor at 2 m: 1.9 m is above it, 2.1 m below."""
    level = Level.from_roll_pitch(0.0, math.radians(30), 1.0)
    points = CloudBuilder()(np.array([[1.9, 2.1]], np.float32), Intrinsics(1e6, 1e6, 0, 0, (1, 2)), level=level, height_m=(0.0, math.inf))
    assert np.isfinite(points[0, :, 2]).tolist() == [True, False]


def test_heights_change_with_level_and_are_off_without_it():
    build, depth, camera = CloudBuilder(), np.full((1, 1), 2, np.float32), Intrinsics(1, 1, 0, 0, (1, 1))
    for pitch_deg, kept in ((0, True), (30, False), (0, True)):
        points = build(depth, camera, level=Level.from_roll_pitch(0.0, math.radians(pitch_deg), 0.5), height_m=(0.0, 9.0))
        assert np.isfinite(points).all() == kept
    assert np.isfinite(build(depth, camera, height_m=(100.0, 200.0))).all()


@pytest.mark.parametrize("depth", [np.full((2, 2), np.nan), np.full((2, 2), np.inf), np.zeros((2, 2)), np.full((2, 2), -1.0)])
def test_depth_that_is_no_number_makes_no_point_at_any_height(depth):
    points = CloudBuilder()(depth.astype(np.float32), Intrinsics(1, 1, 0, 0, (2, 2)), level=Level((0.0, -1.0, 0.0), 1.0))
    assert np.isnan(points).all()


def test_level_frame_of_a_camera_that_looks_at_the_horizon():
    """Optical z is forward, optical -x is left, optical -y is up."""
    np.testing.assert_allclose(Level.from_roll_pitch(0, 0, 1).level_R_camera, [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)


def test_roll_and_pitch_turn_as_rep_103_says():
    """Pitched 90 degrees less a little down, up is behind the camera; rolled 90 degrees to the right, up is on its left (optical -x)."""
    np.testing.assert_allclose(Level.from_roll_pitch(0, math.radians(60), 1).up, (0, -0.5, -math.sqrt(0.75)), atol=1e-12)
    np.testing.assert_allclose(Level.from_roll_pitch(math.radians(90), 0, 1).up, (-1, 0, 0), atol=1e-12)


def test_level_of_a_tf_is_that_of_its_angles():
    level = Level.from_roll_pitch(0.2, 0.4, 1.0)
    yaw = np.array([[math.cos(2), -math.sin(2), 0], [math.sin(2), math.cos(2), 0], [0, 0, 1]])
    again = Level.from_rotation(yaw @ level.level_R_camera, 1.0)
    np.testing.assert_allclose(again.up, level.up, atol=1e-12)
    np.testing.assert_allclose(again.level_R_camera, level.level_R_camera, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(level.level_R_camera), 1)


def test_quaternion_of_the_level_frame_turns_its_axes_into_the_cameras():
    """Straight ahead: the inverse of the usual optical rotation (-0.5, 0.5, -0.5, 0.5), turned about the optical axes."""
    np.testing.assert_allclose(Level.from_roll_pitch(0, 0, 1).camera_quat_level, (0.5, -0.5, 0.5, 0.5), atol=1e-12)
    for roll, pitch in ((0.3, 0.5), (-2.0, -1.0), (math.pi, 0.0)):
        level = Level.from_roll_pitch(roll, pitch, 1)
        x, y, z, w = level.camera_quat_level
        across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turned = np.eye(3) + 2 * w * across + 2 * across @ across
        np.testing.assert_allclose(turned, level.level_R_camera.T, atol=1e-9)
        assert math.hypot(x, y, z, w) == pytest.approx(1)


def test_a_camera_that_looks_straight_down_has_no_level_direction():
    with pytest.raises(ConfigError, match="looks straight down"):
        _ = Level((0.0, 0.0, -1.0), 1.0).level_R_camera
