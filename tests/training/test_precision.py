"""fp16 and int8: what the files hold, that the node runs them, what their contracts say was lost, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
for needed in ("safetensors", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason="export needs it")

import cv2  # noqa: E402
import onnx  # noqa: E402

from depth_anything_ros import predict  # noqa: E402
from depth_anything_ros.contract import read_model_file, with_contract  # noqa: E402
from training import precision  # noqa: E402
from training.calibration import MAX_IMAGES, PrecisionError, calibration_tensors, find_images, read_images  # noqa: E402
from training.config import load_config  # noqa: E402
from training.contracts import checkpoint_contract  # noqa: E402
from training.export_checkpoint import export_free_size  # noqa: E402
from training.networks import Served, build_network  # noqa: E402
from training.precision import FLOAT_GROUPS, convert, to_fp16, to_int8  # noqa: E402
from training.precision_loss import contract_of, measure_loss  # noqa: E402

from ..models import tiny_contract, tiny_onnx  # noqa: E402
from .export_fixtures import TINY, export, make_vits_tiny, refusal, write_pth  # noqa: E402
from .test_depth_anything import random_network  # noqa: E402

SIZE_HW = (96, 128)
NETWORK = "network.architecture={channels: [16, 16, 16, 24, 32], blocks: [1, 1, 1], context_layers: 1, decoder: 16}"


@pytest.fixture(scope="session")
def modelopt() -> None:
    try:
        import modelopt.onnx.autocast
        import modelopt.onnx.quantization  # noqa: F401
    except ImportError as error:
        pytest.skip(f"needs NVIDIA ModelOpt ({str(error).splitlines()[0]}): pip install '.[quantise]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sixteen pictures of two sizes: coloured blocks and noise."""
    root = tmp_path_factory.mktemp("calibration")
    for seed in range(16):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 230, (6, 9 if seed % 2 else 12, 3), np.uint8).repeat(20, 0).repeat(20, 1)
        cv2.imwrite(str(root / f"{seed:02d}.png"), blocks + rng.integers(0, 25, blocks.shape, np.uint8))
    return root


@pytest.fixture(scope="module")
def student() -> bytes:
    """A small compact network with free sizes, random weights, and depth that varies over the picture."""
    torch.manual_seed(0)
    config = load_config("metric", None, [NETWORK, f"data.sizes_hw=[[{SIZE_HW[0]}, {SIZE_HW[1]}]]"])
    network = build_network(config).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("head.1.weight"):
            parameter.data.mul_(30)
    return export_free_size(Served(network), checkpoint_contract(config, {"steps": 7}))


@pytest.fixture(scope="module")
def int8(modelopt, student, folder) -> bytes:
    return to_int8(student, read_images(find_images(folder).used))


def graph_of(content: bytes) -> onnx.GraphProto:
    return onnx.load_model_from_string(content).graph


