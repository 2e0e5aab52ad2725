import math

import numpy as np
import pytest

from depth_anything_ros.geometry import CloudBuilder, intrinsics_from_hfov, intrinsics_from_k, scaled
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
