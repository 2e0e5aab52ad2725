"""Ambient occlusion: corners are dark, planes and the sky are not, and what is far behind occludes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.occlusion import ambient_light

FOCAL_PX, SIZE_HW = 100.0, (96, 128)


def _slope(rise: float) -> np.ndarray:
    """A plane through (0, 0, 2 m) whose depth grows by `rise` per metre to the right."""
    x = (np.arange(SIZE_HW[1]) + 0.5 - SIZE_HW[1] / 2) / FOCAL_PX
    return np.tile((2 / (1 - rise * x)).astype(np.float32), (SIZE_HW[0], 1))


@pytest.mark.parametrize("rise", [0.0, 0.5, -1.0])
def test_all_light_reaches_a_plane(rise: float) -> None:
    assert ambient_light(_slope(rise), FOCAL_PX).min() > 0.99


def test_an_inner_corner_is_dark_and_an_outer_one_is_not() -> None:
    inner, outer = ambient_light(np.minimum(_slope(1), _slope(-1)), FOCAL_PX), ambient_light(np.maximum(_slope(1), _slope(-1)), FOCAL_PX)
    assert inner[:, 62:66].max() < 0.75
    assert inner[:, 62:66].mean() < inner[:, 40].mean() - 0.2
    assert inner[:, :15].min() > 0.95, "more than the radius away"
    assert outer.min() > 0.99


def test_only_what_is_within_the_radius_occludes() -> None:
    depth = np.full(SIZE_HW, 2.0, np.float32)
    depth[:, 64:] = 2.3
    near = ambient_light(depth, FOCAL_PX, radius_m=0.6)
    assert near[:, 66].mean() < 0.9
    assert near[:, :60].min() > 0.99
    depth[:, 64:] = 4.0
    assert ambient_light(depth, FOCAL_PX, radius_m=0.6).min() > 0.99


def test_the_sky_is_as_bright_as_it_was_and_darkens_nothing() -> None:
    depth = np.full(SIZE_HW, 2.0, np.float32)
    depth[:40] = np.inf
    light = ambient_light(depth, FOCAL_PX)
    assert light.shape == SIZE_HW
    assert light.dtype == np.float32
    assert light.min() > 0.99
    assert (ambient_light(np.full(SIZE_HW, np.inf, np.float32), FOCAL_PX) == 1).all()


def test_it_has_no_unit() -> None:
    depth = np.minimum(_slope(1), _slope(-1))
    np.testing.assert_allclose(ambient_light(depth, FOCAL_PX, 0.5), ambient_light(4 * depth, FOCAL_PX, 2.0), atol=1e-3)
