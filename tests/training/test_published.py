"""Published data sets: every adapter on a tiny tree in its layout; units, invalid pixels, pairing, and what goes wrong."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.published_trees import (
    COUNTS,
    FIRST_LABEL,
    LABEL_PATTERNS,
    NAN,
    SIZE_HW,
    TREES,
    write_exr,
    write_grey,
    write_image,
    write_pfm,
    write_text,
)
from training.data.published import DATASET_NAMES, adapter, base, open_dataset
from training.data.published.formats import read_exr, read_grey, read_pfm
from training.data.published.rendered import z_depth_from_distance
from training.data.samples import BrokenFileError, DatasetError, LabelledSample


def _names(samples: Any) -> list[str]:
    return [sample.name for sample in samples]


@pytest.mark.parametrize("name", DATASET_NAMES)
def test_labels_have_the_published_unit_and_invalid_pixels(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    dataset = open_dataset(name, tmp_path)
    first, kind, values, focal_px = FIRST_LABEL[name]
    assert len(dataset) == COUNTS[name]
    sample = dataset[_names(dataset.entries).index(first)]
    assert (sample.name, sample.dataset, sample.kind, sample.values.dtype) == (first, name, kind, np.float32)
    np.testing.assert_allclose(sample.values, np.array(values, np.float32), rtol=1e-3 if name == "hypersim" else 1e-6)
    np.testing.assert_array_equal(sample.valid_mask, ~np.isnan(sample.values))
    assert sample.focal_px == (None if focal_px is None else pytest.approx(focal_px))
    assert sample.rgb.shape == (*SIZE_HW, 3)
    assert np.abs(sample.rgb.astype(int) - (10, 20, 30)).max() <= 4  # JPEG


@pytest.mark.parametrize("name", DATASET_NAMES)
def test_names_are_unique_and_sorted(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    names = _names(open_dataset(name, tmp_path).entries)
    assert names == sorted(set(names))


@pytest.mark.parametrize("name", DATASET_NAMES)
def test_a_wrong_root_says_what_was_expected_and_what_was_found(name: str, tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"folder{number}").mkdir()
    with pytest.raises(DatasetError) as caught:
        open_dataset(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name}: no labels of split '{adapter(name).splits(tmp_path)[0]}' in '{tmp_path}'. Expected there: ")
    assert adapter(name).layout in message
    assert message.endswith("Found: " + ", ".join(f"folder{number}/" for number in range(8)) + " and 2 more")
    with pytest.raises(DatasetError, match=r"'.*missing' is not a folder\. Expected there: "):
        open_dataset(name, tmp_path / "missing")


def test_unknown_names_and_splits_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^unknown data set 'kity'; known are blendedmvs, .*diml, .*vkitti2$"):
        open_dataset("kity", tmp_path)
    TREES["kitti"](tmp_path)
    with pytest.raises(DatasetError, match=r"^kitti has no split 'test' in '.*'; it has: train, val, val_selection$"):
        open_dataset("kitti", tmp_path, "test")


@pytest.mark.parametrize("name", sorted(LABEL_PATTERNS))
def test_a_label_that_ends_early_is_counted_and_the_rest_is_read(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    usable = len(list(open_dataset(name, tmp_path)))
    label = sorted(tmp_path.glob(LABEL_PATTERNS[name]))[0]
    data = label.read_bytes()
    label.write_bytes(data[: len(data) - 16])
    dataset = open_dataset(name, tmp_path)
    assert len(list(dataset)) == usable - 1
    reason = next(reason for reason in dataset.skipped.counts if reason.startswith("unreadable"))
    assert dataset.skipped.first[reason].startswith(f"{label}: {reason} (")


@pytest.mark.parametrize("name", sorted(set(DATASET_NAMES) - {"nyuv2"}))
def test_labels_whose_image_is_missing_broken_or_of_another_size_are_counted(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    before = open_dataset(name, tmp_path)
    usable = len(list(before))
    entry = next(entry for entry in before.entries if entry.name == FIRST_LABEL[name][0])
    good = entry.rgb.read_bytes()
    for spoil, reason in (
        (lambda: entry.rgb.write_bytes(good[:-20]), "unreadable image"),
        (lambda: write_image(entry.rgb, size_hw=(3, 2)), "image and label differ in size"),
        (entry.rgb.unlink, "label without its image"),
    ):
        spoil()
        dataset = open_dataset(name, tmp_path)
        assert len(list(dataset)) == usable - 1
        assert dataset.skipped.counts[reason] == 1


def test_a_truncated_mat_file_is_reported_when_it_is_opened(tmp_path: Path) -> None:
    TREES["nyuv2"](tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenFileError, match=r"nyu_depth_v2_labeled\.mat: unreadable HDF5 file \("):
        open_dataset("nyuv2", tmp_path)


def test_a_label_without_a_valid_pixel_is_counted(tmp_path: Path) -> None:
    TREES["blendedmvs"](tmp_path)
    write_pfm(tmp_path / "5a" / "rendered_depth_maps" / "00000007.pfm", np.zeros(SIZE_HW))
    dataset = open_dataset("blendedmvs", tmp_path)
    assert _names(dataset) == ["5b/00000007"]
    assert dataset.skipped.summary() == "1 skipped: 1 x label without a valid pixel"


def test_megadepth_leaves_out_orderings(tmp_path: Path) -> None:
    TREES["megadepth"](tmp_path)
    dataset = open_dataset("megadepth", tmp_path)
    assert _names(dataset) == ["0001/dense0/1_o"]
    assert dataset.skipped.counts == {"an ordering of segments, no depth": 3}


def test_diml_reads_all_four_layouts_and_its_confidence(tmp_path: Path) -> None:
    TREES["diml"](tmp_path)
    by_name = {sample.name: sample for sample in open_dataset("diml", tmp_path)}
    indoor, outdoor = by_name["indoor/02. Cafe/depth_filled/in_00_1_depth_filled"], by_name["outdoor/depthmap/3"]
    np.testing.assert_array_equal(indoor.valid_mask, [[True, True, False], [True, True, True]])
    np.testing.assert_array_equal(outdoor.valid_mask, [[True, False, False], [True, True, True]])
    whole = by_name["170721_C0/A/depth/out_00_1_depth"]
    np.testing.assert_array_equal(whole.values, np.array([[0.5, 1, NAN], [NAN, 4, 8]], np.float32))


def test_hrwsi_needs_its_masks(tmp_path: Path) -> None:
    TREES["hrwsi"](tmp_path)
    (tmp_path / "train" / "valid_masks" / "a.png").unlink()
    dataset = open_dataset("hrwsi", tmp_path, "train")
    assert _names(dataset) == []
    assert dataset.skipped.counts == {"label without its mask": 1}
    assert _names(open_dataset("hrwsi", tmp_path, "val")) == ["val/a"]


@pytest.mark.parametrize(
    ("name", "split", "names"),
    [
        ("blendedmvs", "BlendedMVS+", ["5b/00000007"]),
        ("hypersim", "train", ["ai_001_002/scene_cam_01/0000"]),
        ("hypersim", "val", ["ai_001_002/scene_cam_01/0003"]),
        ("irs", "test", ["Home/Room_Dark/d_00002"]),
        ("kitti", "val", ["2011_09_26_drive_0001_sync/image_02/0000000006"]),
        ("kitti", "val_selection", ["2011_09_26_drive_0001_sync_groundtruth_depth_0000000007_image_02"]),
    ],
)
def test_published_splits(name: str, split: str, names: list[str], tmp_path: Path) -> None:
    TREES[name](tmp_path)
    assert _names(open_dataset(name, tmp_path, split)) == names


def test_nyu_splits_count_from_one(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io", reason="splits.mat is read with scipy")
    TREES["nyuv2"](tmp_path)
    io.savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[3]]), "testNdxs": np.array([[1], [2]])})
    assert _names(open_dataset("nyuv2", tmp_path, "test")) == ["0001", "0002"]
    train = list(open_dataset("nyuv2", tmp_path, "train"))
    assert _names(train) == ["0003"]
    assert train[0].values[1, 0] == 3


def test_malformed_lists_and_camera_files_are_named(tmp_path: Path) -> None:
    TREES["blendedmvs"](tmp_path)
    write_text(tmp_path / "5a" / "cams" / "00000007_cam.txt", "extrinsic 1")
    dataset = open_dataset("blendedmvs", tmp_path)
    assert len(list(dataset)) == 1
    assert dataset.skipped.counts == {"unreadable camera file": 1}
    write_text(tmp_path / "Home" / "x" / "d_1.exr", "")
    write_text(tmp_path / "lists" / "IRSDataset_TRAIN.list", "only two\n")
    with pytest.raises(DatasetError, match=r"IRSDataset_TRAIN\.list': expected 'left right disparity normal' in every line"):
        open_dataset("irs", tmp_path, "train")
    write_text(tmp_path / "metadata_images_split_scene_v1.csv", "a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r"is not Hypersim's split file: KeyError\('split_partition_name'\)"):
        open_dataset("hypersim", tmp_path, "train")


def test_the_sky_is_usable_and_at_disparity_zero(tmp_path: Path) -> None:
    TREES["vkitti2"](tmp_path)
    sample = open_dataset("vkitti2", tmp_path)[0]
    assert sample.sky_mask is not None
    np.testing.assert_array_equal(sample.sky_mask, [[False, False, True], [False, False, False]])
    np.testing.assert_allclose(sample.disparity(), [[1, 0.4, 0], [100, 0.0125, 1 / 655.34]], rtol=1e-6)


def test_disparity_is_not_inverted_twice_and_keeps_invalid_pixels() -> None:
    values = np.array([[NAN, 2.0]], np.float32)
    rgb, valid = np.zeros((1, 2, 3), np.uint8), ~np.isnan(values)
    disparity = LabelledSample(rgb, values, "disparity_affine_invariant", valid, None, None, "a", "hrwsi").disparity()
    depth = LabelledSample(rgb, values, "depth_up_to_scale", valid, None, None, "a", "megadepth").disparity()
    np.testing.assert_array_equal(disparity, values)
    np.testing.assert_array_equal(depth, [[NAN, 0.5]])


def test_distance_along_the_ray_becomes_depth_along_the_axis() -> None:
    """A wall at 4 m across a camera whose focal length is 2 px: the distances are 4 * |ray| / 2."""
    x, y = np.meshgrid([-1.0, 0.0, 1.0], [-0.5, 0.5])
    distance_m = (4 * np.sqrt(x**2 + y**2 + 4) / 2).astype(np.float32)
    np.testing.assert_allclose(z_depth_from_distance(distance_m, 2.0), np.full((2, 3), 4.0), rtol=1e-6)
    assert 1024 / 2 / np.tan(np.radians(30)) == pytest.approx(886.81, abs=0.01)  # the focal length that others quote for Hypersim


def test_a_data_set_is_a_source_of_blocks_with_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TREES["diml"](tmp_path)
    assert open_dataset("diml", tmp_path).block_sizes == (4,)
    monkeypatch.setattr(base, "BLOCK_SIZE", 3)
    dataset = open_dataset("diml", tmp_path)
    assert dataset.block_sizes == (3, 1)
    names = "".join(f"{name}\n" for name in _names(dataset.entries))
    sha256 = hashlib.sha256(names.encode()).hexdigest()
    assert dataset.manifest() == {"dataset": "diml", "split": "all", "labels": 4, "names_sha256": sha256}


def test_an_image_is_read_without_its_label(tmp_path: Path) -> None:
    TREES["tartanair"](tmp_path)
    dataset = open_dataset("tartanair", tmp_path)
    dataset.entries[0].label.write_bytes(b"")
    assert tuple(dataset.rgb(0)[0, 0]) == (10, 20, 30)
    dataset.entries[0].rgb.unlink()
    with pytest.raises(BrokenFileError, match="label without its image"):
        dataset.rgb(0)


def test_the_workers_shares_are_a_partition(tmp_path: Path) -> None:
    TREES["diml"](tmp_path)
    dataset = open_dataset("diml", tmp_path)
    shares = [_names(dataset.samples(worker, 2)) for worker in range(2)]
    assert sorted(shares[0] + shares[1]) == _names(dataset.entries)
    assert [len(share) for share in shares] == [2, 2]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm_rows_run_upwards_in_both_byte_orders(tmp_path: Path, order: str) -> None:
    write_pfm(tmp_path / "a.pfm", [[1, 2, 3], [4, 5, 6]], order)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("content", [b"PF\n1 1\n-1.0\n" + bytes(12), b"Pf\n1\n-1.0\n", b"Pf", b""])
def test_other_pfm_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pfm").write_bytes(content)
    with pytest.raises(BrokenFileError, match="unreadable label"):
        read_pfm(tmp_path / "a.pfm")


def test_8_bit_and_coloured_pngs_are_no_16_bit_depth(tmp_path: Path) -> None:
    write_grey(tmp_path / "a.png", np.ones(SIZE_HW), np.uint8)
    write_image(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(BrokenFileError, match="label of unexpected type"):
            read_grey(tmp_path / name, np.uint16)
    write_grey(tmp_path / "c.png", np.full((*SIZE_HW, 3), 9), np.uint16)
    assert (read_grey(tmp_path / "c.png", np.uint16) == np.full(SIZE_HW, 9)).all()


@pytest.mark.parametrize(("module", "name", "tree"), [("h5py", "megadepth", "depths/a.h5"), ("OpenEXR", "irs", "d_a.exr")])
def test_a_missing_package_is_named_and_not_taken_for_a_broken_file(
    module: str, name: str, tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = tmp_path / "0000" / "dense0" / tree if name == "megadepth" else tmp_path / "Home" / tree
    write_text(label, "")
    write_image(label.parent.parent / "imgs" / "a.jpg" if name == "megadepth" else label.with_name("l_a.png"))
    monkeypatch.setitem(sys.modules, module, None)
    dataset = open_dataset(name, tmp_path)
    with pytest.raises(DatasetError, match=rf"files needs the package {module}: pip install {module}$"):
        list(dataset)
    assert dataset.skipped.total == 0


def test_exr_of_three_channels_gives_the_second(tmp_path: Path) -> None:
    write_exr(tmp_path / "a.exr", [[1, 2], [3, 4]], ("R", "G", "B"))
    np.testing.assert_array_equal(read_exr(tmp_path / "a.exr"), [[1, 2], [3, 4]])
