"""Metrics and alignment against numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from depth_anything_ros.structs import DepthMap
from training.metrics import align, align_depth, align_disparity, compare_depth, evaluate_aligned, evaluate_metric

TRUTH = np.array([[1.0, 2.0, 4.0, 5.0]]).repeat(8, axis=0)
EVERYWHERE = np.ones_like(TRUTH, bool)
RANGE = (1e-3, 80.0)
PRESETS = ("midas", "marigold")


def disparity_map(values):
    return DepthMap(np.asarray(values, np.float32), "disparity_affine_invariant")


def depth_map(values):
    return DepthMap(np.asarray(values, np.float32), "depth_m")


def test_metrics_by_hand():
    # ratios 1, 1.2, 1.5, 2: errors 0, .4, 2, 5
    metrics = compare_depth(TRUTH * [1.0, 1.2, 1.5, 2.0], TRUTH, EVERYWHERE)
    assert metrics.abs_rel == pytest.approx((0 + 0.2 + 0.5 + 1.0) / 4)
    assert (metrics.delta1, metrics.delta2, metrics.delta3) == (0.5, 0.75, 0.75)
    assert metrics.rmse_m == pytest.approx(np.sqrt((0 + 0.16 + 4 + 25) / 4))
    assert metrics.log10 == pytest.approx((np.log10(1.2) + np.log10(1.5) + np.log10(2)) / 4)
    assert metrics.pixels == 32


def test_log_errors_by_hand():
    # half of the pixels a factor e too far, half a factor e too near: |ln| = 1 everywhere, mean 0, variance 1
    metrics = compare_depth(TRUTH * [np.e, np.e, 1 / np.e, 1 / np.e], TRUTH, EVERYWHERE)
    assert metrics.silog == pytest.approx(100)
    assert metrics.log10 == pytest.approx(1 / np.log(10))
    # a quarter is off by e: mean of squares 1/4, square of the mean 1/16
    assert compare_depth(TRUTH * [np.e, 1, 1, 1], TRUTH, EVERYWHERE).silog == pytest.approx(100 * np.sqrt(3 / 16))


def test_silog_does_not_see_a_common_factor_and_the_others_do():
    metrics = compare_depth(3 * TRUTH, TRUTH, EVERYWHERE)
    assert metrics.silog == pytest.approx(0, abs=1e-9)
    assert metrics.log10 == pytest.approx(np.log10(3))
    assert metrics.abs_rel == pytest.approx(2)


def test_a_perfect_prediction_has_no_error():
    metrics = compare_depth(TRUTH, TRUTH, EVERYWHERE)
    assert (metrics.abs_rel, metrics.rmse_m, metrics.log10, metrics.silog) == (0, 0, 0, 0)
    assert (metrics.delta1, metrics.delta2, metrics.delta3) == (1, 1, 1)


def test_alignment_undoes_scale_and_shift_over_valid_pixels_only():
    mask = EVERYWHERE.copy()
    mask[:, 0] = False
    disparity, depth = (1 / TRUTH - 0.3) / 7, (TRUTH - 0.3) / 7
    disparity[:, 0] = depth[:, 0] = 1e6
    np.testing.assert_allclose(align_disparity(disparity, TRUTH, mask, 80.0)[mask], TRUTH[mask])
    np.testing.assert_allclose(align_depth(depth, TRUTH, mask, RANGE)[mask], TRUTH[mask])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (7, 2), (0.01, 30)])
def test_aligned_errors_of_a_relative_model_do_not_depend_on_scale_and_shift(preset, scale, shift):
    rng = np.random.default_rng(0)
    disparity = 1 / TRUTH + rng.normal(0, 0.05, TRUTH.shape) + 1
    reference = evaluate_aligned(DepthMap(disparity, "disparity_affine_invariant"), TRUTH, EVERYWHERE, preset, RANGE)
    other = evaluate_aligned(DepthMap(scale * disparity + shift, "disparity_affine_invariant"), TRUTH, EVERYWHERE, preset, RANGE)
    assert other.abs_rel == pytest.approx(reference.abs_rel, rel=1e-6)
    assert reference.abs_rel > 0.01


def test_the_presets_align_metres_in_different_spaces():
    """A depth with a shift is right after a fit in depth and wrong after one in disparity; 1 / (1/t + shift) the other way round."""
    shifted = depth_map(2 * TRUTH + 1)
    assert evaluate_aligned(shifted, TRUTH, EVERYWHERE, "marigold", RANGE).abs_rel == pytest.approx(0, abs=1e-6)
    assert evaluate_aligned(shifted, TRUTH, EVERYWHERE, "midas", RANGE).abs_rel > 0.01
    bent = depth_map(1 / (1 / TRUTH + 0.5))
    assert evaluate_aligned(bent, TRUTH, EVERYWHERE, "midas", RANGE).abs_rel == pytest.approx(0, abs=1e-6)
    assert evaluate_aligned(bent, TRUTH, EVERYWHERE, "marigold", RANGE).abs_rel > 0.01


def test_aligned_disparity_is_clamped_at_the_cap():
    mask = np.ones((8, 4), bool)
    mask[:, 3] = False
    disparity = np.array([[1.0, 0.5, 0.25, -2.0]]).repeat(8, axis=0)
    assert align_disparity(disparity, TRUTH, mask, 80.0)[:, 3] == pytest.approx(80.0)
    assert align(disparity_map(disparity), TRUTH, mask, "marigold", (1e-3, 2000.0))[:, 3] == pytest.approx(1000.0)


def test_marigold_fits_a_disparity_only_where_it_is_above_0():
    disparity = 1 / TRUTH
    disparity[:, 3] = 0  # "sky" of a model that ends in ReLU, where the truth says 5 m
    assert align(disparity_map(disparity), TRUTH, EVERYWHERE, "marigold", RANGE)[:, :3] == pytest.approx(TRUTH[:, :3])
    assert align(disparity_map(disparity), TRUTH, EVERYWHERE, "midas", RANGE)[:, :3] != pytest.approx(TRUTH[:, :3], rel=1e-3)


def test_aligned_depth_is_clamped_to_the_range():
    mask = EVERYWHERE.copy()
    mask[:, 2:] = False
    values = TRUTH.copy()
    values[:, 2:] = -9, 900
    assert align(depth_map(values), TRUTH, mask, "marigold", RANGE)[0] == pytest.approx([1, 2, 1e-3, 80])


@pytest.mark.parametrize(("end", "farthest"), [(80.0, 80.0), (np.inf, 4.0)])
def test_beyond_range_takes_no_part_in_a_fit_in_depth(end, farthest):
    values = 3 * TRUTH
    values[:, 3] = np.inf
    aligned = align_depth(values, TRUTH, EVERYWHERE, (1e-3, end))
    assert aligned[0] == pytest.approx([1, 2, 4, farthest])


def test_a_constant_prediction_aligns_to_a_constant():
    assert np.ptp(align_disparity(np.ones_like(TRUTH), TRUTH, EVERYWHERE, 80.0)) == 0
    assert align_depth(np.ones_like(TRUTH), TRUTH, EVERYWHERE, RANGE) == pytest.approx(3.0)


def test_depth_is_aligned_as_disparity_by_midas_and_infinity_is_far():
    values = (3 * TRUTH).astype(np.float32)
    assert evaluate_aligned(DepthMap(values, "depth_m"), TRUTH, EVERYWHERE, "midas", RANGE).abs_rel == pytest.approx(0, abs=1e-6)
    values[:, 3] = np.inf
    assert 0.01 < evaluate_aligned(DepthMap(values, "depth_m"), TRUTH, EVERYWHERE, "midas", RANGE).abs_rel < 0.5


def test_wrong_kinds_are_refused():
    with pytest.raises(ValueError, match="a 'disparity_affine_invariant' prediction has no unit; metric errors need 'depth_m'"):
        evaluate_metric(disparity_map(TRUTH), TRUTH, EVERYWHERE, RANGE)
    with pytest.raises(ValueError, match="a 'depth_km' prediction cannot be aligned; known kinds are depth_m, disparity_affine_invariant"):
        evaluate_aligned(DepthMap(TRUTH, "depth_km"), TRUTH, EVERYWHERE, "midas", RANGE)


def test_metres_are_clamped_to_the_range_and_beyond_range_counts_as_its_end():
    truth = np.full_like(TRUTH, 40.0)
    assert evaluate_metric(depth_map(np.full_like(TRUTH, np.inf)), truth, EVERYWHERE, RANGE).abs_rel == pytest.approx(1.0)
    assert evaluate_metric(depth_map(np.full_like(TRUTH, 0.01)), truth, EVERYWHERE, (10.0, 80.0)).abs_rel == pytest.approx(0.75)


def test_no_valid_pixel_is_an_error():
    with pytest.raises(ValueError, match="no valid pixels to compare"):
        compare_depth(TRUTH, TRUTH, np.zeros_like(EVERYWHERE))
    for fit in (lambda mask: align_disparity(TRUTH, TRUTH, mask, 80.0), lambda mask: align_depth(TRUTH, TRUTH, mask, RANGE)):
        with pytest.raises(ValueError, match="only 0 valid pixels; at least 16 are needed to align a prediction"):
            fit(np.zeros_like(EVERYWHERE))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("make", [depth_map, disparity_map])
def test_an_unknown_prediction_at_a_valid_pixel_is_an_error(preset, make):
    values = TRUTH.copy()
    values[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"not finite at valid pixels|not a finite depth above 0"):
        evaluate_aligned(make(values), TRUTH, EVERYWHERE, preset, RANGE)
