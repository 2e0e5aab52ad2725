"""Both networks behind one face: what is encoder, how weights travel between stages, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")
pytest.importorskip("safetensors", reason="training needs safetensors")

from depth_anything_ros.errors import ConfigError  # noqa: E402
from training.checkpoint import TrainingRecord, save_checkpoint  # noqa: E402
from training.config import TrainingConfig, load_config  # noqa: E402
from training.networks import Served, build_network, frozen_encoder, load_initial, open_network  # noqa: E402
from training.objectives import SemanticEncoder  # noqa: E402

COMPACT = ["network.architecture={channels: [4, 8, 8, 8, 16], blocks: [1, 1, 1], context_layers: 1, decoder: 8}"]
VIT = [
    "network.name=vits",
    "network.architecture={encoder: {dim: 16, heads: 2, blocks: 4}, features: 4, out_channels: [4, 4, 4, 4], taps: [0, 1, 2, 3]}",
]
KINDS = {"compact": COMPACT, "vit": VIT}


def _config(kind: str, stage: str = "student", *more: str) -> TrainingConfig:
    return load_config(stage, None, [*KINDS[kind], *more])


def _save(path: Path, model: torch.nn.Module, config: TrainingConfig) -> Path:
    save_checkpoint(path, model, None, None, TrainingRecord(1, 0.0, config.to_dict(), {}, {}, {}))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["student", "metric"])
def test_training_and_serving_say_the_same(kind: str, stage: str) -> None:
    torch.manual_seed(0)
    network = build_network(_config(kind, stage)).eval()
    side = 2 * network.size_multiple
    image = torch.randn(2, 3, side, side)
    with torch.no_grad():
        prediction, served = network(image), Served(network)(image)
    assert prediction.tokens.shape == (2, 4, network.token_dim)
    torch.testing.assert_close(prediction.tokens, network.tokens(image))
    torch.testing.assert_close(torch.exp(prediction.values) if stage == "metric" else prediction.values, served)
    assert (network.max_depth_m is None) == (stage == "student")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["student", "metric"])
def test_half_precision_does_not_reach_the_output(kind: str, stage: str) -> None:
    torch.manual_seed(0)
    network = build_network(_config(kind, stage)).eval()
    image = torch.randn(1, 3, 8 * network.size_multiple, 8 * network.size_multiple)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        values = network(image).values
    assert values.dtype == torch.float32
    assert len(values.unique()) > 0.1 * values.numel(), "an output in bf16 has a handful of levels"


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_learns_gets_a_gradient(kind: str) -> None:
    network = build_network(_config(kind))
    side = 2 * network.size_multiple
    network(torch.randn(2, 3, side, side)).values.sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad and parameter.grad is None] == []


@pytest.mark.parametrize("seed", range(5))
def test_no_untrained_head_is_dead(seed: int) -> None:
    torch.manual_seed(seed)
    values = build_network(_config("vit"))(torch.randn(2, 3, 56, 56)).values
    assert values.min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_starts_from_the_encoder_alone_unless_told_otherwise(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, network = build_network(_config(kind)), build_network(_config(kind))
    path, before = _save(tmp_path / "c.safetensors", source, _config(kind)), {k: v.clone() for k, v in network.state_dict().items()}
    load_initial(network, path, "encoder")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, (source.state_dict() if network.is_encoder(name) else before)[name], msg=name)
    load_initial(network, path, "all")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


def test_a_pretrained_encoder_initialises_and_anchors_and_is_no_depth_network(tmp_path: Path) -> None:
    config = _config("compact", "encoder")
    model = SemanticEncoder(build_network(config), 7)
    path = _save(tmp_path / "e.safetensors", model, config)
    network = build_network(_config("compact"))
    load_initial(network, path, "encoder")
    frozen = frozen_encoder(_config("compact", "student", f"network.frozen_encoder={path}"))
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(frozen.tokens(image), network.eval().tokens(image))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    with pytest.raises(ConfigError, match="pre-trained encoder and predicts no depth"):
        open_network(path)


def test_official_weights_and_dinov2_alone_initialise_an_encoder(tmp_path: Path) -> None:
    source = build_network(_config("vit"))
    torch.save(source.net.state_dict(), tmp_path / "official.pth")
    torch.save(source.net.pretrained.state_dict(), tmp_path / "dinov2.pth")
    for name in ("official", "dinov2"):
        network = build_network(_config("vit"))
        load_initial(network, tmp_path / f"{name}.pth", "encoder")
        torch.testing.assert_close(network.net.pretrained.state_dict(), source.net.pretrained.state_dict())
    with pytest.raises(ConfigError, match="lacks .* of .* tensors"):
        load_initial(build_network(_config("vit")), tmp_path / "dinov2.pth", "all")


def test_a_decoder_that_reads_other_blocks_is_not_taken_over(tmp_path: Path) -> None:
    other = load_config("student", None, [VIT[0], VIT[1].replace("[0, 1, 2, 3]", "[0, 1, 3, 4]").replace("blocks: 4", "blocks: 5")])
    wanted = load_config("student", None, [VIT[0], VIT[1].replace("[0, 1, 2, 3]", "[1, 2, 3, 4]").replace("blocks: 4", "blocks: 5")])
    path = _save(tmp_path / "c.safetensors", build_network(other), other)
    with pytest.raises(ConfigError, match=r"reads the blocks \(0, 1, 3, 4\), this network's \(1, 2, 3, 4\)"):
        load_initial(build_network(wanted), path, "all")
    load_initial(build_network(wanted), path, "encoder")
    torch.save(build_network(wanted).net.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match="which blocks its decoder reads"):
        load_initial(build_network(wanted), tmp_path / "mine.pth", "all")


def test_open_network_gives_the_served_weights(tmp_path: Path) -> None:
    config, network = _config("compact", "metric"), build_network(_config("compact", "metric"))
    opened, same, record = open_network(_save(tmp_path / "c.safetensors", network, config))
    assert (same, record.step, opened.training) == (config, 1, False)
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(opened.serve(image), network.eval().serve(image))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "c.safetensors", build_network(_config("vit")), _config("vit"))
    with pytest.raises(ConfigError, match="is it another network"):
        load_initial(build_network(_config("compact")), path, "encoder")
    wider = load_config("student", None, [VIT[0], VIT[1].replace("dim: 16", "dim: 32")])
    with pytest.raises(ConfigError, match="is of another size: 'net.pretrained"):
        load_initial(build_network(wider), path, "encoder")
    with pytest.raises(ConfigError, match="there is no weight file"):
        load_initial(build_network(_config("compact")), tmp_path / "none.pth", "encoder")
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match="is no checkpoint"):
        open_network(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("compact", "{chanels: [1]}"),
        ("vits", "{taps: [0, 1, 2, 99]}"),
        ("vits", "{depth: 3}"),
        ("compact", "{channels: [1, 2]}"),
        ("vits", "{encoder: {dim: 16, heads: 2, blocks: 5}, features: 4, out_channels: [4, 4, 4, 4], taps: [0, 1, 2, 3]}"),
    ],
)
def test_an_impossible_architecture_is_refused(name: str, architecture: str) -> None:
    with pytest.raises(ConfigError, match="network.architecture"):
        build_network(load_config("student", None, [f"network.name={name}", f"network.architecture={architecture}"]))


def test_the_giant_was_never_published_as_v1() -> None:
    with pytest.raises(ConfigError, match="no published network 'v1 vitg'"):
        build_network(load_config("student", None, ["network.name=vitg", "network.version=v1"]))
