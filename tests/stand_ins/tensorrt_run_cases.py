"""Running engines, against the real bindings of one version. Run by `test_tensorrt.py` in a process of its own."""

import json
import sys
import threading

import numpy as np
import pytest
import tensorrt as trt

from depth_anything_ros import build_engine
from depth_anything_ros.contract import ModelContract
from depth_anything_ros.engines import BuildWatch, open_engine, prepare_engine
from depth_anything_ros.errors import EngineError
from depth_anything_ros.self_check import golden_text
from tests.stand_ins.fixtures import NOTHING, SIZE, dynamic, image
from tests.stand_ins.world import counts

# Running


def test_graph_computes_each_input_and_binds_addresses_once(world, opened):
    engine = opened()
    bound = list(world.addresses)
    for seed in range(3):
        np.testing.assert_allclose(engine.infer(image(seed=seed)), 1 + image(seed=seed).mean(1), rtol=1e-5)
    assert bound == world.addresses == ["image", "depth0"]
    details = engine.details()
    assert "numpy: the run-time compiler NVRTC is not installed" in details.pop("stages")
    assert details == {"cuda_graph_launches": "4", "plain_launches": "0", "no_cuda_graph_reason": ""}
    assert engine.platform == f"TensorRT {trt.__version__} on Stand-in GPU (compute capability 8.7)"


def test_what_cannot_be_captured_is_launched_plainly_and_counted(world, opened, monkeypatch):
    monkeypatch.setenv("STAND_IN_NO_CAPTURE", "1")
    engine = opened()
    for seed in range(3):
        np.testing.assert_allclose(engine.infer(image(seed=seed)), 1 + image(seed=seed).mean(1), rtol=1e-5)
    details = engine.details()
    assert (details["cuda_graph_launches"], details["plain_launches"]) == ("0", "4")
    assert "failed to run the engine" in details["no_cuda_graph_reason"]


def test_sizes_come_and_go_with_their_memory(world, opened):
    engine = opened(**dynamic(world))
    for size in ((24, 32), (24, 48), (56, 32), (24, 80), (24, 32)):
        np.testing.assert_allclose(engine.infer(image(size)), 1 + image(size).mean(1), rtol=1e-5)
        assert engine.infer(image(size)).shape == (1, *size)
    assert [context["profile"] for context in world.contexts] == [0, 0, 1, 0, 0]
    assert counts()["memory"] == 2 * 4 + 1, "two sizes with four buffers each, and the scratch memory that they share"
    assert counts()["graphs"] == 2


@pytest.mark.parametrize("size", [(24, 88), (64, 32), (48, 48), (16, 32)])
def test_size_that_was_not_built_for_is_named(world, opened, size):
    engine = opened(**dynamic(world))
    with pytest.raises(EngineError, match=rf"takes inputs .* of \(24, 32\) to \(24, 80\), \(24, 32\) to \(56, 32\), not \({size[0]}, {size[1]}\)"):
        engine.infer(image(size))
    np.testing.assert_allclose(engine.infer(image()), 1 + image().mean(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "value", "message"),
    [
        ("Runtime", TypeError("returned nullptr"), "cannot make a runtime: told"),
        ("ICudaEngine.create_execution_context", None, "cannot make an execution context: told.*close other programs"),
        ("IExecutionContext.set_input_shape", False, r"does not take an input of \(1, 3, 24, 32\): told"),
        ("IExecutionContext.set_tensor_address", False, "refuses the memory of 'image': told"),
        ("IExecutionContext.execute_async_v3", False, "failed to run the engine: told"),
    ],
)
def test_failure_at_open_frees_everything(world, config, call, value, message):
    world.gives[call], world.log_error = value, "told"
    with pytest.raises(EngineError, match=message):
        open_engine(config())


def test_failing_profile_switch(world, config):
    values = dynamic(world)
    world.gives["IExecutionContext.set_optimization_profile_async"] = False
    with pytest.raises(EngineError, match="cannot switch to its profile 0"):
        open_engine(config(**values))


