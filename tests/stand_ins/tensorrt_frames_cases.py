"""Whole frames through the TensorRT engine and the GPU stages together, against the real bindings. Run by `test_tensorrt.py`.

The stages' kernels are loops on the CPU here, behind the same driver; what the numpy stages make around the same engine is the reference.
"""

import os
import re
import threading

import cv2
import numpy as np
import pytest

from depth_anything_ros.color import rgb_from_map
from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.engines import BuildWatch, open_engine, prepare_engine, tensorrt_engine
from depth_anything_ros.errors import EngineError
from depth_anything_ros.geometry import CloudBuilder
from depth_anything_ros.obstacles import points_from_depth
from depth_anything_ros.pipeline import Pipeline, infer_together, pipeline_for
from depth_anything_ros.prediction import Request
from depth_anything_ros.rays import ImageCamera
from depth_anything_ros.structs import Intrinsics
from tests.cuda.twins import frame_of, raw_image, ulps
from tests.stand_ins.fixtures import NOTHING, dynamic, image
from tests.stand_ins.world import counts

ALL = frozenset({"depth", "points", "color"})
CAMERA = ImageCamera(Intrinsics(51.3, 49.9, 30.2, 25.7, (48, 64)), "pinhole", (0.0,) * 8)


@pytest.fixture(autouse=True)
def opencv_alone():
    """As tests/cuda/conftest.py: without Intel's library."""
    was = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(was)


@pytest.fixture
def kernels(monkeypatch):
    """Let the engine find compiled kernels; returns for which architectures it asked."""
    asked = []

    def compiled(compute_capability, cache_dir):
        asked.append(compute_capability)
        return os.environ["STAND_IN_KERNELS"].encode()

    monkeypatch.setattr(tensorrt_engine, "compiled_kernels", compiled)
    return asked


def request(encoding="rgb8", size_hw=(48, 64), seed=0, wanted=ALL, **values):
    frame = frame_of(raw_image(np.random.default_rng(seed), encoding, size_hw, padding=4))
    camera = CAMERA if size_hw == (48, 64) else ImageCamera(Intrinsics(50.0, 50.0, 20.0, 30.0, size_hw), "pinhole", (0.0,) * 8)
    return Request(frame, RuntimeConfig().updated({key.replace("__", "."): value for key, value in values.items()}), camera, wanted)


def run_together(pipelines, requests):
    prepared = [pipeline.prepare(one) for pipeline, one in zip(pipelines, requests)]
    inferred = infer_together(pipelines[0].engine, prepared)
    return [pipeline.finish(*pair) for pipeline, pair in zip(pipelines, zip(prepared, inferred))]


def assert_twins(pipelines, requests):
    for one, found in zip(requests, run_together(pipelines, requests)):
        expected = Pipeline(pipelines[0].engine)(one.frame, one.config, one.camera, one.wanted)
        assert ulps(found.depth.values, expected.depth.values) <= 2
        assert found.range_limit_m == expected.range_limit_m
        if "points" in one.wanted:
            points = points_from_depth(CloudBuilder(), found.depth.values, one.camera, one.frame.rgb, one.config, found.range_limit_m)
            np.testing.assert_array_equal(found.points.view(np.uint32), points.view(np.uint32))
        if "color" in one.wanted:
            color = one.config.color
            picture = rgb_from_map(found.depth, color.colormap, color.near_m, color.far_m)
            assert np.count_nonzero((found.color != picture).any(axis=2)) <= 3


def test_frames_are_those_of_the_numpy_stages(world, opened, kernels):
    engine = opened()
    pipeline = pipeline_for(engine)
    bound, plain = list(world.addresses), 1
    for encoding in ("rgb8", "nv12", "bayer_grbg8", "uyvy"):
        for seed in range(3):
            assert_twins([pipeline], [request(encoding, seed=seed, depth__max_m=1.0 + seed)])
        plain += 1
    assert world.addresses == bound, "addresses are bound once"
    details = engine.details()
    assert (details["stages"], details["gpu_frames"], details["numpy_frames"]) == ("gpu", "12", "0")
    assert details["plain_launches"] == str(plain)
    assert details["cuda_graph_launches"] == str(1 + 2 + 12 + 12 - plain), "at open, in the self-check, by the numpy stages, by the GPU's"
    assert details["no_cuda_graph_reason"] == ""
    assert kernels == [(8, 7)]


