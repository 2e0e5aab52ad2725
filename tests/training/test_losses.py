"""Losses against numbers that can be worked out by hand, and their invariances."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from training.losses import (  # noqa: E402
    affine_invariant_loss,
    beyond_range_loss,
    gradient_matching_loss,
    normalise_affine,
    silog_loss,
)


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_silog_of_a_constant_factor() -> None:
    target = _random(0, 2, 8, 8)
    everywhere = torch.ones(2, 8, 8, dtype=torch.bool)
    factor = math.log(2.0)
    assert silog_loss(target + factor, target, everywhere, 0.0).item() == pytest.approx(factor, abs=1e-3)
    assert silog_loss(target + factor, target, everywhere, 1.0).item() == pytest.approx(0.0, abs=1e-3)


def test_normalised_values_by_hand() -> None:
    # the median of 1..5 is 3, the mean absolute deviation (2 + 1 + 0 + 1 + 2) / 5 = 1.2; 99 is not usable
    values = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0, 99.0]]])
    mask = torch.tensor([[[True] * 5 + [False]]])
    expected = torch.tensor([[[-2.0, -1.0, 0.0, 1.0, 2.0, 0.0]]]) / 1.2
    torch.testing.assert_close(normalise_affine(values, mask), expected)


@pytest.mark.parametrize("unusable", [0.0, 0.3, 0.7])
def test_affine_invariant_loss_ignores_scale_shift_and_unusable_pixels(unusable: float) -> None:
    disparity = _random(1, 3, 16, 16) + 0.5
    mask = _random(2, 3, 16, 16) >= unusable
    moved = torch.where(mask, 3 * disparity + 5, torch.inf)
    assert affine_invariant_loss(moved, disparity, mask).item() == pytest.approx(0.0, abs=1e-5)
    assert affine_invariant_loss(disparity - 0.7, disparity, mask).item() == pytest.approx(0.0, abs=1e-5)


def test_affine_invariant_loss_of_an_opposite_order_is_two() -> None:
    # every normalised value v meets -v, and the mean of |v| is 1
    ramp = torch.arange(25.0).reshape(1, 5, 5)
    assert affine_invariant_loss(-ramp, ramp, torch.ones_like(ramp, dtype=torch.bool)).item() == pytest.approx(2.0)


def test_gradient_matching_by_hand() -> None:
    # at full resolution a slope of 0.5 per column is off by 0.5 across and by 0 down
    target = torch.zeros(1, 8, 8)
    prediction = 0.5 * torch.arange(8.0).repeat(1, 8, 1)
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    assert gradient_matching_loss(prediction, target, mask, scales=1).item() == pytest.approx(0.5)
    assert gradient_matching_loss(target + 4.0, target, mask).item() == 0.0


def test_beyond_range_punishes_only_what_is_nearer() -> None:
    log_depth = torch.tensor([1.0, 3.0]).repeat_interleave(32).reshape(1, 8, 8)
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    assert beyond_range_loss(log_depth, 2.0, mask).item() == pytest.approx(0.5)


def test_every_loss_is_zero_and_differentiable_on_an_empty_mask() -> None:
    prediction = _random(3, 2, 8, 8).requires_grad_()
    target = torch.full((2, 8, 8), torch.nan)
    nothing = torch.zeros(2, 8, 8, dtype=torch.bool)
    total = (
        silog_loss(prediction, target, nothing)
        + affine_invariant_loss(prediction, target, nothing)
        + gradient_matching_loss(prediction, target, nothing)
        + beyond_range_loss(prediction, 2.0, nothing)
    )
    total.backward()
    assert total.item() == 0.0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_one_empty_image_does_not_change_the_others() -> None:
    prediction, target = _random(4, 2, 8, 8), _random(5, 2, 8, 8)
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    mask[1] = False
    assert silog_loss(prediction, target, mask).item() == pytest.approx(silog_loss(prediction[:1], target[:1], mask[:1]).item())
