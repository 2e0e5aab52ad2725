"""The compact student's shapes and size budget."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
from training.model import MAX_DEPTH_M, MIN_DEPTH_M, CompactStudent, parameter_count  # noqa: E402

TINY = {"channels": (4, 8, 8, 8, 16), "blocks": (1, 1, 1), "context_layers": 1, "decoder": 8}


@pytest.mark.parametrize("size_hw", [(32, 32), (64, 96), (96, 320)])
def test_output_has_the_input_size_and_stays_in_range(size_hw: tuple[int, int]) -> None:
    depth = CompactStudent(**TINY).eval()(100 * torch.randn(2, 3, *size_hw))
    assert depth.shape == (2, *size_hw)
    assert depth.min() >= MIN_DEPTH_M
    assert depth.max() <= MAX_DEPTH_M * (1 + 1e-5)


def test_the_student_fits_into_four_megabytes_of_half_precision() -> None:
    assert 2 * parameter_count(CompactStudent()) < 3.8e6
