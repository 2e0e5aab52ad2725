"""Muon: orthogonal steps for matrices, AdamW for the rest, resumable, and quicker than AdamW where it should be."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
from torch import nn  # noqa: E402

from training.config import OptimiserConfig, load_config  # noqa: E402
from training.muon import is_orthogonal, orthogonalised  # noqa: E402
from training.networks import build_network  # noqa: E402
from training.optimisation import make_optimiser  # noqa: E402

from .made_up import COMPACT  # noqa: E402


@pytest.mark.parametrize("shape", [(3, 20, 50), (2, 50, 20), (1, 32, 32)])
def test_singular_values_come_near_to_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    given = torch.randn(shape)
    result = orthogonalised(given)
    values = torch.linalg.svdvals(result)
    assert result.shape == shape
    assert result.dtype == torch.float32
    assert values.min() > 0.4
    assert values.max() < 1.4
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    kept = torch.diagonal(u.mT @ result @ v.mT, dim1=1, dim2=2)
    assert torch.allclose(kept, values.mean().expand_as(kept), atol=0.5)
    assert (kept > 0.4).all()


def test_scale_does_not_matter() -> None:
    given = torch.randn(1, 24, 40, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(orthogonalised(given), orthogonalised(1e-3 * given), atol=0.05)


@pytest.mark.parametrize(
    ("shape", "takes"), [((32, 64), True), ((32, 16, 3, 3), True), ((64,), False), ((16, 1, 3, 3), False), ((4, 48, 3, 3), False)]
)
def test_vectors_depthwise_and_narrow_kernels_are_left_to_adamw(shape: tuple[int, ...], takes: bool) -> None:
    assert is_orthogonal(torch.zeros(shape)) is takes


def _model() -> nn.Module:
    network = build_network(load_config("teacher", None, [COMPACT]))
    network.extra = nn.Linear(32, 48)
    torch.manual_seed(3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=chance)
    optimiser.step()


def test_a_step_turns_matrices_evenly_and_moves_the_rest_as_adamw_does() -> None:
    config = OptimiserConfig(learning_rate=1e-2, decoder_factor=1.0, weight_decay=0.0)
    networks = [_model(), _model()]
    before = copy.deepcopy(networks[0])
    for network, name in zip(networks, ("muon", "adamw"), strict=True):
        _step(network, make_optimiser(network, network, OptimiserConfig(**{**config.__dict__, "name": name})), 0)
    change = (networks[0].extra.weight - before.extra.weight).detach()
    values = torch.linalg.svdvals(change)
    assert values.max() / values.min() < 3
    assert float(change.square().mean().sqrt()) == pytest.approx(0.2 * 1e-2, rel=0.3)
    assert torch.equal(networks[0].extra.bias, networks[1].extra.bias)
    assert not torch.equal(networks[0].extra.weight, networks[1].extra.weight)


def test_its_state_is_saved_and_loaded() -> None:
    config = OptimiserConfig(name="muon", learning_rate=1e-2)
    straight, stopped = _model(), _model()
    one, two = make_optimiser(straight, straight, config), make_optimiser(stopped, stopped, config)
    for seed in (1, 2):
        _step(straight, one, seed)
    _step(stopped, two, 1)
    resumed = make_optimiser(stopped, stopped, config)
    resumed.load_state_dict(two.state_dict())
    _step(stopped, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), stopped.parameters(), strict=True))
