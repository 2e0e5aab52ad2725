"""Published data sets: every adapter on a tiny tree in its layout; units, invalid pixels, pairing, and what goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from training.data.published import DATASET_NAMES, adapter, open_dataset
from training.data.published.formats import read_exr, read_grey, read_pfm
from training.data.published.rendered import z_depth_from_distance
from training.data.samples import BrokenFileError, DatasetError, LabelledSample

SIZE_HW = (2, 3)
NAN, INF = np.nan, np.inf


def _image(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size_hw: tuple[int, int] = SIZE_HW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), colour[::-1], np.uint8))


def _grey(path: Path, values: Any, dtype: Any = np.uint16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.array(values, dtype))


def _h5(path: Path, **arrays: Any) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def _exr(path: Path, values: Any, channels: tuple[str, ...] = ("G",)) -> None:
    openexr = pytest.importorskip("OpenEXR", reason="OpenEXR files need OpenEXR")
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.array(values, np.float32)
    pixels = {channel: array if channel == "G" else array * 0 for channel in channels}
    openexr.File({"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}, pixels).write(str(path))


def _pfm(path: Path, values: Any, order: str = "<") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.array(values, f"{order}f4")
    header = f"Pf\n{array.shape[1]} {array.shape[0]}\n{'-' if order == '<' else ''}1.0\n"
    path.write_bytes(header.encode() + array[::-1].tobytes())


def _npy(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(values, np.float32))


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _blendedmvs(root: Path) -> None:
    for project in ("5a", "5b"):
        _image(root / project / "blended_images" / "00000007.jpg")
        _image(root / project / "blended_images" / "00000007_masked.jpg")
        _pfm(root / project / "rendered_depth_maps" / "00000007.pfm", [[1, 2, 0], [4, 5, 8]])
    _text(
        root / "5a" / "cams" / "00000007_cam.txt", "extrinsic\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n\nintrinsic\n577.5 0 1\n0 577 1\n0 0 1\n\n1 2 3 4"
    )
    _text(root / "BlendedMVS+_list.txt", "5b\n")


def _diml(root: Path) -> None:
    depth_mm = [[500, 1000, 0], [2000, 4000, 8000]]
    _image(root / "indoor" / "02. Cafe" / "color" / "in_00_1_c.png")
    _grey(root / "indoor" / "02. Cafe" / "depth_filled" / "in_00_1_depth_filled.png", depth_mm)
    _image(root / "outdoor" / "outleft" / "3.png")
    _grey(root / "outdoor" / "depthmap" / "3.png", depth_mm)
    _grey(root / "outdoor" / "confidencemap" / "3.png", [[255, 0, 255], [255, 255, 255]], np.uint8)
    _image(root / "1" / "16.01.20" / "1" / "col" / "in_k_00_2_cr.png")
    _grey(root / "1" / "16.01.20" / "1" / "up_png" / "in_k_00_2_ud.png", depth_mm)


def _hrwsi(root: Path) -> None:
    for split in ("train", "val"):
        _image(root / split / "imgs" / "a.jpg")
        _grey(root / split / "gts" / "a.png", [[0, 10, 20], [30, 40, 255]], np.uint8)
        _grey(root / split / "valid_masks" / "a.png", [[0, 255, 255], [255, 255, 255]], np.uint8)


def _hypersim(root: Path) -> None:
    images = root / "ai_001_002" / "images"
    for frame in (0, 3):
        _image(images / "scene_cam_01_final_preview" / f"frame.{frame:04d}.tonemap.jpg")
        _h5(images / "scene_cam_01_geometry_hdf5" / f"frame.{frame:04d}.depth_meters.hdf5", dataset=np.array([[2, NAN, 2], [2, 2, 2]], np.float16))
    _text(
        root / "metadata_images_split_scene_v1.csv",
        "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"
        "ai_001_002,cam_01,0,True,,train\nai_001_002,cam_01,3,True,,val\n",
    )


def _irs(root: Path) -> None:
    for number, channels in (("00001", ("G",)), ("00002", ("R", "G", "B"))):
        _image(root / "Home" / "Room_Dark" / f"l_{number}.png")
        _image(root / "Home" / "Room_Dark" / f"r_{number}.png", (0, 0, 0))
        _exr(root / "Home" / "Room_Dark" / f"d_{number}.exr", [[48, 24, 0], [12, 6, 480]], channels)
    folder = "Home/Room_Dark"
    _text(root / "lists" / "IRSDataset_TEST.list", f"{folder}/l_00002.png {folder}/r_00002.png {folder}/d_00002.exr {folder}/n_00002.exr\n")


def _kitti(root: Path) -> None:
    drive = "2011_09_26_drive_0001_sync"
    for split, number in (("train", "0000000005"), ("val", "0000000006")):
        _grey(root / split / drive / "proj_depth" / "groundtruth" / "image_02" / f"{number}.png", [[256, 512, 0], [640, 2560, 20480]])
        _image(root / "2011_09_26" / drive / "image_02" / "data" / f"{number}.png")
    _image(root / "2011_09_26" / drive / "image_02" / "data" / "0000000000.png")
    _text(root / "2011_09_26" / "calib_cam_to_cam.txt", "calib_time: 09-Jan-2012\nP_rect_02: 7.215377e+02 0 609.5 44.8 0\nP_rect_03: 7.2e+02 0 0\n")
    selection = root / "val_selection_cropped"
    _grey(selection / "groundtruth_depth" / f"{drive}_groundtruth_depth_0000000007_image_02.png", [[256, 512, 0], [640, 2560, 20480]])
    _image(selection / "image" / f"{drive}_image_0000000007_image_02.png")


def _megadepth(root: Path) -> None:
    scene = root / "phoenix" / "S6" / "zl548" / "MegaDepth_v1" / "0001" / "dense0"
    for name in ("1_o", "2_o", "3_o", "4_o"):
        _image(scene / "imgs" / f"{name}.jpg")
    _h5(scene / "depths" / "1_o.h5", depth=np.array([[1.5, 2, 0], [4, 5, 8]], np.float32))
    _h5(scene / "depths" / "2_o.h5", depth=np.array([[-1, 0, 0], [0, 1, 1]], np.float32))
    _h5(scene / "depths" / "3_o.h5", depth=np.array([[1, 0, 0], [2, 3, 3]], np.float32))
    _h5(scene / "depths" / "4_o.h5", depth=np.array([[-1, 0, 0], [2, 3, 3.5]], np.float32))


def _nyuv2(root: Path) -> None:
    images = np.zeros((3, 3, *SIZE_HW), np.uint8)  # N, C, H, W
    images[:] = np.array([10, 20, 30])[None, :, None, None]
    depth = np.array([[0, 1, 10], [2, 4, 5]], np.float32)
    raw = np.stack([depth, depth, depth + 1])
    _h5(root / "nyu_depth_v2_labeled.mat", images=images.transpose(0, 1, 3, 2), rawDepths=raw.transpose(0, 2, 1), depths=raw.transpose(0, 2, 1) + 7)


def _tartanair(root: Path) -> None:
    for folder in (root / "office" / "Easy" / "P001", root / "ocean" / "ocean" / "Hard" / "P000"):
        _image(folder / "image_left" / "000000_left.png")
        _npy(folder / "depth_left" / "000000_left_depth.npy", [[1, 2, 10000], [4, 5, NAN]])


def _vkitti2(root: Path) -> None:
    _image(root / "vkitti_2.0.3_rgb" / "Scene01" / "fog" / "frames" / "rgb" / "Camera_1" / "rgb_00004.jpg")
    _grey(
        root / "vkitti_2.0.3_depth" / "Scene01" / "fog" / "frames" / "depth" / "Camera_1" / "depth_00004.png", [[100, 250, 65535], [1, 8000, 65534]]
    )
    header = "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]\n"
    _text(root / "vkitti_2.0.3_textgt" / "Scene01" / "fog" / "intrinsic.txt", header + "4 0 1 1 2 3\n4 1 725.0087 725.0087 620.5 187\n")


TREES: dict[str, Callable[[Path], None]] = {
    "blendedmvs": _blendedmvs,
    "diml": _diml,
    "hrwsi": _hrwsi,
    "hypersim": _hypersim,
    "irs": _irs,
    "kitti": _kitti,
    "megadepth": _megadepth,
    "nyuv2": _nyuv2,
    "tartanair": _tartanair,
    "vkitti2": _vkitti2,
}
RAY = (1 + 0.25 + 6.75) ** -0.5 * 6.75**0.5  # corner pixel of a 2 x 3 image at 60 degrees: x = 1, y = 0.5, f = 1.5 * 3 ** 0.5
MIDDLE = (0.25 + 6.75) ** -0.5 * 6.75**0.5
FIRST_LABEL: dict[str, tuple[str, str, Any, float | None]] = {  # first name, kind, values, focal length
    "blendedmvs": ("5a/00000007", "depth_up_to_scale", [[1, 2, NAN], [4, 5, 8]], 577.5),
    "diml": ("1/16.01.20/1/up_png/in_k_00_2_ud", "depth_m", [[0.5, 1, NAN], [2, 4, 8]], None),
    "hrwsi": ("train/a", "disparity_affine_invariant", [[NAN, 10, 20], [30, 40, 255]], None),
    "hypersim": ("ai_001_002/scene_cam_01/0000", "depth_m", [[2 * RAY, NAN, 2 * RAY], [2 * RAY, 2 * MIDDLE, 2 * RAY]], 1.5 * 3**0.5),
    "irs": ("Home/Room_Dark/d_00001", "depth_m", [[1, 2, NAN], [4, 8, 0.1]], 480.0),
    "kitti": ("2011_09_26_drive_0001_sync/image_02/0000000005", "depth_m", [[1, 2, NAN], [2.5, 10, 80]], 721.5377),
    "megadepth": ("0001/dense0/1_o", "depth_up_to_scale", [[1.5, 2, NAN], [4, 5, 8]], None),
    "nyuv2": ("0001", "depth_m", [[NAN, 1, NAN], [2, 4, 5]], 518.8579),
    "tartanair": ("ocean/ocean/Hard/P000/000000_left", "depth_m", [[1, 2, INF], [4, 5, NAN]], 320.0),
    "vkitti2": ("Scene01/fog/Camera_1/00004", "depth_m", [[1, 2.5, INF], [0.01, 80, 655.34]], 725.0087),
}
COUNTS = {"blendedmvs": 2, "diml": 3, "hrwsi": 1, "hypersim": 2, "irs": 2, "kitti": 1, "megadepth": 4, "nyuv2": 3, "tartanair": 2, "vkitti2": 1}
LABEL_PATTERNS = {
    "blendedmvs": "**/*.pfm",
    "diml": "**/*_ud.png",
    "hrwsi": "train/gts/*.png",
    "hypersim": "**/*.0000.depth_meters.hdf5",
    "irs": "**/d_00001.exr",
    "kitti": "train/**/*.png",
    "megadepth": "**/1_o.h5",
    "tartanair": "**/*.npy",
    "vkitti2": "**/depth_*.png",
}


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
    with pytest.raises(DatasetError, match=r"^unknown data set 'kity'; known are blendedmvs, diml, .*vkitti2$"):
        open_dataset("kity", tmp_path)
    _kitti(tmp_path)
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
        (lambda: _image(entry.rgb, size_hw=(3, 2)), "image and label differ in size"),
        (entry.rgb.unlink, "label without its image"),
    ):
        spoil()
        dataset = open_dataset(name, tmp_path)
        assert len(list(dataset)) == usable - 1
        assert dataset.skipped.counts[reason] == 1


def test_a_truncated_mat_file_is_reported_when_it_is_opened(tmp_path: Path) -> None:
    _nyuv2(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenFileError, match=r"nyu_depth_v2_labeled\.mat: unreadable HDF5 file \("):
        open_dataset("nyuv2", tmp_path)


def test_a_label_without_a_valid_pixel_is_counted(tmp_path: Path) -> None:
    _blendedmvs(tmp_path)
    _pfm(tmp_path / "5a" / "rendered_depth_maps" / "00000007.pfm", np.zeros(SIZE_HW))
    dataset = open_dataset("blendedmvs", tmp_path)
    assert _names(dataset) == ["5b/00000007"]
    assert dataset.skipped.summary() == "1 skipped: 1 x label without a valid pixel"


def test_megadepth_leaves_out_orderings(tmp_path: Path) -> None:
    _megadepth(tmp_path)
    dataset = open_dataset("megadepth", tmp_path)
    assert _names(dataset) == ["0001/dense0/1_o"]
    assert dataset.skipped.counts == {"an ordering of segments, no depth": 3}


def test_diml_reads_all_three_layouts_and_its_confidence(tmp_path: Path) -> None:
    _diml(tmp_path)
    by_name = {sample.name: sample for sample in open_dataset("diml", tmp_path)}
    indoor, outdoor = by_name["indoor/02. Cafe/depth_filled/in_00_1_depth_filled"], by_name["outdoor/depthmap/3"]
    np.testing.assert_array_equal(indoor.valid_mask, [[True, True, False], [True, True, True]])
    np.testing.assert_array_equal(outdoor.valid_mask, [[True, False, False], [True, True, True]])


def test_hrwsi_needs_its_masks(tmp_path: Path) -> None:
    _hrwsi(tmp_path)
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
    _nyuv2(tmp_path)
    io.savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[3]]), "testNdxs": np.array([[1], [2]])})
    assert _names(open_dataset("nyuv2", tmp_path, "test")) == ["0001", "0002"]
    train = list(open_dataset("nyuv2", tmp_path, "train"))
    assert _names(train) == ["0003"]
    assert train[0].values[1, 0] == 3


def test_malformed_lists_and_camera_files_are_named(tmp_path: Path) -> None:
    _blendedmvs(tmp_path)
    _text(tmp_path / "5a" / "cams" / "00000007_cam.txt", "extrinsic 1")
    dataset = open_dataset("blendedmvs", tmp_path)
    assert len(list(dataset)) == 1
    assert dataset.skipped.counts == {"unreadable camera file": 1}
    _text(tmp_path / "Home" / "x" / "d_1.exr", "")
    _text(tmp_path / "lists" / "IRSDataset_TRAIN.list", "only two\n")
    with pytest.raises(DatasetError, match=r"IRSDataset_TRAIN\.list': expected 'left right disparity normal' in every line"):
        open_dataset("irs", tmp_path, "train")
    _text(tmp_path / "metadata_images_split_scene_v1.csv", "a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r"is not Hypersim's split file: KeyError\('split_partition_name'\)"):
        open_dataset("hypersim", tmp_path, "train")


def test_the_sky_is_usable_and_at_disparity_zero(tmp_path: Path) -> None:
    _vkitti2(tmp_path)
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


def test_the_workers_shares_are_a_partition(tmp_path: Path) -> None:
    _diml(tmp_path)
    dataset = open_dataset("diml", tmp_path)
    shares = [_names(dataset.samples(worker, 2)) for worker in range(2)]
    assert sorted(shares[0] + shares[1]) == _names(dataset.entries)
    assert [len(share) for share in shares] == [2, 1]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm_rows_run_upwards_in_both_byte_orders(tmp_path: Path, order: str) -> None:
    _pfm(tmp_path / "a.pfm", [[1, 2, 3], [4, 5, 6]], order)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("content", [b"PF\n1 1\n-1.0\n" + bytes(12), b"Pf\n1\n-1.0\n", b"Pf", b""])
def test_other_pfm_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pfm").write_bytes(content)
    with pytest.raises(BrokenFileError, match="unreadable label"):
        read_pfm(tmp_path / "a.pfm")


def test_8_bit_and_coloured_pngs_are_no_16_bit_depth(tmp_path: Path) -> None:
    _grey(tmp_path / "a.png", np.ones(SIZE_HW), np.uint8)
    _image(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(BrokenFileError, match="label of unexpected type"):
            read_grey(tmp_path / name, np.uint16)
    _grey(tmp_path / "c.png", np.full((*SIZE_HW, 3), 9), np.uint16)
    assert (read_grey(tmp_path / "c.png", np.uint16) == np.full(SIZE_HW, 9)).all()


@pytest.mark.parametrize(("module", "name", "tree"), [("h5py", "megadepth", "depths/a.h5"), ("OpenEXR", "irs", "d_a.exr")])
def test_a_missing_package_is_named_and_not_taken_for_a_broken_file(
    module: str, name: str, tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = tmp_path / "0000" / "dense0" / tree if name == "megadepth" else tmp_path / "Home" / tree
    _text(label, "")
    _image(label.parent.parent / "imgs" / "a.jpg" if name == "megadepth" else label.with_name("l_a.png"))
    monkeypatch.setitem(sys.modules, module, None)
    dataset = open_dataset(name, tmp_path)
    with pytest.raises(DatasetError, match=rf"files needs the package {module}: pip install {module}$"):
        list(dataset)
    assert dataset.skipped.total == 0


def test_exr_of_three_channels_gives_the_second(tmp_path: Path) -> None:
    _exr(tmp_path / "a.exr", [[1, 2], [3, 4]], ("R", "G", "B"))
    np.testing.assert_array_equal(read_exr(tmp_path / "a.exr"), [[1, 2], [3, 4]])
