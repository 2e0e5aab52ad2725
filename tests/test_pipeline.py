import numpy as np
import pytest

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.decode import ImageLayout, RawFrame
from depth_anything_ros.engines import open_engine
from depth_anything_ros.geometry import CloudBuilder, intrinsics_from_hfov
from depth_anything_ros.obstacles import points_from_depth
from depth_anything_ros.pipeline import Pipeline, pipeline_for
from depth_anything_ros.rays import ImageCamera
from depth_anything_ros.scale_filter import Fit, ScaleState
from depth_anything_ros.structs import Intrinsics, RgbFrame

from .models import write_tiny_model

GRAY = RgbFrame(np.full((48, 64, 3), 51, np.uint8))  # 0.2 of white: the tiny model says 1.2


def run(frame=GRAY, camera=None, **values):
    config = RuntimeConfig().updated({key.replace("__", "."): value for key, value in values.items()})
    return Pipeline(open_engine(config))(frame, config, camera)


@pytest.fixture
def model(tmp_path):
    return lambda **changes: str(write_tiny_model(tmp_path / "m.onnx", **changes))


def test_metric_model_gives_metres_at_the_images_size(model):
    prediction = run(model=model())
    assert prediction.depth.kind == "depth_m"
    assert prediction.depth.values.shape == (48, 64)
    np.testing.assert_allclose(prediction.depth.values, 1.2, rtol=1e-6)
    assert (prediction.relative, prediction.no_depth_reason) == (None, "")
    assert set(prediction.stage_s) == {"decode", "preprocess", "infer", "postprocess"}


def test_relative_model_gives_no_metres_and_says_what_would(model):
    prediction = run(model=model(output_kind="disparity_affine_invariant"))
    assert prediction.depth is None
    assert prediction.relative.kind == "disparity_affine_invariant"
    assert "set scale.mode to fixed" in prediction.no_depth_reason


def test_relative_model_with_fixed_scale_gives_both(model):
    prediction = run(model=model(output_kind="disparity_affine_invariant"), scale__mode="fixed", scale__factor=0.5, scale__offset=0.4)
    np.testing.assert_allclose(prediction.depth.values, 1.0, rtol=1e-6)
    np.testing.assert_allclose(prediction.relative.values, 1.2, rtol=1e-6)


CANONICAL = {"output_kind": "depth_canonical_focal", "canonical_focal_px": 20.0}


def test_canonical_model_uses_the_cameras_focal_length(model):
    """80 px at 64 px width are 40 px in the network's 32: twice the canonical 20."""
    prediction = run(camera=ImageCamera(Intrinsics(80, 80, 32, 24, (48, 64)), "pinhole", (0.0,) * 8), model=model(**CANONICAL))
    np.testing.assert_allclose(prediction.depth.values, 2.4, rtol=1e-6)


def test_canonical_model_without_camera_uses_the_field_of_view_that_was_set(model):
    hfov = run(model=model(**CANONICAL), fallback_hfov_deg=90.0)
    focal_px = intrinsics_from_hfov(90.0, (48, 64)).fx
    np.testing.assert_allclose(hfov.depth.values, 1.2 * focal_px * 0.5 / 20, rtol=1e-6)
    none = run(model=model(**CANONICAL), fallback_hfov_deg=0.0)
    assert none.depth is None
    assert "needs the focal length" in none.no_depth_reason


def test_what_is_not_wanted_is_not_made(model):
    config = RuntimeConfig().updated({"model": model(output_kind="disparity_affine_invariant"), "scale.mode": "fixed"})
    pipeline = Pipeline(open_engine(config))
    only_relative = pipeline(GRAY, config, None, frozenset({"relative"}))
    assert only_relative.depth is None
    assert only_relative.relative is not None
    only_depth = pipeline(GRAY, config, None, frozenset({"depth"}))
    assert only_depth.relative is None
    assert only_depth.depth is not None


def test_nearer_limit_of_model_and_parameter_counts(model):
    assert np.isinf(run(model=model(max_depth_m=1.1)).depth.values).all()
    assert np.isinf(run(model=model(max_depth_m=50.0), depth__max_m=1.1).depth.values).all()
    assert np.isfinite(run(model=model(max_depth_m=50.0), depth__max_m=1.3).depth.values).all()


def fixed(factor, offset=0.0):
    return {"scale__mode": "fixed", "scale__factor": factor, "scale__offset": offset}


