"""Perturbations: colours and blur against known values, boxes against their ranges, and the teacher's image untouched."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

from training.data.perturb import (
    PerturbConfig,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    cutmix_box,
    gaussian_blur,
    mix,
    perturb,
    random_pairs,
)
from training.unlabelled_losses import cutmix_loss

NOTHING = PerturbConfig(jitter_probability=0, blur_probability=0, cutmix_probability=0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 4, height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=_generator(9))


def _colour(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.float32).view(3, 1, 1).expand(3, 2, 2)


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    views = [perturb(_images(), _generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(views[0].image, views[1].image)
    assert torch.equal(views[0].own_region, views[1].own_region)
    assert not torch.equal(views[0].image, views[2].image)


def test_the_clean_images_are_not_touched_and_the_result_stays_in_range() -> None:
    clean = _images()
    before = clean.clone()
    for seed in range(8):
        view = perturb(clean, _generator(seed))
        assert view.image.shape == clean.shape
        assert view.image.min() >= -1e-6
        assert view.image.max() <= 1 + 1e-6
    assert torch.equal(clean, before)


def test_all_off_is_the_identity() -> None:
    view = perturb(_images(), _generator(), NOTHING)
    assert torch.equal(view.image, _images())
    assert view.own_region.all()
    assert view.partner.tolist() == [0, 1, 2, 3]


def test_brightness_contrast_and_saturation_on_values_worked_out_by_hand() -> None:
    assert adjust_brightness(_colour(0.2, 0.4, 0.8), 1.5)[:, 0, 0].tolist() == pytest.approx([0.3, 0.6, 1.0])
    halves = torch.cat([_colour(0.2, 0.2, 0.2), _colour(0.6, 0.6, 0.6)], dim=2)  # mean luma 0.4
    assert adjust_contrast(halves, 0.5)[0, 0].tolist() == pytest.approx([0.3, 0.3, 0.5, 0.5])
    assert adjust_contrast(halves, 0.0).unique().tolist() == pytest.approx([0.4], abs=1e-6)
    assert adjust_saturation(_colour(1, 0, 0), 0.0)[:, 0, 0].tolist() == pytest.approx([0.299] * 3)
    assert adjust_saturation(_colour(0.5, 0.2, 0.1), 1.0)[:, 0, 0].tolist() == pytest.approx([0.5, 0.2, 0.1])


def test_a_third_of_a_turn_makes_red_green_and_grey_has_no_hue() -> None:
    assert adjust_hue(_colour(1, 0, 0), 1 / 3)[:, 0, 0].tolist() == pytest.approx([0, 1, 0], abs=1e-5)
    assert adjust_hue(_colour(1, 0, 0), -1 / 3)[:, 0, 0].tolist() == pytest.approx([0, 0, 1], abs=1e-5)
    assert torch.equal(adjust_hue(_colour(0.3, 0.3, 0.3), 0.2), _colour(0.3, 0.3, 0.3))


def test_hue_agrees_with_the_standard_library() -> None:
    image = _images(1, 6, 6)[0]
    for turns in (-0.25, 0.0, 0.1, 0.25):
        turned = adjust_hue(image, turns)
        for row in range(6):
            for column in range(6):
                hue, saturation, value = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
                expected = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
                assert turned[:, row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_blur_keeps_flat_areas_and_the_sum_and_widens_by_sigma() -> None:
    assert torch.allclose(gaussian_blur(_colour(0.2, 0.4, 0.8), 2.0), _colour(0.2, 0.4, 0.8))
    point = torch.zeros(3, 41, 41)
    point[:, 20, 20] = 1
    for sigma in (0.7, 1.3, 2.0):
        blurred = gaussian_blur(point, sigma)
        offsets = torch.arange(41.0) - 20
        assert blurred[0].sum().item() == pytest.approx(1.0, abs=1e-5)
        assert (blurred[0].sum(0) * offsets**2).sum().item() == pytest.approx(sigma**2, rel=0.05)
    assert torch.allclose(gaussian_blur(point, 0.1), point, atol=1e-6)


def test_probabilities_are_per_image() -> None:
    clean = _images(400, 8, 8)
    changed = (perturb(clean, _generator(), replace(NOTHING, jitter_probability=0.8)).image != clean).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.8, abs=0.06)
    mixed = perturb(clean, _generator(), replace(NOTHING, cutmix_probability=0.5)).own_region.logical_not().flatten(1).any(1)
    assert mixed.float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_grayscale_is_off_by_default_and_an_option() -> None:
    assert PerturbConfig().grayscale_probability == 0
    grey = perturb(_images(), _generator(), replace(NOTHING, grayscale_probability=1.0)).image
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_boxes_lie_inside_and_keep_to_the_ranges_of_area_and_aspect() -> None:
    generator, config = _generator(3), PerturbConfig()
    boxes = torch.tensor([cutmix_box((518, 518), generator, config) for _ in range(2000)]).double()
    top, left, height, width = boxes.T
    assert (top + height).max() <= 518
    assert (left + width).max() <= 518
    area, aspect = height * width / 518**2, height / width
    assert 0.0195 <= area.min() < 0.03
    assert 0.38 < area.max() <= 0.4
    assert area.mean().item() == pytest.approx(0.21, abs=0.01)  # the area is drawn once: rejections do not favour small boxes
    assert 0.29 < aspect.min() < 0.4
    assert 2.5 < aspect.max() < 3.4
    assert (top + height / 2).mean().item() == pytest.approx(259, abs=6)
    assert (left + width / 2).mean().item() == pytest.approx(259, abs=6)


def test_boxes_that_cannot_fit_are_refused_instead_of_searched_for_ever() -> None:
    with pytest.raises(ValueError, match="fits 8x800; narrow cutmix_area"):
        cutmix_box((8, 800), _generator(), replace(PerturbConfig(), cutmix_area=(0.39, 0.4)))


def test_partners_are_never_oneself_and_everybody_is_used_once() -> None:
    for seed in range(50):
        partner = random_pairs(5, _generator(seed))
        assert sorted(partner.tolist()) == [0, 1, 2, 3, 4]
        assert (partner != torch.arange(5)).all()


def test_a_single_image_is_never_mixed() -> None:
    view = perturb(_images(1), _generator(), replace(NOTHING, cutmix_probability=1.0))
    assert view.own_region.all()
    assert torch.equal(view.image, _images(1))


def test_the_box_shows_the_partner_and_the_rest_the_image_itself() -> None:
    clean = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 24, 32) / 4
    view = perturb(clean, _generator(5), replace(NOTHING, cutmix_probability=1.0))
    for index in range(4):
        own, other = view.image[index, 0][view.own_region[index]], view.image[index, 0][~view.own_region[index]]
        assert own.unique().tolist() == [index / 4]
        assert other.unique().tolist() == [int(view.partner[index]) / 4]


def test_region_and_partner_are_what_the_loss_needs() -> None:
    target, clean = torch.rand(4, 24, 32, generator=_generator(2)), _images()
    view = perturb(clean, _generator(5), replace(PerturbConfig(), cutmix_probability=1.0))
    own_scales, partner_scales = torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1), torch.tensor([9.0, 8, 7, 6]).view(4, 1, 1)
    perfect = torch.where(view.own_region, own_scales * target + 1, partner_scales * target[view.partner] - 5)
    everything = torch.ones(4, 24, 32, dtype=torch.bool)
    loss = cutmix_loss(perfect, target, target[view.partner], everything, everything, view.own_region)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert cutmix_loss(perfect, target, target, everything, everything, view.own_region).item() > 0.05


def test_what_is_pasted_is_colour_distorted_already() -> None:
    clean = torch.full((2, 3, 24, 32), 0.5)
    config = replace(PerturbConfig(), jitter_probability=1.0, blur_probability=0.0, cutmix_probability=1.0)
    view = perturb(clean, _generator(1), config)
    inside = view.image[0][:, ~view.own_region[0]]
    assert torch.equal(inside[:, :1].expand_as(inside), inside)
    assert torch.equal(inside[:, 0], view.image[1][:, view.own_region[1]][:, 0])
    assert not torch.allclose(inside[:, 0], clean[0, :, 0, 0])


def test_the_frozen_encoder_sees_the_same_geometry_in_either_setting() -> None:
    config = replace(PerturbConfig(), cutmix_probability=1.0)
    mixed = perturb(_images(), _generator(1), config)
    clean_mixed = perturb(_images(), _generator(1), replace(config, frozen_input="clean_mixed"))
    assert torch.equal(mixed.frozen_image, mixed.image)
    assert torch.equal(clean_mixed.image, mixed.image)
    assert torch.equal(clean_mixed.frozen_image, mix(_images(), mixed.partner, mixed.own_region))
    with pytest.raises(ValueError, match="frozen_input 'clean'"):
        replace(config, frozen_input="clean")
