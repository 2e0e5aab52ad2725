"""Tiny trees in the layouts of the published data sets, and what their labels must come out as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

SIZE_HW = (2, 3)
NAN, INF = np.nan, np.inf


def write_image(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size_hw: tuple[int, int] = SIZE_HW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), colour[::-1], np.uint8))


def write_grey(path: Path, values: Any, dtype: Any = np.uint16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.array(values, dtype))


def write_h5(path: Path, **arrays: Any) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def write_exr(path: Path, values: Any, channels: tuple[str, ...] = ("G",)) -> None:
    openexr = pytest.importorskip("OpenEXR", reason="OpenEXR files need OpenEXR")
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.array(values, np.float32)
    pixels = {channel: array if channel == "G" else array * 0 for channel in channels}
    openexr.File({"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}, pixels).write(str(path))


def write_pfm(path: Path, values: Any, order: str = "<") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.array(values, f"{order}f4")
    header = f"Pf\n{array.shape[1]} {array.shape[0]}\n{'-' if order == '<' else ''}1.0\n"
    path.write_bytes(header.encode() + array[::-1].tobytes())


def write_npy(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(values, np.float32))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def blendedmvs(root: Path) -> None:
    for project in ("5a", "5b"):
        write_image(root / project / "blended_images" / "00000007.jpg")
        write_image(root / project / "blended_images" / "00000007_masked.jpg")
        write_pfm(root / project / "rendered_depth_maps" / "00000007.pfm", [[1, 2, 0], [4, 5, 8]])
    write_text(
        root / "5a" / "cams" / "00000007_cam.txt", "extrinsic\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n\nintrinsic\n577.5 0 1\n0 577 1\n0 0 1\n\n1 2 3 4"
    )
    write_text(root / "BlendedMVS+_list.txt", "5b\n")


def diml(root: Path) -> None:
    depth_mm = [[500, 1000, 0], [2000, 4000, 8000]]
    write_image(root / "indoor" / "02. Cafe" / "color" / "in_00_1_c.png")
    write_grey(root / "indoor" / "02. Cafe" / "depth_filled" / "in_00_1_depth_filled.png", depth_mm)
    write_image(root / "outdoor" / "outleft" / "3.png")
    write_grey(root / "outdoor" / "depthmap" / "3.png", depth_mm)
    write_grey(root / "outdoor" / "confidencemap" / "3.png", [[255, 0, 255], [255, 255, 255]], np.uint8)
    write_image(root / "1" / "16.01.20" / "1" / "col" / "in_k_00_2_cr.png")
    write_grey(root / "1" / "16.01.20" / "1" / "up_png" / "in_k_00_2_ud.png", depth_mm)
    write_image(root / "170721_C0" / "A" / "left" / "out_00_1_left.png")
    write_grey(root / "170721_C0" / "A" / "depth" / "out_00_1_depth.png", depth_mm)
    write_grey(root / "170721_C0" / "A" / "conf" / "out_00_1_conf.png", [[255, 255, 255], [0, 9, 255]], np.uint8)


def hrwsi(root: Path) -> None:
    for split in ("train", "val"):
        write_image(root / split / "imgs" / "a.jpg")
        write_grey(root / split / "gts" / "a.png", [[0, 10, 20], [30, 40, 255]], np.uint8)
        write_grey(root / split / "valid_masks" / "a.png", [[0, 255, 255], [255, 255, 255]], np.uint8)


def hypersim(root: Path) -> None:
    images = root / "ai_001_002" / "images"
    for frame in (0, 3):
        write_image(images / "scene_cam_01_final_preview" / f"frame.{frame:04d}.tonemap.jpg")
        write_h5(
            images / "scene_cam_01_geometry_hdf5" / f"frame.{frame:04d}.depth_meters.hdf5", dataset=np.array([[2, NAN, 2], [2, 2, 2]], np.float16)
        )
    write_text(
        root / "metadata_images_split_scene_v1.csv",
        "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"
        "ai_001_002,cam_01,0,True,,train\nai_001_002,cam_01,3,True,,val\n",
    )


def irs(root: Path) -> None:
    for number, channels in (("00001", ("G",)), ("00002", ("R", "G", "B"))):
        write_image(root / "Home" / "Room_Dark" / f"l_{number}.png")
        write_image(root / "Home" / "Room_Dark" / f"r_{number}.png", (0, 0, 0))
        write_exr(root / "Home" / "Room_Dark" / f"d_{number}.exr", [[48, 24, 0], [12, 6, 480]], channels)
    folder = "Home/Room_Dark"
    write_text(root / "lists" / "IRSDataset_TEST.list", f"{folder}/l_00002.png {folder}/r_00002.png {folder}/d_00002.exr {folder}/n_00002.exr\n")


def kitti(root: Path) -> None:
    drive = "2011_09_26_drive_0001_sync"
    for split, number in (("train", "0000000005"), ("val", "0000000006")):
        write_grey(root / split / drive / "proj_depth" / "groundtruth" / "image_02" / f"{number}.png", [[256, 512, 0], [640, 2560, 20480]])
        write_image(root / "2011_09_26" / drive / "image_02" / "data" / f"{number}.png")
    write_image(root / "2011_09_26" / drive / "image_02" / "data" / "0000000000.png")
    write_text(
        root / "2011_09_26" / "calib_cam_to_cam.txt", "calib_time: 09-Jan-2012\nP_rect_02: 7.215377e+02 0 609.5 44.8 0\nP_rect_03: 7.2e+02 0 0\n"
    )
    selection = root / "val_selection_cropped"
    write_grey(selection / "groundtruth_depth" / f"{drive}_groundtruth_depth_0000000007_image_02.png", [[256, 512, 0], [640, 2560, 20480]])
    write_image(selection / "image" / f"{drive}_image_0000000007_image_02.png")


def megadepth(root: Path) -> None:
    scene = root / "phoenix" / "S6" / "zl548" / "MegaDepth_v1" / "0001" / "dense0"
    for name in ("1_o", "2_o", "3_o", "4_o"):
        write_image(scene / "imgs" / f"{name}.jpg")
    write_h5(scene / "depths" / "1_o.h5", depth=np.array([[1.5, 2, 0], [4, 5, 8]], np.float32))
    write_h5(scene / "depths" / "2_o.h5", depth=np.array([[-1, 0, 0], [0, 1, 1]], np.float32))
    write_h5(scene / "depths" / "3_o.h5", depth=np.array([[1, 0, 0], [2, 3, 3]], np.float32))
    write_h5(scene / "depths" / "4_o.h5", depth=np.array([[-1, 0, 0], [2, 3, 3.5]], np.float32))


def nyuv2(root: Path) -> None:
    images = np.zeros((3, 3, *SIZE_HW), np.uint8)  # N, C, H, W
    images[:] = np.array([10, 20, 30])[None, :, None, None]
    depth = np.array([[0, 1, 10], [2, 4, 5]], np.float32)
    raw = np.stack([depth, depth, depth + 1])
    write_h5(
        root / "nyu_depth_v2_labeled.mat", images=images.transpose(0, 1, 3, 2), rawDepths=raw.transpose(0, 2, 1), depths=raw.transpose(0, 2, 1) + 7
    )


def tartanair(root: Path) -> None:
    for folder in (root / "office" / "Easy" / "P001", root / "ocean" / "ocean" / "Hard" / "P000"):
        write_image(folder / "image_left" / "000000_left.png")
        write_npy(folder / "depth_left" / "000000_left_depth.npy", [[1, 2, 10000], [4, 5, NAN]])


def vkitti2(root: Path) -> None:
    write_image(root / "vkitti_2.0.3_rgb" / "Scene01" / "fog" / "frames" / "rgb" / "Camera_1" / "rgb_00004.jpg")
    write_grey(
        root / "vkitti_2.0.3_depth" / "Scene01" / "fog" / "frames" / "depth" / "Camera_1" / "depth_00004.png", [[100, 250, 65535], [1, 8000, 65534]]
    )
    header = "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]\n"
    write_text(root / "vkitti_2.0.3_textgt" / "Scene01" / "fog" / "intrinsic.txt", header + "4 0 1 1 2 3\n4 1 725.0087 725.0087 620.5 187\n")


TREES: dict[str, Callable[[Path], None]] = {
    "blendedmvs": blendedmvs,
    "diml": diml,
    "hrwsi": hrwsi,
    "hypersim": hypersim,
    "irs": irs,
    "kitti": kitti,
    "megadepth": megadepth,
    "nyuv2": nyuv2,
    "tartanair": tartanair,
    "vkitti2": vkitti2,
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
COUNTS = {"blendedmvs": 2, "diml": 4, "hrwsi": 1, "hypersim": 2, "irs": 2, "kitti": 1, "megadepth": 4, "nyuv2": 3, "tartanair": 2, "vkitti2": 1}
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
