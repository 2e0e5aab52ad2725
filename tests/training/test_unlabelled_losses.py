"""Losses on unlabelled images against numbers that can be worked out by hand, and their invariances."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

from training.losses import affine_invariant_loss
from training.unlabelled_losses import cutmix_loss, feature_alignment_loss, student_total, worst_pixels

ALL = torch.ones(1, 8, 8, dtype=torch.bool)
LEFT = torch.zeros(1, 8, 8, dtype=torch.bool)
LEFT[:, :, :2] = True  # 16 of 64 pixels


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _halves(low_first: bool) -> torch.Tensor:
    """Upper half 0 and lower half 1, or the other way round: normalised, one half is 0 and the other 2 away from it."""
    halves = torch.zeros(1, 8, 8)
    halves[:, 4:] = 1.0
    return halves if low_first else 1 - halves


def test_a_mixed_image_is_right_when_each_region_is_right_up_to_its_own_scale_and_shift() -> None:
    own, partner = _random(1, 1, 8, 8), _random(2, 1, 8, 8)
    disparity = torch.where(LEFT, 3 * own + 7, 0.1 * partner - 2)
    assert cutmix_loss(disparity, own, partner, ALL, ALL, LEFT).item() == pytest.approx(0.0, abs=1e-5)
    one_scale_for_both = affine_invariant_loss(disparity, torch.where(LEFT, own, partner), ALL)
    assert one_scale_for_both.item() > 0.1


@pytest.mark.parametrize(("own_right", "partner_right", "expected"), [(True, True, 0.0), (False, True, 0.5), (True, False, 1.5), (False, False, 2.0)])
def test_regions_are_weighted_by_their_area(own_right: bool, partner_right: bool, expected: float) -> None:
    # upside down, a region's normalised values are 0 and 2 against 2 and 0: a difference of 2; a quarter is the image's own
    target = _halves(True)
    disparity = torch.where(LEFT, _halves(own_right), _halves(partner_right))
    assert cutmix_loss(disparity, target, target, ALL, ALL, LEFT).item() == pytest.approx(expected)


def test_an_image_that_was_not_mixed_has_the_loss_of_a_labelled_one() -> None:
    disparity, target = _random(1, 2, 8, 8), _random(2, 2, 8, 8)
    everywhere = ALL.expand(2, 8, 8)
    loss = cutmix_loss(disparity, target, torch.full_like(target, torch.nan), everywhere, ~everywhere, everywhere)
    assert loss.item() == pytest.approx(affine_invariant_loss(disparity, target, everywhere).item())


def test_scale_and_shift_of_student_and_of_either_teacher_map_do_not_matter() -> None:
    disparity, own, partner = _random(1, 1, 8, 8), _random(2, 1, 8, 8), _random(3, 1, 8, 8)
    reference = cutmix_loss(disparity, own, partner, ALL, ALL, LEFT).item()
    assert cutmix_loss(5 * disparity + 3, own * 2 - 1, partner * 9 + 4, ALL, ALL, LEFT).item() == pytest.approx(reference, rel=1e-4)
    assert reference > 0.1


def test_regions_may_be_named_the_other_way_round() -> None:
    disparity, own, partner = _random(1, 1, 8, 8), _random(2, 1, 8, 8), _random(3, 1, 8, 8)
    one, other = cutmix_loss(disparity, own, partner, ALL, ALL, LEFT), cutmix_loss(disparity, partner, own, ALL, ALL, ~LEFT)
    assert one.item() == pytest.approx(other.item())


def test_what_stands_at_unusable_pixels_does_not_matter() -> None:
    disparity, own, partner = _random(1, 1, 8, 8).requires_grad_(), _random(2, 1, 8, 8), _random(3, 1, 8, 8)
    usable = _random(4, 1, 8, 8) > 0.2
    usable[:, :, :2] = True
    reference = cutmix_loss(disparity, own, torch.where(usable, partner, 0.0), ALL, usable, LEFT)
    loss = cutmix_loss(disparity, own, torch.where(usable, partner, torch.nan), ALL, usable, LEFT)
    loss.backward()
    assert loss.item() == reference.item()
    assert torch.isfinite(disparity.grad).all()
    assert (disparity.grad[~usable] == 0).all()


def test_a_region_with_too_few_pixels_counts_as_zero_and_keeps_its_area() -> None:
    target, wrong = _halves(True), _halves(False)
    few = ALL & ~LEFT
    few[:, 0, 0] = True  # one usable pixel in the left quarter
    assert cutmix_loss(wrong, target, target, few, ALL, LEFT).item() == pytest.approx(0.75 * 2)
    assert cutmix_loss(wrong, target, target, few, ALL, LEFT, min_pixels=1).item() == pytest.approx(0.75 * 2)  # one pixel is always right
    assert cutmix_loss(wrong, target, target, ALL, ALL, LEFT, min_pixels=17).item() == pytest.approx(0.75 * 2)


def test_the_mean_is_over_images_that_have_a_usable_region() -> None:
    target, wrong = _halves(True).expand(3, 8, 8), torch.cat([_halves(False), _halves(True), _halves(False)])
    mask = ALL.repeat(3, 1, 1)
    mask[2] = False
    assert cutmix_loss(wrong, target, target, mask, mask, LEFT.expand(3, 8, 8)).item() == pytest.approx((2 + 0) / 2)


def test_nothing_usable_gives_zero_and_a_gradient_of_zero() -> None:
    disparity = _random(1, 2, 8, 8).requires_grad_()
    nothing, unknown = torch.zeros(2, 8, 8, dtype=torch.bool), torch.full((2, 8, 8), torch.nan)
    loss = cutmix_loss(disparity, unknown, unknown, nothing, nothing, nothing, trim=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(disparity.grad, torch.zeros_like(disparity))


def test_constant_teacher_maps_are_finite() -> None:
    disparity = _random(1, 1, 8, 8).requires_grad_()
    flat = torch.zeros(1, 8, 8)
    loss = cutmix_loss(disparity, flat, flat, ALL, ALL, LEFT)  # the deviation of a normalised map is 1
    loss.backward()
    assert loss.item() == pytest.approx(1.0, rel=1e-5)
    assert torch.isfinite(disparity.grad).all()


def test_trimming_ignores_outliers_of_the_teacher() -> None:
    own = torch.linspace(0, 1, 64).view(1, 8, 8)
    disparity = own.clone()
    disparity[0, 0, 0] = 30.0  # one of 64 pixels, far off
    everywhere = ALL
    full = cutmix_loss(disparity, own, own, everywhere, everywhere, everywhere)
    trimmed = cutmix_loss(disparity, own, own, everywhere, everywhere, everywhere, trim=0.1)
    assert trimmed.item() < 0.75 * full.item()
    assert cutmix_loss(own, own, own, everywhere, everywhere, everywhere, trim=0.1).item() == pytest.approx(0.0)


def test_the_mean_after_trimming_is_over_what_is_left() -> None:
    # half of the differences are 0 and half are 2: without the worst quarter, 32 pixels of 0 and 16 of 2 are left
    values, flat = _halves(True), torch.zeros(1, 8, 8)
    assert cutmix_loss(values, flat, flat, ALL, ALL, ALL).item() == pytest.approx(1.0)
    assert cutmix_loss(values, flat, flat, ALL, ALL, ALL, trim=0.25).item() == pytest.approx(16 * 2 / 48)
    with pytest.raises(ValueError, match="trim is 1"):
        cutmix_loss(values, flat, flat, ALL, ALL, ALL, trim=1)


def test_exactly_the_share_of_usable_pixels_is_marked_per_image() -> None:
    differences = torch.stack([torch.arange(16.0).view(4, 4), torch.zeros(4, 4)])
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    mask[0, 3, 3] = False  # the largest is not usable: 15 are
    worst = worst_pixels(differences, mask, 0.2)
    assert worst.flatten(1).sum(1).tolist() == [3, 3]
    assert differences[0][worst[0]].tolist() == [12.0, 13.0, 14.0]
    assert not worst_pixels(differences, mask, 0.0).any()


def test_a_step_along_the_gradient_lowers_the_loss() -> None:
    disparity, own, partner = _random(1, 2, 8, 8).requires_grad_(), _random(2, 2, 8, 8), _random(3, 2, 8, 8)
    masks = ALL.expand(2, 8, 8)
    losses = []
    for _ in range(20):
        loss = cutmix_loss(disparity, own, partner, masks, masks, LEFT.expand(2, 8, 8), trim=0.1)
        (gradient,) = torch.autograd.grad(loss, disparity)
        disparity = (disparity - 0.2 * gradient).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_alignment_averages_over_the_tokens_below_the_margin() -> None:
    # cosines 1 (left out), 0.9 (left out), 0.6, 0 and -1
    student = torch.tensor([[[1.0, 0.0], [0.9, 0.19**0.5], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]])
    frozen = torch.tensor([[1.0, 0.0]]).expand(1, 5, 2)
    assert feature_alignment_loss(student, frozen).item() == pytest.approx((0.4 + 1 + 2) / 3)
    assert feature_alignment_loss(student, frozen, margin=1.1).item() == pytest.approx((0 + 0.1 + 0.4 + 1 + 2) / 5, abs=1e-6)
    assert feature_alignment_loss(7 * student, 0.1 * frozen).item() == pytest.approx((0.4 + 1 + 2) / 3)


def test_a_token_is_judged_on_its_own_not_by_the_mean() -> None:
    student, frozen = torch.tensor([[[1.0, 0.0]] * 99 + [[0.0, 1.0]]]), torch.tensor([[1.0, 0.0]]).expand(1, 100, 2)
    assert feature_alignment_loss(student, frozen).item() == pytest.approx(1.0)  # the mean cosine is 0.99


def test_the_gradient_of_alignment_is_zero_for_tokens_left_out_and_for_the_frozen_side() -> None:
    student = torch.tensor([[[1.0, 0.1], [0.2, 1.0], [0.0, 0.0]]], requires_grad=True)
    frozen = torch.tensor([[1.0, 0.0]]).repeat(1, 3, 1).requires_grad_()
    feature_alignment_loss(student, frozen).backward()
    assert (student.grad[0, 0] == 0).all()
    assert (student.grad[0, 1] != 0).any()
    assert torch.isfinite(student.grad).all()
    assert frozen.grad is None


def test_no_token_below_the_margin_gives_zero_and_a_gradient_of_zero() -> None:
    student = torch.ones(2, 3, 4, requires_grad=True)
    loss = feature_alignment_loss(student, torch.ones(2, 3, 4))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(student.grad, torch.zeros(2, 3, 4))


def test_tokens_of_different_shapes_are_refused_instead_of_broadcast() -> None:
    with pytest.raises(ValueError, match=r"shapes \(1, 4, 8\) and \(1, 1, 8\)"):
        feature_alignment_loss(torch.ones(1, 4, 8), torch.ones(1, 1, 8))


def test_the_total_is_the_plain_average() -> None:
    assert student_total(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(6.0)).item() == 3.0
