import math
from dataclasses import replace

import numpy as np
import pytest

from depth_anything_ros.errors import ConfigError
from depth_anything_ros.ground_scale import (
    GroundPlane,
    fit_to_ground,
    floor_inverse_depth,
    plane_from_acceleration,
    plane_from_mounting,
    plane_from_transform,
)
from depth_anything_ros.rays import ImageCamera
from depth_anything_ros.reference_points import rigid_transform
from depth_anything_ros.scale_filter import ScaleFilter, ScaleLimits
from depth_anything_ros.structs import DepthMap
from tests.raytraced import CAMERA, MAP_HW, Room, depth_m, median_error, relative, world_t_camera

LIMITS = ScaleLimits(max_error=0.1, min_points=200, min_inlier_ratio=0.4, min_depth_ratio=1.5, filter_s=0.5, max_jump=0.25, max_age_s=10.0)
MAX_M = 10.0
HEIGHT_M, PITCH_DEG = 0.6, 12.0
HALL = {"low": (-2.0, -12.0, 0.0), "high": (14.0, 12.0, 5.0)}
S = 1_000_000_000

OBSTACLES = {
    "nothing": [],
    "one box": [((1.5, -0.4, 0), (2.1, 0.3, 0.5))],
    "wall of boxes on the left": [((0.7, 0.02, 0), (6, 9, 1.5))],
    "wall of boxes on the right, two steps": [((0.9, -9, 0), (1.6, -0.1, 0.3)), ((1.6, -9, 0), (6, 0.1, 1.0))],
    "many things": [((0.9 + 0.6 * i, -2 + 0.9 * j + 0.3 * (i % 2), 0), (1.15 + 0.6 * i, -1.55 + 0.9 * j + 0.3 * (i % 2), 0.25 + 0.1 * j))
                    for i in range(5) for j in range(5)],
    "pallets": [((1.0 + 0.7 * i, -2 + j, 0), (1.5 + 0.7 * i, -1.25 + j, 0.22)) for i in range(5) for j in range(5)],
    "low table across the far half": [((1.9, -9, 0.3), (5, 9, 0.45))],
}  # fmt: skip


def seen_in(room, kind, pitch_deg=PITCH_DEG, height_m=HEIGHT_M, noise=0.03, seed=0):
    """Return the exact depth and what a model makes of it: wrong by a factor, or also by a shift."""
    truth = depth_m(room, world_t_camera((0, 0, height_m), pitch_deg))
    rng = np.random.default_rng(seed)
    if kind == "depth_m":
        return truth, DepthMap((truth * 1.6 * (1 + noise * rng.normal(size=truth.shape))).astype(np.float32), "depth_m")
    return truth, relative(truth, noise=noise, rng=rng)


def covered(room, truth):
    """Return which share of the floor's pixels within MAX_M shows something else."""
    floor = floor_inverse_depth(plane_from_mounting(HEIGHT_M, PITCH_DEG), CAMERA, MAP_HW)
    asked = floor >= 1 / MAX_M
    return float((np.abs(1 / truth[asked] / floor[asked] - 1) > 0.01).mean())


def fit_in(room, kind, plane=None, **view):
    _, seen = seen_in(room, kind, **view)
    return fit_to_ground(seen, CAMERA, plane or plane_from_mounting(HEIGHT_M, PITCH_DEG), MAX_M, LIMITS)


@pytest.mark.parametrize("kind", ["disparity_affine_invariant", "depth_m"])
@pytest.mark.parametrize("name", OBSTACLES)
def test_scale_of_a_floor_with_obstacles(name, kind):
    room = Room(**HALL, boxes=OBSTACLES[name])
    truth, _ = seen_in(room, kind)
    for seed in range(3):
        _, seen = seen_in(room, kind, seed=seed)
        state = ScaleFilter().update(fit_to_ground(seen, CAMERA, plane_from_mounting(HEIGHT_M, PITCH_DEG), MAX_M, LIMITS), 0, LIMITS)
        assert state.reason == "", covered(room, truth)
        assert median_error(state.apply(seen), truth) < 0.05