def test_out_of_gpu_memory(world, config, monkeypatch):
    monkeypatch.setenv("STAND_IN_MEMORY", "10000")
    with pytest.raises(EngineError, match=r"out of GPU memory: cannot allocate \d+ bytes on Stand-in GPU .*smaller model"):
        open_engine(config())


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("STAND_IN_DEVICES", "0", "there is no CUDA device on this machine; see what nvidia-smi says"),
        ("STAND_IN_INIT_ERROR", "100", "CUDA cannot start .*no CUDA-capable device.*update the driver.*--gpus all"),
    ],
)
def test_no_device_is_an_error_with_a_remedy(world, config, monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(EngineError, match=message):
        open_engine(config())
    assert world.loaded == world.plans == []


def test_missing_pycuda_and_missing_driver(world, config, monkeypatch):
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match="needs pycuda .*pip install pycuda"):
        open_engine(config())

    class NoDriver:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.startswith("pycuda"):
                raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "pycuda")
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setattr(sys, "meta_path", [NoDriver, *sys.meta_path])
    with pytest.raises(EngineError, match="there is no NVIDIA driver on this machine .*Docker"):
        open_engine(config())


def test_close_frees_everything_and_open_works_again(world, opened):
    engine = opened()
    before = counts()["contexts_in_all"]
    assert counts()["memory"] == 5
    engine.close()
    engine.close()
    assert NOTHING.items() <= counts().items()
    with pytest.raises(EngineError, match="is not open"):
        engine.infer(image())
    engine.open()
    assert counts()["contexts_in_all"] == before + 1
    np.testing.assert_allclose(engine.infer(image()), 1 + image().mean(1), rtol=1e-5)


def test_one_thread_builds_another_one_runs(world, config):
    """As the node does it: the build beside the executor, the context in the worker's thread, which ends without one."""
    results = []

    def worker():
        engine = open_engine(config())
        results.append(engine.infer(image()).copy())
        results.append(counts()["current"])
        engine.close()

    prepare_engine(config(), BuildWatch(print))
    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    np.testing.assert_allclose(results[0], 1 + image().mean(1), rtol=1e-5)
    assert len(world.plans) == 1


# Self-check, command line


def golden(factor=1.0):
    rgb = np.random.default_rng(3).integers(0, 255, (48, 64, 3), np.uint8)
    contract = ModelContract(name="tiny", input_sizes_hw=(SIZE,), resize="stretch", output_kind="depth_m", mean=(0.0,) * 3, std=(1.0,) * 3)
    return golden_text(rgb, contract, lambda tensor: factor * (1 + tensor.mean(1)))


def test_healthy_engine_passes_its_self_check(world, opened):
    engine = opened(golden=golden())
    assert engine.self_check.startswith("AbsRel 0.0000 (bound 0.05)")
    assert engine.self_check_problem == ""


def test_wrong_engine_fails_and_the_message_names_version_gpu_and_number(world, config, monkeypatch):
    with pytest.raises(EngineError) as failure:
        open_engine(config(golden=golden(1.3)))
    text = str(failure.value)
    assert f"TensorRT {trt.__version__} on Stand-in GPU (compute capability 8.7) does not compute what model 'tiny' should: AbsRel 0.23" in text
    assert ("TensorRT 10.3 (JetPack 6.2) miscompiles vision transformers in fp16" in text) == trt.__version__.startswith("10.3.")
    engine = open_engine(config(golden=golden(1.3), self_check="warn"))
    assert "AbsRel 0.23" in engine.self_check_problem
    engine.close()


def test_command_line_builds_checks_and_says_so(world, config, capsys):
    made = config(golden=golden())
    assert build_engine.main([made.model, "--cache-dir", made.tensorrt.cache_dir, "--workspace-mib", "64"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["model"] == "tiny"
    assert result["platform"].startswith(f"TensorRT {trt.__version__} on Stand-in GPU")
    assert result["self_check"].startswith("AbsRel 0.0000")
    assert "engine: Building 100 %" in err
    assert len(world.plans) == 1


def test_command_line_without_a_gpu(world, config, capsys, monkeypatch):
    monkeypatch.setenv("STAND_IN_DEVICES", "0")
    made = config()
    assert build_engine.main([made.model, "--cache-dir", made.tensorrt.cache_dir]) == 2
    assert "build_engine: there is no CUDA device" in capsys.readouterr().err
