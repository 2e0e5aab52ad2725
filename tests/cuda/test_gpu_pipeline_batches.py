"""Frames on the GPU after and beside one another: batches of several cameras, graphs, memory, the numpy stages in between, failures."""

import gc
from dataclasses import replace

import numpy as np
import pytest

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.cuda import frames as frames_module
from depth_anything_ros.decode import ImageLayout, RawFrame
from depth_anything_ros.errors import DecodeError, EngineError
from depth_anything_ros.gpu_pipeline import GpuPipeline
from depth_anything_ros.pipeline import Pipeline, pipeline_for
from depth_anything_ros.prediction import Request

from .pipelines import ALL, FIXED, assert_same, assert_twins, batch_of, camera, configured, image


def test_cameras_in_one_batch_get_their_own_results(engine):
    """Different encodings, sizes and outputs, in any order; the graph of a combination serves every order."""
    opened = engine()
    pipelines = [pipeline_for(opened) for _ in range(3)]
    kinds = [("nv12", (48, 64), ALL), ("bgr8", (60, 90), frozenset({"depth"})), ("mono16", (48, 64), frozenset({"depth", "color"}))]
    for seed, order in enumerate(((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 1, 2))):
        requests = [
            Request(image(encoding, size_hw, seed=10 * seed + i), RuntimeConfig(), camera(size_hw), wanted)
            for i, (encoding, size_hw, wanted) in enumerate(kinds)
        ]
        found = batch_of([pipelines[i] for i in order], [requests[i] for i in order])
        for i, prediction in zip(order, found):
            assert_same(prediction, Pipeline(opened)(requests[i].frame, RuntimeConfig(), requests[i].camera, requests[i].wanted), requests[i])
    assert opened.gpu.launches == {"plain": 1, "graph": 3}
    assert list(opened.networks) == [(3, 3, 24, 32)]


def test_batches_of_any_size_follow_one_another(engine):
    opened = engine()
    pipelines = [pipeline_for(opened) for _ in range(3)]
    for count in (1, 3, 2, 1, 3, 2):
        requests = [Request(image(seed=count + i), RuntimeConfig(), camera(), ALL) for i in range(count)]
        for prediction, request in zip(batch_of(pipelines[:count], requests), requests):
            assert_same(prediction, Pipeline(opened)(request.frame, RuntimeConfig(), request.camera, ALL), request)
    assert opened.gpu.launches == {"plain": 3, "graph": 3}


def test_larger_batch_than_the_engine_takes_is_refused(engine):
    opened = engine()
    with pytest.raises(EngineError, match="engine 'fake' got 4 images at once but takes 3"):
        batch_of([pipeline_for(opened) for _ in range(4)], [Request(image(), RuntimeConfig())] * 4)


def test_one_network_size_is_one_batch_and_numpy_is_another(engine):
    opened = engine(input_sizes_hw=((24, 32), (32, 24)))
    wide, tall, filtered = (pipeline_for(opened) for _ in range(3))
    keys = [
        wide.prepare(Request(image(), RuntimeConfig())).batch_key,
        tall.prepare(Request(image(size_hw=(64, 48)), RuntimeConfig())).batch_key,
        filtered.prepare(Request(image(), configured(temporal__mode="filter"))).batch_key,
    ]
    assert len(set(keys)) == 3


# What changes while it runs


def test_numbers_change_without_a_new_graph(engine):
    pipeline = pipeline_for(engine())
    changes = ({}, {"depth__max_m": 1.5}, FIXED, {"cloud__max_m": 1.6}, {"color__far_m": 3.0}, {"camera__height_m": 1.0, "cloud__max_height_m": 1.2})
    for seed, values in enumerate(changes):
        values = values if values is FIXED else {key.replace("__", "."): value for key, value in values.items()}
        assert_twins(pipeline, Request(image(seed=seed), RuntimeConfig().updated(values), camera(), ALL))
    assert pipeline.engine.gpu.launches == {"plain": 1, "graph": len(changes) - 1}