def test_the_models_limit_is_in_its_own_metres(model):
    """The model says 1.2: a scale neither brings what is beyond its limit back, nor puts what is within it beyond."""
    near, far = run(model=model(max_depth_m=1.1), **fixed(0.5)), run(model=model(max_depth_m=1.3), **fixed(2.0))
    assert np.isposinf(near.depth.values).all()
    np.testing.assert_allclose(far.depth.values, 2.4, rtol=1e-6)
    assert np.isposinf(run(model=model(max_depth_m=1.3), depth__max_m=2.0, **fixed(2.0)).depth.values).all()


def test_the_limit_that_was_applied_goes_with_the_depth(model):
    assert run(model=model()).range_limit_m is None
    assert run(model=model(max_depth_m=50.0)).range_limit_m == 50
    assert run(model=model(max_depth_m=50.0), depth__max_m=3.0).range_limit_m == 3
    assert run(model=model(max_depth_m=50.0), **fixed(0.5, 1.0)).range_limit_m == 26
    assert run(model=model(max_depth_m=50.0), depth__max_m=30.0, **fixed(2.0)).range_limit_m == 30
    assert run(model=model(max_depth_m=50.0, output_kind="disparity_affine_invariant"), **fixed(2.0)).range_limit_m is None


@pytest.mark.parametrize(
    ("shift", "limit_m", "depth_m"), [(0.0, 5.0, 2.4), (0.1, 1 / 0.3, 1 / (0.5 / 1.2 + 0.1)), (-0.3, None, 1 / (0.5 / 1.2 - 0.3))]
)
def test_a_measured_scale_moves_the_models_limit(model, shift, limit_m, depth_m):
    """1 / depth = 0.5 / 1.2 + shift; the model's limit of 2.5 m is at 1 / (0.2 + shift)."""
    config = RuntimeConfig().updated({"model": model(max_depth_m=2.5), "scale.mode": "reference"})
    prediction = Pipeline(open_engine(config))(GRAY, config, measure_scale=lambda _: ScaleState(0.5, shift, False, 0.0, Fit(), ""))
    np.testing.assert_allclose(prediction.depth.values, depth_m, rtol=1e-5)
    assert prediction.range_limit_m == (limit_m and pytest.approx(limit_m))


@pytest.mark.parametrize(("limit_m", "far_m"), [(None, 5.0), (3.0, 3.0), (8.0, 5.0)])
def test_no_point_is_clamped_beyond_the_limit_of_the_depth(limit_m, far_m):
    config = RuntimeConfig().updated({"cloud.far_policy": "clamp", "cloud.max_m": 5.0})
    camera = ImageCamera(intrinsics_from_hfov(90.0, (48, 64)), "pinhole", (0.0,) * 8)
    points = points_from_depth(CloudBuilder(), np.full((48, 64), np.inf, np.float32), camera, None, config, limit_m)
    np.testing.assert_array_equal(points[..., 2], far_m)


def test_downsample_divides_the_size(model):
    assert run(model=model(), depth__downsample=3).depth.values.shape == (16, 21)


def test_size_may_change_from_frame_to_frame(model):
    config = RuntimeConfig().updated({"model": model()})
    pipeline = Pipeline(open_engine(config))
    for size in ((48, 64), (30, 90), (48, 64)):
        assert pipeline(RgbFrame(np.zeros((*size, 3), np.uint8)), config, None).depth.values.shape == size


def test_result_is_not_overwritten_by_the_next_frame(model):
    config = RuntimeConfig().updated({"model": model()})
    pipeline = Pipeline(open_engine(config))
    first = pipeline(GRAY, config, None).depth.values
    before = first.copy()
    pipeline(RgbFrame(np.full((48, 64, 3), 255, np.uint8)), config, None)
    np.testing.assert_array_equal(first, before)


def test_decoding_is_a_stage_of_its_own(model):
    config = RuntimeConfig().updated({"model": model()})
    raw = RawFrame(ImageLayout("mono8", 48, 64, 64), np.full(48 * 64, 51, np.uint8))
    prediction = Pipeline(open_engine(config))(raw, config)
    np.testing.assert_allclose(prediction.depth.values, 1.2, rtol=1e-6)
    assert 0 < prediction.stage_s["decode"] == raw.decode_s
    assert run(RgbFrame(GRAY.rgb, decode_s=0.25), model=model()).stage_s["decode"] == 0.25


def test_engine_without_a_gpu_has_the_pipeline_in_numpy(model):
    config = RuntimeConfig().updated({"model": model()})
    assert type(pipeline_for(open_engine(config))) is Pipeline