def types_of(content: bytes) -> set[int]:
    graph = graph_of(content)
    return {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_a_converted_file_keeps_its_contract_and_says_what_it_lost(kind, modelopt, student, folder, tmp_path) -> None:
    images = find_images(folder)
    content, record = convert(student, kind, images)
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    before, after = contract_of(student), read_model_file(path).contract
    assert after.training == before.training | {"precision": record}
    assert after.to_json().replace(json.dumps(after.training, sort_keys=True), "") == before.to_json().replace(
        json.dumps(before.training, sort_keys=True), ""
    )
    assert record["kind"] == kind
    assert record["tool"].startswith("nvidia-modelopt ")
    assert record["calibration"] == {"images": 12, "sha256": images.sha256}
    assert record["loss"] == measure_loss(student, content, read_images(images.held_out))
    assert record["loss"]["images"] == 4
    assert 0 < record["loss"]["abs_rel_mean"] <= record["loss"]["abs_rel_max"] < (0.01 if kind == "fp16" else 0.3)
    assert types_of(content) == {onnx.TensorProto.FLOAT}
    assert len(content) < (0.75 if kind == "fp16" else 0.7) * len(student)


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_predict_runs_a_converted_network_of_fixed_size(kind, modelopt, folder, tmp_path, monkeypatch, capsys) -> None:
    make_vits_tiny(monkeypatch)
    source, out = write_pth(tmp_path / "depth_anything_v2_vits.pth", random_network(TINY)), tmp_path / "model.onnx"
    assert export(source, out, "--precision", kind, "--calibration", str(folder)) == 0
    said = capsys.readouterr()
    assert not said.err
    assert f"{kind} against fp32: AbsRel 0." in said.out
    assert read_model_file(out).contract.training["precision"]["kind"] == kind
    assert predict.main([str(folder / "00.png"), "--model", str(out), "--output-dir", str(tmp_path / "out")]) == 0
    assert np.isfinite(np.load(tmp_path / "out" / "00.npy")).all()


def test_fp16_keeps_sums_and_large_values_in_float32(modelopt, student, folder, monkeypatch) -> None:
    images = find_images(folder).used
    content = to_fp16(student, read_images(images))
    halves = {value.name for value in graph_of(content).initializer if value.data_type == onnx.TensorProto.FLOAT16}
    assert halves
    for node in graph_of(content).node:
        if node.op_type == "LayerNormalization":
            assert not halves & set(node.input)
    monkeypatch.setattr(precision, "_ranges", lambda model, tensors: {node.output[0]: 1e4 for node in model.graph.node})
    with pytest.raises(PrecisionError, match="no weight could be converted to fp16; export with --precision fp32"):
        to_fp16(student, read_images(images))


def test_int8_weights_are_stored_as_such_per_channel(student, int8) -> None:
    graph = graph_of(int8)
    values = {value.name: value for value in graph.initializer}
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in values]
    kernels = [node for node in weights if len(values[node.input[0]].dims) == 4]
    assert kernels
    for node in kernels:
        assert values[node.input[0]].data_type == onnx.TensorProto.INT8
        assert list(values[node.input[1]].dims) == [values[node.input[0]].dims[0]]


def test_what_shall_stay_float_does(modelopt, student, int8, folder) -> None:
    everything = to_int8(student, read_images(find_images(folder).used), keep_float=())
    counts = [sum(node.op_type == "DequantizeLinear" for node in graph_of(content).node) for content in (int8, everything)]
    assert 0 < counts[0] < counts[1]
    made_by = {name: node.op_type for node in graph_of(int8).node for name in node.output}
    for node in graph_of(int8).node:
        if node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute):
            assert made_by.get(node.input[1]) != "DequantizeLinear"


def test_groups_that_stay_float_are_found_by_their_shape(student) -> None:
    graph = precision._named(student).graph
    channels = {value.name: value.dims[1] for value in graph.initializer if len(value.dims) == 4}
    inputs = {node.name: channels[node.input[1]] for node in graph.node if node.op_type == "Conv"}
    found = {group: precision._float_nodes(graph, [group]) for group in FLOAT_GROUPS}
    assert sorted(inputs[name] for name in found["narrow"]) == [3, 4]  # colours, and coordinates of the context
    assert [inputs[name] for name in found["last"]] == [16]
    assert {inputs[name] for name in found["depthwise"]} == {1}
    assert len(found["attention"]) == 2  # scores, and weighted values, of one layer


def test_a_network_without_convolutions_cannot_be_quantised(modelopt, folder) -> None:
    content = with_contract(tiny_onnx(), tiny_contract())
    with pytest.raises(PrecisionError, match="no layer of this network could be quantised; export with --precision fp16"):
        to_int8(content, read_images(find_images(folder).used))


def shifted(bias: float, gain: float = 1.0, **changes) -> bytes:
    """The test model, depth = gain * mean of the channels + bias."""
    model = onnx.load_model_from_string(tiny_onnx())
    constant = next(value for value in model.graph.initializer if value.name == "one")
    constant.CopyFrom(onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [bias]))
    contract = tiny_contract(**({"std": (1 / gain,) * 3} | changes))
    return with_contract(model.SerializeToString(), contract)


