import math

import numpy as np
import pytest

from depth_anything_ros.errors import ConfigError
from depth_anything_ros.geometry import Level
from depth_anything_ros.laser_scan import ScanBuilder
from depth_anything_ros.rays import CameraModel

SIZE = (480, 640)
K = (400.0, 0, 319.5, 0, 400.0, 239.5, 0, 0, 1)
LENSES = {"pinhole": ((), ""), "barrel": ((-0.3, 0.1, 0.0, 0.0, 0.0), "plumb_bob"), "fisheye": ((0.01, 0.0, 0.0, 0.0), "equidistant")}
EYE_LEVEL = Level.from_roll_pitch(0, 0, 0.5)
BAND, RANGE = (0.1, 0.9), (0.2, 8.0)


def rays(lens="pinhole", size=SIZE):
    d, name = LENSES[lens]
    return CameraModel(SIZE, K, d, name).for_image(SIZE, False).ray_table(size).xy


def depth_of_plane(table, normal, distance):
    """Depth along Z of the plane {p: normal . p = distance} in the optical frame; +Inf where it is not in front."""
    along = table[..., 0].astype(float) * normal[0] + table[..., 1].astype(float) * normal[1] + normal[2]
    with np.errstate(divide="ignore"):
        depth = distance / along
    return np.where(depth > 0, depth, np.inf).astype(np.float32)


def bearings(scan):
    return scan.angle_min_rad + scan.angle_increment_rad * np.arange(len(scan.ranges_m))


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize(("roll_deg", "pitch_deg"), [(0, 0), (0, 20), (10, -5)])
def test_a_wall_at_two_metres_is_at_two_metres_at_every_bearing(lens, roll_deg, pitch_deg):
    """An upright wall across the direction of view: 2 m / cos(bearing)."""
    level = Level.from_roll_pitch(math.radians(roll_deg), math.radians(pitch_deg), 0.5)
    table = rays(lens)
    scan = ScanBuilder()(depth_of_plane(table, level.level_R_camera[0], 2.0), table, level, BAND, RANGE)
    assert np.abs(scan.ranges_m - 2 / np.cos(bearings(scan))).max() < 0.01, "no bearing may be without a range, either"


def test_bearings_follow_the_field_of_view():
    """f = 400 px and 640 columns from -319.5 to 319.5: 38.6 degrees to both sides, at most 1/400 rad a pixel, from right to left."""
    scan = ScanBuilder()(np.full(SIZE, 2, np.float32), rays(), EYE_LEVEL, BAND, RANGE)
    half = math.atan(319.5 / 400)
    assert scan.angle_min_rad == pytest.approx(-half)
    assert scan.angle_max_rad == pytest.approx(half, abs=scan.angle_increment_rad)
    assert scan.angle_increment_rad == pytest.approx(1 / 400, rel=0.002)
    assert len(scan.ranges_m) == math.floor(2 * half / scan.angle_increment_rad + 0.5) + 1


def test_what_is_on_the_left_has_a_positive_bearing():
    depth = np.full(SIZE, np.inf, np.float32)
    depth[:, :200] = 3
    scan = ScanBuilder()(depth, rays(), EYE_LEVEL, BAND, RANGE)
    near = bearings(scan)[np.isfinite(scan.ranges_m)]
    assert near.min() == pytest.approx(math.atan(119.5 / 400), abs=0.003)
    assert np.isinf(scan.ranges_m[bearings(scan) < 0]).all()


def test_the_nearest_point_between_the_heights_counts():
    """The floor, a low box at 1 m and a ceiling lamp at 1.5 m are outside of the band; a post at 3 m is in it."""
    table = rays()
    depth = depth_of_plane(table, (0, 1, 0), 0.5)
    rows = (np.arange(480) - 239.5)[:, None] / 400 * np.ones((1, 640))
    depth[(rows > 0.42) & (rows < 0.5)] = 1.0
    depth[rows < -0.4] = 1.5
    depth[:, 300:340] = np.where(np.abs(rows[:, 300:340]) < 0.13, 3.0, depth[:, 300:340])
    scan = ScanBuilder()(depth, table, EYE_LEVEL, BAND, RANGE)
    ahead = np.abs(bearings(scan)) < math.atan(19 / 400)
    np.testing.assert_allclose(scan.ranges_m[ahead], 3 / np.cos(bearings(scan)[ahead]), atol=0.01)
    assert np.isinf(scan.ranges_m[np.abs(bearings(scan)) > math.atan(22 / 400)]).all()


def test_beyond_range_is_inf_and_unknown_is_nan():
    depth = np.full(SIZE, np.nan, np.float32)
    depth[:, :200], depth[:, 400:500] = np.inf, 20.0
    depth[:, 250:300] = 0.1  # nearer than can be told
    ranges = ScanBuilder()(depth, rays(), EYE_LEVEL, BAND, RANGE).ranges_m[::-1]  # from left to right, as the columns
    column = lambda u: round((math.atan(319.5 / 400) - math.atan((319.5 - u) / 400)) * 400 / 1.001)  # noqa: E731
    assert np.isinf(ranges[: column(199)]).all()
    assert np.isnan(ranges[column(203) : column(396)]).all()
    assert np.isinf(ranges[column(404) : column(496)]).all()
    assert np.isnan(ranges[column(504) :]).all()


