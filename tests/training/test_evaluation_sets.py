"""Data sets for evaluation only: every adapter on a tiny tree in its layout, and KITTI's lists."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from training.data.published import EVALUATION_NAMES, adapter, evaluation_sets, open_dataset
from training.data.samples import DatasetError

NAN, INF = np.nan, np.inf
TRUE_M = [[0, 1, 2], [4, 8, 60]]
DRIVE = "2011_09_26_drive_0002_sync"


@pytest.fixture(autouse=True)
def small_eth3d(monkeypatch):
    monkeypatch.setattr(evaluation_sets.Eth3d, "size_hw", (2, 3))


def _image(path, size_hw=(2, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), (30, 20, 10), np.uint8))


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _npy(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(values, np.float32))


def _sintel(root):
    for folder in ("final", "clean"):
        _image(root / "training" / folder / "alley_1" / "frame_0001.png")
    depth = np.array(TRUE_M, "<f4").tobytes()
    _write(root / "training" / "depth" / "alley_1" / "frame_0001.dpt", struct.pack("<fii", 202021.25, 3, 2) + depth)
    intrinsic = np.array([[1120.0, 0, 511.5], [0, 1120, 217.5], [0, 0, 1]], "<f8").tobytes()
    _write(root / "training" / "camdata_left" / "alley_1" / "frame_0001.cam", struct.pack("<f", 202021.25) + intrinsic + bytes(96))


def _ddad(root):
    _image(root / "000150" / "15616458296936490_rgb.png")
    _npy(root / "000150" / "15616458296936490_depth.npy", TRUE_M)


def _eth3d(root):
    scene = root / "courtyard"
    _image(scene / "images" / "dslr_images" / "DSC_0286.JPG")
    _write(scene / "ground_truth_depth" / "dslr_images" / "DSC_0286.JPG", np.array([[INF, 1, 2], [4, 8, 60]], "<f4").tobytes())


def _diode(root):
    for domain in ("indoors", "outdoor"):
        scan = root / "val" / domain / "scene_00019" / "scan_00183"
        _image(scan / f"00019_00183_{domain}_000_010.png")
        _npy(scan / f"00019_00183_{domain}_000_010_depth.npy", np.array([[9, 1, 2], [4, 8, 60]])[..., None])
        _npy(scan / f"00019_00183_{domain}_000_010_depth_mask.npy", [[0, 1, 1], [1, 1, 1]])


TREES = {"ddad": _ddad, "diode_indoor": _diode, "diode_outdoor": _diode, "eth3d": _eth3d, "sintel": _sintel}
NAMES = {
    "ddad": "000150/15616458296936490",
    "diode_indoor": "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010",
    "diode_outdoor": "outdoor/scene_00019/scan_00183/00019_00183_outdoor_000_010",
    "eth3d": "courtyard/DSC_0286",
    "sintel": "alley_1/frame_0001",
}
FOCAL_PX = {"diode_indoor": 886.81, "diode_outdoor": 886.81, "sintel": 1120.0}


@pytest.mark.parametrize("name", EVALUATION_NAMES)
def test_labels_have_the_published_unit_and_invalid_pixels(name, tmp_path):
    TREES[name](tmp_path)
    dataset = open_dataset(name, tmp_path)
    assert [entry.name for entry in dataset.entries] == [NAMES[name]]
    sample = dataset[0]
    assert (sample.dataset, sample.kind, sample.values.dtype) == (name, "depth_m", np.float32)
    np.testing.assert_array_equal(sample.values, np.array([[NAN, 1, 2], [4, 8, 60]], np.float32))
    np.testing.assert_array_equal(sample.valid_mask, [[False, True, True], [True, True, True]])
    assert sample.focal_px == FOCAL_PX.get(name)
    assert np.abs(sample.rgb.astype(int) - (10, 20, 30)).max() <= 4  # JPEG


@pytest.mark.parametrize("name", EVALUATION_NAMES)
def test_a_label_that_ends_early_and_one_without_its_image_are_counted(name, tmp_path):
    TREES[name](tmp_path)
    entry = open_dataset(name, tmp_path).entries[0]
    data = entry.label.read_bytes()
    entry.label.write_bytes(data[:-4])
    dataset = open_dataset(name, tmp_path)
    assert list(dataset) == []
    assert dataset.skipped.counts == {"unreadable label": 1}
    entry.label.write_bytes(data)
    entry.rgb.unlink()
    dataset = open_dataset(name, tmp_path)
    assert list(dataset) == []
    assert dataset.skipped.counts == {"label without its image": 1}


@pytest.mark.parametrize("name", EVALUATION_NAMES)
def test_a_wrong_root_says_what_was_expected(name, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(DatasetError) as caught:
        open_dataset(name, tmp_path)
    assert str(caught.value).startswith(f"{name}: no labels of split '{adapter(name).splits(tmp_path)[0]}' in '{tmp_path}'. Expected there: ")
    assert str(caught.value).endswith(f"{adapter(name).layout}. Found: other/")


def test_sintel_reads_both_passes_with_and_without_the_archives_folder(tmp_path):
    _sintel(tmp_path)
    assert open_dataset("sintel", tmp_path, "clean").entries[0].rgb == tmp_path / "training" / "clean" / "alley_1" / "frame_0001.png"
    stereo = tmp_path / "training" / "final"
    stereo.rename(tmp_path / "training" / "final_left")
    assert len(list(open_dataset("sintel", tmp_path / "training", "final"))) == 1


def test_sintel_files_of_another_kind_are_named(tmp_path):
    _sintel(tmp_path)
    camera = tmp_path / "training" / "camdata_left" / "alley_1" / "frame_0001.cam"
    camera.write_bytes(b"PIEH" * 40)  # 202021.25 as a float32 is "PIEH": this one is read
    assert len(list(open_dataset("sintel", tmp_path))) == 1
    camera.write_bytes(b"HEIP" * 40)
    dataset = open_dataset("sintel", tmp_path)
    assert list(dataset) == []
    assert dataset.skipped.first == {"unreadable camera file": f"{camera}: unreadable camera file (it does not begin as a Sintel file)"}


def test_eth3d_finds_photographs_in_the_archives_own_folders(tmp_path):
    _eth3d(tmp_path / "courtyard_dslr_depth")
    images = tmp_path / "courtyard_dslr_depth" / "courtyard" / "images"
    (tmp_path / "courtyard_dslr_jpg" / "courtyard").mkdir(parents=True)
    images.rename(tmp_path / "courtyard_dslr_jpg" / "courtyard" / "images")
    assert [sample.name for sample in open_dataset("eth3d", tmp_path)] == ["courtyard_dslr_depth/courtyard/DSC_0286"]


def test_diode_needs_its_mask(tmp_path):
    _diode(tmp_path)
    next((tmp_path / "val" / "indoors").rglob("*_mask.npy")).unlink()
    dataset = open_dataset("diode_indoor", tmp_path)
    assert list(dataset) == []
    assert dataset.skipped.counts == {"label without its mask": 1}
    assert len(list(open_dataset("diode_outdoor", tmp_path))) == 1


def _kitti(root, numbers=("0000000069", "0000000054")):
    for number in numbers:
        label = root / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02" / f"{number}.png"
        label.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(label), np.array([[256, 512, 0], [640, 2560, 20480]], np.uint16))
        _image(root / "raw" / "2011_09_26" / DRIVE / "image_02" / "data" / f"{number}.png")


def _line(number, label=True):
    truth = f"{DRIVE}/proj_depth/groundtruth/image_02/{number}.png" if label else "None"
    return f"2011_09_26/{DRIVE}/image_02/data/{number}.png {truth} 721.5377\n"


def test_a_list_in_the_root_is_a_split_of_kitti(tmp_path):
    _kitti(tmp_path)
    (tmp_path / "eigen_test_files_with_gt.txt").write_text(_line("0000000069") + _line("0000000077", label=False) + _line("0000000088"))
    dataset = open_dataset("kitti", tmp_path, "eigen_test_files_with_gt")
    assert [sample.name for sample in dataset] == [f"{DRIVE}/image_02/0000000069"]
    assert dataset.skipped.counts == {"label without its image": 1}
    assert len(open_dataset("kitti", tmp_path, "val")) == 2


def test_another_kind_of_list_is_refused(tmp_path):
    _kitti(tmp_path)
    (tmp_path / "eigen_files.txt").write_text(f"2011_09_26/{DRIVE} 69 l\n")
    with pytest.raises(DatasetError, match=r"eigen_files\.txt': expected 'image DRIVE_sync/proj_depth/groundtruth/image_0N/NUMBER\.png"):
        open_dataset("kitti", tmp_path, "eigen_files")
