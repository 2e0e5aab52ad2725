import math

import cv2
import numpy as np
import pytest

from depth_anything_ros.contract import ModelContract
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import DepthMap, RgbFrame
from depth_anything_ros.temporal import TemporalFilter, grey_from_input, grey_step

SIZE = (96, 128)
FPS = 20
KINDS = ["depth_m", "disparity_affine_invariant"]


def texture(seed=0, size=SIZE):
    """A picture with detail everywhere, 0..255."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (size[0] // 4, size[1] // 4)).astype(np.float32)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def scene(size=SIZE):
    """Depth in metres: 1 m at the bottom to 6 m at the top, with a box at 2 m."""
    depth = np.repeat(np.linspace(6, 1, size[0], dtype=np.float32)[:, None], size[1], axis=1)
    depth[30:60, 40:80] = 2
    return depth


class Clip:
    """Feeds frames at `FPS` to one filter."""

    def __init__(self, mode, memory_s=1.0, depth_change=0.1, kind="depth_m"):
        self.filter, self.kind, self.settings, self.stamp_ns = TemporalFilter(), kind, (mode, memory_s, depth_change), 0

    def __call__(self, values, grey, seconds=1 / FPS):
        self.stamp_ns += round(seconds * 1e9)
        given = DepthMap(values.astype(np.float32), self.kind)
        self.result = self.filter(given, grey.astype(np.float32), self.stamp_ns, *self.settings)
        self.untouched = self.result is given
        return self.result.values


def flicker(maps):
    """Standard deviation over time of each pixel, relative to its mean; averaged."""
    return float(np.mean(np.std(maps, axis=0) / np.mean(maps, axis=0)))


def test_off_returns_the_very_same_map():
    clip = Clip("off")
    for seed in range(3):
        clip(scene() * (1 + seed), texture(seed))
        assert clip.untouched


@pytest.mark.parametrize("mode", ["align", "filter"])
def test_five_percent_flicker_of_a_still_scene_falls_to_a_third_or_less(mode):
    rng, clip, grey = np.random.default_rng(0), Clip(mode), texture()
    raw = [scene() * rng.normal(1, 0.05) for _ in range(100)]
    given = [clip(depth, grey + rng.normal(0, 1, SIZE)) for depth in raw]
    assert flicker(raw) == pytest.approx(0.05, rel=0.2)
    assert flicker(given[20:]) < flicker(raw[20:]) / 3


def test_gain_and_offset_of_a_relative_map_are_both_corrected():
    rng, clip, grey = np.random.default_rng(0), Clip("align", kind=KINDS[1]), texture()
    raw = [rng.normal(1, 0.05) / scene() + rng.normal(0, 0.05) + rng.normal(0, 0.003, SIZE) for _ in range(100)]
    given = [clip(disparity, grey) for disparity in raw]
    assert np.std(given[20:], axis=0).mean() < np.std(raw[20:], axis=0).mean() / 3
    spread = [np.std(values) for values in given]
    assert spread[-1] == pytest.approx(np.std(1 / scene()), rel=0.1), "the map must not shrink from frame to frame"


def test_the_filter_also_averages_noise_of_single_pixels():
    rng, grey = np.random.default_rng(0), texture()
    raw = [scene() * rng.normal(1, 0.02, SIZE) for _ in range(60)]
    align, average = Clip("align"), Clip("filter")
    aligned, given = ([clip(depth, grey) for depth in raw] for clip in (align, average))
    assert flicker(aligned[20:]) == pytest.approx(0.02, rel=0.05)
    assert flicker(given[20:]) < 0.02 / 3


def test_one_correction_by_hand():
    """Half as far as before, after ln 2 of the memory: half of the correction (in log) has leaked away, so 1 m becomes 1.414 m."""
    clip = Clip("align")
    clip(np.full(SIZE, 2.0), texture())
    values = clip(np.full(SIZE, 1.0), texture(), seconds=math.log(2))
    np.testing.assert_allclose(values, math.sqrt(2), rtol=1e-5)


@pytest.mark.parametrize("mode", ["align", "filter"])
def test_a_scale_that_changes_for_good_comes_through(mode):
    clip, grey = Clip(mode, memory_s=0.5), texture()
    for _ in range(10):
        clip(scene(), grey)
    after = [clip(scene() * 1.5, grey) for _ in range(80)]
    assert np.median(after[0] / scene()) < 1.1
    np.testing.assert_allclose(after[-1], scene() * 1.5, rtol=0.02)


def moving_box(step):
    """A textured box at 1 m moves 3 pixels a frame to the right over a textured wall at 3 m."""
    depth, grey = np.full(SIZE, 3.0, np.float32), texture(1)
    left = 10 + 3 * step
    depth[30:70, left : left + 30], grey[30:70, left : left + 30] = 1.0, 255 - texture(2)[30:70, :30]
    return depth, grey


@pytest.mark.parametrize("mode", ["align", "filter"])
def test_a_moving_edge_lags_two_frames_at_most(mode):
    clip, frames = Clip(mode), [moving_box(step) for step in range(25)]
    given = [clip(*frame) for frame in frames]
    for step in range(5, 25):
        held = np.all([frames[step - back][0] == frames[step][0] for back in (1, 2)], axis=0)  # true for the last two frames
        assert np.abs(given[step] / frames[step][0] - 1)[held].max() < 0.02


def test_what_moves_without_a_trace_in_the_image_is_seen_by_its_depth():
    clip, grey = Clip("filter"), texture()
    for _ in range(10):
        clip(scene(), grey)
    moved = scene()
    moved[70:90, 10:40] *= 0.7
    np.testing.assert_allclose(clip(moved, grey), moved, rtol=1e-5)


@pytest.mark.parametrize(("mode", "behind"), [("align", 1e-6), ("filter", 0.07)])
def test_driving_towards_a_scene_is_not_held_back(mode, behind):
    """0.5 % nearer in each of 60 frames, 0.2 m/s at 2 m and 20 Hz: the image grows with it. The filter alone stays below `depth_change`."""
    clip, wide = Clip(mode), texture(size=(384, 512))
    for step in range(61):
        zoom = 1.005**step
        matrix = np.array([[zoom, 0, 64 - 256 * zoom], [0, zoom, 48 - 192 * zoom]])
        values = clip(scene() / zoom, cv2.warpAffine(wide, matrix, (128, 96), flags=cv2.INTER_LINEAR))
        assert np.abs(values / scene() * zoom - 1).max() <= behind


def test_a_relative_map_is_corrected_in_motion_too():
    rng, wide = np.random.default_rng(0), texture(size=(96, 256))
    clip = Clip("align", kind=KINDS[1])
    raw = [rng.normal(1, 0.05) / scene() + rng.normal(0, 0.05) for _ in range(60)]
    given = [clip(disparity, cv2.warpAffine(wide, np.array([[1, 0, -0.1 * step], [0, 1, 0.0]]), (128, 96))) for step, disparity in enumerate(raw)]
    assert np.std(given[20:], axis=0).mean() < np.std(raw[20:], axis=0).mean() / 3


def test_an_empty_wall_is_no_evidence_that_nothing_moves():
    clip, wall = Clip("align"), np.full(SIZE, 128.0)
    for step in range(20):
        depth = np.full(SIZE, 4 - 0.1 * step)
        np.testing.assert_array_equal(clip(depth, wall), depth.astype(np.float32))


def test_an_empty_wall_is_no_cut_either():
    """Nothing but noise: the filter goes on, until the light goes out."""
    rng, clip = np.random.default_rng(0), Clip("filter")
    given = [clip(np.full(SIZE, 2.0) * rng.normal(1, 0.02, SIZE), rng.normal(128, 1, SIZE)) for _ in range(60)]
    assert flicker(given[20:]) < 0.02 / 3
    clip(np.full(SIZE, 2.0), rng.normal(10, 1, SIZE))
    assert clip.untouched


def test_relative_maps_that_are_not_alike_are_not_forced_into_one_another():
    clip = Clip("align", kind=KINDS[1])
    clip(1 / scene(), texture())
    inverted = clip(1 - 1 / scene(), texture())
    np.testing.assert_allclose(inverted, 1 - 1 / scene(), rtol=1e-6)


def test_a_change_of_exposure_is_no_motion():
    clip, grey = Clip("align"), texture() * 0.5
    clip(scene(), grey)
    assert np.median(clip(scene() * 1.05, grey + 20) / scene()) < 1.01


@pytest.mark.parametrize("mode", ["align", "filter"])
def test_after_a_cut_the_new_scene_is_taken_as_it_is(mode):
    clip = Clip(mode)
    for _ in range(10):
        clip(scene(), texture(0))
    clip(scene() * 3, texture(5))
    assert clip.untouched
    assert clip.filter.before is None


@pytest.mark.parametrize("mode", ["align", "filter"])
@pytest.mark.parametrize("seconds", [-0.1, 0.0, 1.1])
def test_gaps_and_jumps_of_the_stamps_start_anew(mode, seconds):
    clip = Clip(mode)
    for _ in range(3):
        clip(scene(), texture())
    clip(scene() * 1.05, texture(), seconds=seconds)
    assert clip.untouched
    clip(scene(), texture())
    assert not clip.untouched


def test_sizes_and_kinds_are_never_mixed():
    clip = Clip("filter")
    clip(scene(), texture())
    clip(scene((64, 96)), texture(size=(64, 96)))
    assert clip.untouched
    clip.kind = KINDS[1]
    clip(scene((64, 96)), texture(size=(64, 96)))
    assert clip.untouched
    for rows in (401, 402):  # of both, the brightness has 134 rows
        clip(np.ones((rows, 500)), texture(size=(136, 168))[:134, :167])
        assert clip.untouched


def test_a_correction_that_is_too_large_is_not_made():
    clip = Clip("align")
    clip(scene(), texture())
    clip(scene() * 5, texture())
    assert clip.untouched


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["align", "filter"])
def test_unknown_pixels_stay_unknown_and_harm_no_others(mode, kind):
    clip, holed = Clip(mode, kind=kind), scene()
    holed[:20] = np.nan
    holed[20:25] = np.inf
    for values in (scene(), holed, scene(), np.full(SIZE, np.nan), scene(), holed):
        result = clip(values, texture())
        np.testing.assert_array_equal(np.isfinite(result), np.isfinite(values))
        known = np.isfinite(values)
        np.testing.assert_allclose(result[known], values[known], rtol=1e-4)


def test_a_flat_relative_map_has_no_scale_to_correct():
    clip = Clip("filter", kind=KINDS[1])
    for _ in range(3):
        np.testing.assert_allclose(clip(np.full(SIZE, 0.5), texture()), 0.5)


def test_memory_of_the_engine_may_be_overwritten():
    clip, own = Clip("align"), scene()
    clip.filter(DepthMap(own, "depth_m"), texture(), 1, "align", 1.0, 0.1)
    own *= 7
    aligned = clip.filter(DepthMap(scene(), "depth_m"), texture(), 50_000_001, "align", 1.0, 0.1)
    np.testing.assert_allclose(aligned.values, scene(), rtol=1e-6)


def test_before_is_the_previous_map_where_the_image_did_not_change():
    clip = Clip("align")
    clip(*moving_box(0))
    assert clip.filter.before is None
    clip(*moving_box(1))
    before = clip.filter.before
    assert np.isnan(before[50, 11]), "the box has left"
    assert np.isnan(before[50, 41]), "the box has come"
    assert before[5, 5] == 3


def test_wrong_use_is_said():
    with pytest.raises(ValueError, match="'median' is not one of off, align, filter"):
        Clip("median")(scene(), texture())
    with pytest.raises(ValueError, match=r"brightness has shape \(96, 128\), a map of \(48, 64\) needs \(48, 64\)"):
        Clip("align")(scene((48, 64)), texture())


def test_brightness_is_that_of_the_images_content():
    contract = ModelContract("m", ((64, 64),), "letterbox", "depth_m")
    rgb = np.zeros((32, 64, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 30, 60, 90
    grey = grey_from_input(Preprocessor(contract)(RgbFrame(rgb)), contract)
    assert grey.shape == (32, 64)
    np.testing.assert_allclose(grey, 60, atol=1e-3)


def test_large_maps_are_compared_on_a_coarser_grid():
    """401 x 500 pixels: every third row and column, 134 x 167."""
    contract = ModelContract("m", ((401, 500),), "stretch", "depth_m")
    assert grey_step((401, 500)) == 3
    rgb = np.repeat(texture(size=(404, 500))[:401, :, None], 3, axis=2).astype(np.uint8)
    grey = grey_from_input(Preprocessor(contract)(RgbFrame(rgb)), contract)
    np.testing.assert_allclose(grey, rgb[::3, ::3, 0], atol=1e-3)
    clip, depth = Clip("filter"), np.full((401, 500), 2.0)
    clip(depth, grey)
    changed = grey.copy()
    changed[40:60, 40:60] = 255 - changed[40:60, 40:60]
    assert clip(depth * 1.05, changed)[0, 0] < 2.02
    moved = np.isnan(clip.filter.before)
    assert moved[121, 179]
    assert not moved[100, 100]
