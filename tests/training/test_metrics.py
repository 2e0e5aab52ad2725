"""Metrics and alignment against numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from depth_anything_ros.structs import DepthMap
from training.metrics import align_disparity, compare_depth, evaluate_aligned, evaluate_metric

TRUTH = np.array([[1.0, 2.0, 4.0, 5.0]]).repeat(8, axis=0)
EVERYWHERE = np.ones_like(TRUTH, bool)


def test_metrics_by_hand() -> None:
    # ratios 1, 1.2, 1.5, 2: errors 0, .4, 2, 5
    metrics = compare_depth(TRUTH * [1.0, 1.2, 1.5, 2.0], TRUTH, EVERYWHERE)
    assert metrics.abs_rel == pytest.approx((0 + 0.2 + 0.5 + 1.0) / 4)
    assert (metrics.delta1, metrics.delta2, metrics.delta3) == (0.5, 0.75, 0.75)
    assert metrics.rmse_m == pytest.approx(np.sqrt((0 + 0.16 + 4 + 25) / 4))
    assert metrics.pixels == 32


def test_alignment_undoes_scale_and_shift_over_valid_pixels_only() -> None:
    disparity = (1 / TRUTH - 0.3) / 7
    mask = EVERYWHERE.copy()
    mask[:, 0] = False
    disparity[:, 0] = 1e6
    np.testing.assert_allclose(align_disparity(disparity, TRUTH, mask, 80.0)[mask], TRUTH[mask])


def test_aligned_disparity_is_clamped_at_the_cap() -> None:
    mask = np.ones((8, 4), bool)
    mask[:, 3] = False
    disparity = np.array([[1.0, 0.5, 0.25, -2.0]]).repeat(8, axis=0)
    assert align_disparity(disparity, TRUTH, mask, 80.0)[:, 3] == pytest.approx(80.0)


def test_a_constant_prediction_aligns_to_a_constant() -> None:
    assert np.ptp(align_disparity(np.ones_like(TRUTH), TRUTH, EVERYWHERE, 80.0)) == 0


def test_depth_is_aligned_as_disparity_and_infinity_is_far() -> None:
    values = (3 * TRUTH).astype(np.float32)
    assert evaluate_aligned(DepthMap(values, "depth_m"), TRUTH, EVERYWHERE, 80.0).abs_rel == pytest.approx(0, abs=1e-6)
    values[:, 3] = np.inf
    assert evaluate_aligned(DepthMap(values, "depth_m"), TRUTH, EVERYWHERE, 80.0).abs_rel < 0.5


def test_metric_errors_refuse_relative_disparity() -> None:
    with pytest.raises(ValueError, match="a 'disparity_affine_invariant' prediction has no unit; metric errors need 'depth_m'"):
        evaluate_metric(DepthMap(TRUTH.astype(np.float32), "disparity_affine_invariant"), TRUTH, EVERYWHERE, 80.0)


def test_beyond_range_counts_as_the_cap() -> None:
    values = np.full_like(TRUTH, np.inf, dtype=np.float32)
    metrics = evaluate_metric(DepthMap(values, "depth_m"), np.full_like(TRUTH, 40.0), EVERYWHERE, 80.0)
    assert metrics.abs_rel == pytest.approx(1.0)


def test_no_valid_pixel_is_an_error() -> None:
    with pytest.raises(ValueError, match="no valid pixels to compare"):
        compare_depth(TRUTH, TRUTH, np.zeros_like(EVERYWHERE))
    with pytest.raises(ValueError, match="only 0 valid pixels; at least 16 are needed to align a prediction"):
        align_disparity(TRUTH, TRUTH, np.zeros_like(EVERYWHERE), 80.0)


def test_an_unknown_prediction_at_a_valid_pixel_is_an_error() -> None:
    values = TRUTH.astype(np.float32)
    values[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite at valid pixels"):
        evaluate_aligned(DepthMap(values, "depth_m"), TRUTH, EVERYWHERE, 80.0)
