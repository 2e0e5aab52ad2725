"""Weight files: names, what they say about their network, and what happens to files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")

from safetensors.torch import save_file  # noqa: E402

from training.depth_anything import DepthAnything, DepthAnythingArchitecture, published_architecture  # noqa: E402
from training.encoder import Encoder, EncoderArchitecture  # noqa: E402
from training.weights import (  # noqa: E402
    LAYOUTS,
    WeightsError,
    architecture_of_file,
    huggingface_from_official,
    load_depth_anything,
    load_encoder,
    official_from_huggingface,
    read_weights,
)

from .test_depth_anything import transformers_network  # noqa: E402

ENCODER = EncoderArchitecture(dim=16, heads=2, blocks=4)
SMALL = DepthAnythingArchitecture(ENCODER, 8, (8, 8, 8, 12), (0, 1, 2, 3))
GATED = DepthAnythingArchitecture(EncoderArchitecture(16, 2, 4, swiglu=True), 8, (8, 8, 8, 12), (0, 1, 2, 3))


def random_state(architecture: DepthAnythingArchitecture) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn_like(tensor) for name, tensor in DepthAnything(architecture).state_dict().items()}


def assert_same(got, expected) -> None:
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", [SMALL, GATED], ids=["mlp", "gated"])
def test_names_survive_the_way_there_and_back(architecture, layout) -> None:
    state = random_state(architecture)
    assert_same(official_from_huggingface(huggingface_from_official(state, layout)), state)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("encoder", "tensors"), [("vits", 287), ("vitb", 287), ("vitl", 503)])
def test_renamed_networks_have_as_many_tensors_as_published_ones(encoder, tensors, layout) -> None:
    with torch.device("meta"):
        state = DepthAnything(published_architecture(encoder, "v1")).state_dict()
    assert len(huggingface_from_official(state, layout)) == tensors


def test_names_and_layouts_by_example() -> None:
    state = {"pretrained.blocks.11.attn.qkv.bias": torch.arange(6.0), "depth_head.scratch.refinenet1.out_conv.weight": torch.zeros(1)}
    stem = "backbone.encoder.layer.11.attention"
    v4, v5 = (huggingface_from_official(state, layout) for layout in LAYOUTS)
    assert v4[f"{stem}.attention.key.bias"].tolist() == v5[f"{stem}.k_proj.bias"].tolist() == [2.0, 3.0]
    assert "neck.fusion_stage.layers.3.projection.weight" in v4
    assert "neck.fusion_stage.layers.3.projection.weight" in v5


@pytest.mark.parametrize("architecture", [SMALL, GATED], ids=["mlp", "gated"])
def test_what_transformers_saves_loads_with_its_architecture(architecture, tmp_path: Path) -> None:
    oracle = transformers_network(DepthAnything(architecture))
    oracle.save_pretrained(tmp_path)
    model = load_depth_anything(tmp_path / "model.safetensors")
    assert model.architecture == architecture
    assert_same(model.state_dict(), official_from_huggingface(oracle.state_dict()))
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("depth_anything_vits14.pth", ("vits", "v1", None)),
        ("depth_anything_vitl14.pth", ("vitl", "v1", None)),
        ("depth_anything_v2_vitb.pth", ("vitb", "v2", None)),
        ("depth_anything_v2_vitg.pth", ("vitg", "v2", None)),
        ("depth_anything_v2_metric_hypersim_vits.pth", ("vits", "v2", 20.0)),
        ("depth_anything_v2_metric_vkitti_vitl.pth", ("vitl", "v2", 80.0)),
    ],
)
def test_official_file_names_state_the_architecture(name, expected) -> None:
    assert architecture_of_file(f"somewhere/{name}") == published_architecture(*expected)


@pytest.mark.parametrize(
    "name", ["best.pth", "vits.pth", "depth_anything_vits.pth", "depth_anything_v2_metric_vits.pth", "depth_anything_v2_vits_tuned.pth"]
)
def test_other_file_names_are_not_guessed_from(name) -> None:
    with pytest.raises(WeightsError, match=r"is not an official one.*pass architecture=published_architecture\(ENCODER, 'v1' or 'v2'"):
        architecture_of_file(name)


def config_file(folder: Path, **changes) -> Path:
    """What published relative files have beside them: values at their defaults may be absent."""
    backbone = {"hidden_size": 384, "num_attention_heads": 6, "out_indices": [3, 6, 9, 12]} | changes.pop("backbone", {})
    content = {"model_type": "depth_anything", "backbone_config": backbone} | changes
    (folder / "config.json").write_text(json.dumps(content))
    return folder / "model.safetensors"


def test_a_configuration_states_the_architecture(tmp_path: Path) -> None:
    assert architecture_of_file(config_file(tmp_path)) == published_architecture("vits", "v2")
    v1 = config_file(tmp_path, backbone={"out_indices": [9, 10, 11, 12]}, max_depth=None)
    assert architecture_of_file(v1) == published_architecture("vits", "v1")
    metric = config_file(tmp_path, depth_estimation_type="metric", max_depth=20)
    assert architecture_of_file(metric) == published_architecture("vits", "v2", 20.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backbone_config": {}}, "out_indices"),
        ({"backbone_config": None}, "NoneType"),
        ({"backbone": {"out_indices": [3, 6, 9, 13]}}, "from 0 to 11"),
        ({"depth_estimation_type": "metric"}, "max_depth"),
        ({"depth_estimation_type": "other"}, "'other' is not relative or metric"),
    ],
)
def test_a_configuration_that_leaves_it_open_is_refused(changes, reason, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"(?s)does not describe a Depth Anything network.*{reason}.*pass architecture="):
        architecture_of_file(config_file(tmp_path, **changes))


def test_safetensors_without_configuration_need_an_architecture(tmp_path: Path) -> None:
    state = random_state(SMALL)
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in huggingface_from_official(state).items()}, path)
    with pytest.raises(WeightsError, match=r"no '.*config\.json' beside the weights.*pass architecture="):
        load_depth_anything(path)
    assert_same(load_depth_anything(path, SMALL).state_dict(), state)


def test_official_files_load_as_they_are_and_can_be_trained(tmp_path: Path) -> None:
    state = random_state(SMALL)
    path = tmp_path / "own.pth"
    torch.save({name: tensor.half() for name, tensor in state.items()}, path)
    with pytest.raises(WeightsError, match="is not an official one"):
        load_depth_anything(path)
    model = load_depth_anything(path, SMALL)
    assert_same(model.state_dict(), {name: tensor.half().float() for name, tensor in state.items()})
    model(torch.randn(1, 3, 28, 28)).sum().backward()
    assert model.pretrained.pos_embed.grad is not None


@pytest.mark.parametrize("whole", [False, True], ids=["DINOv2 hub file", "Depth Anything file"])
def test_an_encoder_loads_from_both_kinds_of_file(whole, tmp_path: Path) -> None:
    state = random_state(SMALL)
    own = {name.removeprefix("pretrained."): tensor for name, tensor in state.items() if name.startswith("pretrained.")}
    torch.save(state if whole else own, tmp_path / "weights.pth")
    encoder = Encoder(ENCODER)
    load_encoder(encoder, tmp_path / "weights.pth")
    assert_same(encoder.state_dict(), own)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(WeightsError, match=r"no weight file 'nowhere/depth_anything_vits14\.pth'; download it first"):
        load_depth_anything("nowhere/depth_anything_vits14.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x04"])
def test_files_that_hold_no_weights_are_refused(content, suffix, tmp_path: Path) -> None:
    path = (tmp_path / "model").with_suffix(suffix)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is no weight file, or is truncated .*download it again"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(suffix, tmp_path: Path) -> None:
    path = (tmp_path / "model").with_suffix(suffix)
    state = {name: tensor.contiguous() for name, tensor in huggingface_from_official(random_state(SMALL)).items()}
    (torch.save if suffix == ".pth" else save_file)(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="is no weight file, or is truncated"):
        read_weights(path)


def test_no_damage_to_a_pickled_file_gives_another_error(tmp_path: Path) -> None:
    path, causes = tmp_path / "model.pth", set()
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, path)
    content = path.read_bytes()
    for offset in range(content.index(b"\x80\x02") + 2, content.index(b"FB", content.index(b"\x80\x02"))):  # the pickle, up to its padding
        path.write_bytes(content[:offset] + b"h" + content[offset + 1 :])  # h: take the object of the number that follows
        try:
            read_weights(path)
        except WeightsError as error:
            causes.add(type(error.__cause__))
    assert {KeyError, IndexError} <= causes


class Code:
    """Something that would run when unpickled."""

    def __reduce__(self):
        return (print, ("this must not run",))


def test_pickled_code_does_not_run(tmp_path: Path, capsys) -> None:
    torch.save({"weight": Code()}, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="is no weight file"):
        read_weights(tmp_path / "model.pth")
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{"model": {"weight": torch.zeros(1)}, "epoch": 3}, [torch.zeros(1)], {}])
def test_training_states_are_refused(content, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"holds no tensors by name; save only the network's state_dict\(\)"):
        read_weights(tmp_path / "model.pth")


def test_weights_of_another_network_are_listed_shortly(tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in random_state(SMALL).items()}
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(WeightsError) as caught:
        load_depth_anything(tmp_path / "model.pth", SMALL)
    count = len(state)
    assert f"{count} missing (pretrained.cls_token, " in str(caught.value)
    assert f"{count} unexpected (module.pretrained.cls_token, " in str(caught.value)
    assert f"and {count - 4} more); check that file and architecture belong together" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_weights_of_another_size_are_refused_with_both_shapes(tmp_path: Path) -> None:
    torch.save(random_state(SMALL), tmp_path / "model.pth")
    wider = DepthAnythingArchitecture(EncoderArchitecture(24, 2, 4), 8, (8, 8, 8, 12), (0, 1, 2, 3))
    with pytest.raises(WeightsError, match=r"cls_token is \(1, 1, 16\), the network's \(1, 1, 24\)\); pass the architecture"):
        load_depth_anything(tmp_path / "model.pth", wider)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_part_of_the_attention_that_is_missing_is_named(layout, tmp_path: Path) -> None:
    renamed = {name: tensor.contiguous() for name, tensor in huggingface_from_official(random_state(SMALL), layout).items()}
    del renamed[next(name for name in renamed if "layer.2" in name and ("query.bias" in name or "q_proj.bias" in name))]
    save_file(renamed, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing \(pretrained\.blocks\.2\.attn\.qkv\.bias\)"):
        load_depth_anything(tmp_path / "model.safetensors", SMALL)


def test_foreign_names_are_refused_in_both_directions() -> None:
    with pytest.raises(WeightsError, match=r"1 unexpected \(backbone\.embeddings\.register_tokens\)"):
        official_from_huggingface({"backbone.embeddings.register_tokens": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 unexpected \(pretrained\.register_tokens\)"):
        huggingface_from_official({"pretrained.register_tokens": torch.zeros(1)})


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(WeightsError, match="no layout 'v6'; there are: v4, v5"):
        huggingface_from_official({}, "v6")
