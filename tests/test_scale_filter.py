import math
from dataclasses import replace

import numpy as np
import pytest

from depth_anything_ros.scale_filter import Fit, ScaleFilter, ScaleLimits, ScaleState, fit_inverse_depth
from depth_anything_ros.structs import DepthMap

LIMITS = ScaleLimits(max_error=0.1, min_points=20, min_inlier_ratio=0.5, min_depth_ratio=1.3, filter_s=0.5, max_jump=0.25, max_age_s=10.0)
GOOD = Fit(2.0, 0.1, 100, 0.9, 0.01, (0.1, 1.0))
S = 1_000_000_000


def scattered(n=400, wrong=0.0, noise=0.0, scale=0.37, shift=0.05, seed=0):
    """Points of 0.4 to 8 m; the wrong ones have any depth in that range."""
    rng = np.random.default_rng(seed)
    y = 1 / rng.uniform(0.4, 8, n)
    x = (y * (1 + noise * rng.normal(size=n)) - shift) / scale
    lies = rng.permutation(n)[: round(wrong * n)]
    y[lies] = 1 / rng.uniform(0.4, 8, lies.size)
    return x, y


def median_depth_error(fit, scale=0.37, shift=0.05):
    y = 1 / np.linspace(0.4, 8, 200)
    return np.median(np.abs(y / (fit.scale * (y - shift) / scale + fit.shift) - 1))


def test_exact_points_give_exact_numbers():
    fit = fit_inverse_depth(*scattered(), LIMITS)
    assert (fit.scale, fit.shift) == (pytest.approx(0.37), pytest.approx(0.05))
    assert (fit.points, fit.inlier_ratio, fit.reason) == (400, 1.0, "")
    assert fit.residual < 1e-9
    assert fit.x_span[0] < fit.x_span[1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("wrong", "limit"), [(0.0, 0.01), (0.3, 0.015), (0.45, 0.02)])
def test_wrong_points_up_to_the_stated_share_do_not_matter(wrong, limit, seed):
    fit = fit_inverse_depth(*scattered(wrong=wrong, noise=0.02, seed=seed), LIMITS)
    assert not fit.reason
    assert median_depth_error(fit) < limit
    assert 1 - wrong - 0.02 < fit.inlier_ratio < 1 - wrong + 0.25


def test_wrong_points_that_agree_among_themselves_lose_while_they_are_fewer():
    x, y = scattered(400)
    y[:180] = 1.9 * x[:180] + 0.2
    fit = fit_inverse_depth(x, y, LIMITS)
    assert (fit.scale, fit.shift) == (pytest.approx(0.37, rel=1e-3), pytest.approx(0.05, rel=1e-2))


def test_the_zero_and_unit_of_a_relative_map_do_not_matter():
    x, y = scattered(wrong=0.2, noise=0.02)
    fit, moved = fit_inverse_depth(x, y, LIMITS), fit_inverse_depth(70 * x + 1000, y, LIMITS)
    np.testing.assert_allclose(moved.scale * (70 * x + 1000) + moved.shift, fit.scale * x + fit.shift, rtol=1e-3)


def test_the_same_points_give_the_same_fit():
    points = scattered(3000, wrong=0.4, noise=0.05)
    assert fit_inverse_depth(*points, LIMITS) == fit_inverse_depth(*points, LIMITS)


def test_invalid_points_are_left_out():
    x, y = scattered(50)
    x = np.concatenate([x, [np.nan, np.inf, 1, 1, 1, 1]])
    y = np.concatenate([y, [1, 1, np.nan, np.inf, 0, -1]])
    fit = fit_inverse_depth(x, y, LIMITS)
    assert (fit.points, fit.scale) == (50, pytest.approx(0.37))


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.empty(0), np.empty(0), "only 0 usable points, 20 are needed"),
        (np.arange(1.0, 20), np.arange(1.0, 20), "only 19 usable points, 20 are needed"),
        (np.full(50, np.nan), np.ones(50), "only 0 usable points, 20 are needed"),
        (np.full(50, 2.0), np.linspace(1, 2, 50), "one depth only: no two points differ enough to tell scale and shift apart"),
        (np.linspace(1, 1.01, 50), np.linspace(1, 1.01, 50), "one depth only: no two points differ enough to tell scale and shift apart"),
        (
            np.linspace(1, 1.35, 50),
            np.linspace(1, 1.35, 50),
            "one depth only: the far points are 1.27 times as far as the near ones, 1.30 are needed",
        ),
        (np.linspace(1, 2, 50), np.full(50, 0.5), "one depth only: no two points differ enough to tell scale and shift apart"),
    ],
)
def test_degenerate_points_are_refused(x, y, reason):
    assert fit_inverse_depth(x, y, LIMITS).reason == reason