def test_the_obstacles_cover_up_to_half_of_the_floor():
    shares = {name: covered(Room(**HALL, boxes=boxes), seen_in(Room(**HALL, boxes=boxes), "depth_m")[0]) for name, boxes in OBSTACLES.items()}
    assert shares["nothing"] == 0
    assert 0.5 < max(shares.values()) < 0.55, shares


@pytest.mark.parametrize(("height_m", "pitch_deg"), [(0.15, 0.0), (0.6, 0.0), (1.5, 25.0), (2.5, 40.0)])
def test_scale_at_any_height_and_pitch(height_m, pitch_deg):
    truth, seen = seen_in(Room(**HALL, boxes=OBSTACLES["one box"]), "disparity_affine_invariant", pitch_deg, height_m)
    state = ScaleFilter().update(fit_to_ground(seen, CAMERA, plane_from_mounting(height_m, pitch_deg), MAX_M, LIMITS), 0, LIMITS)
    assert median_error(state.apply(seen), truth) < 0.05


def rolled(pose, roll_deg):
    """Return the pose of a camera whose right side is turned down."""
    r, turned = math.radians(roll_deg), pose.copy()
    turned[:3, :3] = pose[:3, :3] @ [[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]]
    return turned


@pytest.mark.parametrize("roll_deg", [-8.0, 8.0])
def test_scale_of_a_tilted_camera(roll_deg):
    pose = rolled(world_t_camera((0, 0, HEIGHT_M), PITCH_DEG), roll_deg)
    truth = depth_m(Room(**HALL, boxes=OBSTACLES["one box"]), pose)
    seen = relative(truth)
    state = ScaleFilter().update(fit_to_ground(seen, CAMERA, plane_from_mounting(HEIGHT_M, PITCH_DEG, roll_deg), MAX_M, LIMITS), 0, LIMITS)
    assert median_error(state.apply(seen), truth) < 0.01
    assert fit_to_ground(seen, CAMERA, plane_from_transform(pose), MAX_M, LIMITS).scale == pytest.approx(state.scale)
    up_in_camera = pose[:3, :3].T @ [0, 0, 9.81]
    assert fit_to_ground(seen, CAMERA, plane_from_acceleration(HEIGHT_M, up_in_camera), MAX_M, LIMITS).scale == pytest.approx(state.scale)


NO_FLOOR = {
    "wall ahead": (Room(low=(-1, -9, -9), high=(2.0, 9, 9)), PITCH_DEG),
    "wall ahead, looking up": (Room(low=(-1, -9, -9), high=(2.0, 9, 9)), -10.0),
    "wall ahead, looking down": (Room(low=(-1, -9, -9), high=(2.0, 9, 9)), 30.0),
    "gorge": (Room(low=(-1, -1.2, -90), high=(200.0, 1.0, 90)), PITCH_DEG),
    "corner": (Room(low=(-1, -2, -9), high=(2.0, 1.5, 9)), PITCH_DEG),
    "box in front of everything": (Room(**HALL, boxes=[((0.5, -2, 0), (0.9, 2, 1.2))]), PITCH_DEG),
    "ceiling": (Room(low=(-20, -20, -20), high=(20, 20, 0.6 + 1.5)), -25.0),
    "big table": (Room(**HALL, boxes=[((0.3, -3, 0), (6, 0.1, 0.35))]), PITCH_DEG),
}


@pytest.mark.parametrize("kind", ["disparity_affine_invariant", "depth_m"])
@pytest.mark.parametrize("name", NO_FLOOR)
def test_scene_without_a_floor_is_refused(name, kind):
    room, pitch_deg = NO_FLOOR[name]
    for noise, seed in ((0.0, 0), (0.03, 1), (0.03, 2)):
        fit = fit_in(room, kind, plane_from_mounting(HEIGHT_M, pitch_deg), pitch_deg=pitch_deg, noise=noise, seed=seed)
        assert fit.reason, fit


