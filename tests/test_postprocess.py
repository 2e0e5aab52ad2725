import numpy as np
import pytest

from depth_anything_ros.errors import EngineError
from depth_anything_ros.postprocess import enlarge, map_from_raw
from depth_anything_ros.structs import DepthMap, ResizeRecord

from .models import tiny_contract

NAN, INF = np.nan, np.inf
SAME = ResizeRecord((2, 3), (2, 3), (0, 0, 2, 3))


def raw(*values):
    return np.array(values, np.float32).reshape(1, 2, 3)


def test_metric_output_that_is_not_above_zero_is_unknown():
    depth = map_from_raw(raw(1.5, 0, -1, NAN, INF, 70), SAME, tiny_contract())
    assert depth.kind == "depth_m"
    np.testing.assert_array_equal(depth.values, [[1.5, NAN, NAN], [NAN, INF, 70]])


def test_disparity_keeps_its_sign():
    disparity = map_from_raw(raw(1, 0, -1, NAN, INF, 2), SAME, tiny_contract(output_kind="disparity_affine_invariant"))
    assert disparity.kind == "disparity_affine_invariant"
    np.testing.assert_array_equal(disparity.values, [[1, 0, -1], [NAN, NAN, 2]])


def test_canonical_depth_scales_with_the_networks_focal_length():
    """600 px at 6 px width are 300 px at the network's 3 px; the canonical camera has 100 px: three times as far."""
    resize = ResizeRecord((4, 6), (2, 3), (0, 0, 2, 3))
    contract = tiny_contract(output_kind="depth_canonical_focal", canonical_focal_px=100.0)
    depth = map_from_raw(raw(1, 1, 1, 1, 1, 2), resize, contract, focal_px=600.0)
    np.testing.assert_allclose(depth.values, [[3, 3, 3], [3, 3, 6]])


def test_canonical_depth_without_focal_length_is_refused():
    contract = tiny_contract(output_kind="depth_canonical_focal", canonical_focal_px=100.0)
    with pytest.raises(EngineError, match="publish a valid camera_info or set fallback_hfov_deg"):
        map_from_raw(raw(*[1] * 6), SAME, contract)


def test_letterbox_padding_is_cut_away():
    resize = ResizeRecord((1, 3), (2, 3), (1, 0, 1, 3))
    np.testing.assert_array_equal(map_from_raw(raw(9, 9, 9, 1, 2, 3), resize, tiny_contract()).values, [[1, 2, 3]])


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 3), (1, 2, 2, 3)])
def test_output_of_another_shape_is_refused(shape):
    with pytest.raises(EngineError, match="its contract does not fit it"):
        map_from_raw(np.ones(shape, np.float32), SAME, tiny_contract())


def metres(*rows):
    return DepthMap(np.array(rows, np.float32), "depth_m")


def test_beyond_range_is_infinite():
    np.testing.assert_array_equal(enlarge(metres([1, 5, 6, NAN, INF]), (1, 5), max_depth_m=5.0).values, [[1, 5, INF, NAN, INF]])


def test_enlarging_interpolates_and_spreads_the_unknown_not_the_known():
    values = enlarge(metres([1, 2], [1, 2]), (4, 4)).values
    np.testing.assert_allclose(values[0], [1, 1.25, 1.75, 2])
    with_hole = enlarge(metres([1, NAN], [1, 1]), (4, 4)).values
    assert np.isnan(with_hole[0, 3])
    assert with_hole[3, 0] == 1


@pytest.mark.parametrize("far", [INF, 11.0, 5e8])
@pytest.mark.parametrize("limit_m", [10.0, 1e6])
def test_nothing_appears_between_an_object_and_what_is_beyond_range(far, limit_m):
    values = enlarge(metres([1, 1, far, far]), (1, 16), max_depth_m=min(limit_m, 1e6)).values
    if far < limit_m:
        return  # 11 m is within the larger limit
    assert not np.isnan(values).any()
    np.testing.assert_allclose(values[0, :8], 1, rtol=1e-6)
    assert np.isinf(values[0, 8:]).all()


def test_unknown_beside_far_stays_unknown():
    values = enlarge(metres([NAN, NAN, INF, INF]), (1, 8), max_depth_m=10.0).values
    assert np.isnan(values[0, :3]).all()
    assert np.isinf(values[0, 5:]).all()


def test_disparity_has_no_range():
    disparity = DepthMap(np.array([[1, 500]], np.float32), "disparity_affine_invariant")
    np.testing.assert_array_equal(enlarge(disparity, (1, 2), max_depth_m=10.0).values, [[1, 500]])


def test_input_is_never_changed_nor_shared():
    small = metres([1, 20])
    result = enlarge(small, (1, 2), max_depth_m=5.0)
    assert small.values.tolist() == [[1, 20]]
    assert not np.shares_memory(small.values, result.values)
