"""Frames, cameras and comparisons for the tests of the GPU pipeline."""

import numpy as np

from depth_anything_ros.color import rgb_from_map
from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.geometry import CloudBuilder
from depth_anything_ros.obstacles import points_from_depth
from depth_anything_ros.pipeline import Pipeline, infer_together
from depth_anything_ros.rays import ImageCamera
from depth_anything_ros.structs import Intrinsics

from .twins import frame_of, raw_image, ulps

METRIC = {"resize": "stretch", "input_sizes_hw": ((24, 32),)}
ALL = frozenset({"depth", "relative", "points", "color"})
FIXED = {"scale.mode": "fixed", "scale.factor": 0.7, "scale.offset": 0.3}


def configured(**values):
    return RuntimeConfig().updated({key.replace("__", "."): value for key, value in values.items()})


def image(encoding="rgb8", size_hw=(48, 64), seed=0):
    return frame_of(raw_image(np.random.default_rng(seed), encoding, size_hw, padding=4))


def camera(size_hw=(48, 64), distorted=False):
    pinhole = Intrinsics(51.3, 49.9, 30.2, 25.7, size_hw)
    if distorted:
        return ImageCamera(pinhole, "polynomial", (-0.1, 0.02, 0.001, 0.0, 0.0, 0.0, 0.0, 0.0))
    return ImageCamera(pinhole, "pinhole", (0.0,) * 8)


def assert_twins(pipeline, request, tensor_differs=False):
    """Compare a frame's depth, points and picture with those of the numpy stages; returns the GPU's prediction."""
    frame, config, config_camera = request.frame, request.config, request.camera
    prepared = pipeline.prepare(request)
    found = pipeline.finish(prepared, infer_together(pipeline.engine, [prepared])[0])
    assert_same(found, Pipeline(pipeline.engine)(frame, config, config_camera, request.wanted), request, 1e-2 if tensor_differs else 0)
    return found


def assert_same(found, expected, request, depth_rtol=0.0):
    frame, config = request.frame, request.config
    assert (found.no_depth_reason, found.range_limit_m) == (expected.no_depth_reason, expected.range_limit_m)
    assert set(found.stage_s) == set(expected.stage_s)
    for ours, numpys in ((found.depth, expected.depth), (found.relative, expected.relative)):
        assert (ours is None) == (numpys is None)
        if ours is not None:
            assert ours.kind == numpys.kind
            if depth_rtol:
                np.testing.assert_allclose(ours.values, numpys.values, rtol=depth_rtol)
            else:
                assert ulps(ours.values, numpys.values) <= 2
    made = found.depth is not None
    assert (found.points is not None) == (made and "points" in request.wanted and request.camera is not None)
    if found.points is not None:
        rgb = frame.rgb if config.cloud.fields == "xyzrgb" else None
        points = points_from_depth(CloudBuilder(), found.depth.values, request.camera, rgb, config, found.range_limit_m)
        np.testing.assert_array_equal(found.points[..., :3], points[..., :3])
        np.testing.assert_array_equal(found.points[..., 3:].view(np.uint32), points[..., 3:].view(np.uint32))
    assert (found.color is not None) == (made and "color" in request.wanted)
    if found.color is not None:
        picture = rgb_from_map(found.depth, config.color.colormap, config.color.near_m, config.color.far_m)
        assert np.count_nonzero((found.color != picture).any(axis=2)) <= 3, "two logarithms may round apart"


def batch_of(pipelines, requests):
    prepared = [pipeline.prepare(request) for pipeline, request in zip(pipelines, requests)]
    assert len({one.batch_key for one in prepared}) == 1
    inferred = infer_together(pipelines[0].engine, prepared)
    return [pipeline.finish(*pair) for pipeline, pair in zip(pipelines, zip(prepared, inferred))]
