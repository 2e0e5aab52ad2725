"""The self-check on a real engine: onnxruntime with a small network, healthy and damaged in the ways that were seen on robots."""

import json

import numpy as np
import pytest

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.contract import GOLDEN_KEY, read_model_file, with_metadata
from depth_anything_ros.engines import Engine, open_engine
from depth_anything_ros.engines.ort_engine import OnnxRuntimeEngine
from depth_anything_ros.errors import ContractError, EngineError
from depth_anything_ros.self_check import MAX_ABS_REL, MAX_SCALE_JITTER, golden_text, measure

from .models import tiny_contract, write_tiny_model

pytest.importorskip("onnxruntime")
RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def reference(tensor):
    return 1 + tensor.mean(1)


@pytest.fixture
def config(tmp_path):
    path = write_tiny_model(tmp_path / "m.onnx")
    path.write_bytes(with_metadata(path.read_bytes(), GOLDEN_KEY, golden_text(RGB, tiny_contract(), reference)))
    return RuntimeConfig().updated({"model": str(path)})


@pytest.fixture
def damaged(monkeypatch):
    """Return a function that lets onnxruntime's output go through another one, with the number of the run."""

    def damage(change):
        infer, runs = OnnxRuntimeEngine._infer, iter(range(1000))
        monkeypatch.setattr(OnnxRuntimeEngine, "_infer", lambda self, tensor: change(infer(self, tensor), next(runs)).astype(np.float32))

    return damage


def test_healthy_engine_passes_with_its_number(config):
    engine = open_engine(config)
    assert engine.self_check.startswith("AbsRel 0.0000 (bound 0.05), scale jitter 0.0000 (bound 0.02)")
    assert engine.self_check_problem == ""


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda depth, run: depth * 1.3, "AbsRel 0.3000"),
        (lambda depth, run: depth * (1.03 if run % 2 else 1.0), "scale jitter 0.03"),
        (lambda depth, run: depth * (1.3 if run % 2 else 1.0), "scale jitter 0.30"),
        (lambda depth, run: depth + np.random.default_rng(run).normal(size=depth.shape) * 0.2, "AbsRel 0.1"),
        (lambda depth, run: np.full_like(depth, 1.5), "AbsRel 0.0"),
        (lambda depth, run: depth[..., ::-1], "AbsRel 0.08"),
        (lambda depth, run: depth * np.nan, "AbsRel inf"),
        (lambda depth, run: np.where(depth > 1.6, np.inf, depth), "AbsRel inf"),
        (lambda depth, run: -depth, "AbsRel 2.0"),
        (lambda depth, run: depth * 0, "AbsRel 1.0"),
    ],
    ids=["scale", "small jumps", "jumps", "noise", "constant", "mirrored", "nan", "overflow", "negative", "zero"],
)
def test_damaged_engine_is_not_used(config, damaged, change, number):
    damaged(change)
    with pytest.raises(EngineError, match=rf"self-check failed: onnxruntime \S+ with CPUExecutionProvider does not compute.*'tiny'.*{number}"):
        open_engine(config)


@pytest.mark.parametrize("change", [lambda depth, run: depth * 1.01, lambda depth, run: depth.astype(np.float16)], ids=["1 %", "fp16"])
def test_differences_between_healthy_precisions_pass(config, damaged, change):
    damaged(change)
    assert open_engine(config).self_check_problem == ""


def test_failed_check_closes_the_engine(config, damaged, monkeypatch):
    closed = []
    monkeypatch.setattr(OnnxRuntimeEngine, "_close", lambda self: closed.append(self))
    damaged(lambda depth, run: depth * 2)
    with pytest.raises(EngineError):
        open_engine(config)
    assert len(closed) == 1


