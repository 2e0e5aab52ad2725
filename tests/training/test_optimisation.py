"""Groups and learning rates, the two schedules, and averaged weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")

from training.config import OptimiserConfig, load_config  # noqa: E402
from training.networks import build_network  # noqa: E402
from training.optimisation import make_optimiser, schedule_factor, set_learning_rates, update_average  # noqa: E402

from .made_up import VIT  # noqa: E402


def test_the_decoder_learns_ten_times_as_fast_and_biases_do_not_decay() -> None:
    network = build_network(load_config("teacher", None, ["network.name=vits", VIT]))
    optimiser = make_optimiser(network, network, OptimiserConfig(learning_rate=1e-3, decoder_factor=10, weight_decay=0.1))
    where = {id(parameter): group for group in optimiser.param_groups for parameter in group["params"]}
    named = dict(network.named_parameters())
    rates = {
        name: (where[id(named[name])]["lr"], where[id(named[name])]["weight_decay"])
        for name in ("net.pretrained.blocks.0.attn.qkv.weight", "net.pretrained.norm.bias", "net.depth_head.projects.0.weight")
    }
    assert list(rates.values()) == [(1e-3, 0.1), (1e-3, 0.0), (1e-2, 0.1)]
    assert id(network.net.pretrained.mask_token) not in where, "what gets no gradient is not decayed either"
    set_learning_rates(optimiser, 0.5)
    set_learning_rates(optimiser, 0.5)
    assert where[id(named["net.depth_head.projects.0.weight"])]["lr"] == 5e-3


@pytest.mark.parametrize(("schedule", "expected"), [("linear", [1.0, 0.5, 0.01]), ("cosine", [1.0, 0.5, 0.002])])
def test_schedules_fall_to_nothing(schedule: str, expected: list[float]) -> None:
    config = OptimiserConfig(schedule=schedule)
    assert [schedule_factor(step, 100, config) for step in (0, 50, 99)] == pytest.approx(expected, abs=1e-3)


def test_warm_up_rises_in_equal_steps() -> None:
    config = OptimiserConfig(warmup_steps=4)
    assert [schedule_factor(step, 10**9, config) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1], abs=1e-6)


def test_averaged_weights_forget_the_start_and_follow() -> None:
    model, average = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(5.0)
    update_average(average, model, decay=0.9, step=0)
    torch.testing.assert_close(average.weight, torch.full((2,), 0.1 * 1 + 0.9 * 3.0))
    torch.testing.assert_close(average.running_mean, torch.full((2,), 0.9 * 5.0))
    for step in range(1, 400):
        update_average(average, model, 0.9, step)
    torch.testing.assert_close(average.weight, model.weight)
