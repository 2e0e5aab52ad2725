"""Network output -> published maps: against map_from_raw, metric_map and enlarge, sizes, limits and unknown values mixed."""

import cv2
import numpy as np
import pytest

from depth_anything_ros.config import ScaleConfig
from depth_anything_ros.cuda.plan import FrameNumbers, FramePlan
from depth_anything_ros.postprocess import FARTHEST_M, canonical_scale, enlarge, map_from_raw
from depth_anything_ros.preprocess import plan_resize
from depth_anything_ros.scale import metric_map

from ..models import tiny_contract
from .twins import cuda_results, layout_of, raw_image, ulps

SIZES = [
    ((24, 32), (48, 64)),
    ((24, 32), (90, 131)),
    ((37, 53), (37, 53)),
    ((37, 53), (19, 53)),
    ((40, 60), (20, 30)),
    ((1, 1), (9, 7)),
    ((5, 1), (1, 8)),
]


def random_raw(rng, size_hw, kind):
    """Return what a network might give: mostly smooth values, some holes, some far, some nonsense."""
    values = rng.uniform(0.3, 30, size_hw) if kind != "disparity_affine_invariant" else rng.normal(2, 2, size_hw)
    for bad in (np.nan, np.inf, -np.inf, 0.0, -3.0, 1e7, 500.0):
        values[rng.random(size_hw) < 0.01] = bad
    return values.astype(np.float32)[None]


def both(device, kind, network_hw, published_hw, limit_m, scale, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    contract = tiny_contract(resize="stretch", input_sizes_hw=(network_hw,), output_kind=kind, canonical_focal_px=300.0)
    message = raw_image(rng, "mono8", (2 * published_hw[0], 2 * published_hw[1]))
    resize = plan_resize((message.height, message.width), contract)
    with np.errstate(over="ignore"):
        raw = random_raw(rng, network_hw, kind).astype(dtype)
    raw_scale = canonical_scale(resize, contract, 431.7) if kind == "depth_canonical_focal" else 1.0
    is_relative = kind == "disparity_affine_invariant"
    outputs = {"relative"} if is_relative else {"depth"}
    fixed = scale.mode == "fixed"
    if is_relative and fixed:
        outputs.add("depth")
    scaling = {"scale_factor": scale.factor, "scale_offset": scale.offset} if fixed else {}
    numbers = FrameNumbers(raw_scale, max_depth_m=limit_m, **scaling)
    ours = cuda_results(device, contract, message, raw, FramePlan(layout_of(message), resize, published_hw, frozenset(outputs)), numbers)
    predicted = map_from_raw(raw.astype(np.float32), resize, contract, 431.7)
    metric = metric_map(predicted, scale)
    numpys = {"depth": enlarge(metric, published_hw, limit_m).values} if metric else {}
    if is_relative:
        numpys["relative"] = enlarge(predicted, published_hw).values
    return ours, numpys


@pytest.mark.parametrize("limit_m", [FARTHEST_M, 20.0])
@pytest.mark.parametrize("scale", [ScaleConfig(), ScaleConfig("fixed", 0.7, 0.2), ScaleConfig("fixed", 1.3, -2.0)])
@pytest.mark.parametrize("kind", ["depth_m", "depth_canonical_focal", "disparity_affine_invariant"])
def test_published_maps_are_within_two_units_of_the_last_place(device, kind, scale, limit_m):
    """OpenCV divides every pixel of a map by its weight as soon as one pixel is far; the GPU where a neighbour is: that is a rounding apart."""
    for seed, (network_hw, published_hw) in enumerate(SIZES):
        ours, numpys = both(device, kind, network_hw, published_hw, limit_m, scale, seed=seed)
        assert ours.keys() == numpys.keys()
        for name, values in ours.items():
            assert values.shape == published_hw
            assert ulps(values, numpys[name], at_least=1.0 if name == "relative" else 0.0) <= 2


@pytest.mark.parametrize("kind", ["depth_m", "disparity_affine_invariant"])
def test_maps_without_far_pixels_are_bit_for_bit(device, kind):
    for network_hw, published_hw in SIZES:
        if network_hw == (2 * published_hw[0], 2 * published_hw[1]):
            continue  # halving both sides is a mean of four in OpenCV, added in another order
        ours, numpys = both(device, kind, network_hw, published_hw, 1e30, ScaleConfig())
        name = "depth" if kind == "depth_m" else "relative"
        if not np.isinf(numpys[name]).any():
            np.testing.assert_array_equal(ours[name], numpys[name])


def test_output_in_half_precision_is_read_as_such(device):
    ours, numpys = both(device, "depth_m", (24, 32), (50, 70), 20.0, ScaleConfig(), dtype="float16")
    assert ulps(ours["depth"], numpys["depth"]) <= 2


def test_the_limit_makes_infinite_and_nothing_between(device):
    """Two metres beside beyond range: the numpy stage's own example, by hand."""
    contract = tiny_contract(resize="stretch", input_sizes_hw=((1, 4),))
    message = raw_image(np.random.default_rng(0), "mono8", (1, 16))
    raw = np.array([[[1, 1, 11, np.inf]]], np.float32)
    plan = FramePlan(layout_of(message), plan_resize((1, 16), contract), (1, 16), frozenset({"depth"}))
    depth = cuda_results(device, contract, message, raw, plan, FrameNumbers(max_depth_m=10.0))["depth"]
    assert (depth[0, :8] == 1).all()
    assert np.isinf(depth[0, 8:]).all()


def test_letterbox_padding_is_cut_away(device):
    contract = tiny_contract(resize="letterbox", input_sizes_hw=((32, 32),))
    message = raw_image(np.random.default_rng(0), "mono8", (30, 60))
    resize = plan_resize((30, 60), contract)
    raw = np.random.default_rng(1).uniform(1, 5, (1, 32, 32)).astype(np.float32)
    ours = cuda_results(device, contract, message, raw, FramePlan(layout_of(message), resize, (30, 60), frozenset({"depth"})), FrameNumbers())
    numpys = enlarge(map_from_raw(raw, resize, contract), (30, 60)).values
    np.testing.assert_array_equal(ours["depth"], numpys)


def test_intels_library_differs_by_a_millionth(device):
    """What the x86 wheels of OpenCV add; measured on a smooth map, as Intel's interpolation weights are coarser."""
    cv2.ipp.setUseIPP(True)
    contract, message = tiny_contract(resize="stretch", input_sizes_hw=((37, 53),)), raw_image(np.random.default_rng(0), "mono8", (108, 192))
    raw = cv2.GaussianBlur(np.random.default_rng(1).uniform(0.5, 30, (37, 53)).astype(np.float32), (0, 0), 8)[None]
    resize = plan_resize((108, 192), contract)
    ours = cuda_results(device, contract, message, raw, FramePlan(layout_of(message), resize, (108, 192), frozenset({"depth"})), FrameNumbers())
    np.testing.assert_allclose(ours["depth"], enlarge(map_from_raw(raw, resize, contract), (108, 192)).values, rtol=1e-6)
