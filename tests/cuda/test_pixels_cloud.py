"""Depth -> points and picture: against CloudBuilder and rgb_from_map, byte for byte where no logarithm is involved."""

import math

import numpy as np
import pytest

from depth_anything_ros.color import rgb_from_map
from depth_anything_ros.cuda.plan import FrameNumbers, FramePlan
from depth_anything_ros.decode import ENCODINGS
from depth_anything_ros.geometry import CloudBuilder, Level
from depth_anything_ros.postprocess import enlarge, map_from_raw
from depth_anything_ros.preprocess import plan_resize
from depth_anything_ros.structs import DepthMap, Intrinsics

from ..models import tiny_contract
from .twins import cuda_results, frame_of, layout_of, raw_image


def results(device, encoding="rgb8", image_hw=(48, 64), published_hw=(48, 64), numbers=None, rays=None, **plan):
    """Return the GPU's depth and other results, and the message that they are of."""
    rng = np.random.default_rng(5)
    contract = tiny_contract(resize="stretch", input_sizes_hw=((24, 32),))
    message, resize = raw_image(rng, encoding, image_hw, padding=3), plan_resize(image_hw, contract)
    raw = rng.uniform(0.2, 12, (1, 24, 32)).astype(np.float32)
    raw[0, rng.random((24, 32)) < 0.05] = np.nan
    raw[0, rng.random((24, 32)) < 0.05] = 99.0
    camera = Intrinsics(51.3, 49.9, 30.2, 25.7, published_hw)
    numbers = FrameNumbers(max_depth_m=20.0, intrinsics=camera, **(numbers or {}))
    plan = FramePlan(layout_of(message), resize, published_hw, frozenset({"depth", "points", "color"}), **plan)
    found = cuda_results(device, contract, message, raw, plan, numbers, rays)
    expected = enlarge(map_from_raw(raw, resize, contract), published_hw, 20.0).values
    np.testing.assert_allclose(found["depth"], expected, rtol=3e-7)
    assert np.isnan(found["depth"]).any()
    assert np.isinf(found["depth"]).any()
    return found, message, camera


def assert_same_bytes(points, expected):
    """Compare XYZ as numbers (a NaN has many bit patterns) and the colour as bits."""
    assert points.shape == expected.shape
    np.testing.assert_array_equal(points[..., :3], expected[..., :3])
    np.testing.assert_array_equal(points[..., 3:].view(np.uint32), expected[..., 3:].view(np.uint32))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_coloured_points_of_every_encoding_are_the_cloud_builders(device, encoding):
    found, message, camera = results(device, encoding)
    assert_same_bytes(found["points"], CloudBuilder()(found["depth"], camera, frame_of(message).rgb))


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize(("image_hw", "published_hw"), [((48, 64), (48, 64)), ((96, 130), (48, 65)), ((50, 70), (16, 23)), ((20, 30), (45, 64))])
def test_strides_and_sizes(device, image_hw, published_hw, stride):
    for fields in ("xyz", "xyzrgb"):
        found, message, camera = results(device, "bgr8", image_hw, published_hw, cloud_stride=stride, cloud_fields=fields)
        rgb = frame_of(message).rgb if fields == "xyzrgb" else None
        assert_same_bytes(found["points"], CloudBuilder()(found["depth"], camera, rgb, stride))


@pytest.mark.parametrize("range_m", [(0.0, math.inf), (1.0, 6.0), (3.0, math.inf)])
def test_range_of_the_cloud(device, range_m):
    found, message, camera = results(device, numbers={"cloud_range_m": range_m})
    expected = CloudBuilder()(found["depth"], camera, frame_of(message).rgb, 1, range_m)
    assert_same_bytes(found["points"], expected)
    assert 0 < np.isnan(expected[..., 2]).sum() < expected[..., 2].size


def test_ends_of_ranges_by_hand(device):
    """1 and 3 m are still in the range; a depth that the offset makes 0 is unknown."""
    contract, message = tiny_contract(resize="stretch", input_sizes_hw=((1, 5),)), raw_image(np.random.default_rng(0), "mono8", (1, 5))
    raw = np.array([[[2, 4, 1.999, 4.001, 1]]], np.float32)
    plan = FramePlan(layout_of(message), plan_resize((1, 5), contract), (1, 5), frozenset({"depth", "points"}), cloud_fields="xyz")
    numbers = FrameNumbers(scale_offset=-1.0, cloud_range_m=(1.0, 3.0), intrinsics=Intrinsics(1.0, 1.0, 0.0, 0.0, (1, 5)))
    found = cuda_results(device, contract, message, raw, plan, numbers)
    assert np.isnan(found["depth"]).tolist() == [[False, False, False, False, True]]
    assert np.isnan(found["points"][0, :, 2]).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("stride", [1, 3])
def test_rays_of_a_distorted_camera(device, stride):
    size_hw = -(-48 // stride), -(-64 // stride)
    rays = np.random.default_rng(6).normal(0, 0.7, (*size_hw, 2)).astype(np.float32)
    rays[:2, :5] = np.nan
    found, message, _ = results(device, rays=rays, cloud_stride=stride)
    expected = CloudBuilder()(found["depth"], rays, frame_of(message).rgb, stride)
    assert_same_bytes(found["points"], expected)
    assert np.isnan(expected[:2, :5, :3]).all()


@pytest.mark.parametrize("distorted", [False, True])
@pytest.mark.parametrize("height_m", [(-math.inf, math.inf), (0.1, 1.8), (0.3, math.inf)])
def test_heights_of_the_cloud(device, height_m, distorted):
    level = Level.from_roll_pitch(0.2, -0.4, 1.1)
    rays = np.random.default_rng(6).normal(0, 0.7, (48, 64, 2)).astype(np.float32) if distorted else None
    above_camera_m = height_m[0] - level.height_m, height_m[1] - level.height_m
    found, message, camera = results(device, numbers={"up": level.up, "heights_m": above_camera_m}, rays=rays)
    expected = CloudBuilder()(found["depth"], rays if distorted else camera, frame_of(message).rgb, level=level, height_m=height_m)
    assert_same_bytes(found["points"], expected)
    assert 0 < np.isnan(expected[..., 2]).sum() < expected[..., 2].size


@pytest.mark.parametrize("colormap", ["gray", "turbo", "inferno", "viridis"])
@pytest.mark.parametrize("color_range_m", [(0.3, 10.0), (1.0, 4.0)])
def test_picture_is_the_numpy_stages_but_for_a_step_of_the_logarithm(device, colormap, color_range_m):
    """Two logarithms may round apart, which now and then takes the neighbouring one of 256 colours."""
    found, _, _ = results(device, numbers={"color_range_m": color_range_m}, colormap=colormap)
    expected = rgb_from_map(DepthMap(found["depth"], "depth_m"), colormap, *color_range_m)
    steps = np.abs(found["color"].astype(int) - expected)
    palette = rgb_from_map(DepthMap(np.geomspace(*color_range_m, 20000, dtype=np.float32)[None], "depth_m"), colormap, *color_range_m)[0]
    assert steps.max() <= np.abs(np.diff(palette.astype(int), axis=0)).max()
    assert np.count_nonzero(steps.max(axis=2)) <= 1e-3 * steps[..., 0].size
    assert (found["color"][np.isnan(found["depth"])] == 0).all()