def test_wall_that_fills_most_of_the_view_does_not_flatten_the_line():
    """Seven of ten points lie on a wall at exactly 4 m that the map sees wavy; y = 0.25 for any x would fit those perfectly."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(500) < 0.7, 0.25, 1 / rng.uniform(0.5, 3.5, 500))
    x = (y * (1 + 0.06 * rng.normal(size=500)) - 0.05) / 0.37
    fit = fit_inverse_depth(x, y, LIMITS)
    assert fit.reason == ""
    assert median_depth_error(fit) < 0.02


def test_noise_of_the_map_does_not_make_the_scale_too_small():
    scales = [fit_inverse_depth(*scattered(2000, noise=0.06, seed=seed), LIMITS).scale for seed in range(5)]
    assert np.mean(scales) == pytest.approx(0.37, rel=0.01)


def test_noise_without_relation_is_refused():
    rng = np.random.default_rng(0)
    fit = fit_inverse_depth(rng.uniform(0, 1, 500), 1 / rng.uniform(0.4, 8, 500), LIMITS)
    assert fit.reason.endswith("of 500 points agree within 10%, 50% are needed")


def test_a_map_of_depth_in_place_of_disparity_is_refused():
    y = np.linspace(0.2, 1, 100)
    fit = fit_inverse_depth(3 - 2 * y, y, LIMITS)
    assert fit.reason == "the map falls where the inverse depth rises: is it depth in place of disparity, or the geometry wrong?"


def test_one_depth_is_enough_for_a_factor():
    fit = fit_inverse_depth(np.full(30, 0.5), np.full(30, 0.25), LIMITS, with_shift=False)
    assert (fit.scale, fit.shift, fit.reason) == (pytest.approx(0.5), 0.0, "")


def test_first_fit_counts_at_once():
    state = ScaleFilter().update(GOOD, 5 * S, LIMITS)
    assert (state.scale, state.shift, state.held, state.age_s, state.reason) == (2.0, 0.1, False, 0.0, "")


def test_filter_covers_63_percent_of_a_step_in_its_time_constant():
    scale_filter = ScaleFilter()
    scale_filter.update(GOOD, 0, LIMITS)
    state = scale_filter.update(replace(GOOD, scale=2.2, shift=0.11), S // 2, LIMITS)
    assert state.scale == pytest.approx(2.0 + 0.2 * (1 - math.exp(-1)))
    assert state.shift == pytest.approx(0.1 + 0.01 * (1 - math.exp(-1)))


def test_without_time_constant_each_frame_counts_alone():
    scale_filter, limits = ScaleFilter(), replace(LIMITS, filter_s=0.0)
    scale_filter.update(GOOD, 0, limits)
    assert scale_filter.update(replace(GOOD, scale=2.2), S // 30, limits).scale == 2.2


def test_held_while_there_is_no_good_fit_and_given_up_when_too_old():
    scale_filter = ScaleFilter()
    nothing = scale_filter.update(Fit(reason="no reference has arrived"), 0, LIMITS)
    assert (nothing.scale, nothing.shift, nothing.held, nothing.age_s) == (None, None, True, math.inf)
    scale_filter.update(GOOD, 1 * S, LIMITS)
    for second in (2, 5, 11):
        held = scale_filter.update(Fit(reason="lost"), second * S, LIMITS)
        assert (held.scale, held.shift, held.held, held.reason) == (2.0, 0.1, True, "lost")
        assert held.age_s == pytest.approx(second - 1)
    expired = scale_filter.update(Fit(reason="lost"), int(11.1 * S), LIMITS)
    assert (expired.scale, expired.held, expired.age_s) == (None, True, math.inf)
    assert scale_filter.update(replace(GOOD, scale=7.0), 12 * S, LIMITS).scale == 7.0


def test_one_bad_fit_does_not_move_the_scale():
    scale_filter = ScaleFilter()
    scale_filter.update(GOOD, 0, LIMITS)
    state = scale_filter.update(replace(GOOD, scale=4.0, shift=0.2), S // 10, LIMITS)
    assert (state.scale, state.held) == (2.0, True)
    assert state.reason == "the depth would jump by 100%; waiting for 3 frames that agree"
    state = scale_filter.update(GOOD, S // 5, LIMITS)
    assert (state.scale, state.held) == (pytest.approx(2.0), False)


def test_a_jump_counts_when_three_frames_in_a_row_agree_on_it():
    scale_filter, far = ScaleFilter(), replace(GOOD, scale=4.0, shift=0.2)
    scale_filter.update(GOOD, 0, LIMITS)
    states = [scale_filter.update(far, i * S // 10, LIMITS) for i in (1, 2, 3)]
    assert [state.scale for state in states] == [2.0, 2.0, 4.0]
    assert [state.held for state in states] == [True, True, False]


def test_jumps_that_do_not_agree_with_each_other_never_count():
    scale_filter = ScaleFilter()
    scale_filter.update(GOOD, 0, LIMITS)
    for i in range(1, 20):
        state = scale_filter.update(replace(GOOD, scale=2.0 * 2 ** (1 + i % 2), shift=0.1 * 2 ** (1 + i % 2)), i * S // 10, LIMITS)
        assert (state.scale, state.held) == (2.0, True)


def test_after_a_gap_the_first_good_fit_counts_at_once():
    scale_filter = ScaleFilter()
    scale_filter.update(GOOD, 0, LIMITS)
    for i in range(1, 30):
        scale_filter.update(Fit(reason="lost"), i * S // 10, LIMITS)
    state = scale_filter.update(replace(GOOD, scale=4.0), 3 * S, LIMITS)
    assert (state.scale, state.held, state.age_s) == (4.0, False, 0.0)


def test_a_doubt_from_before_a_gap_is_forgotten():
    scale_filter = ScaleFilter()
    scale_filter.update(GOOD, 0, LIMITS)
    scale_filter.update(replace(GOOD, scale=8.0), S // 10, LIMITS)
    scale_filter.update(Fit(reason="lost"), S // 5, LIMITS)
    state = scale_filter.update(replace(GOOD, scale=4.0), 3 * S, LIMITS)
    assert (state.scale, state.held) == (4.0, False)


@pytest.mark.parametrize("back_s", [0, 1, 100])
def test_a_stamp_that_does_not_advance_is_not_used_and_time_counts_on_from_it(back_s):
    scale_filter = ScaleFilter()
    scale_filter.update(GOOD, 200 * S, LIMITS)
    state = scale_filter.update(replace(GOOD, scale=2.1), (200 - back_s) * S, LIMITS)
    assert (state.scale, state.held, state.age_s) == (2.0, True, 0.0)
    assert state.reason == f"the image's stamp is {back_s}.000 s before the last one"
    state = scale_filter.update(replace(GOOD, scale=2.1), (200 - back_s) * S + S // 10, LIMITS)
    assert not state.held
    assert 2.0 < state.scale < 2.1


def state_of(scale, shift):
    return ScaleState(scale, shift, False, 0.0, GOOD, "")


def test_metres_of_a_relative_map():
    """1 / (0.37 d + 0.05): d = 2 gives 1/0.79; what is not above 0 is beyond everything."""
    disparity = DepthMap(np.array([[2, -1, np.nan]], np.float32), "disparity_affine_invariant")
    metric = state_of(0.37, 0.05).apply(disparity)
    assert metric.kind == "depth_m"
    np.testing.assert_allclose(metric.values, [[1 / 0.79, np.inf, np.nan]], rtol=1e-6)
    np.testing.assert_array_equal(disparity.values, np.array([[2, -1, np.nan]], np.float32))


def test_metres_of_a_metric_map():
    """1 / (0.5 / 2 + 0.25) = 2; unknown stays unknown and beyond range stays beyond range, whatever the shift."""
    depth = DepthMap(np.array([[2, np.nan, np.inf, 0, -1]], np.float32), "depth_m")
    np.testing.assert_allclose(state_of(0.5, 0.25).apply(depth).values, [[2, np.nan, np.inf, np.nan, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(state_of(0.5, 0.0).apply(depth).values, [[4, np.nan, np.inf, np.nan, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(state_of(0.5, -0.25).apply(depth).values, [[np.inf, np.nan, np.inf, np.nan, np.nan]])


def test_no_scale_no_metres():
    state = ScaleFilter().update(Fit(reason="lost"), 0, LIMITS)
    assert state.apply(DepthMap(np.ones((2, 2), np.float32), "depth_m")) is None


def test_diagnostics_say_what_happens():
    scale_filter = ScaleFilter()
    assert scale_filter.update(Fit(reason="lost"), 0, LIMITS).diagnostics() == {
        "scale_factor": "none",
        "scale_offset": "none",
        "scale_age_s": "inf",
        "scale_inlier_ratio": "0",
        "scale_residual": "nan",
        "scale_points": "0",
        "scale_held": "true",
        "scale_problem": "lost",
    }
    assert scale_filter.update(GOOD, S, LIMITS).diagnostics() == {
        "scale_factor": "2",
        "scale_offset": "0.1",
        "scale_age_s": "0",
        "scale_inlier_ratio": "0.9",
        "scale_residual": "0.01",
        "scale_points": "100",
        "scale_held": "false",
        "scale_problem": "",
    }


def test_images_whose_stamps_stand_still_lose_their_scale():
    scale = ScaleFilter()
    states = [scale.update(GOOD, 5 * S, LIMITS) for _ in range(12)]
    assert states[0].scale == 2.0
    assert states[5].held
    assert states[-1].scale is None
    assert "stand still" in states[-1].reason
    assert scale.update(GOOD, 6 * S, LIMITS).scale == 2.0