def test_wall_seen_from_below_would_lie_beyond_infinity():
    """Its disparity grows with the row, as a floor's does; only what is above the horizon gives it away."""
    fit = fit_in(NO_FLOOR["wall ahead, looking up"][0], "disparity_affine_invariant", plane_from_mounting(HEIGHT_M, -10), pitch_deg=-10, noise=0.0)
    assert fit.inlier_ratio > 0.95
    assert fit.reason.endswith("of the map would lie beyond infinity, 10% may")


def test_stripe_that_agrees_is_no_floor_even_where_few_pixels_are_enough():
    _, seen = seen_in(NO_FLOOR["wall ahead"][0], "depth_m")
    fit = fit_to_ground(seen, CAMERA, plane_from_mounting(HEIGHT_M, PITCH_DEG), MAX_M, replace(LIMITS, min_inlier_ratio=0.1))
    assert fit.reason.startswith("what agrees with a floor lies in 2 of 8 row bands and 0 of 8 column bands, 3 are needed")


def test_metric_map_gets_a_factor_and_no_shift():
    fit = fit_in(Room(**HALL), "depth_m", plane_from_mounting(HEIGHT_M, PITCH_DEG + 1))
    assert (fit.shift, fit.reason) == (0.0, "")


@pytest.mark.parametrize("kind", ["disparity_affine_invariant", "depth_m"])
def test_noise_and_nothing_are_refused(kind):
    plane = plane_from_mounting(HEIGHT_M, PITCH_DEG)
    noise = DepthMap(np.random.default_rng(0).uniform(0.2, 5, MAP_HW).astype(np.float32), kind)
    assert fit_to_ground(noise, CAMERA, plane, MAX_M, LIMITS).reason.endswith("points agree within 10%, 40% are needed")
    nothing = DepthMap(np.full(MAP_HW, np.nan, np.float32), kind)
    assert fit_to_ground(nothing, CAMERA, plane, MAX_M, LIMITS).reason == "only 0 usable points, 200 are needed"


def test_camera_that_looks_above_the_floor_is_refused():
    fit = fit_in(Room(**HALL), "depth_m", plane_from_mounting(HEIGHT_M, -45), pitch_deg=-45)
    assert fit.reason == "only 0% of the image look at the floor within 10 m, 10% are needed"


def test_without_camera_or_direction_the_fit_is_refused():
    _, seen = seen_in(Room(**HALL), "depth_m")
    assert fit_to_ground(seen, None, plane_from_mounting(1, 0), MAX_M, LIMITS).reason == "the camera is not calibrated"
    assert fit_to_ground(seen, CAMERA, None, MAX_M, LIMITS).reason == "the direction of the floor is not known"


def test_what_lies_below_the_floor_is_no_floor():
    """A table fills three fifths of the view, the floor beside it the rest."""
    fit = fit_in(NO_FLOOR["big table"][0], "disparity_affine_invariant")
    assert fit.reason.endswith("of what should show the floor lies below it, 15% may")


