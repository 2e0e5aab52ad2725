"""What tests of the export share: a tiny Depth Anything network in both published formats, and the command that exports it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.engines import open_engine
from depth_anything_ros.pipeline import Pipeline
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import RgbFrame
from training.depth_anything import DECODERS, TAPS, DepthAnything, DepthAnythingArchitecture
from training.encoder import ENCODERS, EncoderArchitecture
from training.export import main
from training.weights import huggingface_from_official

TINY = DepthAnythingArchitecture(EncoderArchitecture(dim=24, heads=3, blocks=5), 12, (8, 8, 16, 20), (1, 2, 3, 4))
SIZE_HW = (70, 98)
HUB_NAME = "depth-anything/Depth-Anything-V2-Small-hf"


def make_vits_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `vits` tiny, so that files with official names are."""
    monkeypatch.setitem(ENCODERS, "vits", TINY.encoder)
    monkeypatch.setitem(DECODERS, "vits", (TINY.features, TINY.out_channels))
    monkeypatch.setitem(TAPS["v1"], "vits", (0, 1, 2, 3))
    monkeypatch.setitem(TAPS["v2"], "vits", TINY.taps)


def write_pth(path: Path, model: DepthAnything) -> Path:
    torch.save(model.state_dict(), path)
    return path


def write_huggingface(folder: Path, model: DepthAnything, **changes) -> Path:
    a = model.architecture
    backbone = {"hidden_size": a.encoder.dim, "num_attention_heads": a.encoder.heads, "num_hidden_layers": a.encoder.blocks}
    config = {
        "backbone_config": {**backbone, "out_indices": [tap + 1 for tap in a.taps]},
        "fusion_hidden_size": a.features,
        "neck_hidden_sizes": a.out_channels,
        "depth_estimation_type": "metric" if a.max_depth_m else "relative",
        "max_depth": a.max_depth_m or 1,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    save_file({name: tensor.contiguous() for name, tensor in huggingface_from_official(model.state_dict()).items()}, folder / "model.safetensors")
    return folder


def export(source: Path | str, out: Path, *more: str) -> int:
    return main(["--pretrained", str(source), "--size", "70x98", "--out", str(out), *more])


def refusal(capsys, source: Path | str, out: Path, *more: str) -> str:
    """Export what must fail; return the one line that a user sees."""
    capsys.readouterr()
    assert export(source, out, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert error.count("\n") == 1
    assert not list(out.parent.glob("*.onnx")) + list(out.parent.glob("*.tmp"))
    return error


def predict_with(path: Path, model: DepthAnything, **scale):
    """Run the node's pipeline on a random image; the engine must compute what torch does."""
    config = RuntimeConfig().updated({"model": str(path), "onnxruntime.threads": 1, **{f"scale.{key}": value for key, value in scale.items()}})
    frame = RgbFrame(np.random.default_rng(3).integers(0, 256, (90, 160, 3), np.uint8))
    engine = open_engine(config)
    tensor = Preprocessor(engine.contract)(frame).tensor
    np.testing.assert_allclose(engine.infer(tensor), model(torch.from_numpy(tensor)).numpy(), rtol=0, atol=2e-4)
    prediction = Pipeline(engine)(frame, config)
    engine.close()
    return prediction


def tiny_json(folder: Path) -> Path:
    path = folder / "tiny.json"
    path.write_text(json.dumps(TINY.to_dict()))
    return path
