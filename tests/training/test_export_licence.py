"""The licence of exported weights: by their official name, or nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")
for needed in ("safetensors", "onnx", "onnxruntime"):
    pytest.importorskip(needed, reason="export needs it")

from training.contracts import published_licence  # noqa: E402
from training.depth_anything import TAPS  # noqa: E402
from training.export_pretrained import architecture_from_text, licence_of  # noqa: E402


@pytest.mark.parametrize(
    ("path", "network", "licence"),
    [
        ("depth_anything_vitl14.pth", "v1-vitl", "Apache-2.0"),
        ("depth_anything_v2_vits.pth", "v2-vits", "Apache-2.0"),
        ("depth_anything_v2_vitb.pth", "v2-vitb", "CC-BY-NC-4.0"),
        ("depth-anything-large-hf/model.safetensors", "v1-vitl", "Apache-2.0"),
        ("Depth-Anything-V2-Large-hf/model.safetensors", "v2-vitl", "CC-BY-NC-4.0"),
        ("Depth-Anything-V2-Metric-Indoor-Base-hf/model.safetensors", "v2-vitb", "CC-BY-NC-4.0"),
        ("models--LiheYoung--depth-anything-small-hf/snapshots/0a/model.safetensors", "v1-vits", "Apache-2.0"),
        ("models--somebody--Depth-Anything-V2-Small-hf/snapshots/0a/model.safetensors", "v2-vits", None),
        ("my-Depth-Anything-V2-Small-hf/model.safetensors", "v2-vits", None),
        ("Depth-Anything-V2-Small-hf/model.safetensors", "v2-vitl", None),
        ("mine.pth", "v2-vits", None),
    ],
)
def test_the_licence_follows_from_an_official_name_alone(path, network, licence) -> None:
    assert licence_of(Path(path), architecture_from_text(network)) == licence


def test_all_of_v1_and_the_small_v2_are_free_to_use() -> None:
    free = {(encoder, version) for version, encoders in TAPS.items() for encoder in encoders if published_licence(encoder, version) == "Apache-2.0"}
    assert free == {("vits", "v1"), ("vitb", "v1"), ("vitl", "v1"), ("vits", "v2")}
