"""Data sets with depth from a sensor, for metric fine-tuning and evaluation: KITTI and NYU Depth v2."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..samples import BrokenFileError, DatasetError
from .base import Adapter, Entry, Label
from .formats import package, read_grey, read_h5


class Kitti(Adapter):
    """KITTI depth prediction (Uhrig et al. 2017): 16-bit z-depth, value / 256 is metres, 0 = no measurement; sparse.

    Images of `train` and `val` come from KITTI raw, unpacked into the same root or into its folder raw/; the focal length
    is P_rect of calib_cam_to_cam.txt there. `val_selection` has its own images, cropped to 352 x 1216, focal length unknown.
    Every list `*_files*.txt` in the root is a split under its stem; the Eigen test split (652 images with truth) is such a list:
    eigen_test_files_with_gt.txt, "image label focal length" per line, label `None` where there is no truth.

    Source: readme.txt of the benchmark's development kit (folders, encoding, splits); KITTI raw development kit (folders,
        P_rect). In val_selection_cropped/image the readme says `groundtruth_depth`, the archive `image`; both are found.
        Lists: cleinc/bts, train_test_inputs, which others reuse. Their focal lengths are not read.
    """

    name, kind = "kitti", "depth_m"
    layout = (
        "{train,val}/DRIVE_sync/proj_depth/groundtruth/image_0N/NNNNNNNNNN.png with [raw/]DATE/DRIVE_sync/image_0N/data/NNNNNNNNNN.png, "
        "or val_selection_cropped/{groundtruth_depth,image}/; for further splits lists *_files*.txt"
    )

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the published ones, and the lists in the root."""
        return ("train", "val", "val_selection", *sorted(path.stem for path in root.glob("*_files*.txt")))

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by drive, camera and frame."""
        if split == "val_selection":
            return self._selection(root / "val_selection_cropped")
        listed = root / f"{split}.txt"
        labels = self._listed(root, listed) if listed.is_file() else (root / split).glob("*/proj_depth/groundtruth/image_0[23]/*.png")
        raw = root / "raw" if (root / "raw").is_dir() else root
        entries = []
        for label in labels:
            drive, camera, date = label.parts[-5], label.parts[-2], label.parts[-5][: len("2011_09_26")]
            image = raw / date / drive / camera / "data" / label.name
            entries.append(Entry(f"{drive}/{camera}/{label.stem}", image, label, raw / date / "calib_cam_to_cam.txt"))
        return entries

    def _listed(self, root: Path, path: Path) -> list[Path]:
        """Return the labels of a list; those that are nowhere are kept, so that reading counts them."""
        labels = []
        for line in filter(str.strip, path.read_text().splitlines()):
            label = [*line.split(), ""][1]
            if label == "None":
                continue
            if not re.fullmatch(r"(.*/)?[^/]+_sync/proj_depth/groundtruth/image_0[23]/\d+\.png", label):
                raise DatasetError(f"'{path}': expected 'image DRIVE_sync/proj_depth/groundtruth/image_0N/NUMBER.png focal-length', found '{line}'")
            places = [root / folder / label for folder in ("val", "train", "")]
            labels.append(next((place for place in places if place.is_file()), places[0]))
        return labels

    def _selection(self, folder: Path) -> list[Entry]:
        entries = []
        for label in (folder / "groundtruth_depth").glob("*.png"):
            candidates = [folder / "image" / label.name.replace("groundtruth_depth", "image"), folder / "image" / label.name]
            image = next((path for path in candidates if path.is_file()), candidates[0])
            entries.append(Entry(label.stem, image, label))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read 1/256 m, and the focal length where the calibration lies beside the raw images."""
        raw = read_grey(entry.label, np.uint16)
        focal_px = None
        if entry.extra is not None and entry.extra.is_file():
            focal_px = _kitti_focal_px(entry.extra).get(entry.name.split("/")[1])
        return Label(raw.astype(np.float32) / np.float32(256), raw > 0, focal_px=focal_px)


@lru_cache(maxsize=16)
def _kitti_focal_px(path: Path) -> dict[str, float]:
    """Return the first number of P_rect per camera folder."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    try:
        return {f"image_{key.removeprefix('P_rect_')}": float(rest.split()[0]) for key, _, rest in lines if key.startswith("P_rect_")}
    except (ValueError, IndexError) as error:
        raise BrokenFileError("unreadable camera file", path, str(error)) from error


class NyuV2(Adapter):
    """NYU Depth v2, labelled part (Silberman et al. 2012): `rawDepths`, metres as the Kinect measured them.

    `depths` of the same file is filled in by colourisation and not used. Valid: 0 < depth < 10 m; 0 is unknown and 10 m the end
    of the range. Splits need splits.mat (trainNdxs, testNdxs, counted from 1) beside the file, and scipy.

    Source: description of the file by its authors (axes, metres, rawDepths); public readers (HDF5 axes reversed, splits.mat);
        range as in MiDaS' evaluation (Ranftl et al. 2020); camera_params.m of the toolbox (519 px, as quoted by public readers).
    """

    name, kind = "nyuv2", "depth_m"
    layout = "nyu_depth_v2_labeled.mat; for splits splits.mat"
    focal_px, range_m = 518.8579, 10.0

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return `all`, and the published ones where their file is there."""
        return ("all", "train", "test") if (root / "splits.mat").is_file() else ("all",)

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Count the images of the file, or take the numbers of a split."""
        path = root / "nyu_depth_v2_labeled.mat"
        if not path.is_file():
            return []
        if split == "all":
            h5py = package("h5py", "MATLAB 7.3 files")
            try:
                with h5py.File(path, "r") as file:
                    numbers = range(1, len(file["rawDepths"]) + 1)
            except (OSError, KeyError) as error:
                raise BrokenFileError("unreadable HDF5 file", path, str(error)) from error
        else:
            splits = package("scipy.io", "splits.mat").loadmat(root / "splits.mat")
            numbers = splits[f"{split}Ndxs"].ravel().tolist()
        return [Entry(f"{number:04d}", path, path, index=number - 1) for number in numbers]

    def rgb(self, entry: Entry) -> npt.NDArray[np.uint8]:
        """Read one image; MATLAB's (H, W, 3, N) is (N, 3, W, H) here."""
        return np.ascontiguousarray(read_h5(entry.rgb, "images", entry.index).transpose(2, 1, 0))

    def label(self, entry: Entry) -> Label:
        """Read one measured depth map; MATLAB's (H, W, N) is (N, W, H) here."""
        depth_m = np.ascontiguousarray(read_h5(entry.label, "rawDepths", entry.index).T).astype(np.float32)
        return Label(depth_m, (depth_m > 0) & (depth_m < self.range_m), focal_px=self.focal_px)
