"""The Depth Anything network against transformers' own, its published sizes, and its exported form."""

from __future__ import annotations

import json
from collections import Counter

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")

from training.depth_anything import (  # noqa: E402
    EXPORT_OPSET,
    DepthAnything,
    DepthAnythingArchitecture,
    ExportForm,
    onnx_from_model,
    published_architecture,
)
from training.encoder import POSITION_GRID, Encoder, EncoderArchitecture  # noqa: E402
from training.weights import huggingface_from_official  # noqa: E402

ENCODER = EncoderArchitecture(dim=24, heads=3, blocks=5)
GATED = EncoderArchitecture(dim=24, heads=3, blocks=5, swiglu=True)
SMALL = DepthAnythingArchitecture(ENCODER, features=12, out_channels=(8, 8, 16, 20), taps=(1, 2, 3, 4))
VARIANTS = {
    "relative": SMALL,
    "metric": DepthAnythingArchitecture(ENCODER, 12, (8, 8, 16, 20), (0, 2, 3, 4), max_depth_m=20.0),
    "gated": DepthAnythingArchitecture(GATED, 12, (8, 8, 16, 20), (0, 2, 3, 4)),
}
TOLERANCE = 1e-4


def random_network(architecture: DepthAnythingArchitecture, gain: float = 6.0) -> DepthAnything:
    """Random everywhere, so that no two parameters can be swapped unnoticed; the output varies, and is mostly above 0."""
    torch.manual_seed(0)
    model = DepthAnything(architecture).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.25)
    head = model.depth_head.scratch.output_conv2[2]
    head.weight.mul_(gain)
    head.bias.fill_(4.0 if architecture.max_depth_m is None else 0.5)
    return model


def transformers_network(model: DepthAnything):
    """The same network, as the transformers library builds it."""
    transformers = pytest.importorskip("transformers", "5.23", reason="the oracle is transformers 5.23 or later")
    architecture = model.architecture
    encoder = architecture.encoder
    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(
            hidden_size=encoder.dim,
            num_attention_heads=encoder.heads,
            num_hidden_layers=encoder.blocks,
            use_swiglu_ffn=encoder.swiglu,
            image_size=518,
            out_indices=[tap + 1 for tap in architecture.taps],
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=encoder.dim,
        neck_hidden_sizes=list(architecture.out_channels),
        fusion_hidden_size=architecture.features,
        depth_estimation_type="relative" if architecture.max_depth_m is None else "metric",
        max_depth=int(architecture.max_depth_m or 1),
    )
    oracle = transformers.DepthAnythingForDepthEstimation(config).eval()
    oracle.load_state_dict(huggingface_from_official(model.state_dict(), "v5"), strict=True)
    return oracle


