from types import SimpleNamespace

import numpy as np
import pytest

from depth_anything_ros.config import PARAMETERS, RuntimeConfig, SyntheticConfig
from depth_anything_ros.engines import ENGINES, open_engine, registry
from depth_anything_ros.engines.base import BATCH_MAX, Engine, TensorSpec
from depth_anything_ros.engines.batch_trial import usable_batch_max
from depth_anything_ros.engines.synthetic_engine import SyntheticEngine, depth_of_frame_number, draw_frame_number, read_frame_number
from depth_anything_ros.errors import ContractError, EngineError
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import RgbFrame

from .models import tiny_contract, tiny_onnx, write_tiny_model

ort = pytest.importorskip("onnxruntime")


def config(**values):
    return RuntimeConfig().updated({key.replace("__", "."): value for key, value in values.items()})


def test_unknown_engine_lists_the_known_ones():
    with pytest.raises(EngineError, match="engine 'tpu' is unknown; there are: onnxruntime, tensorrt, synthetic"):
        open_engine(config(engine="tpu"))


def test_parameter_text_names_every_engine():
    assert all(name in PARAMETERS["engine"].text for name in ENGINES)


def test_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(registry.ENGINES, "odd", registry.EngineEntry("no_such_module", "pip install odd"))
    with pytest.raises(EngineError, match="engine 'odd' is not available: .*get it with: pip install odd"):
        open_engine(config(engine="odd"))


def test_onnxruntime_runs_a_model_at_any_size(tmp_path):
    engine = open_engine(config(model=str(write_tiny_model(tmp_path / "m.onnx"))))
    assert engine.input_spec == TensorSpec("image", "float32", (1, 3, None, None))
    for size in ((24, 32), (48, 16)):
        output = engine.infer(np.full((1, 3, *size), 0.5, np.float32))
        assert output.shape == (1, *size)
        np.testing.assert_allclose(output, 1.5)
    engine.close()
    with pytest.raises(EngineError, match="is not open"):
        engine.infer(np.zeros((1, 3, 24, 32), np.float32))
    engine.open()
    assert engine.infer(np.zeros((1, 3, 24, 32), np.float32)).mean() == 1


def test_input_of_the_wrong_form_is_refused(tmp_path):
    engine = open_engine(config(model=str(write_tiny_model(tmp_path / "m.onnx"))))
    for wrong in (np.zeros((1, 3, 24, 32), np.float64), np.zeros((3, 24, 32), np.float32), np.zeros((1, 4, 24, 32), np.float32)):
        with pytest.raises(EngineError, match="but takes"):
            engine.infer(wrong)


def test_provider_that_is_not_there_is_an_error_not_a_fall_back(tmp_path):
    path = str(write_tiny_model(tmp_path / "m.onnx"))
    with pytest.raises(EngineError, match="no provider CUDAExecutionProvider; it has .*CPUExecutionProvider"):
        open_engine(config(model=path, onnxruntime__providers=["CUDAExecutionProvider", "CPUExecutionProvider"]))
    with pytest.raises(EngineError, match=r"no provider \(none given\)"):
        open_engine(config(model=path, onnxruntime__providers=[]))