def test_scale_is_held_while_a_wall_hides_the_floor_and_comes_back():
    scale_filter, plane, held = ScaleFilter(), plane_from_mounting(HEIGHT_M, PITCH_DEG), []
    for i in range(12):
        hidden = 4 <= i < 8
        room = Room(**HALL, boxes=[((0.5, -2, 0), (0.9, 2, 1.2))] if hidden else OBSTACLES["one box"])
        truth, seen = seen_in(room, "disparity_affine_invariant", seed=i)
        state = scale_filter.update(fit_to_ground(seen, CAMERA, plane, MAX_M, LIMITS), i * S // 10, LIMITS)
        held.append(state.held)
        assert median_error(state.apply(seen), truth) < 0.05
    assert held == [4 <= i < 8 for i in range(12)]


def test_floor_by_hand():
    """Level camera 1.5 m up: the pixel one focal length below the centre sees the floor at 1.5 m, the centre never."""
    camera = replace(CAMERA, fx=100.0, fy=100.0, cx=100.0, cy=100.0, size_hw=(201, 201))
    floor = floor_inverse_depth(plane_from_mounting(1.5, 0.0), camera, (201, 201))
    np.testing.assert_allclose(floor[[0, 100, 150, 200], 0], [-1 / 1.5, 0, 0.5 / 1.5, 1 / 1.5], atol=1e-12)


@pytest.mark.parametrize("roll_deg", [0.0, 20.0])
@pytest.mark.parametrize("stride", [1, 3])
def test_floor_is_what_a_ray_tracer_sees(stride, roll_deg):
    pose = rolled(world_t_camera((0, 0, 1.1), 25), roll_deg)
    truth = depth_m(Room(low=(-99, -99, 0), high=(99, 99, 99)), pose)[::stride, ::stride]
    floor = floor_inverse_depth(plane_from_mounting(1.1, 25, roll_deg), CAMERA, MAP_HW, stride)
    np.testing.assert_allclose(floor[floor > 0.05], 1 / truth[floor > 0.05], rtol=1e-5)


def test_floor_of_a_distorted_camera_is_where_its_points_project_to():
    camera = ImageCamera(CAMERA, "polynomial", (-0.25, 0.06, 0.001, -0.002, 0.0, 0.0, 0.0, 0.0))
    floor = floor_inverse_depth(plane_from_mounting(HEIGHT_M, 0.0), camera, CAMERA.size_hw)
    for x, z in ((0.0, 1.5), (-0.6, 2.0), (1.5, 4.0)):
        ((u, v),) = camera.project(np.array([[x, HEIGHT_M, z]]))
        assert floor[round(v), round(u)] == pytest.approx(1 / z, rel=0.01)
    fit = fit_to_ground(DepthMap((1 / np.maximum(floor, 0.01)).astype(np.float32), "depth_m"), camera, plane_from_mounting(HEIGHT_M, 0.0), 10, LIMITS)
    assert fit.scale == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("height_m", [0.0, -1.0, math.nan, math.inf])
def test_camera_that_is_not_above_the_floor_is_refused(height_m):
    for make in (lambda: plane_from_mounting(height_m, 10), lambda: plane_from_acceleration(height_m, (0, -9.81, 0))):
        with pytest.raises(ConfigError, match="the camera's height above the floor must be above 0 m"):
            make()


def test_frame_that_lies_above_the_camera_is_refused():
    with pytest.raises(ConfigError, match="must be above 0 m, not -0.2 m"):
        plane_from_transform(rigid_transform((0, 0, -0.2), (-0.5, 0.5, -0.5, 0.5)))


@pytest.mark.parametrize(("pitch_deg", "roll_deg"), [(91, 0), (math.nan, 0), (0, 181), (0, math.nan)])
def test_attitude_out_of_range_is_refused(pitch_deg, roll_deg):
    with pytest.raises(ConfigError, match="are not within 90 and 180 degrees of level"):
        plane_from_mounting(1.0, pitch_deg, roll_deg)


@pytest.mark.parametrize("down", [(0.0, 0.0, 0.0), (0.0, 1.1, 0.0), (math.nan, 0.0, 1.0)])
def test_direction_down_must_be_a_direction(down):
    with pytest.raises(ConfigError, match="the direction down must be of length 1"):
        GroundPlane(1.0, down)


@pytest.mark.parametrize("acceleration", [(0, 0, 0), (0, -12, 0), (math.nan, 0, 0), (0, -9.2, 0)])
def test_acceleration_that_is_not_gravity_gives_no_plane(acceleration):
    assert plane_from_acceleration(1.0, acceleration) is None


def test_attitude_from_every_source_is_the_same():
    """Optical frame of a camera whose right side is down by 10 degrees while it looks 20 degrees down."""
    p, r = math.radians(20), math.radians(10)
    by_hand = (math.cos(p) * math.sin(r), math.cos(p) * math.cos(r), math.sin(p))
    assert plane_from_mounting(1.0, 20, 10).down == pytest.approx(by_hand)
    assert plane_from_acceleration(1.0, [-9.8 * d for d in by_hand]).down == pytest.approx(by_hand)