def largest_difference(model: DepthAnything, size_hw: tuple[int, int]) -> float:
    oracle = transformers_network(model)
    image = torch.randn(1, 3, *size_hw, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = oracle(image).predicted_depth, model(image)
    assert got.shape == expected.shape == (1, *size_hw)
    assert expected.std() > 0.02, "the comparison needs an output that varies"
    assert (expected > 0).float().mean() > 0.5
    return float((got - expected).abs().max())


@pytest.mark.parametrize("architecture", VARIANTS.values(), ids=VARIANTS)
def test_computes_what_transformers_does_at_the_training_size(architecture) -> None:
    assert largest_difference(random_network(architecture), (518, 518)) <= TOLERANCE


@pytest.mark.slow
def test_the_small_published_network_computes_what_transformers_does() -> None:
    assert largest_difference(random_network(published_architecture("vits", "v2"), gain=1.0), (518, 518)) <= TOLERANCE


def official_positions(self, embeddings, height, width):
    """DINOv2's own rule, which transformers left: factors with an offset of 0.1 patches."""
    grid = self.position_embeddings[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    factor = ((height // 14 + 0.1) / 37, (width // 14 + 0.1) / 37)
    grid = torch.nn.functional.interpolate(grid, scale_factor=factor, mode="bicubic")
    assert grid.shape[-2:] == (height // 14, width // 14)
    return torch.cat([self.position_embeddings[:, :1], grid.flatten(2).transpose(1, 2)], 1)


@pytest.mark.parametrize("size_hw", [(252, 336), (28, 42), (392, 518)])
def test_positions_at_other_sizes_are_resized_by_the_official_rule(size_hw, monkeypatch) -> None:
    dinov2 = pytest.importorskip("transformers.models.dinov2.modeling_dinov2", reason="the oracle is transformers")
    monkeypatch.setattr(dinov2.Dinov2Embeddings, "interpolate_pos_encoding", official_positions)
    assert largest_difference(random_network(SMALL), size_hw) <= TOLERANCE


def test_resized_positions_have_the_wanted_size() -> None:
    encoder = Encoder(EncoderArchitecture(dim=1, heads=1, blocks=1))
    for side in range(1, 150):
        assert encoder.positions((side, 2)).shape == (1, 1 + 2 * side, 1)


def test_positions_are_not_resized_at_the_training_size() -> None:
    encoder = Encoder(ENCODER)
    assert encoder.positions((POSITION_GRID, POSITION_GRID)) is encoder.pos_embed


@pytest.mark.parametrize(
    ("encoder", "tensors", "parameters"),
    [("vits", 239, 24_785_089), ("vitb", 239, 97_470_785), ("vitl", 407, 335_315_649), ("vitg", 631, 1_258_132_225)],
)
def test_published_networks_have_the_published_size(encoder, tensors, parameters) -> None:
    with torch.device("meta"):
        state = DepthAnything(published_architecture(encoder, "v2")).state_dict()
    assert len(state) == tensors
    assert sum(tensor.numel() for tensor in state.values()) == parameters


def test_versions_differ_in_their_taps_alone() -> None:
    v1, v2 = (published_architecture("vitl", version).to_dict() for version in ("v1", "v2"))
    assert v1.pop("taps") == (20, 21, 22, 23)
    assert v2.pop("taps") == (4, 11, 17, 23)
    assert v1 == v2


def test_a_network_that_was_never_published_is_refused() -> None:
    with pytest.raises(ValueError, match="no published network 'v1 vitg'; there are: v1 vits, v1 vitb, v1 vitl, v2 vits"):
        published_architecture("vitg", "v1")


@pytest.mark.parametrize("architecture", VARIANTS.values(), ids=VARIANTS)
def test_an_architecture_survives_json(architecture) -> None:
    assert DepthAnythingArchitecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


@pytest.mark.parametrize("taps", [(0, 1, 2, 5), (-1, 1, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2), (0, 1, 2)])
def test_impossible_taps_are_refused(taps) -> None:
    with pytest.raises(ValueError, match="need four different blocks, ascending, from 0 to 4"):
        DepthAnythingArchitecture(ENCODER, 12, (8, 8, 16, 20), taps)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_depth_m": 0.0}, "above 0"),
        ({"max_depth_m": float("inf")}, "finite"),
        ({"features": 1}, "2 features"),
        ({"out_channels": (8, 8, 8)}, "four"),
    ],
)
def test_impossible_decoders_are_refused(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        DepthAnythingArchitecture(**{"encoder": ENCODER, "features": 12, "out_channels": (8, 8, 16, 20), "taps": (0, 1, 2, 3), **values})


def test_impossible_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="dim a multiple of heads"):
        EncoderArchitecture(dim=25, heads=3, blocks=1)


@pytest.mark.parametrize("size_hw", [(517, 518), (518, 500), (0, 14)])
def test_sizes_that_are_no_multiple_of_a_patch_are_refused(size_hw) -> None:
    with pytest.raises(ValueError, match="both sides must be multiples of 14"):
        DepthAnything(SMALL)(torch.zeros(1, 3, *size_hw))


def test_the_encoder_returns_normalised_patch_tokens_of_each_tap() -> None:
    encoder = Encoder(ENCODER)
    tokens = encoder(torch.randn(2, 3, 28, 42), (1, 4))
    assert [tuple(t.shape) for t in tokens] == [(2, 6, 24)] * 2
    for t in tokens:
        torch.testing.assert_close(t.mean(-1), torch.zeros(2, 6), atol=1e-5, rtol=0)
        torch.testing.assert_close(t.var(-1, correction=0), torch.ones(2, 6), atol=1e-2, rtol=0)


def test_every_normalisation_has_the_epsilon_of_the_published_weights() -> None:
    """With random weights the default of torch, 1e-5, would pass every comparison."""
    norms = [module for module in DepthAnything(SMALL).modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 2 * ENCODER.blocks + 1
    assert {norm.eps for norm in norms} == {1e-6}


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    model, images = random_network(SMALL), torch.randn(2, 3, 56, 70)
    torch.testing.assert_close(model(images)[1:], model(images[1:]), atol=1e-5, rtol=0)


def test_metric_output_stays_below_its_largest_depth() -> None:
    depth_m = random_network(VARIANTS["metric"])(100 * torch.randn(1, 3, 56, 70))
    assert 0 <= depth_m.min() < depth_m.max() <= 20


def test_only_what_is_kept_for_the_sake_of_the_files_gets_no_gradient() -> None:
    model = random_network(SMALL).requires_grad_(True)
    model(torch.randn(1, 3, 56, 70)).sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    unit = "depth_head.scratch.refinenet4.resConfUnit1"
    assert idle == {"pretrained.mask_token"} | {f"{unit}.conv{k}.{part}" for k in (1, 2) for part in ("weight", "bias")}


@pytest.mark.parametrize(("variant", "size_hw"), [("relative", (518, 518)), ("relative", (112, 154)), ("metric", (112, 154)), ("gated", (112, 154))])
def test_the_export_form_computes_the_same_and_leaves_the_network_alone(variant, size_hw) -> None:
    model = random_network(VARIANTS[variant])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = ExportForm(model, size_hw)
    image = torch.randn(2, 3, *size_hw)
    torch.testing.assert_close(form(image), model(image), atol=2e-5, rtol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_exported_graph_is_plain_and_computes_the_same() -> None:
    onnx = pytest.importorskip("onnx", reason="export needs onnx")
    pytest.importorskip("onnxscript", reason="the exporter needs onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime", reason="export is checked with onnxruntime")
    model = random_network(VARIANTS["metric"])
    content = onnx_from_model(model, (252, 336))
    graph = onnx.load_model_from_string(content)
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", EXPORT_OPSET)]
    operators = Counter(node.op_type for node in graph.graph.node)
    assert operators["LayerNormalization"] == 2 * ENCODER.blocks + 4
    assert operators["Resize"] == 5, "four fusions and the output; positions are baked"
    assert not operators.keys() & {"IsNaN", "Where", "Shape", "Pow", "ReduceMean", "If", "Loop"}
    assert not any("mask_token" in weight.name or "refinenet4.resConfUnit1" in weight.name for weight in graph.graph.initializer)
    image = torch.randn(1, 3, 252, 336)
    (got,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(["depth"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(image), atol=TOLERANCE, rtol=0)
