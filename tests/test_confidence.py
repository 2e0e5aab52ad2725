import math

import numpy as np
import pytest

from depth_anything_ros.confidence import agreement, confidence
from depth_anything_ros.structs import DepthMap


def metric(values):
    return DepthMap(np.array(values, np.float32), "depth_m")


def relative(values):
    return DepthMap(np.array(values, np.float32), "disparity_affine_invariant")


def test_agreement_is_the_smaller_over_the_larger():
    np.testing.assert_allclose(agreement(metric([[1, 2, 4]]), np.array([[2, 2, 3]], np.float32)), [[0.5, 1, 0.75]])


def test_agreement_of_relative_maps_is_in_units_of_their_spread():
    """0, 2, 4, 2 have a standard deviation of sqrt(2), whatever the offset."""
    disparity = np.array([[0, 2, 4, 2]], np.float32)
    expected = [[1, math.exp(-1 / math.sqrt(2)), 1, 1]]
    for offset in (0, -7, 100):
        np.testing.assert_allclose(agreement(relative(disparity + offset), disparity + offset + [[0, 1, 0, 0]]), expected, rtol=1e-4)


def test_an_edge_is_less_sure_than_a_wall():
    """1 m beside 4 m: a quarter on both sides of the edge, 1 elsewhere."""
    depth = np.ones((4, 6))
    depth[:, 3:] = 4
    np.testing.assert_allclose(confidence(metric(depth)), np.tile([1, 1, 0.25, 0.25, 1, 1], (4, 1)))


def test_flicker_lowers_it_where_the_image_did_not_change():
    before = np.array([[2, 1, np.nan]] * 3, np.float32)
    np.testing.assert_allclose(confidence(metric(np.ones((3, 3))), before), [[0.5, 1, 1]] * 3)


def test_relative_maps_by_hand():
    """Half of the pixels are 0, half 2: the spread is 1, the step 2 spreads."""
    disparity = np.zeros((4, 6))
    disparity[:, 3:] = 2
    np.testing.assert_allclose(confidence(relative(disparity)), np.tile([1, 1, math.exp(-2), math.exp(-2), 1, 1], (4, 1)), rtol=1e-6)


@pytest.mark.parametrize("make", [metric, relative])
def test_where_there_is_no_depth_there_is_no_confidence_and_none_is_taken_from_others(make):
    depth = np.ones((5, 5))
    depth[1, 1], depth[3, 3] = np.nan, np.inf
    result = confidence(make(depth))
    np.testing.assert_array_equal(np.isnan(result), ~np.isfinite(depth))
    assert (result[np.isfinite(depth)] == 1).all()


@pytest.mark.parametrize("make", [metric, relative])
@pytest.mark.parametrize("shape", [(3, 3), (1, 1), (0, 4)])
def test_nothing_known_at_all(make, shape):
    nothing = np.full(shape, np.nan, np.float32)
    assert np.isnan(confidence(make(nothing), nothing)).all()


def test_a_flat_relative_map_agrees_with_itself():
    assert (confidence(relative(np.full((3, 3), 0.5))) == 1).all()


@pytest.mark.parametrize("kind", [metric, relative])
def test_it_is_a_share(kind):
    rng = np.random.default_rng(0)
    result = confidence(kind(rng.uniform(0.1, 80, (40, 50))), rng.uniform(0.1, 80, (40, 50)).astype(np.float32))
    assert result.dtype == np.float32
    assert ((result >= 0) & (result <= 1)).all()


def test_the_map_is_not_changed():
    depth = metric([[1, np.nan], [3, 4]])
    confidence(depth, np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(depth.values, [[1, np.nan], [3, 4]])


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(2, 2\)"):
        confidence(metric([[1, 2]]), np.ones((2, 2), np.float32))
