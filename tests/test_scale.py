import numpy as np
import pytest

from depth_anything_ros.config import ScaleConfig
from depth_anything_ros.scale import metric_map
from depth_anything_ros.structs import DepthMap


def depth_map(kind, *values):
    return DepthMap(np.array([values], np.float32), kind)


@pytest.mark.parametrize("mode", ["model", "none"])
def test_metric_map_stays_as_it_is(mode):
    metres = depth_map("depth_m", 1, 2)
    assert metric_map(metres, ScaleConfig(mode=mode)) is metres


@pytest.mark.parametrize("mode", ["model", "none"])
def test_relative_map_never_becomes_metres_by_itself(mode):
    assert metric_map(depth_map("disparity_affine_invariant", 1, 2), ScaleConfig(mode=mode)) is None


def test_fixed_scale_of_a_metric_map():
    metres = depth_map("depth_m", 1, 2, np.nan, np.inf, 0.05)
    scaled = metric_map(metres, ScaleConfig(mode="fixed", factor=2.0, offset=-0.1))
    np.testing.assert_allclose(scaled.values, [[1.9, 3.9, np.nan, np.inf, np.nan]], rtol=1e-6)
    assert metres.values[0, 0] == 1


def test_fixed_scale_of_a_relative_map_is_in_inverse_depth():
    """1 / (0.37 d + 0.05): d = 2 gives 1/0.79; what is not above 0 is beyond everything."""
    disparity = depth_map("disparity_affine_invariant", 2, -1, np.nan)
    metres = metric_map(disparity, ScaleConfig(mode="fixed", factor=0.37, offset=0.05))
    assert metres.kind == "depth_m"
    np.testing.assert_allclose(metres.values, [[1 / 0.79, np.inf, np.nan]], rtol=1e-6)
