"""The table of protocols: crops in pixels, limits, and the documentation that repeats the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from training.data.published import DATASET_NAMES, EVALUATION_NAMES
from training.protocols import PROTOCOLS, Protocol, eigen_kitti_crop, eigen_nyu_crop, garg_crop, kitti_benchmark_crop, whole_image
from training.published_results import PUBLISHED
from training.reports import protocol_table

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "evaluation.md"


@pytest.mark.parametrize(
    ("crop", "size_hw", "rows", "columns"),
    [
        (whole_image, (375, 1242), (0, 375), (0, 1242)),
        (garg_crop, (375, 1242), (153, 371), (44, 1197)),
        (garg_crop, (352, 1216), (143, 349), (43, 1172)),
        (eigen_kitti_crop, (375, 1242), (124, 342), (44, 1197)),
        (kitti_benchmark_crop, (375, 1242), (23, 375), (13, 1229)),
        (kitti_benchmark_crop, (352, 1216), (0, 352), (0, 1216)),
        (eigen_nyu_crop, (480, 640), (45, 471), (41, 601)),
    ],
)
def test_crops_in_pixels(crop, size_hw, rows, columns):
    assert crop(size_hw) == (slice(*rows), slice(*columns))


def test_crops_refuse_images_they_are_not_made_for():
    with pytest.raises(ValueError, match="made for images of 480x640, height x width; this one has 448x608"):
        eigen_nyu_crop((448, 608))
    with pytest.raises(ValueError, match="needs at least 352x1216 pixels, height x width; this image has 370x1200"):
        kitti_benchmark_crop((370, 1200))


def test_the_mask_is_crop_and_validity_and_limits_without_their_ends():
    depth = np.array([[1.0, 5.0, 9.0, 80.0, 81.0, 2.0]]).repeat(2, axis=0)
    valid = np.ones_like(depth, bool)
    valid[:, 1] = False
    protocol = Protocol((1.0, 80.0), (1.0, 80.0), "test", crop=lambda size_hw: (slice(1, 2), slice(0, 5)))
    np.testing.assert_array_equal(protocol.mask(depth, valid), [[False] * 6, [False, False, True, False, False, False]])


def test_every_protocol_can_be_computed_and_says_whose_it_is():
    for name, row in PROTOCOLS.items():
        assert set(row.presets) == {"midas", "marigold"}
        assert name == "index" or name in DATASET_NAMES + EVALUATION_NAMES
        for preset, protocol in row.presets.items():
            assert protocol.source
            assert 0 <= protocol.truth_m[0] < protocol.truth_m[1]
            assert 0 <= protocol.prediction_m[0] < protocol.prediction_m[1]
            # MiDaS divides by the cap; a fit in depth needs a floor above 0
            assert np.isfinite(protocol.prediction_m[1]) if preset == "midas" else protocol.prediction_m[0] > 0


def test_published_rows_stand_under_data_sets_that_can_be_evaluated():
    assert {name for row in PUBLISHED for name in row.scores} == set(PROTOCOLS) - {"index", "diode_outdoor"}
    assert {row.model for row in PUBLISHED if "ddad" not in row.scores} == {f"Depth Anything V2 {size}" for size in "SBLG"}
    assert all(0 < abs_rel < 1 and 0.6 < delta1 < 1 for row in PUBLISHED for abs_rel, delta1 in row.scores.values())


def test_the_document_shows_the_table_as_it_is():
    assert protocol_table(list(PROTOCOLS), ["midas", "marigold"]) in DOCUMENT.read_text()
