"""Rendered data sets: Hypersim, IRS, TartanAir and Virtual KITTI 2. Labels are exact and dense."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..samples import BrokenFileError, DatasetError
from .base import Adapter, Entry, Label
from .formats import read_exr, read_grey, read_h5, read_npy


def z_depth_from_distance(distance_m: npt.NDArray[np.float32], focal_px: float) -> npt.NDArray[np.float32]:
    """Turn distances along the viewing rays into depths along the optical axis.

    Args:
        distance_m: (H, W) float32, metres from the optical centre; NaN stays NaN.
        focal_px: of square pixels; the principal point is the image's centre, pixel centres are at half-integers.

    Source: pinhole geometry, z = distance * f / sqrt(x^2 + y^2 + f^2).
    """
    height, width = distance_m.shape
    x = np.arange(width, dtype=np.float64) - (width - 1) / 2
    y = np.arange(height, dtype=np.float64) - (height - 1) / 2
    ray_length_px = np.sqrt(x[None, :] ** 2 + y[:, None] ** 2 + focal_px**2)
    return (distance_m * (focal_px / ray_length_px)).astype(np.float32)


class Hypersim(Adapter):
    """Hypersim (Roberts et al. 2021): distances along the ray in metres, converted to z-depth; NaN where there is no geometry.

    Images are the tone-mapped previews, as in the metric models of Depth Anything V2; the authors of Hypersim recommend
    tone-mapping `color.hdf5` oneself. Horizontal field of view 60 degrees for all images, 886.81 px at 1024.

    Source: README of apple/ml-hypersim (folders, names, Euclidean distance, 60 degrees, scene split v1); its issue 9
        (conversion); metric_depth/dataset of DepthAnything/Depth-Anything-V2 (key `dataset`, previews, NaN invalid).
    Not applied: the per-scene intrinsics of contrib/mikeroberts3000; a few scenes have tilted or shifted lenses.
    """

    name, kind = "hypersim", "depth_m"
    layout = (
        "ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.depth_meters.hdf5 and scene_cam_XX_final_preview/frame.IIII.tonemap.jpg; "
        "for splits metadata_images_split_scene_v1.csv"
    )
    split_file = "metadata_images_split_scene_v1.csv"

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return `all`, and the published ones where their file is there."""
        return ("all", "train", "val", "test") if (root / self.split_file).is_file() else ("all",)

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair depth_meters with tonemap by scene, camera and frame."""
        wanted = None if split == "all" else self._frames(root, split)
        entries = []
        for label in root.glob("ai_*/images/scene_cam_*_geometry_hdf5/frame.*.depth_meters.hdf5"):
            scene, camera = label.parts[-4], label.parent.name.removesuffix("_geometry_hdf5")
            frame = label.name.split(".")[1]
            if wanted is None or (scene, camera.removeprefix("scene_"), int(frame)) in wanted:
                rgb = label.parent.parent / f"{camera}_final_preview" / f"frame.{frame}.tonemap.jpg"
                entries.append(Entry(f"{scene}/{camera}/{frame}", rgb, label))
        return entries

    def _frames(self, root: Path, split: str) -> set[tuple[str, str, int]]:
        with (root / self.split_file).open(newline="") as file:
            try:
                rows = [row for row in csv.DictReader(file) if row["split_partition_name"] == split]
                return {(row["scene_name"], row["camera_name"], int(row["frame_id"])) for row in rows}
            except (KeyError, ValueError) as error:
                raise DatasetError(f"'{root / self.split_file}' is not Hypersim's split file: {error!r}") from error

    def label(self, entry: Entry) -> Label:
        """Read distances and convert them."""
        distance_m = read_h5(entry.label, "dataset").astype(np.float32)
        if distance_m.ndim != 2:
            raise BrokenFileError("label of unexpected type", entry.label, f"{distance_m.ndim} axes")
        focal_px = distance_m.shape[1] / 2 / np.tan(np.radians(30))
        return Label(z_depth_from_distance(distance_m, focal_px), np.isfinite(distance_m) & (distance_m > 0), focal_px=float(focal_px))


class Irs(Adapter):
    """IRS (Wang et al. 2019): disparity of the left image in pixels, converted as published: z = 0.1 m * 480 px / disparity.

    Source: repository HKBU-HPML/IRS: README (scene classes, names of the lists), lists/ (l_N.png with d_N.exr, four columns:
        left, right, disparity, normal), dataloader/IRSLoader.py (focal length 480 px, EXR read without flipping),
        dataloader/scripts/disp2pcd.py (baseline 0.1 m, second of three channels).
    Not checked: that the disparity is positive everywhere; what is not is taken as invalid.
    """

    name, kind = "irs", "depth_m"
    layout = "{Home,Office,Restaurant,Store}/SCENE/l_N.png and d_N.exr; for splits lists/IRSDataset_TRAIN.list and _TEST.list"
    focal_px, baseline_m = 480.0, 0.1

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return `all`, and the published ones whose list is there."""
        return ("all", *(split for split in ("train", "test") if self._list(root, split).is_file()))

    def _list(self, root: Path, split: str) -> Path:
        return root / "lists" / f"IRSDataset_{split.upper()}.list"

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair d_N.exr with l_N.png of the same folder, or as the list says."""
        if split == "all":
            labels = [*root.glob("*/d_*.exr"), *root.glob("*/*/d_*.exr")]
            pairs = [(label.with_name(f"l_{label.stem[2:]}.png"), label) for label in labels]
        else:
            lines = [line.split() for line in self._list(root, split).read_text().splitlines() if line.strip()]
            if any(len(columns) < 3 for columns in lines):
                raise DatasetError(f"'{self._list(root, split)}': expected 'left right disparity normal' in every line")
            pairs = [(root / columns[0], root / columns[2]) for columns in lines]
        return [Entry(label.relative_to(root).with_suffix("").as_posix(), rgb, label) for rgb, label in pairs]

    def label(self, entry: Entry) -> Label:
        """Read disparity and convert it."""
        disparity_px = read_exr(entry.label)
        valid = np.isfinite(disparity_px) & (disparity_px > 0)
        depth_m = np.float32(self.focal_px * self.baseline_m) / np.where(valid, disparity_px, np.float32(1))
        return Label(depth_m, valid, focal_px=self.focal_px)


class TartanAir(Adapter):
    """TartanAir (Wang et al. 2020): z-depth, left camera; the sky is a sphere far away ("e.g. 10000").

    Sky = depth of 1000 m and more, a choice of this package: between the scenes' extent and the sphere.

    Source: repository castacks/tartanair_tools: README (folders, names), data_type.md (npy, sky, fx = fy = 320 px at 640 x 480).
    Not stated there: that the unit is the metre (AirSim's unit; the data set's users agree), and that the depth is planar
        (AirSim's DepthPlanner). Files hold float32 although data_type.md says 16 bit; both are read.
    """

    name, kind = "tartanair", "depth_m"
    layout = "ENVIRONMENT/{Easy,Hard}/PNNN/depth_left/NNNNNN_left_depth.npy and image_left/NNNNNN_left.png"
    sky_from_m, focal_px = 1000.0, 320.0

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair depth_left with image_left; unpacking the archives repeats the environment's folder, which is allowed for."""
        labels = [*root.glob("*/*/P*/depth_left/*_left_depth.npy"), *root.glob("*/*/*/P*/depth_left/*_left_depth.npy")]
        entries = []
        for label in labels:
            stem = label.name.removesuffix("_depth.npy")
            folder = label.parent.parent
            entries.append(Entry(f"{folder.relative_to(root).as_posix()}/{stem}", folder / "image_left" / f"{stem}.png", label))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read depth; very far is sky."""
        depth_m = read_npy(entry.label)
        sky = depth_m >= self.sky_from_m  # an infinite depth is sky, too
        return Label(depth_m, (depth_m > 0) & ~np.isnan(depth_m), sky, self.focal_px)


class Vkitti2(Adapter):
    """Virtual KITTI 2 (Cabon et al. 2020): 16-bit z-depth in centimetres; the largest value (655.35 m) is sky and all beyond.

    Source: metric_depth/dataset/vkitti2.py and splits/vkitti2 of DepthAnything/Depth-Anything-V2 (centimetres, folders);
        archives' names vkitti_2.0.3_* and intrinsic.txt ("frame cameraID K[0,0] ...") as several public readers use them.
    Not checked against the publisher's page: that 65535 means the sky; two public readers treat it as infinite or invalid.
    No split is published.
    """

    name, kind = "vkitti2", "depth_m"
    layout = (
        "[vkitti_2.0.3_depth/]SceneNN/VARIATION/frames/depth/Camera_N/depth_NNNNN.png and "
        "[vkitti_2.0.3_rgb/]SceneNN/VARIATION/frames/rgb/Camera_N/rgb_NNNNN.jpg; "
        "for focal lengths [vkitti_2.0.3_textgt/]SceneNN/VARIATION/intrinsic.txt"
    )
    sky_cm = 65535

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair depth with rgb by scene, variation, camera and frame, whether the archives' own folders were kept or not."""
        bases = [root / f"vkitti_2.0.3_{part}" for part in ("depth", "rgb", "textgt")]
        depth, rgb, text = (base if base.is_dir() else root for base in bases)
        entries = []
        for label in depth.glob("Scene*/*/frames/depth/Camera_*/depth_*.png"):
            scene, variation, _, _, camera, file = label.relative_to(depth).parts
            frame = file.removeprefix("depth_").removesuffix(".png")
            image = rgb / scene / variation / "frames" / "rgb" / camera / f"rgb_{frame}.jpg"
            entries.append(Entry(f"{scene}/{variation}/{camera}/{frame}", image, label, text / scene / variation / "intrinsic.txt"))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read centimetres; look the focal length up."""
        depth_cm = read_grey(entry.label, np.uint16)
        camera, frame = entry.name.split("/")[2:]
        focal_px = _vkitti2_focal_px(entry.extra).get((int(frame), camera)) if entry.extra and entry.extra.is_file() else None
        return Label(depth_cm.astype(np.float32) / np.float32(100), depth_cm > 0, depth_cm == self.sky_cm, focal_px)


@lru_cache(maxsize=512)
def _vkitti2_focal_px(path: Path) -> dict[tuple[int, str], float]:
    """Return K[0,0] per frame and camera."""
    rows = [line.split() for line in path.read_text().splitlines()[1:]]
    try:
        return {(int(row[0]), f"Camera_{row[1]}"): float(row[2]) for row in rows if row}
    except (ValueError, IndexError) as error:
        raise BrokenFileError("unreadable camera file", path, str(error)) from error
