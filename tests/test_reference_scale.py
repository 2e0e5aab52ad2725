import math
from dataclasses import replace

import numpy as np
import pytest

from depth_anything_ros.geometry import scaled
from depth_anything_ros.reference_points import (
    ReferencePixels,
    pinhole,
    pixels_from_depth_image,
    pixels_from_points,
    points_from_cloud,
    points_from_range,
    points_from_scan,
)
from depth_anything_ros.reference_scale import fit_to_reference, samples, smooth_mask
from depth_anything_ros.scale_filter import ScaleFilter, ScaleLimits
from depth_anything_ros.structs import DepthMap, Intrinsics
from tests.raytraced import CAMERA, MAP_HW, Room, depth_m, median_error, relative, scan, world_t_camera, world_t_sensor

LIMITS = ScaleLimits(max_error=0.2, min_points=20, min_inlier_ratio=0.5, min_depth_ratio=1.5, filter_s=0.5, max_jump=0.25, max_age_s=10.0)
ANGLES = np.radians(np.arange(-135, 135, 0.5))
S = 1_000_000_000
ROOM = Room(boxes=[((2, 0.5, 0), (2.5, 1.2, 1)), ((3, -1.5, 0), (3.8, -0.8, 1.4)), ((4.5, -0.3, 0), (5, 0.6, 0.9)), ((5, 1.5, 0), (6, 2.5, 2))])


def camera_at(i):
    """A camera that drives and turns while its pitch swings."""
    return world_t_camera((0.08 * i, 0.02 * i, 0.6), 3 + 2 * math.sin(i), 2 * math.sin(i / 3))