def test_provider_that_onnxruntime_drops_is_an_error(tmp_path, monkeypatch):
    """Onnxruntime goes on with the CPU where a listed provider fails to start; simulated by saying that it is available."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(EngineError, match="(could not start provider|cannot open).*CUDAExecutionProvider"):
        open_engine(
            config(model=str(write_tiny_model(tmp_path / "m.onnx")), onnxruntime__providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
        )


def test_threads_reach_the_session(tmp_path, monkeypatch):
    seen = []
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda path, options, providers: seen.append(options.intra_op_num_threads) or real(path, options, providers=providers),
    )
    open_engine(config(model=str(write_tiny_model(tmp_path / "m.onnx")), onnxruntime__threads=1))
    assert seen == [1]


def test_fixed_model_that_does_not_fit_its_contract_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"takes .*\(1, 3, 16, 16\).* but its contract says float32 \(1, 3, 24, 32\)"):
        open_engine(config(model=str(write_tiny_model(tmp_path / "m.onnx", size_hw=(16, 16)))))


def test_fixed_model_cannot_promise_lower_bound(tmp_path):
    with pytest.raises(EngineError, match="'lower_bound' needs free height and width"):
        open_engine(config(model=str(write_tiny_model(tmp_path / "m.onnx", size_hw=(24, 32)))))


def test_model_with_two_outputs_is_refused(tmp_path):
    from depth_anything_ros.contract import with_contract

    (tmp_path / "m.onnx").write_bytes(with_contract(tiny_onnx(outputs=2), tiny_contract()))
    with pytest.raises(EngineError, match=r"one input and one output.*\['depth0', 'depth1'\]"):
        open_engine(config(model=str(tmp_path / "m.onnx")))


def test_envelope_that_is_right_around_nonsense_is_refused_by_the_engine(tmp_path):
    from depth_anything_ros.contract import with_contract

    (tmp_path / "m.onnx").write_bytes(with_contract(b"\x3a\x02\xff\xff", tiny_contract()))  # an empty-handed graph field
    with pytest.raises(EngineError, match="onnxruntime cannot open"):
        open_engine(config(model=str(tmp_path / "m.onnx")))


def test_missing_model_is_a_contract_error(tmp_path):
    with pytest.raises(ContractError, match="cannot read model file"):
        open_engine(config(model=str(tmp_path / "none.onnx")))


@pytest.mark.parametrize("shape", [(1, 3, 24, 32), (1, 3, 1, 1)])
def test_output_that_is_no_depth_map_fails_at_open(shape):
    engine = BadEngine(np.zeros(shape, np.float32))
    engine.output_spec = TensorSpec("depth", "float32", shape)
    with pytest.raises(EngineError, match="not one depth for every pixel"):
        engine.open()
    assert engine.closed == 1


def test_every_input_size_is_tried():
    engine = BadEngine(np.zeros((1, 24, 32), np.float32))
    engine.contract = tiny_contract(resize="stretch", input_sizes_hw=((24, 32), (16, 32)))
    with pytest.raises(EngineError, match=r"gives \(1, 24, 32\) for an input of \(16, 32\)"):
        engine.open()


def test_model_of_another_input_type_is_refused():
    engine = BadEngine(np.zeros((1, 24, 32), np.float32))
    engine.input_spec = TensorSpec("image", "tensor(uint8)", (1, 3, None, None))
    with pytest.raises(EngineError, match="takes .*uint8.* but its contract says float32"):
        engine.open()


class BadEngine(Engine):
    """Opens, but gives what it should not."""

    name = "bad"
    contract = tiny_contract()
    model_sha256 = "none"

    def __init__(self, output):
        self.input_spec = TensorSpec("image", "float32", (1, 3, None, None))
        self.output_spec = TensorSpec("depth", "float32", (1, None, None))
        self.output, self.closed = output, 0

    def _open(self):
        pass

    def _infer(self, tensor):
        return self.output

    def _close(self):
        self.closed += 1


@pytest.mark.parametrize("output", [np.zeros((1, 24, 32), np.float64), np.zeros((24, 32), np.float32), np.zeros((2, 24, 32), np.float32)])
def test_output_of_the_wrong_form_fails_at_open_and_closes(output):
    engine = BadEngine(output)
    with pytest.raises(EngineError, match="but should give"):
        engine.open()
    assert engine.closed == 1


@pytest.mark.parametrize("size_hw", [(480, 640), (1080, 1920), (240, 424), (97, 131)])
@pytest.mark.parametrize("number", [0, 1, 12345, 65535])
def test_frame_number_survives_resize_and_normalisation(number, size_hw):
    rgb = np.random.default_rng(0).integers(0, 255, (*size_hw, 3), np.uint8)
    draw_frame_number(rgb, number)
    engine = SyntheticEngine(SyntheticConfig())
    output = engine.infer(Preprocessor(engine.contract)(RgbFrame(rgb)).tensor)
    np.testing.assert_allclose(output, depth_of_frame_number(number), rtol=1e-6)


def test_every_image_of_a_batch_gets_its_own_depth():
    pictures = [np.zeros((288, 384, 3), np.uint8) for _ in range(3)]
    draw_frame_number(pictures[0], 7)
    draw_frame_number(pictures[2], 9)
    engine = SyntheticEngine(SyntheticConfig())
    tensor = np.concatenate([Preprocessor(engine.contract)(RgbFrame(rgb)).tensor.copy() for rgb in pictures])
    depths = engine.infer(tensor)
    np.testing.assert_allclose(
        depths, np.broadcast_to(np.float32([depth_of_frame_number(7), 1, depth_of_frame_number(9)])[:, None, None], (3, 288, 384))
    )
    assert engine.batch_max == usable_batch_max(engine, 0, 100) == BATCH_MAX


def batching_engine(infer):
    """An opened engine that says that it takes any number of images."""
    engine = BadEngine(None)
    engine.input_spec, engine.output_spec = TensorSpec("image", "float32", (None, 3, None, None)), TensorSpec("depth", "float32", (None, None, None))
    engine._infer = infer
    return engine


def test_a_model_that_mixes_its_images_up_gets_one_at_a_time(caplog):
    engine = batching_engine(lambda tensor: tensor[:, 0] - tensor[:, 0].mean(axis=0))
    assert usable_batch_max(engine, 0, 3) == 1
    assert "cannot infer 3 images at once, they go one by one: its output for an image depends on the other images" in caplog.text
    assert usable_batch_max(batching_engine(lambda tensor: tensor[::-1, 0]), 0, 2) == 1


def test_a_model_that_fails_on_a_second_image_gets_one_at_a_time(caplog):
    def infer(tensor):
        if len(tensor) > 1:
            raise EngineError("cannot reshape")
        return tensor[:, 0]

    assert usable_batch_max(batching_engine(infer), 0, 3) == 1
    assert "they go one by one: cannot reshape" in caplog.text


def test_a_model_that_takes_batches_gets_as_many_as_are_wanted(caplog):
    engine = batching_engine(lambda tensor: tensor[:, 0] * np.float32(1.0001 if len(tensor) > 1 else 1))
    assert [usable_batch_max(engine, wanted, 4) for wanted in (0, 1, 3, 100)] == [4, 1, 3, 4]
    assert usable_batch_max(engine, 0, 100) == BATCH_MAX
    engine.batch_pays = False
    assert [usable_batch_max(engine, wanted, 4) for wanted in (0, 3)] == [1, 3]
    assert not caplog.text


def test_batches_pay_but_on_a_cpu(tmp_path):
    assert SyntheticEngine(SyntheticConfig()).batch_pays
    assert not open_engine(config(model=str(write_tiny_model(tmp_path / "m.onnx")))).batch_pays


def test_a_model_of_one_image_is_not_tried_and_that_is_said(tmp_path, caplog):
    engine = open_engine(config(model=str(write_tiny_model(tmp_path / "m.onnx"))))
    engine._infer = None
    assert usable_batch_max(engine, 0, 3) == 1
    assert not caplog.text
    assert usable_batch_max(engine, 3, 3) == 1
    assert f"batch_max is 3, but {engine} takes 1 at once" in caplog.text


def test_image_without_code_gives_its_brightness():
    tensor = np.tile(np.linspace(0, 1, 384, dtype=np.float32), (1, 3, 288, 1))
    np.testing.assert_allclose(SyntheticEngine(SyntheticConfig()).infer(tensor)[0, 5], np.linspace(1, 2, 384), rtol=1e-6)
    assert read_frame_number(tensor[0, 0]) is None


def test_damaged_frame_number_is_no_number():
    rgb = np.zeros((48, 200, 3), np.uint8)
    draw_frame_number(rgb, 7)
    rgb[:12, 30:40] = 255 - rgb[:12, 30:40]
    assert read_frame_number(rgb[..., 0].astype(np.float32) / 255) is None


def test_relative_synthetic_engine_gives_inverse_depth():
    engine = SyntheticEngine(SyntheticConfig(output_kind="disparity_affine_invariant"))
    np.testing.assert_allclose(engine.infer(np.ones((1, 3, 32, 32), np.float32)), 0.5)


def test_delay_is_kept(monkeypatch):
    from depth_anything_ros.engines import synthetic_engine

    slept = []
    monkeypatch.setattr(synthetic_engine, "time", SimpleNamespace(sleep=slept.append))
    SyntheticEngine(SyntheticConfig(delay_ms=100.0)).infer(np.ones((1, 3, 32, 32), np.float32))
    assert slept == [0.1]