def test_kinds_of_frames_come_and_go_with_their_memory(engine):
    """Subscribers, sizes, encodings and lenses that change: a few kinds are kept, and nothing piles up."""
    opened = engine()
    pipeline, sizes = pipeline_for(opened), []
    for _ in range(3):
        for number, size_hw in enumerate(((48, 64), (30, 40), (48, 66), (20, 20), (50, 50))):
            encoding, wanted = ("rgb8", ALL) if number % 2 else ("nv12", frozenset({"depth"}))
            for _ in range(2):
                assert_twins(pipeline, Request(image(encoding, size_hw), RuntimeConfig(), camera(size_hw, distorted=number == 1), wanted))
        gc.collect()
        sizes.append((len(opened.driver.live), len(opened.session.graphs), len(opened.driver.pinned)))
    assert sizes[0] == sizes[1] == sizes[2]
    assert sizes[0][1] == frames_module.KINDS_KEPT
    assert opened.gpu.launches == {"plain": 15, "graph": 15}


def test_the_kind_that_was_not_used_for_the_longest_time_goes(engine):
    pipeline, launches = pipeline_for(engine()), []
    for width in (64, 66, 68, 64, 70, 64, 68, 66):
        pipeline(image(size_hw=(48, width)), RuntimeConfig())
        launches.append(pipeline.engine.gpu.launches["plain"])
    assert launches == [1, 2, 3, 3, 4, 4, 4, 5]


def test_another_lens_has_other_rays(engine):
    """Distortion alone changes: everything else of the frame's kind stays."""
    pipeline = pipeline_for(engine())
    for k1 in (-0.1, 0.1, -0.1, 0.05):
        lens = replace(camera(distorted=True), d=(k1, *(0.0,) * 7))
        assert_twins(pipeline, Request(image(), RuntimeConfig(), lens, ALL))


def test_toggled_outputs_keep_their_graphs(engine):
    """A cloud at a lower rate than the depth takes turns; that must not capture anew."""
    pipeline = pipeline_for(engine())
    for number in range(12):
        wanted = ALL if number % 3 == 0 else frozenset({"depth"})
        assert_twins(pipeline, Request(image(seed=number), RuntimeConfig(), camera(), wanted))
    assert pipeline.engine.gpu.launches == {"plain": 2, "graph": 10}


def test_graphs_of_batches_are_bounded(engine, monkeypatch):
    monkeypatch.setattr(frames_module, "BATCHES_KEPT", 2)
    opened = engine()
    pipelines = [pipeline_for(opened) for _ in range(3)]
    for chosen in ((0,), (1,), (2,), (0, 1), (1, 2)) * 2:
        for _ in range(2):
            batch_of([pipelines[i] for i in chosen], [Request(image(seed=i), RuntimeConfig(), camera(), ALL) for i in chosen])
        assert len(opened.session.graphs) <= 2


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"temporal__mode": "filter"}, "temporal.mode is filter"),
        ({"edges__mode": "snap"}, "edges.mode is snap"),
        ({"scale__mode": "reference"}, "scale.mode is reference"),
        ({"confidence__min": 0.5}, "confidence.min is 0.5"),
    ],
)
def test_frames_that_need_the_numpy_stages_take_them_and_say_so(engine, values, reason):
    pipeline = pipeline_for(engine())
    for config in (RuntimeConfig(), configured(**values), RuntimeConfig(), configured(**values)):
        prediction = assert_twins(pipeline, Request(image(), config, camera(), frozenset({"depth"})))
        assert prediction.points is None
    assert pipeline.engine.gpu.details() == {"stages": f"numpy: {reason}", "gpu_frames": "2", "numpy_frames": "2"}
    assert_twins(pipeline, Request(image(), RuntimeConfig(), camera(), ALL))
    assert pipeline.engine.gpu.details()["stages"] == "gpu"


def test_confidence_is_made_in_numpy(engine):
    pipeline = pipeline_for(engine())
    assert pipeline(image(), RuntimeConfig(), camera(), frozenset({"depth", "confidence"})).confidence is not None
    assert pipeline.engine.gpu.details()["stages"] == "numpy: the confidence is wanted"


def test_frames_on_the_gpu_are_no_past_of_the_filter(engine):
    """As with temporal.mode off in numpy: what was before is forgotten."""
    steady = configured(temporal__mode="filter")
    layout, dark = ImageLayout("mono8", 48, 64, 64), np.random.default_rng(0).integers(0, 200, 48 * 64, np.uint8)
    first, between, last = (RawFrame(layout, dark + np.uint8(add), stamp_ns) for add, stamp_ns in ((0, 10**8), (0, 2 * 10**8), (8, 3 * 10**8)))
    alone = Pipeline(engine())(last, steady).depth.values
    for middle, forgets in ((steady, False), (RuntimeConfig(), True)):
        pipeline = pipeline_for(engine())
        pipeline(first, steady)
        pipeline(between, middle)
        assert np.array_equal(pipeline(last, steady).depth.values, alone) == forgets


