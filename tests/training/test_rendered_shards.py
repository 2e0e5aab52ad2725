"""Rendered shards: what the writer took comes back, with and without classes, by number, across processes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("moderngl", reason="rendering needs moderngl")

from training.data import shards as shards_module
from training.data.classes import CLASS_IDS, CLASSES
from training.data.rendered_shards import RenderedShards
from training.data.renderer import RenderedView
from training.data.samples import BrokenFileError, DatasetError
from training.data.scene import Camera
from training.data.shards import ShardWriter, manifest, open_shard, shard_paths


def _view(number: int, size_hw: tuple[int, int] = (4, 6), with_classes: bool = True) -> RenderedView:
    """One row of sky, then 1 m, 2 m, 3 m; `number` is the grey value and the focal length is 100 + `number`."""
    depth_m = np.repeat(np.array([np.inf, 1.0, 2.0, 3.0], np.float32)[:, None], size_hw[1], 1)
    classes = np.full(size_hw, CLASS_IDS["chair"], np.uint8)
    classes[0] = CLASS_IDS["sky"]
    camera = Camera(np.eye(4), 100.0 + number, 3.0, 2.0, size_hw)
    return RenderedView(np.full((*size_hw, 3), number, np.uint8), depth_m, np.isinf(depth_m), camera, classes if with_classes else None)


def _write(folder: Path, views: list[RenderedView]) -> None:
    writer = ShardWriter(folder, "made-up")
    for number, view in enumerate(views):
        writer.add(view, "room" if number % 2 else "street", number)
    writer.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards: 3 and 2 images of one shape, 1 of another."""
    monkeypatch.setattr(shards_module, "IMAGES_PER_SHARD", 3)
    _write(tmp_path / "train", [_view(number) for number in range(5)] + [_view(5, (4, 12))])
    return tmp_path / "train"


def test_every_image_comes_back_once_with_its_labels(folder: Path) -> None:
    source = RenderedShards(folder)
    assert sorted(source.block_sizes) == [1, 2, 3]
    assert len(source) == 6
    samples = [source[index] for index in range(6)]
    assert sorted(int(sample.rgb[0, 0, 0]) for sample in samples) == [0, 1, 2, 3, 4, 5]
    assert len({sample.name for sample in samples}) == 6
    for sample in samples:
        assert (sample.kind, sample.dataset) == ("depth_m", "rendered")
        assert sample.focal_px == 100.0 + sample.rgb[0, 0, 0]
        assert sample.values.dtype == np.float32
        np.testing.assert_array_equal(sample.values[:, 0], [np.inf, 1, 2, 3])
        np.testing.assert_array_equal(sample.sky_mask[:, 0], [True, False, False, False])
        assert sample.valid_mask.all()
        assert [CLASSES[i] for i in sample.class_ids[:, 0]] == ["sky", "chair", "chair", "chair"]


def test_the_name_says_shard_and_image(folder: Path) -> None:
    assert [RenderedShards(folder)[index].name for index in (0, 2, 3)] == ["made-up-0000/0", "made-up-0000/2", "made-up-0001/0"]


def test_numbers_outside_are_refused(folder: Path) -> None:
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"image {index} of 6"):
            RenderedShards(folder)[index]


def test_open_files_do_not_travel_to_another_process(folder: Path) -> None:
    source = RenderedShards(folder)
    first = source[0]
    assert isinstance(source._shards[0].rgb, np.memmap)
    sent = pickle.loads(pickle.dumps(source))
    assert sent._shards == {}
    assert len(pickle.dumps(source)) < 2000
    np.testing.assert_array_equal(sent[0].rgb, first.rgb)


def test_a_folder_without_shards_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^no shards in '.*'; render some: python -m training.data.synthetic --help$"):
        RenderedShards(tmp_path)


def test_shards_without_classes_can_be_read(tmp_path: Path) -> None:
    _write(tmp_path, [_view(0, with_classes=False)])
    assert not list(tmp_path.glob("*.class.npy"))
    assert open_shard(shard_paths(tmp_path)[0]).class_ids is None
    assert RenderedShards(tmp_path)[0].class_ids is None
    assert manifest(tmp_path)["classes"] is None


def test_shards_from_before_there_were_classes_can_be_read(tmp_path: Path) -> None:
    _write(tmp_path, [_view(0, with_classes=False)])
    path = shard_paths(tmp_path)[0]
    record = json.loads(path.read_text())
    path.write_text(json.dumps({"size_hw": record["size_hw"], "images": record["images"]}))
    assert RenderedShards(tmp_path)[0].class_ids is None


def test_shards_with_other_classes_are_refused(folder: Path) -> None:
    path = shard_paths(folder)[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": ["sky", "cat"]}))
    with pytest.raises(DatasetError, match="other classes than"):
        RenderedShards(folder)


def test_a_shard_cut_short_is_broken_and_the_others_are_not(folder: Path) -> None:
    file = folder / "made-up-0000.depth.npy"
    file.write_bytes(file.read_bytes()[:-8])
    source = RenderedShards(folder)
    with pytest.raises(BrokenFileError, match="shard cannot be read"):
        source[0]
    assert source[3].values.shape == (4, 6)


@pytest.mark.parametrize("suffix", [".rgb.npy", ".depth.npy", ".class.npy"])
def test_the_manifest_covers_the_data(tmp_path: Path, suffix: str) -> None:
    views = {".rgb.npy": _view(1), ".depth.npy": _view(0), ".class.npy": _view(0)}
    if suffix == ".depth.npy":
        views[suffix].depth_m[1] = 1.5
    if suffix == ".class.npy":
        views[suffix].class_ids[1] = CLASS_IDS["sofa"]
    _write(tmp_path / "a", [_view(0)])
    _write(tmp_path / "b", [views[suffix]])
    _write(tmp_path / "c", [_view(0)])
    hashes = [json.loads(shard_paths(tmp_path / name)[0].read_text())["sha256"][suffix] for name in "abc"]
    assert hashes[0] == hashes[2] != hashes[1]
    described = [RenderedShards(tmp_path / name).manifest() for name in "abc"]
    assert described[0]["sha256"] == described[2]["sha256"] != described[1]["sha256"]
    assert (described[0]["images"], described[0]["kinds"], described[0]["classes"]) == (1, {"street": 1}, list(CLASSES))
