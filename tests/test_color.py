import numpy as np
import pytest

from depth_anything_ros.color import rgb_from_map
from depth_anything_ros.structs import DepthMap


def gray(kind, *values, near=1.0, far=100.0):
    return rgb_from_map(DepthMap(np.array([values], np.float32), kind), "gray", near, far)[0, :, 0].tolist()


def test_metric_depth_is_shown_in_log_depth_between_fixed_distances():
    assert gray("depth_m", 1, 10, 100) == [255, 127, 0]


def test_beyond_the_ends_is_clipped_and_unknown_is_black():
    assert gray("depth_m", 0.1, 1000, np.inf, np.nan) == [255, 0, 0, 0]


def test_relative_map_spans_its_own_values():
    shown = gray("disparity_affine_invariant", *range(400))
    assert shown[0] == 0
    assert shown[-1] == 255
    assert shown == sorted(shown)


@pytest.mark.parametrize("values", [[np.nan] * 8, [3.0] * 8])
def test_empty_and_flat_relative_maps_do_no_harm(values):
    assert len(gray("disparity_affine_invariant", *values)) == 8


@pytest.mark.parametrize("name", ["turbo", "inferno", "viridis"])
def test_unknown_is_black_in_every_colour_map(name):
    rgb = rgb_from_map(DepthMap(np.array([[np.nan, 2.0]], np.float32), "depth_m"), name, 0.3, 10)
    assert rgb.dtype == np.uint8
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[0, 1].any()
