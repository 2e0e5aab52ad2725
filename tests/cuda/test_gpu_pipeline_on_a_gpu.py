"""Whole frames on a real GPU, without TensorRT: the network is a copy of one channel, everything else is what the engine uses."""

import importlib.util

import numpy as np
import pytest

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.cuda.check import stage_problem
from depth_anything_ros.cuda.frames import GpuFrames
from depth_anything_ros.cuda.sources import compiled_kernels
from depth_anything_ros.decode import ENCODINGS
from depth_anything_ros.engines import Engine, TensorSpec
from depth_anything_ros.engines.cuda_runtime import CudaSession
from depth_anything_ros.errors import EngineError
from depth_anything_ros.pipeline import Pipeline, infer_together, pipeline_for
from depth_anything_ros.prediction import Request

from ..models import tiny_contract
from .pipelines import ALL, assert_same, assert_twins, batch_of, camera, image

pytestmark = pytest.mark.gpu
if importlib.util.find_spec("pycuda") is None:  # one skipped module says so, not every test
    pytest.skip("needs pycuda (pip install pycuda, with the CUDA toolkit)", allow_module_level=True)


class CopyNetwork:
    """Depth is the first channel."""

    def __init__(self, session, shape):
        self._session, self._shape = session, shape
        self._plane_bytes = 4 * shape[2] * shape[3]
        self._input, self._output = (session.allocate(channels * shape[0] * self._plane_bytes) for channels in (3, 1))
        self.input_address, self.output_address = int(self._input), int(self._output)

    def enqueue(self):
        for index in range(self._shape[0]):
            to, source = self.output_address + index * self._plane_bytes, self.input_address + 3 * index * self._plane_bytes
            self._session.driver.memcpy_dtod_async(to, source, self._plane_bytes, self._session.stream)

    def close(self):
        self._input.free()
        self._output.free()


class CopyEngine(Engine):
    name = "copy"
    model_sha256 = "none"
    batch_max = 3

    def __init__(self):
        self.contract = tiny_contract(resize="stretch", input_sizes_hw=((24, 32),), mean=(-0.5,) * 3)
        self.input_spec, self.output_spec = TensorSpec("image", "float32", (None, 3, None, None)), TensorSpec("depth", "float32", (None, None, None))

    def _open(self):
        self.session, self._networks = CudaSession(), {}
        with self.session.active():
            cubin = compiled_kernels(self.session.device.compute_capability)
            self.gpu = GpuFrames(self.session, cubin, self.contract, ("float32", "float32"), self._network_for)

    def _network_for(self, shape):
        if shape not in self._networks:
            self._networks[shape] = CopyNetwork(self.session, shape)
        return self._networks[shape]

    def _infer(self, tensor):
        return np.ascontiguousarray(tensor[:, 0])

    def _close(self):
        gpu, self.gpu = self.gpu, None
        if gpu is not None:
            with self.session.active():
                gpu.close()
                for network in self._networks.values():
                    network.close()
            self.session.close()


@pytest.fixture
def engine():
    opened = CopyEngine()
    try:
        opened.open()
    except EngineError as error:
        pytest.skip(f"needs a CUDA GPU and NVRTC: {error}")
    yield opened
    opened.close()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding(engine, encoding):
    pipeline = pipeline_for(engine)
    for seed in range(3):
        assert_twins(pipeline, Request(image(encoding, seed=seed), RuntimeConfig(), camera(distorted=seed == 1), ALL))
    assert engine.gpu.launches["graph"] >= 1
    assert engine.gpu.no_graph_reasons() == {""}


def test_cameras_in_one_batch(engine):
    pipelines = [pipeline_for(engine) for _ in range(3)]
    for seed in range(4):
        requests = [
            Request(image(encoding, seed=10 * seed + i), RuntimeConfig(), camera(), ALL) for i, encoding in enumerate(("nv12", "bgr8", "uyvy"))
        ]
        for found, request in zip(batch_of(pipelines, requests), requests):
            assert_same(found, Pipeline(engine)(request.frame, RuntimeConfig(), request.camera, ALL), request)
    assert engine.gpu.launches == {"plain": 1, "graph": 3}


def test_results_stay_as_long_as_somebody_holds_them(engine):
    pipeline = pipeline_for(engine)
    kept = [pipeline(image(seed=seed), RuntimeConfig(), camera(), ALL) for seed in range(4)]
    for seed, prediction in enumerate(kept):
        np.testing.assert_array_equal(prediction.depth.values, Pipeline(engine)(image(seed=seed), RuntimeConfig()).depth.values)


def test_check_at_open(engine):
    assert stage_problem(engine.gpu, engine.contract) == ""


def test_frames_of_other_sizes_come_and_go(engine):
    pipeline = pipeline_for(engine)
    for size_hw in ((48, 64), (60, 80), (480, 640), (36, 48), (1080, 1920), (48, 64)):
        for seed in range(2):
            prepared = pipeline.prepare(Request(image(size_hw=size_hw, seed=seed), RuntimeConfig(), camera(size_hw), ALL))
            found = pipeline.finish(prepared, infer_together(engine, [prepared])[0])
            assert found.points.shape == (*size_hw, 4)
