"""Fixtures of the TensorRT cases: a world that goes right unless a test says otherwise, and a check that nothing is left behind."""

import numpy as np
import pytest

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.contract import ModelContract, with_contract, with_metadata
from depth_anything_ros.engines import open_engine, tensorrt_engine
from depth_anything_ros.errors import EngineError
from tests.stand_ins.world import World, counts

GRAPH = b"\x3a\x02\x08\x07"  # enough of an ONNX file for the contract's reader; the parser is not the real one
SIZE = (24, 32)


@pytest.fixture
def world(monkeypatch):
    world = World()
    world.install(monkeypatch)
    return world


NOTHING = dict.fromkeys(("contexts", "current", "memory", "streams", "graphs", "modules"), 0)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Whatever a test does, in the end there is no context, no memory, no stream and no graph."""
    yield
    assert NOTHING.items() <= counts().items()


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    """The driver of the tests runs no machine code of a GPU, so none is made."""

    def missing(*_):
        raise EngineError("the run-time compiler NVRTC is not installed")

    monkeypatch.setattr(tensorrt_engine, "compiled_kernels", missing)


@pytest.fixture
def config(tmp_path):
    def make(**values):
        contract = {
            "name": "tiny", "input_sizes_hw": (SIZE,), "resize": "stretch", "output_kind": "depth_m", "mean": (0.0,) * 3, "std": (1.0,) * 3,
        } | values.pop("contract", {})  # fmt: skip
        content = with_contract(values.pop("graph", GRAPH), ModelContract(**contract))
        golden = values.pop("golden", None)
        (tmp_path / "m.onnx").write_bytes(content if golden is None else with_metadata(content, "depth_anything_ros.golden", golden))
        given = {"engine": "tensorrt", "model": str(tmp_path / "m.onnx"), "tensorrt.cache_dir": str(tmp_path / "cache")}
        return RuntimeConfig().updated(given | {key.replace("__", "."): value for key, value in values.items()})

    return make


@pytest.fixture
def opened(config):
    engines = []

    def open_it(**values):
        engines.append(open_engine(config(**values)))
        return engines[-1]

    yield open_it
    for engine in engines:
        engine.close()


def image(size_hw=SIZE, seed=0):
    return np.random.default_rng(seed).normal(size=(1, 3, *size_hw)).astype(np.float32)


def dynamic(world):
    """Let the network take any size and any number of images, as the compact models do."""
    world.input_shape, world.output_shape = (-1, 3, -1, -1), (-1, -1, -1)
    return {"contract": {"resize": "lower_bound", "size_multiple": 8}}
