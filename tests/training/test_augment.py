"""Augmentation keeps geometry and labels consistent."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.augment import Sample, crop_and_resize, flip, photometric


def _sample() -> Sample:
    depth = np.arange(96 * 128, dtype=np.float32).reshape(96, 128) + 1
    rgb = np.repeat((depth[..., None] % 251).astype(np.uint8), 3, axis=2)
    return Sample(rgb, depth, 100.0)


def test_a_whole_image_at_half_size_halves_the_focal_length_and_keeps_labels() -> None:
    small = crop_and_resize(_sample(), (48, 64), np.random.default_rng(0), min_zoom=1.0)
    assert small.focal_px == 50.0
    assert set(np.unique(small.label)) <= set(np.unique(_sample().label))


@pytest.mark.parametrize("seed", range(5))
def test_crops_have_the_wanted_size_and_a_longer_focal_length(seed: int) -> None:
    crop = crop_and_resize(_sample(), (96, 64), np.random.default_rng(seed), min_zoom=0.5)
    assert crop.rgb.shape == (96, 64, 3)
    assert crop.label.shape == (96, 64)
    assert 100.0 <= crop.focal_px <= 210.0


def test_flip_mirrors_both_and_twice_is_nothing() -> None:
    sample, mirrored = _sample(), flip(_sample())
    assert np.array_equal(mirrored.label, sample.label[:, ::-1])
    assert np.array_equal(flip(mirrored).rgb, sample.rgb)


def test_photometric_changes_colours_only_and_repeats_with_the_seed() -> None:
    rgb = _sample().rgb
    results = [photometric(rgb, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert all(result.shape == rgb.shape and result.dtype == np.uint8 for result in results)