def test_free_is_only_what_was_seen_within_the_band():
    """Of the rays that see far, half (upper rows) are above 0.9 m at 8 m: they say nothing."""
    depth = np.full(SIZE, np.nan, np.float32)
    depth[:200, :320], depth[:, 320:] = np.inf, np.inf
    scan = ScanBuilder()(depth, rays(), EYE_LEVEL, BAND, RANGE)
    assert np.isnan(scan.ranges_m[bearings(scan) > 0.003]).all()
    assert np.isinf(scan.ranges_m[bearings(scan) < -0.003]).all()


def test_a_limit_of_the_depth_proves_only_the_run_up_to_it_to_be_free():
    """+Inf beyond 7 m along Z: at 8 m only what is more than acos(7/8) to the side is free; a finite depth needs no limit."""
    depth = np.full(SIZE, np.inf, np.float32)
    scan = ScanBuilder()(depth, rays(), EYE_LEVEL, BAND, RANGE, range_limit_m=7.0)
    edge_rad = math.acos(7 / 8)
    assert np.isnan(scan.ranges_m[np.abs(bearings(scan)) < edge_rad - 0.005]).all()
    assert np.isposinf(scan.ranges_m[np.abs(bearings(scan)) > edge_rad + 0.005]).all()
    assert np.isposinf(ScanBuilder()(depth, rays(), EYE_LEVEL, BAND, RANGE, range_limit_m=8.0).ranges_m).all()
    assert np.isposinf(ScanBuilder()(np.full(SIZE, 20, np.float32), rays(), EYE_LEVEL, BAND, RANGE, range_limit_m=7.0).ranges_m).all()


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize(("roll_deg", "pitch_deg"), [(90, 0), (-89.9, 0), (45, 0), (90, 20)])
def test_a_rolled_camera_has_as_many_bearings_as_pixels_across(lens, roll_deg, pitch_deg):
    level, table = Level.from_roll_pitch(math.radians(roll_deg), math.radians(pitch_deg), 0.5), rays(lens)
    scan = ScanBuilder()(depth_of_plane(table, level.level_R_camera[0], 2.0), table, level, BAND, RANGE)
    assert 300 < len(scan.ranges_m) < sum(SIZE)
    assert np.abs(scan.ranges_m - 2 / np.cos(bearings(scan))).max() < 0.02, "no bearing may be without a range, either"


def test_a_camera_whose_neighbours_have_one_bearing_is_refused():
    """The middle row and column are as narrow as a thread, the corners are not: their step says nothing of the rest."""
    table = rays().copy()
    table[240, :, 0], table[:, 320, 0] = 0.0, 0.0
    with pytest.raises(ConfigError, match="more than the 1120 that the image has rows and columns"):
        ScanBuilder()(np.full(SIZE, 2, np.float32), table, EYE_LEVEL, BAND, RANGE)


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_no_depth_is_nothing_known(value):
    assert np.isnan(ScanBuilder()(np.full(SIZE, value, np.float32), rays(), EYE_LEVEL, BAND, RANGE).ranges_m).all()


def test_pixels_without_a_ray_do_no_harm():
    table = rays().copy()
    table[:, :100] = np.nan
    scan = ScanBuilder()(np.full(SIZE, 2, np.float32), table, EYE_LEVEL, BAND, RANGE)
    assert scan.angle_max_rad == pytest.approx(math.atan(219.5 / 400), abs=0.003)
    np.testing.assert_allclose(scan.ranges_m, 2 / np.cos(bearings(scan)), atol=0.01)


def test_the_table_follows_camera_level_band_and_range():
    build, depth = ScanBuilder(), np.full(SIZE, 2, np.float32)
    first = build(depth, rays(), EYE_LEVEL, BAND, RANGE).ranges_m
    assert np.isinf(build(depth, rays(), EYE_LEVEL, BAND, (0.2, 1.0)).ranges_m).all()
    assert len(build(depth[::2, ::2], rays(size=(240, 320)), EYE_LEVEL, BAND, RANGE).ranges_m) < len(first)
    with pytest.raises(ConfigError, match="sees nothing between 50 and 60 m above the floor at 8 m: lower"):
        build(depth, rays(), EYE_LEVEL, (50.0, 60.0), RANGE)
    np.testing.assert_array_equal(build(depth, rays(), EYE_LEVEL, BAND, RANGE).ranges_m, first)


def test_wrong_use_is_said():
    with pytest.raises(ValueError, match=r"rays have shape \(480, 640, 2\), the depth \(240, 320\)"):
        ScanBuilder()(np.ones((240, 320), np.float32), rays(), EYE_LEVEL, BAND, RANGE)
    with pytest.raises(ConfigError, match="looks straight down"):
        ScanBuilder()(np.ones(SIZE, np.float32), rays(), Level((0.0, 0.0, -1.0), 1.0), BAND, RANGE)
    with pytest.raises(ConfigError, match="at least two rays"):
        ScanBuilder()(np.ones((1, 1), np.float32), np.zeros((1, 1, 2), np.float32), EYE_LEVEL, BAND, RANGE)
