"""Whole frames on the GPU side by side with the numpy stages: every encoding, every parameter that counts, one camera."""

import numpy as np
import pytest

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.decode import ENCODINGS
from depth_anything_ros.engines.cuda_runtime import CudaSession
from depth_anything_ros.pipeline import pipeline_for
from depth_anything_ros.prediction import Request
from depth_anything_ros.structs import RgbFrame

from .fake_engine import FakeSession
from .pipelines import ALL, FIXED, assert_twins, camera, configured, image


def test_the_session_of_the_tests_has_no_more_than_the_real_one():
    own = {name for name in vars(FakeSession) if not name.startswith("_")}
    assert own <= set(dir(CudaSession))
    assert {"device", "driver", "stream"} <= set(CudaSession.__doc__.replace(":", " ").split())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding(engine, encoding):
    pipeline = pipeline_for(engine())
    for seed in range(3):  # plain, captured, launched
        request = Request(image(encoding, seed=seed), RuntimeConfig(), camera(), ALL)
        found = assert_twins(pipeline, request)
        assert np.isfinite(found.depth.values).all()
        assert found.stage_s["decode"] == 0.0 or "rgb" in vars(request.frame)
    details = pipeline.engine.gpu.details()
    assert details == {"stages": "gpu", "gpu_frames": "3", "numpy_frames": "0"}
    assert pipeline.engine.gpu.launches == {"plain": 1, "graph": 2}


def test_nothing_is_decoded_on_the_cpu(engine):
    pipeline, frame = pipeline_for(engine()), image("bayer_rggb8")
    prediction = pipeline(frame, RuntimeConfig(), camera(), ALL)
    assert prediction.points.shape == (48, 64, 4)
    assert "rgb" not in vars(frame)
    assert prediction.stage_s["decode"] == 0


def test_image_that_was_decoded_on_the_cpu_goes_on_on_the_gpu(engine):
    """JPEG, PNG, and what cv_bridge decodes."""
    rgb = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    found = assert_twins(pipeline_for(engine()), Request(RgbFrame(rgb[:, ::-1], decode_s=0.25), RuntimeConfig(), camera(), ALL))
    assert found.stage_s["decode"] == 0.25


@pytest.mark.parametrize(
    "values",
    [
        {"depth__downsample": 2},
        {"depth__downsample": 3, "cloud__stride": 2},
        {"cloud__stride": 5, "cloud__fields": "xyz"},
        {"cloud__min_m": 1.3, "cloud__max_m": 1.6},
        {"cloud__max_m": 1.5, "cloud__far_policy": "clamp"},
        {"cloud__max_m": 1.5, "cloud__far_policy": "clamp", "depth__max_m": 1.4},
        {"cloud__min_height_m": 0.2, "cloud__max_height_m": 1.1, "camera__height_m": 0.9, "camera__pitch_deg": 12.0, "camera__roll_deg": -4.0},
        {"depth__max_m": 1.5},
        {"color__colormap": "gray", "color__near_m": 1.1, "color__far_m": 1.9},
        {"color__colormap": "viridis"},
        {"scale__mode": "fixed", "scale__factor": 0.7, "scale__offset": 0.3},
        {"scale__mode": "fixed", "scale__factor": 2.0, "scale__offset": -3.0},
        {"scale__mode": "fixed", "scale__factor": 2.0, "depth__max_m": 3.1},
        {"scale__mode": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("contract", [{}, {"max_depth_m": 1.55}, {"output_kind": "depth_canonical_focal", "canonical_focal_px": 31.0}], ids=str)
@pytest.mark.parametrize("distorted", [False, True])
def test_every_parameter(engine, values, contract, distorted):
    assert_twins(pipeline_for(engine(**contract)), Request(image(), configured(**values), camera(distorted=distorted), ALL))


@pytest.mark.parametrize("values", [{}, FIXED, {"scale.mode": "fixed", "depth.max_m": 0.7}], ids=str)
def test_relative_model(engine, values):
    pipeline = pipeline_for(engine(output_kind="disparity_affine_invariant"))
    found = assert_twins(pipeline, Request(image(), RuntimeConfig().updated(values), camera(), ALL))
    assert (found.depth is None) == (not values)
    assert found.relative is not None


@pytest.mark.parametrize("resize", [{"resize": "lower_bound", "size_multiple": 8}, {"resize": "letterbox", "input_sizes_hw": ((32, 32), (24, 48))}])
def test_other_ways_to_resize(engine, resize):
    pipeline = pipeline_for(engine(**resize))
    for size_hw in ((48, 64), (40, 90), (90, 40)):
        assert_twins(pipeline, Request(image(size_hw=size_hw), RuntimeConfig(), camera(size_hw), ALL))


def test_network_in_half_precision(engine):
    found = assert_twins(pipeline_for(engine(dtype="float16")), Request(image(), RuntimeConfig(), camera(), ALL), tensor_differs=True)
    assert found.depth.values.dtype == np.float32


@pytest.mark.parametrize("wanted", [{"depth"}, {"depth", "color"}, {"depth", "points"}, {"relative"}, {"points"}, {"color"}, set()], ids=sorted)
def test_only_what_is_wanted_is_made(engine, wanted):
    pipeline = pipeline_for(engine())
    prediction = pipeline(image(), RuntimeConfig(), camera(), frozenset(wanted))
    made = {name for name in ("depth", "relative", "points", "color") if getattr(prediction, name) is not None}
    assert made == (wanted if "depth" in wanted else set()), "points and picture come with the depth"


def test_without_camera_there_are_no_points(engine):
    assert assert_twins(pipeline_for(engine()), Request(image(), RuntimeConfig(), None, ALL)).points is None


def test_model_that_needs_the_focal_length_says_so(engine):
    pipeline = pipeline_for(engine(output_kind="depth_canonical_focal", canonical_focal_px=31.0))
    request = Request(image(), configured(fallback_hfov_deg=0.0), None, ALL)
    assert "needs the focal length" in assert_twins(pipeline, request).no_depth_reason
    assert_twins(pipeline, Request(image(), configured(fallback_hfov_deg=70.0), None, ALL))