def scan_seen(i, room=ROOM, wrong=0.0, rng=None, stamp_ns=None):
    """Return what a planar scanner beside and below the camera sees, for the camera's pixels; a share of the ranges is wrong."""
    camera, sensor = camera_at(i), world_t_sensor((0.08 * i + 0.1, 0.02 * i - 0.05, 0.45))
    ranges = scan(room, sensor, ANGLES)
    if rng is not None:
        ranges = ranges + rng.normal(0, 0.01, ranges.size)
        lies = rng.random(ranges.size) < wrong
        ranges[lies] = rng.uniform(0.3, 8, lies.sum())
    points = points_from_scan(ranges, ANGLES[0], ANGLES[1] - ANGLES[0], 0.05, 12.0)
    return pixels_from_points(points, np.linalg.inv(camera) @ sensor, pinhole(CAMERA), i * S // 10 if stamp_ns is None else stamp_ns)


def errors_of_drive(frames, wrong, seed=0, lost=(), kind="disparity_affine_invariant"):
    """Return the median depth error and the state of every frame of a drive at 10 Hz."""
    rng, scale_filter, errors, states = np.random.default_rng(seed), ScaleFilter(), [], []
    for i in range(frames):
        truth = depth_m(ROOM, camera_at(i))
        seen = relative(truth, noise=0.02, rng=rng)
        if kind == "depth_m":
            seen = DepthMap(np.where(seen.values > 0, 1 / seen.values, np.inf).astype(np.float32), "depth_m")
        fit = fit_to_reference(seen, None if i in lost else scan_seen(i, wrong=wrong, rng=rng), i * S // 10, 0.1, LIMITS)
        states.append(scale_filter.update(fit, i * S // 10, LIMITS))
        metric = states[-1].apply(seen)
        errors.append(median_error(metric, truth) if metric else math.nan)
    return errors, states


@pytest.mark.parametrize("kind", ["disparity_affine_invariant", "depth_m"])
@pytest.mark.parametrize(("wrong", "limit"), [(0.0, 0.02), (0.3, 0.03)])
def test_scale_and_shift_are_found_within_ten_frames(wrong, limit, kind):
    for seed in range(3):
        errors, states = errors_of_drive(10, wrong, seed, kind=kind)
        assert errors[-1] < limit
        assert not states[-1].held
        assert states[-1].fit.inlier_ratio > 0.95 * (1 - wrong) - 0.05


def test_held_after_loss_and_back_on_return():
    errors, states = errors_of_drive(30, 0.1, lost=range(10, 25))
    assert [state.held for state in states] == [i in range(10, 25) for i in range(30)]
    assert states[24].age_s == pytest.approx(1.5)
    assert states[24].reason == "no reference has arrived"
    assert max(errors[10:]) < 0.03
    assert len({(state.scale, state.shift) for state in states[9:25]}) == 1
    assert states[25].age_s == 0


def test_lost_for_too_long_gives_nothing_and_comes_back_at_once():
    scale_filter, limits = ScaleFilter(), replace(LIMITS, max_age_s=1.0)
    truth = depth_m(ROOM, camera_at(0))
    seen = relative(truth)

    def state(second, reference):
        return scale_filter.update(fit_to_reference(seen, reference, int(second * S), 0.1, limits), int(second * S), limits)

    assert median_error(state(0, scan_seen(0)).apply(seen), truth) < 0.01
    assert state(0.9, None).apply(seen) is not None
    assert state(1.1, None).apply(seen) is None
    assert median_error(state(1.2, scan_seen(0, stamp_ns=int(1.2 * S))).apply(seen), truth) < 0.01


def test_scale_of_the_model_that_changes_is_followed():
    scale_filter, truth = ScaleFilter(), depth_m(ROOM, camera_at(0))
    for i in range(20):
        seen = relative(truth, scale=0.37 if i < 10 else 0.8)
        state = scale_filter.update(fit_to_reference(seen, scan_seen(0, stamp_ns=i * S // 10), i * S // 10, 0.1, LIMITS), i * S // 10, LIMITS)
        assert state.held == (i in (10, 11)), "two frames of doubt"
    assert median_error(state.apply(seen), truth) < 0.01


@pytest.mark.parametrize(("late_s", "words"), [(0.11, "0.110 s after"), (-3.0, "3.000 s before")])
def test_reference_of_another_moment_is_refused(late_s, words):
    seen = relative(depth_m(ROOM, camera_at(0)))
    fit = fit_to_reference(seen, scan_seen(0, stamp_ns=5 * S + int(late_s * S)), 5 * S, 0.1, LIMITS)
    assert fit.reason == f"the nearest reference is {words} the image"
    assert math.isnan(fit.scale)


def test_factor_of_a_metric_map_leaves_the_shift_at_zero():
    truth = depth_m(ROOM, camera_at(0))
    rng = np.random.default_rng(0)
    seen = DepthMap(truth * 1.7 * (1 + 0.03 * rng.normal(size=truth.shape)).astype(np.float32), "depth_m")
    fit = fit_to_reference(seen, scan_seen(0), 0, 0.1, LIMITS)
    assert (fit.scale, fit.shift, fit.reason) == (pytest.approx(1.7, rel=0.01), 0.0, "")


WALL = Room(high=(3.0, 3.0, 2.6))


def wall_seen(kind):
    """A flat wall 3 m ahead fills the view, and a scan of it."""
    truth = np.full(MAP_HW, 3.0, np.float32)
    metric = DepthMap(truth / 0.37, "depth_m")
    scan_points = scan_seen(0, Room(low=(-2, -30, -30), high=(3, 30, 30)))
    return (metric if kind == "depth_m" else relative(truth)), scan_points


def test_one_depth_gives_a_metric_map_its_factor():
    seen, reference = wall_seen("depth_m")
    fit = fit_to_reference(seen, reference, 0, 0.1, LIMITS)
    assert (fit.scale, fit.shift, fit.reason) == (pytest.approx(1 / 0.37, rel=0.08), 0.0, "")


def test_one_depth_is_refused_for_a_relative_map():
    seen, reference = wall_seen("disparity_affine_invariant")
    fit = fit_to_reference(seen, reference, 0, 0.1, LIMITS)
    assert fit.reason
    assert ScaleFilter().update(fit, 0, LIMITS).apply(seen) is None


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (None, "no reference has arrived"),
        (ReferencePixels(np.empty((0, 2)), np.empty(0), 0), "only 0 usable points, 20 are needed"),
        (ReferencePixels(np.full((50, 2), np.nan), np.ones(50), 0), "only 0 usable points, 20 are needed"),
        (ReferencePixels(np.full((50, 2), 1.0), np.ones(50), 0), "only 0 usable points, 20 are needed"),
        (ReferencePixels(np.full((50, 2), -0.001), np.ones(50), 0), "only 0 usable points, 20 are needed"),
        (ReferencePixels(np.full((50, 2), 0.6), np.ones(50), 0), "only 1 usable points, 20 are needed"),
    ],
)
def test_reference_that_shows_nothing_is_refused(reference, reason):
    truth = depth_m(ROOM, camera_at(0))
    assert fit_to_reference(relative(truth), reference, 0, 0.1, LIMITS).reason == reason


def test_map_without_a_number_is_refused():
    seen = DepthMap(np.full(MAP_HW, np.nan, np.float32), "disparity_affine_invariant")
    assert fit_to_reference(seen, scan_seen(0), 0, 0.1, LIMITS).reason == "only 0 usable points, 20 are needed"


def test_transform_that_is_wrong_is_refused_and_the_last_scale_held():
    truth = depth_m(ROOM, camera_at(0))
    seen, scale_filter = relative(truth), ScaleFilter()
    good = scale_filter.update(fit_to_reference(seen, scan_seen(0), 0, 0.1, LIMITS), 0, LIMITS)
    points = points_from_scan(scan(ROOM, world_t_sensor((0, 0, 0.45)), ANGLES), ANGLES[0], ANGLES[1] - ANGLES[0], 0.05, 12.0)
    upside_down = np.linalg.inv(camera_at(0)) @ world_t_sensor((0, 0, 0.45)) @ np.diag([1.0, -1, -1, 1])
    reference = pixels_from_points(points, upside_down, pinhole(CAMERA), S)
    state = scale_filter.update(fit_to_reference(seen, reference, S, 0.1, LIMITS), S, LIMITS)
    assert state.held
    assert state.reason == "the map follows the reference hardly better than one value would: is the transform wrong?"
    assert (state.scale, state.shift) == (good.scale, good.shift)


def test_near_points_that_would_put_the_rest_beyond_infinity_are_refused():
    """The sensor tells half as much again as it should near 1 m, so the line is too steep for what is far."""
    inverse_m = np.linspace(0.1, 1.0, 160, dtype=np.float32)[None, :].repeat(128, 0)
    columns = np.arange(70, 160)
    depth = 1 / (inverse_m[64, columns] * 2 - 0.8)
    reference = ReferencePixels(np.stack([(columns + 0.5) / 160, np.full(90, 0.5)]).T, depth.astype(np.float64), 0)
    fit = fit_to_reference(DepthMap(inverse_m, "disparity_affine_invariant"), reference, 0, 0.1, LIMITS)
    assert (fit.scale, fit.shift) == (pytest.approx(2, rel=0.01), pytest.approx(-0.8, rel=0.02))
    assert fit.reason.endswith("of the map would lie beyond infinity, 10% may")


def cone_seen(kind, cone_deg, truth, at_m):
    x_forward = np.linalg.inv(world_t_camera((0, 0, 0))) @ world_t_sensor((0, 0, 0))
    points = points_from_range(at_m, math.radians(cone_deg), 0.05, 6.0)
    reference = pixels_from_points(points, x_forward, pinhole(CAMERA), 0, one_surface=True)
    seen = relative(truth) if kind != "depth_m" else DepthMap(truth / 2, "depth_m")
    return fit_to_reference(seen, reference, 0, 0.1, LIMITS)


@pytest.mark.parametrize("cone_deg", [0.0, 2.0, 27.0])
def test_range_gives_a_metric_map_its_factor(cone_deg):
    fit = cone_seen("depth_m", cone_deg, np.full(MAP_HW, 2.0, np.float32), 2.0)
    assert (fit.scale, fit.shift, fit.reason) == (pytest.approx(0.5, rel=0.03), 0.0, "")


def test_range_is_refused_where_its_cone_holds_two_depths():
    """A post takes a fifth of the cone: the sensor measures it, most of the map there is the wall behind."""
    truth = np.full(MAP_HW, 4.0, np.float32)
    truth[:, 80:86] = 1.0
    fit = cone_seen("depth_m", 27.0, truth, 1.0)
    assert fit.reason.endswith("points agree within 20%, 90% are needed")


def test_range_is_refused_for_a_relative_map():
    fit = cone_seen("disparity_affine_invariant", 27.0, np.full(MAP_HW, 2.0, np.float32), 2.0)
    assert fit.reason == "one depth only: a range sensor cannot give scale and shift of a relative map"


def test_cloud_from_another_place_than_the_camera():
    """A LiDAR 30 cm to the side and above sees past the boxes; what the camera cannot see must not count."""
    camera, sensor = world_t_camera((0, 0, 0.6), 5), world_t_sensor((-0.1, 0.3, 0.9))
    truth = depth_m(ROOM, camera)
    yaw, tilt = (a.ravel() for a in np.meshgrid(np.radians(np.arange(-60, 60, 0.4)), np.radians(np.arange(-25, 15, 1.0))))
    directions = np.column_stack([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
    points = (directions * ROOM.distances(sensor[:3, 3], directions)[:, None]).astype(np.float32)
    message = points_from_cloud(points.tobytes(), [("z", 8, 7), ("x", 0, 7), ("y", 4, 7)], 12, 0, len(points), 1, False)
    seen = relative(truth, noise=0.02, rng=np.random.default_rng(0))
    reference = pixels_from_points(message, np.linalg.inv(camera) @ sensor, pinhole(CAMERA), 0)
    fit = fit_to_reference(seen, reference, 0, 0.1, LIMITS)
    state = ScaleFilter().update(fit, 0, LIMITS)
    assert median_error(state.apply(seen), truth) < 0.015
    assert fit.inlier_ratio > 0.97


@pytest.mark.parametrize("size_hw", [MAP_HW, (60, 80)])
def test_short_range_depth_image(size_hw):
    """A registered sensor that sees no farther than 3 m, in millimetres."""
    camera = camera_at(0)
    truth, near = depth_m(ROOM, camera), depth_m(ROOM, camera, size_hw)
    millimetres = np.where(near < 3, near * 1000, 0).astype(np.uint16)
    seen = relative(truth, noise=0.02, rng=np.random.default_rng(0))
    state = ScaleFilter().update(fit_to_reference(seen, pixels_from_depth_image(millimetres, 0), 0, 0.1, LIMITS), 0, LIMITS)
    assert median_error(state.apply(seen), truth) < 0.02


def test_camera_of_any_size_with_the_same_view_gives_the_same():
    points = np.random.default_rng(0).uniform((-2, -2, 1), (2, 2, 8), (500, 3))
    half = Intrinsics(CAMERA.fx / 2, CAMERA.fy / 2, (CAMERA.cx + 0.5) / 2 - 0.5, (CAMERA.cy + 0.5) / 2 - 0.5, (240, 320))
    whole = pixels_from_points(points, np.eye(4), pinhole(CAMERA), 0).share_xy
    np.testing.assert_allclose(pixels_from_points(points, np.eye(4), pinhole(half), 0).share_xy, whole, atol=1e-9)
    np.testing.assert_allclose(pixels_from_points(points, np.eye(4), pinhole(scaled(CAMERA, MAP_HW)), 0).share_xy, whole, atol=0.5 / 128)


RAMP = DepthMap(np.linspace(1, 2, 160, dtype=np.float32)[None, :].repeat(128, 0), "disparity_affine_invariant")


def pixels(*xyz, size_hw=MAP_HW):
    places = np.array(xyz, np.float64)
    return ReferencePixels((places[:, :2] + 0.5) / size_hw[::-1], places[:, 2], 0)


def test_nearest_point_of_a_pixel_counts():
    x, y = samples(RAMP, pixels((10, 20, 5), (10, 20, 4), (10, 20, 6)))
    assert (x.tolist(), y.tolist()) == ([RAMP.values[20, 10]], [0.25])


def test_point_behind_its_neighbour_may_be_hidden():
    assert samples(RAMP, pixels((10, 20, 4), (12, 22, 5.1)))[1].tolist() == [0.25]
    assert samples(RAMP, pixels((10, 20, 4), (12, 22, 4.9)))[1].size == 2
    assert samples(RAMP, pixels((10, 20, 4), (13, 20, 9)))[1].size == 2


def test_edges_and_their_neighbours_are_left_out():
    step = RAMP.values.copy()
    step[:, 80:] += 1
    assert np.flatnonzero(~smooth_mask(step, metric=False)[5]).tolist() == [79, 80]
    assert np.flatnonzero(~smooth_mask(step, metric=True)[5]).tolist() == [79, 80]
    unknown = RAMP.values.copy()
    unknown[64, 80] = np.nan
    assert np.argwhere(~smooth_mask(unknown, metric=False)).tolist() == [[r, c] for r in (63, 64, 65) for c in (79, 80, 81)]


def test_a_pixel_beyond_range_says_nothing_about_a_metric_map():
    beyond = DepthMap(np.full(MAP_HW, np.inf, np.float32), "depth_m")
    assert samples(beyond, pixels((10, 20, 5)))[0].size == 0