def test_several_cameras_in_one_run(world, opened, kernels):
    engine = opened(**dynamic(world), cameras=["front", "left", "rear"])
    assert [most[0] for _, _, most in world.profiles] == [3, 3]
    assert [least[0] for least, _, _ in world.profiles] == [1, 1]
    assert engine.batch_max == 3
    pipelines = [pipeline_for(engine) for _ in range(3)]
    for seed in range(3):
        others = [request("yuyv", seed=10 + seed), request("mono8", seed=20 + seed, wanted=frozenset({"depth"}))]
        assert_twins(pipelines, [request("rgb8", seed=seed), *others])
    for seed in range(2):
        assert_twins(pipelines[1:], [request("rgb8", (48, 100), seed), request("bgr8", (48, 100), seed)])
        assert_twins(pipelines[:1], [request("rgb8", (80, 48), seed)])
    tensor = np.concatenate([image(seed=seed) for seed in range(3)])
    np.testing.assert_allclose(engine.infer(tensor), 1 + tensor.mean(1), rtol=1e-5)
    with pytest.raises(EngineError, match="got 4 images at once but takes 3"):
        engine.infer(np.concatenate([tensor, tensor[:1]]))


@pytest.mark.parametrize(("values", "most"), [({}, 1), ({"cameras": ["a", "b", "c"], "batch_max": 2}, 2), ({"batch_max": 8}, 1)])
def test_engine_is_built_for_as_many_images_as_may_come(world, opened, values, most):
    assert opened(**dynamic(world), **values).batch_max == most
    assert world.profiles[0][2][0] == most


def test_model_for_one_image_stays_so(world, opened):
    world.input_shape, world.output_shape = (1, 3, -1, -1), (1, -1, -1)
    engine = opened(contract={"resize": "lower_bound", "size_multiple": 8}, cameras=["a", "b"])
    assert [most[0] for _, _, most in world.profiles] == [1, 1]
    assert engine.batch_max == 1


def test_cameras_of_different_sizes_take_turns_without_a_new_context(world, opened, kernels):
    world.input_shape, world.output_shape = (1, 3, -1, -1), (1, -1, -1)
    engine = opened(contract={"resize": "lower_bound", "size_multiple": 8}, cameras=["a", "b", "c"])
    cameras = [(pipeline_for(engine), size_hw) for size_hw in ((48, 64), (48, 100), (80, 48))]
    for seed in range(3):
        for pipeline, size_hw in cameras:
            assert_twins([pipeline], [request(size_hw=size_hw, seed=seed)])
    assert len(world.contexts) == len(cameras)
    assert engine.gpu.launches == {"plain": 1 + 3, "graph": 1 + 6}, "the self-check's, and those of the frames"


@pytest.mark.parametrize(
    ("uncapturable", "graphs", "plain", "reason"),
    [("network", 0, 6, "failed to run the engine"), ("kernels", 1, 5, "CUDA cannot capture its work on Stand-in GPU .*: cuLaunchKernel failed")],
)
def test_what_cannot_be_captured_is_launched_plainly_and_counted(world, opened, kernels, monkeypatch, uncapturable, graphs, plain, reason):
    monkeypatch.setenv("STAND_IN_NO_CAPTURE", uncapturable)
    engine = opened()
    pipeline = pipeline_for(engine)
    for seed in range(3):
        assert np.isfinite(run_together([pipeline], [request(seed=seed)])[0].depth.values).all()
    details = engine.details()
    assert (details["cuda_graph_launches"], details["plain_launches"]) == (str(graphs), str(plain))
    assert re.search(reason, details["no_cuda_graph_reason"])


def test_frames_in_numpy_come_between(world, opened, kernels):
    engine = opened()
    pipeline = pipeline_for(engine)
    for seed in range(3):
        assert_twins([pipeline], [request(seed=seed)])
        assert_twins([pipeline], [request(seed=seed, wanted=frozenset({"depth"}), edges__mode="cut")])
    assert engine.details()["stages"] == "numpy: edges.mode is cut"
    assert engine.details()["numpy_frames"] == "3"


def test_results_outlive_the_frames_after_them(world, opened, kernels):
    pipeline = pipeline_for(opened())
    first = run_together([pipeline], [request(seed=0)])[0]
    before = first.depth.values.copy(), first.points.copy()
    for seed in range(1, 4):
        run_together([pipeline], [request(seed=seed)])
    np.testing.assert_array_equal(first.depth.values, before[0])
    np.testing.assert_array_equal(first.points.view(np.uint32), before[1].view(np.uint32))


def test_engine_may_be_opened_again(world, opened, kernels):
    engine = opened()
    for _ in range(2):
        pipeline = pipeline_for(engine)
        for seed in range(2):
            assert_twins([pipeline], [request(seed=seed)])
        engine.close()
        assert NOTHING.items() <= counts().items()
        engine.open()