def test_the_loss_is_what_a_reader_works_out_by_hand() -> None:
    flat = np.full((24, 32, 3), 255, np.uint8)
    flat[:, :16] = 51
    loss = measure_loss(shifted(1.0), shifted(1.1), [flat])  # depths 1.2 and 2.0; others 1.3 and 2.1
    assert loss["abs_rel_mean"] == pytest.approx((0.1 / 1.2 + 0.1 / 2.0) / 2, abs=1e-3)
    assert loss["aligned_abs_rel_max"] == pytest.approx(0, abs=1e-3)
    assert loss["delta1_min"] == 1.0
    relative = {"output_kind": "disparity_affine_invariant"}
    loss = measure_loss(shifted(0.0, **relative), shifted(0.2, **relative), [flat, flat])  # disparities 0.2 and 1; others 0.4 and 1.2
    assert loss["images"] == 2
    assert loss["abs_rel_mean"] == pytest.approx((1 - 0.2 / 0.4 + 1 - 1 / 1.2) / 2, abs=1e-3)
    assert loss["delta1_min"] == pytest.approx(0.5)


def test_a_network_that_became_useless_is_refused() -> None:
    picture = np.full((24, 32, 3), 128, np.uint8)
    with pytest.raises(PrecisionError, match="the converted network cannot be used .*not a finite depth above 0.*--precision fp32"):
        measure_loss(shifted(1.0), shifted(float("nan")), [picture])


def test_pictures_reach_the_network_through_the_runtimes_preprocessing() -> None:
    wide = np.zeros((30, 80, 3), np.uint8)
    wide[:, 20:60] = 200  # the middle 4:3
    tensors = calibration_tensors([wide, wide[:, 20:60]], tiny_contract())
    assert tensors.shape == (2, 3, 24, 32)
    np.testing.assert_allclose(tensors, 200 / 255, atol=1e-6)
    letterboxed = calibration_tensors([wide], tiny_contract(resize="letterbox"))
    assert letterboxed[0, :, 0].max() == 0  # padded, not cropped


def test_every_fourth_picture_is_held_back_and_large_folders_are_thinned_out(folder, tmp_path) -> None:
    images = find_images(folder)
    assert [path.name for path in images.held_out] == ["00.png", "04.png", "08.png", "12.png"]
    assert len(images.used) == 12
    assert len(images.sha256) == 64
    for number in range(MAX_IMAGES + 100):
        (tmp_path / f"{number:04d}.jpg").touch()
    images = find_images(tmp_path)
    assert len(images.used) + len(images.held_out) == MAX_IMAGES
    assert images.used[-1].name == f"{MAX_IMAGES + 99:04d}.jpg"


def test_folders_that_cannot_calibrate_are_refused(modelopt, folder, tmp_path, capsys) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    arguments = ("x.pth", out, "--precision", "int8", "--calibration", str(pictures))
    assert "is not a folder; give a folder with pictures of the places where the model will be used" in refusal(capsys, *arguments)
    pictures.mkdir()
    assert "no files ending in .jpg" in refusal(capsys, *arguments)
    for number in range(15):
        (pictures / f"{number}.png").write_bytes((folder / "00.png").read_bytes())
    assert "holds 15 pictures, at least 16 are needed" in refusal(capsys, *arguments)
    (pictures / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(PrecisionError, match="broken.png.*remove that file or replace it"):
        list(read_images(sorted(pictures.iterdir())))


def test_without_modelopt_the_remedy_is_named(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    for name in [name for name in sys.modules if name.startswith("modelopt.")]:
        monkeypatch.delitem(sys.modules, name)
    message = refusal(capsys, "x.pth", tmp_path / "model.onnx", "--precision", "fp16", "--calibration", str(tmp_path))
    assert "need NVIDIA ModelOpt" in message
    assert "pip install '.[quantise]'" in message