def test_modes(config, damaged, caplog):
    damaged(lambda depth, run: depth * 1.3)
    engine = open_engine(config.updated({"self_check": "warn"}))
    assert "AbsRel 0.3000" in engine.self_check_problem
    assert "AbsRel 0.3000" in caplog.text
    engine = open_engine(config.updated({"self_check": "off"}))
    assert (engine.self_check, engine.self_check_problem) == ("off", "")


def test_model_without_golden_data_says_so(tmp_path):
    engine = open_engine(RuntimeConfig().updated({"model": str(write_tiny_model(tmp_path / "m.onnx"))}))
    assert engine.self_check == "not possible: the model file holds no golden image"
    assert open_engine(RuntimeConfig().updated({"engine": "synthetic"})).self_check.startswith("not possible")


@pytest.mark.parametrize("text", ["x", "[]", "{}", '{"image": "", "references": []}', '{"image": "AAAA", "references": [[]]}'])
def test_unreadable_golden_data_is_an_error(tmp_path, text):
    path = write_tiny_model(tmp_path / "m.onnx")
    path.write_bytes(with_metadata(path.read_bytes(), GOLDEN_KEY, text))
    with pytest.raises(ContractError, match="golden data cannot be read .*export the model again"):
        open_engine(RuntimeConfig().updated({"model": str(path)}))


def test_golden_data_of_another_size_is_an_error(config):
    text = golden_text(RGB, tiny_contract(input_sizes_hw=((32, 32),)), reference)
    with pytest.raises(ContractError, match="of another size"):
        measure(text, tiny_contract(), reference)
    with pytest.raises(ContractError, match="cannot be read"):
        measure(text, tiny_contract(input_sizes_hw=((24, 32), (32, 32))), reference)


def test_every_input_size_is_measured():
    contract = tiny_contract(resize="stretch", input_sizes_hw=((24, 32), (32, 24)))
    text = golden_text(RGB, contract, reference)
    assert measure(text, contract, reference).acceptable
    assert not measure(text, contract, lambda tensor: reference(tensor) * (1.2 if tensor.shape[2] == 32 else 1.0)).acceptable


def test_disparity_may_be_zero():
    contract = tiny_contract(output_kind="disparity_affine_invariant")
    text = golden_text(RGB, contract, lambda tensor: np.maximum(0, tensor.mean(1) - 0.5))
    assert measure(text, contract, lambda tensor: np.maximum(0, tensor.mean(1) - 0.5)).abs_rel < 1e-3
    assert measure(text, contract, lambda tensor: np.maximum(0, tensor.mean(1) - 0.4)).abs_rel > MAX_ABS_REL
    assert measure(text, contract, lambda tensor: tensor.mean(1)[None] * 0).scale_jitter > MAX_SCALE_JITTER


def test_reference_that_is_not_finite_is_not_written():
    with pytest.raises(EngineError, match="not finite"):
        golden_text(RGB, tiny_contract(), lambda tensor: reference(tensor) * np.nan)


def test_golden_data_is_small_at_the_size_of_a_large_model():
    contract = tiny_contract(input_sizes_hw=((518, 518),))
    rgb = np.tile(np.linspace(0, 255, 128, dtype=np.uint8)[:, None, None], (1, 128, 3))
    text = golden_text(rgb, contract, lambda tensor: reference(tensor) + np.random.default_rng(0).normal(size=(1, 518, 518)))
    assert len(text) < 40_000
    assert len(json.loads(text)["references"][0]) == 4


def test_metadata_reader_finds_the_golden_data(config):
    assert read_model_file(config.model).golden.startswith('{"image"')
    assert read_model_file(config.model).contract == tiny_contract()


def test_registry_checks_every_engine(config, monkeypatch):
    seen = []
    monkeypatch.setattr(Engine, "check", lambda engine, mode: seen.append((engine.name, mode)))
    open_engine(config)
    open_engine(RuntimeConfig().updated({"engine": "synthetic", "self_check": "warn"}))
    assert seen == [("onnxruntime", "fail"), ("synthetic", "warn")]
