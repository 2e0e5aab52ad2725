"""Published weights -> ONNX with a contract: what the runtime makes of the file, and what a user is told when there is none."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
for needed in ("safetensors", "yaml", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason="export needs it")

import cv2  # noqa: E402

from depth_anything_ros import predict  # noqa: E402
from depth_anything_ros.contract import read_model_file  # noqa: E402
from training import export_pretrained  # noqa: E402
from training.depth_anything import DepthAnythingArchitecture, onnx_from_model, published_architecture  # noqa: E402
from training.export import main  # noqa: E402
from training.export_pretrained import architecture_from_text, licence_of, model_name  # noqa: E402

from .export_fixtures import (  # noqa: E402
    HUB_NAME,
    SIZE_HW,
    TINY,
    export,
    make_vits_tiny,
    predict_with,
    refusal,
    tiny_json,
    write_huggingface,
    write_pth,
)
from .test_depth_anything import random_network  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other make tiny networks slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_vits(monkeypatch):
    make_vits_tiny(monkeypatch)


@pytest.fixture(scope="module")
def tiny_graph() -> bytes:
    """What the exporter makes of the tiny relative network; for tests of what comes after."""
    return onnx_from_model(random_network(TINY), SIZE_HW)


def test_an_official_relative_file_becomes_a_relative_model(tiny_vits, tmp_path: Path, capsys) -> None:
    model = random_network(TINY)
    source, out = write_pth(tmp_path / "depth_anything_v2_vits.pth", model), tmp_path / "model.onnx"
    assert export(source, out) == 0
    assert not capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, out.name]

    contract = read_model_file(out).contract
    assert contract.name == "depth_anything_v2_vits"
    assert contract.input_sizes_hw == (SIZE_HW,)
    assert (contract.resize, contract.interpolation, contract.size_multiple, contract.channel_order) == ("stretch", "cubic", 14, "rgb")
    assert (contract.mean, contract.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (contract.output_kind, contract.max_depth_m) == ("disparity_affine_invariant", None)
    assert contract.licence == "Apache-2.0"
    record = contract.training
    assert record["source"] == {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    assert DepthAnythingArchitecture.from_dict(record["architecture"]) == TINY
    assert record["versions"].keys() == {"torch", "onnx", "onnxscript", "onnxruntime", "opset"}
    assert 0 <= record["difference_to_torch"] <= export_pretrained.RANGE_TOLERANCE
    assert str(tmp_path) not in contract.to_json()

    prediction = predict_with(out, model)
    assert prediction.depth is None
    assert "scale.mode" in prediction.no_depth_reason
    relative = prediction.relative
    assert (relative.kind, relative.values.shape) == ("disparity_affine_invariant", (90, 160))
    assert np.ptp(relative.values) > 0
    metres = predict_with(out, model, mode="fixed", factor=0.1, offset=0.05).depth
    np.testing.assert_allclose(metres.values.min(), 1 / (0.1 * relative.values.max() + 0.05), rtol=0.1)


def test_a_metric_file_becomes_metres_and_letterbox_is_kept(tiny_vits, tmp_path: Path) -> None:
    model = random_network(replace(TINY, max_depth_m=20.0))
    out = tmp_path / "model.onnx"
    assert export(write_pth(tmp_path / "depth_anything_v2_metric_hypersim_vits.pth", model), out, "--resize", "letterbox") == 0
    contract = read_model_file(out).contract
    assert (contract.output_kind, contract.max_depth_m, contract.resize) == ("depth_m", 20.0, "letterbox")
    prediction = predict_with(out, model)
    assert prediction.relative is None
    assert (prediction.depth.kind, prediction.depth.values.shape) == ("depth_m", (90, 160))
    assert 0 < prediction.depth.values.min() < prediction.depth.values.max() <= 20


def test_a_huggingface_folder_works_and_predict_runs_it(tiny_vits, tmp_path: Path, capsys) -> None:
    model = random_network(replace(TINY, max_depth_m=80.0))
    folder, out, picture = tmp_path / "Depth-Anything-V2-Metric-Outdoor-Small-hf", tmp_path / "model.onnx", tmp_path / "photo.png"
    assert export(write_huggingface(folder, model), out) == 0
    contract = read_model_file(out).contract
    assert (contract.name, contract.licence) == (folder.name, "Apache-2.0")
    assert (contract.output_kind, contract.max_depth_m) == ("depth_m", 80.0)
    assert contract.training["source"]["file"] == "model.safetensors"
    assert 0 < predict_with(out, model).depth.values.max() <= 80

    cv2.imwrite(str(picture), np.random.default_rng(4).integers(0, 256, (60, 80, 3), np.uint8))
    capsys.readouterr()
    assert predict.main([str(picture), "--model", str(out), "--output-dir", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["unit"] == "m"
    assert np.load(tmp_path / "out" / "photo.npy").shape == (60, 80)


def test_own_weights_need_their_architecture_and_a_licence(tiny_graph, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(export_pretrained, "onnx_from_model", lambda *_: tiny_graph)
    architecture, out = tmp_path / "architecture.json", tmp_path / "model.onnx"
    architecture.write_text(json.dumps(TINY.to_dict()))
    source = write_pth(tmp_path / "mine.pth", random_network(TINY))
    message = refusal(capsys, source, out)
    assert "does not say which network this is" in message
    assert "--architecture v1-vits" in message
    assert "published_architecture(" not in message
    assert export(source, out, "--architecture", str(architecture)) == 0
    assert "warning: nothing says which licence" in capsys.readouterr().err
    assert read_model_file(out).contract.licence == "unknown"
    assert export(source, out, "--architecture", str(architecture), "--licence", "MIT") == 0
    assert not capsys.readouterr().err
    assert read_model_file(out).contract.licence == "MIT"


def test_a_graph_that_computes_something_else_is_not_written(tiny_vits, tiny_graph, tmp_path: Path, capsys, monkeypatch) -> None:
    model, name, out = random_network(TINY), "depth_anything_v2_vits.pth", tmp_path / "model.onnx"
    monkeypatch.setattr(export_pretrained, "onnx_from_model", lambda *_: tiny_graph)
    last = model.depth_head.scratch.output_conv2[2]
    last.bias.add_(0.5)
    assert "ONNX Runtime differs from torch by" in refusal(capsys, write_pth(tmp_path / name, model), out)
    last.weight.zero_()
    last.bias.fill_(-1.0)
    assert "the same or no number everywhere" in refusal(capsys, write_pth(tmp_path / name, model), out)
    last.bias.fill_(float("nan"))
    assert "the same or no number everywhere" in refusal(capsys, write_pth(tmp_path / name, model), out)
    monkeypatch.setattr(export_pretrained, "MAX_FILE_BYTES", 1000)
    assert "more than 2 GB" in refusal(capsys, tmp_path / name, out)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("250x336", "250x336: both sides must be multiples of 14; the nearest size is 252x336"),
        ("5x14", "the nearest size is 14x14"),
        ("252", "'252' is not HEIGHTxWIDTH in pixels, such as 252x336"),
        ("0x0", "the nearest size is 14x14"),
    ],
)
def test_sizes_that_no_network_takes_are_refused(size, message, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--pretrained", "x.pth", "--size", size, "--out", str(tmp_path / "model.onnx")])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a checkpoint, or --pretrained"),
        (["a.safetensors", "--pretrained", "b.pth"], "give either a checkpoint, or --pretrained"),
        (["a.safetensors", "--architecture", "v2-vits"], "--architecture goes with --pretrained"),
        (["a.safetensors", "--max-depth-m", "20"], "--max-depth-m goes with --pretrained"),
        (["--pretrained", "b.pth"], "--pretrained needs --size HEIGHTxWIDTH"),
        (["--pretrained", "b.pth", "--size", "252x336", "--max-depth-m", "20"], "--max-depth-m goes with --architecture"),
        (["--pretrained", "b.pth", "--size", "252x336", "--command", "x"], "--command goes with a checkpoint"),
        (["a.safetensors", "--precision", "int8"], "--precision int8 needs --calibration FOLDER: pictures of the places"),
        (["a.safetensors", "--precision", "fp16"], "--precision fp16 needs --calibration FOLDER"),
        (["a.safetensors", "--calibration", "pictures"], "--calibration goes with --precision fp16 or int8"),
        (["a.safetensors", "--precision", "fp16", "--calibration", ".", "--keep-float", "none"], "--keep-float goes with --precision int8"),
        (["a.safetensors", "--calibration-method", "max"], "--calibration-method goes with --precision int8"),
        (["a.safetensors", "--keep-float", "last,middle"], "'middle' is none of narrow, depthwise, last, attention, none"),
        (["a.safetensors", "--out", "missing/model.onnx"], "its folder does not exist"),
        (["a.safetensors", "--out", "."], "is a folder; give the name of a file"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments if "--out" in arguments else [*arguments, "--out", "never_written.onnx"])
    assert message in capsys.readouterr().err


def test_unknown_and_unsuitable_files_are_refused(tmp_path: Path, capsys) -> None:
    out, folder = tmp_path / "model.onnx", tmp_path / "weights"
    assert "no file or folder 'missing.pth'; download the weights first" in refusal(capsys, "missing.pth", out)
    assert "no file or folder 'a/missing.pth'; download the weights first" in refusal(capsys, "a/missing.pth", out)
    folder.mkdir()
    assert "holds no weight file (.safetensors or .pth)" in refusal(capsys, folder, out)
    for content in (b"", b"half a download", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"PK\x03\x04"):
        (folder / "depth_anything_v2_vits.pth").write_bytes(content)
        assert "is truncated" in refusal(capsys, folder, out)
    (folder / "depth_anything_v2_vitb.pth").write_bytes(b"")
    assert "holds several weight files (depth_anything_v2_vitb.pth, depth_anything_v2_vits.pth)" in refusal(capsys, folder, out)
    assert "tensors of another shape" in refusal(
        capsys, write_pth(tmp_path / "other.pth", random_network(replace(TINY, features=16))), out, "--architecture", str(tiny_json(tmp_path))
    )


def test_a_configuration_without_taps_or_beside_no_weights_is_refused(tmp_path: Path, capsys) -> None:
    model, out = random_network(TINY), tmp_path / "model.onnx"
    no_taps = write_huggingface(tmp_path / "no_taps", model, backbone_config={"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 5})
    message = refusal(capsys, no_taps, out)
    assert "out_indices" in message
    assert "--architecture" in message
    no_config = write_huggingface(tmp_path / "no_config", model)
    (no_config / "config.json").unlink()
    assert "config.json' beside the weights; download it too" in refusal(capsys, no_config, out)


def test_what_a_file_says_of_itself_cannot_be_contradicted(tiny_vits, tmp_path: Path, capsys) -> None:
    out = tmp_path / "model.onnx"
    metric = write_pth(tmp_path / "depth_anything_v2_metric_vkitti_vits.pth", random_network(replace(TINY, max_depth_m=80.0)))
    for more in (["v2-vits"], ["v2-vits", "--max-depth-m", "20"], ["v1-vits", "--max-depth-m", "80"]):
        assert "says of itself that it is another network" in refusal(capsys, metric, out, "--architecture", *more)
    assert "is published under Apache-2.0, not MIT" in refusal(capsys, metric, out, "--licence", "MIT")


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("v3-vits", [], "is none of v1-vits, v1-vitb, v1-vitl, v2-vits"),
        ("{}", [], "describes no network: KeyError"),
        ("not json", [], "describes no network: JSONDecodeError"),
        ("[]", [], "describes no network: TypeError"),
        ("{}", ["--max-depth-m", "20"], "a JSON file states max_depth_m"),
        ("v2-vits", ["--max-depth-m", "-1"], "needs a finite value above 0"),
    ],
)
def test_architectures_that_do_not_exist_are_refused(text, more, message, tmp_path: Path, capsys) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(text)
    named = text if text.startswith("v") else str(path)
    assert message in refusal(capsys, "missing.pth", tmp_path / "model.onnx", "--architecture", named, *more)


def test_architectures_are_named_like_the_published_ones() -> None:
    assert architecture_from_text("v1-vitl") == published_architecture("vitl", "v1")
    assert architecture_from_text("v2-vitb", 20.0) == published_architecture("vitb", "v2", 20.0)


def test_published_weights_are_no_checkpoint(tmp_path: Path, capsys) -> None:
    model, out = random_network(TINY), tmp_path / "model.onnx"
    for source in (write_pth(tmp_path / "a.pth", model), write_huggingface(tmp_path / "b", model) / "model.safetensors"):
        assert main([str(source), "--out", str(out)]) == 2
        assert "is no checkpoint of this version of training" in capsys.readouterr().err
    assert main([str(tmp_path / "missing.safetensors"), "--out", str(out)]) == 2
    assert "missing.safetensors" in capsys.readouterr().err


def test_a_hub_name_without_the_hub_library_says_what_to_download(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = refusal(capsys, HUB_NAME, tmp_path / "model.onnx")
    assert "pip install huggingface_hub" in message
    assert f"download config.json and model.safetensors (or the .pth file) from https://huggingface.co/{HUB_NAME}/tree/main" in message


@pytest.fixture
def silent_hub(monkeypatch, tmp_path: Path):
    """A hub that accepts connections and never answers, and an empty cache; returns the cache."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the hub's library is optional")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(export_pretrained, "HUB_TIMEOUT_S", 0.3)
        yield tmp_path / "cache"


def test_a_hub_that_does_not_answer_ends_in_a_remedy(silent_hub, tmp_path: Path, capsys) -> None:
    started = time.monotonic()
    message = refusal(capsys, HUB_NAME, tmp_path / "model.onnx")
    assert time.monotonic() - started < 20
    assert "timed out" in message
    assert f"download config.json and model.safetensors (or the .pth file) from https://huggingface.co/{HUB_NAME}/tree/main" in message


def test_without_an_answer_the_cache_of_the_hub_is_used(silent_hub, tiny_vits) -> None:
    model = silent_hub / "models--depth-anything--Depth-Anything-V2-Small-hf"
    write_huggingface(model / "snapshots" / "0123abcd", random_network(TINY))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123abcd")
    path = export_pretrained.find_weights(HUB_NAME)
    assert path == model / "snapshots" / "0123abcd" / "model.safetensors"
    assert model_name(path) == "Depth-Anything-V2-Small-hf"
    assert licence_of(path, TINY) == "Apache-2.0"
