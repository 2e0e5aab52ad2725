"""The sky in labelled photographs: where a mask counts, what the label becomes, and masks that cannot be used."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from training.data.published import open_dataset
from training.data.samples import BrokenFileError, DatasetError, LabelledSample
from training.data.sky import RECORD, WithSky, encode_mask, mask_path, read_mask

from .published_trees import TREES

NAN, INF = np.nan, np.inf
SAMPLE = LabelledSample(
    rgb=np.zeros((2, 3, 3), np.uint8),
    values=np.array([[NAN, NAN, 4], [2, NAN, 8]], np.float32),
    kind="depth_up_to_scale",
    valid_mask=np.array([[False, False, True], [True, False, True]]),
    sky_mask=None,
    focal_px=None,
    name="0001/dense0/a.b",
    dataset="megadepth",
)
MASK = np.array([[True, True, True], [False, False, False]])  # covers an invalid, an invalid and a valid pixel


class OneSample:
    """A source of one sample."""

    block_sizes = (1,)

    def __init__(self, **changes: Any) -> None:
        self.sample = replace(SAMPLE, **changes)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> LabelledSample:
        return self.sample

    def manifest(self) -> dict[str, Any]:
        return {"dataset": "megadepth"}


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    path = mask_path(tmp_path, SAMPLE.name)
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_mask(MASK))
    (tmp_path / RECORD).write_text(json.dumps({"settings": {"class": {"id": 2, "name": "sky"}}}))
    return tmp_path


def test_a_mask_takes_one_bit_per_pixel_and_comes_back(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((37, 53)) < 0.5
    (tmp_path / "a.png").write_bytes(encode_mask(mask))
    assert encode_mask(mask)[24] == 1  # the bit depth in the header
    assert np.array_equal(read_mask(tmp_path / "a.png"), mask)


@pytest.mark.parametrize(
    ("kind", "farthest", "disparity"),
    [
        ("depth_m", INF, [[0, 0, 1 / 4], [1 / 2, NAN, 1 / 8]]),
        ("depth_up_to_scale", INF, [[0, 0, 1 / 4], [1 / 2, NAN, 1 / 8]]),
        ("disparity_affine_invariant", 0, [[0, 0, 4], [2, NAN, 8]]),
    ],
)
def test_the_sky_is_farthest_where_the_label_says_nothing(kind: Any, farthest: float, disparity: Any, masks: Path) -> None:
    sample = WithSky(OneSample(kind=kind), masks)[0]
    np.testing.assert_array_equal(sample.values, np.array([[farthest, farthest, 4], [2, NAN, 8]], np.float32))
    np.testing.assert_array_equal(sample.valid_mask, [[True, True, True], [True, False, True]])
    np.testing.assert_array_equal(sample.sky_mask, [[True, True, False], [False, False, False]])
    np.testing.assert_allclose(sample.disparity(), np.array(disparity, np.float32))
    assert sample.values.dtype == np.float32
    assert np.isnan(SAMPLE.values[0, 0])  # what was wrapped is as it was


def test_the_sky_that_the_label_knows_stays(masks: Path) -> None:
    known = np.array([[False, False, True], [False, False, False]])
    sample = WithSky(OneSample(sky_mask=known), masks)[0]
    np.testing.assert_array_equal(sample.sky_mask, [[True, True, True], [False, False, False]])


def test_masks_that_are_missing_damaged_or_of_another_size_break_one_sample(masks: Path) -> None:
    source, path = WithSky(OneSample(), masks), mask_path(masks, SAMPLE.name)
    for content, reason in [
        (encode_mask(np.zeros((3, 2), bool)), r"sky mask and label differ in size \(3x2 and 2x3, height x width\)"),
        (b"", "unreadable sky mask"),
        (b"rubbish", "unreadable sky mask"),
        (cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes(), "unreadable sky mask"),
    ]:
        path.write_bytes(content)
        with pytest.raises(BrokenFileError, match=reason):
            source[0]
    path.unlink()
    with pytest.raises(BrokenFileError, match=r"a\.b\.png: sky mask missing"):
        source[0]


def test_it_is_a_source_that_says_what_the_masks_were_made_with(masks: Path) -> None:
    source = pickle.loads(pickle.dumps(WithSky(OneSample(), masks)))
    assert (len(source), source.block_sizes) == (1, (1,))
    assert source.manifest() == {"dataset": "megadepth", "sky_masks": {"class": {"id": 2, "name": "sky"}}}


@pytest.mark.parametrize("record", [None, "", "{}", "[]"])
def test_another_folder_is_refused(record: str | None, tmp_path: Path) -> None:
    if record is not None:
        (tmp_path / RECORD).write_text(record)
    with pytest.raises(DatasetError, match="is no output folder of make_sky_masks"):
        WithSky(OneSample(), tmp_path)


def test_a_published_data_set_is_wrapped_by_the_names_of_its_samples(tmp_path: Path) -> None:
    TREES["blendedmvs"](tmp_path / "data")
    dataset = open_dataset("blendedmvs", tmp_path / "data")
    for entry in dataset.entries:
        path = mask_path(tmp_path / "masks", entry.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_mask(np.array([[True, False, True], [False, False, False]])))
    (tmp_path / "masks" / RECORD).write_text('{"settings": {}}')
    source = WithSky(dataset, tmp_path / "masks")
    assert len(source) == 2
    np.testing.assert_array_equal(source[1].values, np.array([[1, 2, INF], [4, 5, 8]], np.float32))
