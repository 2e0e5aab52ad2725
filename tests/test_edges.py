import cv2
import numpy as np
import pytest

from depth_anything_ros.edges import edge_mask, with_far_policy, without_edges
from depth_anything_ros.postprocess import enlarge
from depth_anything_ros.structs import DepthMap

SIZE, LARGE = (24, 32), (96, 128)


def step(blur=0):
    """1 m on the left, 4 m on the right; `blur` samples in between, evenly in depth."""
    ramp = np.interp(np.arange(SIZE[1]), [15 - blur, 16], [1, 4])
    return np.repeat(ramp[None].astype(np.float32), SIZE[0], axis=0)


def enlarged(depth, size=LARGE):
    return enlarge(DepthMap(depth, "depth_m"), size).values


def in_between(depth):
    """Count points that are farther than a tenth from both surfaces."""
    return int(((depth > 1 / 0.9) & (depth < 4 * 0.9)).sum())


@pytest.mark.parametrize("snap", [True, False])
@pytest.mark.parametrize("blur", [0, 1, 2, 3])
@pytest.mark.parametrize("depth", ["across", "down", "round"])
def test_a_step_from_1_to_4_metres_leaves_no_point_in_between(depth, blur, snap):
    scene = {"across": step(blur), "down": step(blur).T.copy()}.get(depth)
    if scene is None:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        scene = np.interp(np.hypot(x - 15, y - 12), [6, 7 + blur], [1, 4]).astype(np.float32)
    large = enlarged(scene, (scene.shape[0] * 4, scene.shape[1] * 4))
    assert in_between(large) > 0
    clean = without_edges(large, scene, 0.1, snap)
    assert in_between(clean) == 0
    assert np.isfinite(clean).mean() > 0.7, "both surfaces stay"
    far = clean[np.isfinite(clean)] > 2
    assert 0 < far.sum() < far.size


def test_what_is_cut_away_is_one_sample_wide():
    """Between the sample centres 61.5 px and 65.5 px of a fourfold enlargement lie 4 pixels of each row."""
    mask = edge_mask(step(), LARGE, 0.1)
    assert np.flatnonzero(mask[50]).tolist() == [62, 63, 64, 65]


def test_snapped_pixels_have_the_nearest_surface():
    clean = without_edges(enlarged(step()), step(), 0.1, snap=True)
    np.testing.assert_array_equal(clean[50], np.repeat([1, 4], 64))


@pytest.mark.parametrize("snap", [True, False])
def test_only_snapping_keeps_what_is_one_sample_wide(snap):
    pole = np.full(SIZE, 4, np.float32)
    pole[:, 10] = 1
    clean = without_edges(enlarged(pole), pole, 0.1, snap)
    assert in_between(clean) == 0
    assert bool((clean < 1.1).any()) == snap


def plane(height_m, pitch_deg=0.0, side_deg=0.0, focal=133.0):
    """Depth of a floor seen by a camera of `height_m`, +Inf above the horizon and beyond 50 m."""
    y, x = np.mgrid[:128, :160]
    normal = np.array([np.sin(np.radians(side_deg)), np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))])
    with np.errstate(divide="ignore"):
        depth = height_m / ((x - 79.5) / focal * normal[0] + (y - 63.5) / focal * normal[1] + normal[2])
    return np.where((depth > 0) & (depth < 50), depth, np.inf).astype(np.float32)


@pytest.mark.parametrize("height_m", [0.1, 0.3, 1.2])
@pytest.mark.parametrize("angles", [(0, 0), (20, 0), (0, 30), (5, -45)])
def test_floors_at_grazing_angles_survive(height_m, angles):
    """At 0.1 m a floor 5 m away rises 1 degree: its depth changes by more than a tenth from sample to sample from 1.3 m on."""
    floor = plane(height_m, *angles)
    known = np.isfinite(floor)
    mask = edge_mask(floor, floor.shape, 0.1)
    assert mask.sum() <= 3, "in the image's corners, where rows have fewer than five samples"
    large = enlarge(DepthMap(floor, "depth_m"), (512, 640)).values
    lost = np.isfinite(large) & np.isnan(without_edges(large, floor, 0.1, snap=False))
    assert lost.sum() <= 0.01 * known.sum() * 16, "at most the last rows before the horizon, whose slope cannot be seen"


def test_noise_on_a_floor_is_no_edge():
    floor = plane(0.3, 10) * np.random.default_rng(0).normal(1, 0.01, (128, 160)).astype(np.float32)
    assert edge_mask(floor, (512, 640), 0.1).mean() < 0.001


def test_a_wall_on_a_floor_is_no_edge():
    scene = np.minimum(plane(0.5, 10), 4)
    assert not edge_mask(scene, (512, 640), 0.1).any()


def test_a_jump_smaller_than_the_limit_is_no_edge():
    """1 m to 1.25 m differ by a fifth of the farther."""
    depth = np.repeat(np.array([[1, 1, 1, 1, 1.25, 1.25, 1.25, 1.25]], np.float32), 4, axis=0)
    assert edge_mask(depth, (16, 32), 0.19).any()
    assert not edge_mask(depth, (16, 32), 0.21).any()


def test_beyond_range_and_unknown_have_no_edge():
    depth = step()
    depth[:, 16:], depth[:5] = np.inf, np.nan
    assert not edge_mask(depth, LARGE, 0.1).any()
    far = np.where(np.isinf(depth), np.float32(90), depth)
    large = enlarge(DepthMap(far, "depth_m"), LARGE, 80.0).values
    np.testing.assert_array_equal(without_edges(large, far, 0.1, snap=True, max_depth_m=80.0), large)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (0, 4)])
def test_small_and_empty_maps_do_no_harm(shape):
    for value in (1.0, np.nan, 0.0, -1.0):
        assert not edge_mask(np.full(shape, value, np.float32), shape, 0.1).any()


def test_mask_lies_where_opencv_interpolates():
    """Every pixel that bilinear enlargement blends is found, whatever the ratio of sizes."""
    depth = np.where(np.random.default_rng(0).random((13, 17)) < 0.5, 1, 4).astype(np.float32)
    for size in ((13, 17), (40, 51), (52, 68), (97, 55)):
        large = cv2.resize(depth, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        blended = (large > 1 + 1e-5) & (large < 4 - 1e-5)
        assert not (blended & ~edge_mask(depth, size, 0.1)).any()


def test_far_policies_by_hand():
    depth = np.array([1, 5, 6, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(with_far_policy(depth, "nan", 5.0), [1, 5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(with_far_policy(depth, "clamp", 5.0), [1, 5, 5, 5, np.nan])
    np.testing.assert_array_equal(with_far_policy(depth, "inf", 5.0), [1, 5, np.inf, np.inf, np.nan])
    assert depth[2] == 6
    with pytest.raises(ValueError, match="'keep' is not one of nan, clamp, inf"):
        with_far_policy(depth, "keep", 5.0)
