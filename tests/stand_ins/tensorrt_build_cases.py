"""Building and keeping engines, against the real bindings of one version. Run by `test_tensorrt.py` in a process of its own."""

import ast
from pathlib import Path

import numpy as np
import pytest
import tensorrt as trt

from depth_anything_ros.engines import BuildWatch, cuda_runtime, open_engine, prepare_engine, tensorrt_build, tensorrt_engine
from depth_anything_ros.errors import EngineError
from tests.stand_ins.fixtures import GRAPH, SIZE, dynamic, image
from tests.stand_ins.workshop import ROOT

# The real bindings


def test_every_name_of_the_module_exists():
    names = set()
    for path in (ROOT / "depth_anything_ros" / "engines").glob("tensorrt_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                parts = ast.unparse(node).split(".")
                if parts[0] == "trt":
                    names.add(".".join(parts[1:]))
    assert {"NetworkDefinitionCreationFlag.STRONGLY_TYPED", "TensorIOMode.INPUT", "DataType.FLOAT"} <= names
    for name in names:
        found = trt
        for part in name.split("."):
            assert hasattr(found, part), f"TensorRT {trt.__version__} has no {name}"
            found = getattr(found, part)


def test_the_mocks_refuse_what_the_real_classes_do_not_have(world):
    from tests.stand_ins.strict import strict

    with pytest.raises(AssertionError, match="has no"):
        strict(trt.IBuilderConfig, set_precision=lambda: None)
    context = strict(trt.IExecutionContext, set_tensor_address=lambda name, memory: True)
    for wrong in (("image",), ("image", 1, 2), (1, "image")):
        with pytest.raises(TypeError, match="fits none of"):
            context.set_tensor_address(*wrong)
    with pytest.raises(AttributeError):
        context.precision = 1


def test_real_base_classes_take_our_subclasses():
    log = tensorrt_build.ErrorLog()
    log.log(trt.ILogger.Severity.WARNING, "a warning")
    assert log.take() == "TensorRT does not say why"
    log.log(trt.ILogger.Severity.ERROR, "an error")
    assert log.take() == "an error"
    assert isinstance(tensorrt_build.ProgressMonitor(BuildWatch()), trt.IProgressMonitor)


def test_real_constructors_without_the_libraries_are_an_engine_error():
    with pytest.raises(EngineError, match=r"cannot make a builder: .*driver"):
        tensorrt_build.made("a builder", lambda: trt.Builder(tensorrt_build.LOG))


# Building


def test_build_sets_what_the_parameters_say(world, opened):
    opened(tensorrt__workspace_mib=64, tensorrt__optimisation_level=5)
    assert world.config.builder_optimization_level == 5
    world.config.set_memory_pool_limit.assert_called_once_with(trt.MemoryPoolType.WORKSPACE, 64 * 2**20)
    assert world.profiles == [], "a fixed input needs no profile"


def test_progress_is_nested_and_logged(world, config):
    lines, watch = [], BuildWatch(lambda line: lines.append(line))
    prepare_engine(config(), watch)
    told = [line for line in lines if "%" in line]
    assert told[0] == "engine: Building 0 %"
    assert told[-1] == "engine: Building 100 %"
    percents = [int(line.split()[2]) for line in told]
    assert percents == sorted(percents)
    assert all(world.step_answers)
    assert watch.text == "", "nothing is built any more"


def test_cancelled_build_stops_at_its_next_step(world, config):
    watch = BuildWatch(lambda line: line.endswith(" 20 %") and watch.cancel())
    with pytest.raises(EngineError, match="was cancelled"):
        prepare_engine(config(), watch)
    assert world.step_answers[0]
    assert not world.step_answers[-1]
    assert world.plans == []


def test_build_gives_up_after_its_time(world, config, monkeypatch):
    monkeypatch.setattr("depth_anything_ros.engines.build_watch.time.monotonic", iter(range(1000)).__next__)
    with pytest.raises(EngineError, match="within tensorrt.build_timeout_s"):
        prepare_engine(config(tensorrt__build_timeout_s=5.0), BuildWatch(print))


def test_parser_errors_name_the_node(world, config):
    world.gives["OnnxParser.parse"] = False
    with pytest.raises(EngineError, match=r"cannot read the ONNX file: node '/blocks.0/attn' \(Einsum\): is not supported"):
        prepare_engine(config(), BuildWatch(print))


@pytest.mark.parametrize(
    ("call", "value", "message"),
    [
        ("Builder", TypeError("pybind11::init(): factory function returned nullptr"), "cannot make a builder: CUDA initialization failure.*driver"),
        ("Builder.create_network", None, "cannot make a network: CUDA initialization failure"),
        ("Builder.create_builder_config", None, "cannot make a builder configuration"),
        ("Builder.build_serialized_network", None, "cannot make an engine of this model: CUDA initialization failure.*tensorrt.workspace_mib"),
        ("IBuilderConfig.set_timing_cache", False, "refuses an empty timing cache: CUDA initialization failure"),
    ],
)
def test_build_that_fails_says_why(world, config, call, value, message):
    world.gives[call], world.log_error = value, "CUDA initialization failure with error: 35"
    with pytest.raises(EngineError, match=message):
        prepare_engine(config(), BuildWatch(print))
    assert not list(Path(config().tensorrt.cache_dir).glob("*.engine"))


def test_wrong_tensors_are_refused(world, config):
    world.input_dtype = trt.DataType.HALF
    with pytest.raises(EngineError, match="tensor 'image' is HALF; export the model with float32 input and output"):
        prepare_engine(config(), BuildWatch(print))
    world.input_dtype, world.outputs = trt.DataType.FLOAT, 2
    with pytest.raises(EngineError, match=r"one input and one output, this one has \['image', 'depth0', 'depth1'\]"):
        prepare_engine(config(), BuildWatch(print))


def test_free_sizes_become_a_wide_and_a_tall_profile(world, opened):
    opened(**dynamic(world))
    assert world.profiles == [((1, 3, 24, 32), (1, 3, 24, 32), (1, 3, 24, 80)), ((1, 3, 24, 32), (1, 3, 24, 32), (1, 3, 56, 32))]


def test_profile_that_does_not_fit_is_refused(world, config):
    values = dynamic(world)
    world.gives["IBuilderConfig.add_optimization_profile"] = -1
    with pytest.raises(EngineError, match="input 'image' .* does not take sizes"):
        prepare_engine(config(**values), BuildWatch(print))


def test_timing_cache_is_kept_and_a_foreign_one_replaced(world, config, tmp_path):
    lines = []
    prepare_engine(config(), BuildWatch(lines.append))
    (times,) = (tmp_path / "cache").glob("*.timing")
    assert trt.__version__ in times.name
    assert times.read_bytes() == b"t"
    prepare_engine(config(tensorrt__optimisation_level=1), BuildWatch(lines.append))
    assert times.read_bytes() == b"tt", "the second build starts with the times of the first"
    world.gives["IBuilderConfig.set_timing_cache"] = [False]
    prepare_engine(config(tensorrt__optimisation_level=2), BuildWatch(lines.append))
    assert times.read_bytes() == b"t"
    assert any("does not fit this machine and is made anew" in line for line in lines)


# The cache's key


def test_second_start_builds_nothing(world, opened):
    opened()
    opened()
    assert len(world.plans) == 1
    assert world.loaded[0] == world.loaded[1]


@pytest.mark.parametrize(
    "change",
    [
        {"tensorrt__workspace_mib": 128},
        {"tensorrt__optimisation_level": 0},
        {"graph": GRAPH + b"\x08\x01"},
        {"contract": {"input_sizes_hw": (SIZE, SIZE)}},
        "version",
        "gpu",
        "compute capability",
        "builder",
    ],
    ids=str,
)
def test_each_part_of_the_key_builds_anew(world, config, change, monkeypatch):
    prepare_engine(config(), BuildWatch(print))
    if change == "version":
        monkeypatch.setattr(trt, "__version__", trt.__version__ + ".1")
    if change == "builder":
        monkeypatch.setattr(tensorrt_engine, "BUILDER_VERSION", 99)
    if change in ("gpu", "compute capability"):
        other = cuda_runtime.Device("Orin" if change == "gpu" else "Stand-in GPU", (9, 0) if change != "gpu" else (8, 7), "13.0")
        monkeypatch.setattr(tensorrt_engine, "find_device", lambda: other)
    values = change if isinstance(change, dict) else {}
    prepare_engine(config(**values), BuildWatch(print))
    prepare_engine(config(**values), BuildWatch(print))
    assert len(world.plans) == 2


def test_file_that_changed_since_its_hash_is_not_built(world, config):
    model = tensorrt_engine.read_model_file(config().model)
    options = config(graph=GRAPH + b"\x08\x01").tensorrt
    with pytest.raises(EngineError, match="changed while it was opened; configure again"):
        tensorrt_engine.load_plan(model, options, BuildWatch(print))
    assert world.plans == []


def test_options_that_change_nothing_in_the_engine_do_not_build(world, config):
    prepare_engine(config(), BuildWatch(print))
    prepare_engine(config(tensorrt__cache_max_mib=100, tensorrt__build_timeout_s=60.0, self_check="off"), BuildWatch(print))
    assert len(world.plans) == 1


def test_engine_of_another_machine_is_built_again_with_the_reason(world, opened, caplog):
    opened()
    world.gives["Runtime.deserialize_cuda_engine"], world.log_error = [None], "The engine plan file is generated on an incompatible device"
    engine = opened()
    assert len(world.plans) == 2
    assert "is discarded: it cannot be loaded: The engine plan file is generated on an incompatible device" in caplog.text
    np.testing.assert_allclose(engine.infer(image()), 1 + image().mean(1), rtol=1e-6)


def test_engine_that_cannot_be_loaded_twice_is_an_error(world, config):
    world.gives["Runtime.deserialize_cuda_engine"], world.log_error = None, "bad plan"
    with pytest.raises(EngineError, match="cannot make an engine of what it built itself: bad plan"):
        open_engine(config())
    assert len(world.plans) == 2