def test_results_that_another_thread_lets_go_of_are_not_lost(world, opened, kernels):
    """Only the thread that has the context can free memory: `nothing_is_left` looks after it."""
    pipeline, kept = pipeline_for(opened()), []
    kept += run_together([pipeline], [request(wanted=frozenset({"depth"}))])
    for encoding in ("bgr8", "mono8", "nv12", "uyvy"):  # more kinds than are kept: what is not lent is freed
        run_together([pipeline], [request(encoding, wanted=frozenset({"depth"}))])
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert not kept


def test_memory_of_many_kinds_of_frames_is_bounded(world, opened, kernels):
    engine = opened(**dynamic(world))
    pipeline, alive = pipeline_for(engine), []
    for _ in range(3):
        for size_hw in ((48, 64), (48, 90), (80, 48), (30, 40), (48, 64)):
            for _ in range(2):
                run_together([pipeline], [request(size_hw=size_hw)])
        alive.append((counts()["memory"], counts()["graphs"]))
    assert alive[0] == alive[1] == alive[2]


def test_memory_that_does_not_suffice(world, opened, kernels, monkeypatch):
    engine = opened()
    pipeline = pipeline_for(engine)
    monkeypatch.setenv("STAND_IN_MEMORY", "100000")
    with pytest.raises(EngineError, match="the GPU has no .* bytes left"):
        pipeline.prepare(request(size_hw=(480, 640)))
    monkeypatch.undo()
    assert_twins([pipeline], [request()])


def test_kernels_that_cannot_be_loaded(world, config, opened, monkeypatch, caplog):
    """As those of a newer CUDA than the driver's are."""
    monkeypatch.setattr(tensorrt_engine, "compiled_kernels", lambda *_: b"/nowhere.so")
    with pytest.raises(EngineError, match="CUDA cannot load the kernels of the stages on Stand-in GPU"):
        open_engine(config(tensorrt__gpu_stages="on"))
    engine = opened()
    assert type(pipeline_for(engine)) is Pipeline
    assert "CUDA cannot load the kernels of the stages" in engine.details()["stages"]
    assert "only the network runs on the GPU, the other stages in numpy: CUDA cannot load the kernels" in caplog.text


def test_stages_may_be_turned_off(world, opened, kernels):
    engine = opened(tensorrt__gpu_stages="off")
    assert type(pipeline_for(engine)) is Pipeline
    assert engine.details()["stages"] == "numpy: tensorrt.gpu_stages is off"
    assert kernels == []


def test_stages_may_be_required(world, config):
    with pytest.raises(EngineError, match="NVRTC is not installed"):
        open_engine(config(tensorrt__gpu_stages="on"))
    with pytest.raises(EngineError, match="NVRTC is not installed"):
        prepare_engine(config(tensorrt__gpu_stages="on"), BuildWatch(print))


def test_without_the_compiler_the_stages_run_in_numpy_and_the_log_says_so(world, opened, caplog):
    engine = opened()
    assert type(pipeline_for(engine)) is Pipeline
    assert engine.details()["stages"] == "numpy: the run-time compiler NVRTC is not installed"
    assert "only the network runs on the GPU, the other stages in numpy: the run-time compiler NVRTC is not installed" in caplog.text


def test_kernels_are_compiled_before_the_engine_is_opened(world, config, kernels):
    prepare_engine(config(), BuildWatch(print))
    assert kernels == [(8, 7)]


def test_kernels_are_kept_where_engines_are(world, config, monkeypatch):
    folders = []
    monkeypatch.setattr(tensorrt_engine, "compiled_kernels", lambda _, folder: folders.append(folder) or b"")
    made = config()
    prepare_engine(made, BuildWatch(print))
    assert [str(folder) for folder in folders] == [made.tensorrt.cache_dir]


def test_stages_are_checked_when_the_engine_is_opened(world, config, opened, kernels, monkeypatch):
    assert opened().self_check.endswith("; GPU stages agree with the numpy stages")
    assert opened(self_check="off").self_check == "off"
    monkeypatch.setattr("depth_anything_ros.cuda.stages.gain_and_bias", lambda contract: (np.full(3, 0.005), np.zeros(3)))
    with pytest.raises(EngineError) as failure:
        open_engine(config())
    assert "self-check failed on TensorRT" in str(failure.value)
    assert "the GPU stages differ from the numpy stages: network input by 0.1" in str(failure.value)
    assert "tensorrt.gpu_stages: off runs the numpy stages; self_check: warn" in str(failure.value)
    assert "the GPU stages differ" in opened(self_check="warn").self_check_problem
    assert opened(tensorrt__gpu_stages="off").self_check_problem == ""