# Memory, and what goes wrong


def test_results_stay_as_long_as_somebody_holds_them(engine):
    """A snapshot keeps the newest frame, a queue of a bag several: none is overwritten, and memory that comes back is used again."""
    opened = engine()
    pipeline = pipeline_for(opened)
    kept = [pipeline(image(seed=seed), RuntimeConfig(), camera(), ALL) for seed in range(4)]
    copies = [(one.depth.values.copy(), one.points.copy(), one.color.copy()) for one in kept]
    views = [one.points[::2, ::2] for one in kept]
    del kept[1]
    for seed in range(10, 15):
        pipeline(image(seed=seed), RuntimeConfig(), camera(), ALL)
    for one, (depth, points, color) in zip(kept, [copies[0], *copies[2:]]):
        np.testing.assert_array_equal(one.depth.values, depth)
        np.testing.assert_array_equal(one.points.view(np.uint32), points.view(np.uint32))
        np.testing.assert_array_equal(one.color, color)
    np.testing.assert_array_equal(views[1].view(np.uint32), copies[1][1][::2, ::2].view(np.uint32))
    assert opened.driver.is_pinned(kept[0].depth.values)
    held = len(opened.driver.pinned)
    del kept, one, views
    for seed in range(8):
        pipeline(image(seed=seed), RuntimeConfig(), camera(), ALL)
    assert len(opened.driver.pinned) == held


def test_what_cannot_be_captured_is_launched_plainly_and_counted(engine):
    opened = engine()
    opened.session.refuses_capture = True
    pipeline = pipeline_for(opened)
    for seed in range(3):
        assert_twins(pipeline, Request(image(seed=seed), RuntimeConfig(), camera(), ALL))
    assert opened.gpu.launches == {"plain": 3}
    assert opened.gpu.no_graph_reasons() == {"operation not permitted when stream is capturing"}


def test_network_that_was_made_anew_gets_a_new_graph(engine):
    """The engine lets go of sizes that were not used for long; their addresses are no longer theirs."""
    opened = engine()
    pipeline = pipeline_for(opened)
    for _ in range(2):
        assert_twins(pipeline, Request(image(), RuntimeConfig(), camera(), ALL))
    opened.networks.pop((1, 3, 24, 32)).close()
    for _ in range(2):
        assert_twins(pipeline, Request(image(seed=5), RuntimeConfig(), camera(), ALL))
    assert opened.gpu.launches == {"plain": 2, "graph": 2}
    assert len(opened.session.graphs) == 1


def test_failing_network_leaves_the_next_frame_whole(engine, monkeypatch):
    opened = engine()
    pipeline = pipeline_for(opened)
    assert_twins(pipeline, Request(image(), RuntimeConfig(), camera(), ALL))
    with monkeypatch.context() as patch:
        patch.setattr(opened.networks[1, 3, 24, 32], "enqueue", lambda: (_ for _ in ()).throw(EngineError("TensorRT failed")))
        with pytest.raises(EngineError, match="TensorRT failed"):
            pipeline(image(), RuntimeConfig(), camera(), ALL)
    assert not opened.session.stream.queue
    assert_twins(pipeline, Request(image(seed=1), RuntimeConfig(), camera(), ALL))


def test_memory_that_does_not_suffice_is_an_error_and_smaller_images_go_on(engine):
    pipeline = pipeline_for(engine(memory_bytes=300_000))
    assert_twins(pipeline, Request(image(), RuntimeConfig(), camera(), ALL))
    with pytest.raises(EngineError, match="the GPU has no .* bytes left"):
        pipeline(image(size_hw=(300, 400)), RuntimeConfig(), camera((300, 400)), ALL)
    assert_twins(pipeline, Request(image(seed=1), RuntimeConfig(), camera(), ALL))


def test_image_that_the_model_cannot_take_is_refused(engine):
    pipeline = pipeline_for(engine(resize="lower_bound"))
    with pytest.raises(DecodeError, match="too thin"):
        pipeline(image("mono8", (2, 600)), RuntimeConfig())


def test_engine_without_the_stages_has_the_numpy_pipeline(engine):
    opened = engine()
    assert isinstance(pipeline_for(opened), GpuPipeline)
    opened.close()
    assert type(pipeline_for(opened)) is Pipeline
    assert not Pipeline.reads_raw_images
    assert isinstance(image(), RawFrame)
