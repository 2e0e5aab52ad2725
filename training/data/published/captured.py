"""Data sets of photographs with reconstructed or stereo labels: BlendedMVS, DIML, HRWSI and MegaDepth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..samples import BrokenFileError
from .base import Adapter, Entry, Label, folders_named
from .formats import read_grey, read_h5, read_pfm


class BlendedMvs(Adapter):
    """BlendedMVS and BlendedMVG (Yao et al. 2020): z-depth rendered from meshes, in each reconstruction's own unit; 0 = no mesh.

    The unmasked blended images are used. Splits are the published subsets (`BlendedMVS`, `BlendedMVS+`, `BlendedMVS++`,
    `BlendedMVG`) and whatever else lies in the root as NAME_list.txt, one project per line.

    Source: README of YoYo000/BlendedMVS (folders, lists, PFM, maps that may be empty); camera files in the format of
        YoYo000/MVSNet (3 x 3 intrinsic matrix after the word `intrinsic`).
    Not stated there: the unit, so no metric scale is claimed; that 0 marks what the mesh does not cover is what users found.
    """

    name, kind = "blendedmvs", "depth_up_to_scale"
    layout = "PROJECT/blended_images/NNNNNNNN.jpg, PROJECT/rendered_depth_maps/NNNNNNNN.pfm and PROJECT/cams/NNNNNNNN_cam.txt; for splits *_list.txt"

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return `all` and the subsets whose list is there."""
        return ("all", *sorted(path.name.removesuffix("_list.txt") for path in root.glob("*_list.txt")))

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair PFM and JPEG by number."""
        if split == "all":
            projects = [path.parent.name for path in root.glob("*/rendered_depth_maps")]
        else:
            projects = (root / f"{split}_list.txt").read_text().split()
        entries = []
        for project in projects:
            for label in (root / project / "rendered_depth_maps").glob("*.pfm"):
                images, cameras = root / project / "blended_images", root / project / "cams"
                entries.append(Entry(f"{project}/{label.stem}", images / f"{label.stem}.jpg", label, cameras / f"{label.stem}_cam.txt"))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read depth, and the focal length from the camera file."""
        depth = read_pfm(entry.label)
        return Label(depth, np.isfinite(depth) & (depth > 0), focal_px=self._focal_px(entry.extra))

    def _focal_px(self, path: Path | None) -> float | None:
        if path is None or not path.is_file():
            return None
        words = path.read_text().split()
        try:
            return float(words[words.index("intrinsic") + 1])
        except (ValueError, IndexError) as error:
            raise BrokenFileError("unreadable camera file", path, str(error)) from error


class Diml(Adapter):
    """DIML/CVL RGB-D (Cho et al. 2021): 16-bit z-depth in millimetres, 0 = unknown; Kinect v2 indoors, stereo outdoors.

    Four layouts are found, at any depth below the root: the indoor sample set (color/N_c.png with
    depth_filled/N_depth_filled.png), the outdoor sample set (outleft/N.png with depthmap/N.png and confidencemap/N.png), the
    whole indoor set (col/N_*.png with up_png/N_ud.png) and the whole outdoor set (left/N_left.png with depth/N_depth.png and
    conf/N_conf.png). Outdoors, pixels of confidence 0 are invalid. HR and LR are separate folders with the same scenes:
    give one of them as root.

    Source: public readers: isl-org/ZoeDepth, DIML indoor and outdoor (sample sets, millimetres); a reader of the sample
        sets with confidencemap; listings of the whole indoor set (folders, N_ud.png); nndepth, DIML (whole indoor and outdoor
        sets: folders, file names, millimetres).
    Not checked: what a confidence between 0 and 255 means (nndepth takes what is above 0.6 of 255). One reader knows
        the whole outdoor set; it leaves out 160627_C1, whose structure is another one and which is not found here either.
        The disparity and the .mat files of the whole outdoor set are not read.
    """

    name, kind = "diml", "depth_m"
    layout = (
        ".../color/N_c.png and depth_filled/N_depth_filled.png (indoor sample), .../outleft/N.png and depthmap/N.png (outdoor sample), "
        ".../col/N_*.png and up_png/N_ud.png (indoor), or .../left/N_left.png, depth/N_depth.png and conf/N_conf.png (outdoor)"
    )

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by number inside every folder that looks like one of the four layouts."""
        entries = []
        for folder in folders_named(root, "depth_filled"):
            for label in folder.glob("*_depth_filled.png"):
                stem = label.name.removesuffix("_depth_filled.png")
                entries.append(self._entry(root, folder.parent / "color" / f"{stem}_c.png", label))
        for folder in folders_named(root, "depthmap"):
            for label in folder.glob("*.png"):
                confidence = folder.parent / "confidencemap" / label.name
                entries.append(self._entry(root, folder.parent / "outleft" / label.name, label, confidence))
        for folder in folders_named(root, "depth"):
            for label in folder.glob("*_depth.png"):
                stem = label.name.removesuffix("_depth.png")
                confidence = folder.parent / "conf" / f"{stem}_conf.png"
                entries.append(self._entry(root, folder.parent / "left" / f"{stem}_left.png", label, confidence))
        for folder in folders_named(root, "up_png"):
            colours = {path.stem.rpartition("_")[0]: path for path in (folder.parent / "col").glob("*.png")}
            for label in folder.glob("*_ud.png"):
                stem = label.name.removesuffix("_ud.png")
                entries.append(self._entry(root, colours.get(stem, folder.parent / "col" / f"{stem}_*.png"), label))
        return entries

    def _entry(self, root: Path, rgb: Path, label: Path, confidence: Path | None = None) -> Entry:
        return Entry(label.relative_to(root).with_suffix("").as_posix(), rgb, label, confidence)

    def label(self, entry: Entry) -> Label:
        """Read millimetres, and the confidence where there is one."""
        depth_mm = read_grey(entry.label, np.uint16)
        valid = depth_mm > 0
        if entry.extra is not None and entry.extra.is_file():
            confidence = read_grey(entry.extra)
            if confidence.shape != depth_mm.shape:
                raise BrokenFileError("mask and label differ in size", entry.extra)
            valid &= confidence > 0
        return Label(depth_mm.astype(np.float32) / np.float32(1000), valid)


class Hrwsi(Adapter):
    """HR-WSI (Xian et al. 2020): disparity of web stereo images, unknown scale and shift; valid where valid_masks is not 0.

    Source: repository KexianHust/Structure-Guided-Ranking-Loss (masks: forward-backward consistency, issue 5); public readers
        (folders imgs, gts, valid_masks of train and val; larger is nearer; 20378 and 400 images).
    Not checked: the bit depth of gts (any is read, the scale is unknown anyway) and how the sky is labelled: no sky mask.
    """

    name, kind = "hrwsi", "disparity_affine_invariant"
    layout = "{train,val}/imgs/N.jpg, {train,val}/gts/N.png and {train,val}/valid_masks/N.png"

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the published ones."""
        return ("train", "val")

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by name."""
        folder = root / split
        labels = (folder / "gts").glob("*.png")
        return [Entry(f"{split}/{label.stem}", folder / "imgs" / f"{label.stem}.jpg", label) for label in labels]

    def label(self, entry: Entry) -> Label:
        """Read disparity and mask."""
        mask_path = entry.label.parent.parent / "valid_masks" / entry.label.name
        if not mask_path.is_file():
            raise BrokenFileError("label without its mask", entry.label, f"expected '{mask_path}'")
        disparity, mask = read_grey(entry.label).astype(np.float32), read_grey(mask_path)
        if mask.shape != disparity.shape:
            raise BrokenFileError("mask and label differ in size", mask_path)
        return Label(disparity, mask > 0)


class MegaDepth(Adapter):
    """MegaDepth v1 (Li and Snavely 2018): z-depth of each reconstruction's own scale, data set `depth` of an .h5 file, 0 = unknown.

    Some files hold, under the same name, an ordering of segments and no depth; they are left out and counted. They are
    recognised by a negative value or by whole numbers only.

    Source: repository zhengqili/MegaDepth, issues 1 (orderings under the same name), 22 (no metric scale), 30 (key `depth`) and
        38 (orderings are integers); data preparation of ubc-vision/COTR (negative minimum = ordering).
    Not checked: the file README.md of the archive itself. No focal length inside the archive; no split is used.
    """

    name, kind = "megadepth", "depth_up_to_scale"
    layout = "[phoenix/S6/zl548/MegaDepth_v1/]NNNN/denseN/depths/NAME.h5 and imgs/NAME.jpg"
    image_suffixes = (".jpg", ".JPG", ".jpeg", ".png")

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by name; images come with several suffixes."""
        inner = root / "phoenix" / "S6" / "zl548" / "MegaDepth_v1"
        base = inner if inner.is_dir() else root
        entries = []
        for folder in base.glob("*/dense*/depths"):
            images = {path.stem: path for path in (folder.parent / "imgs").glob("*") if path.suffix in self.image_suffixes}
            for label in folder.glob("*.h5"):
                name = f"{folder.parent.relative_to(base).as_posix()}/{label.stem}"
                entries.append(Entry(name, images.get(label.stem, folder.parent / "imgs" / f"{label.stem}.jpg"), label))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read depth, refuse orderings."""
        depth = read_h5(entry.label, "depth").astype(np.float32)
        if depth.ndim != 2:
            raise BrokenFileError("label of unexpected type", entry.label, f"{depth.ndim} axes")
        if (depth < 0).any() or (depth.any() and (depth == np.round(depth)).all()):
            raise BrokenFileError("an ordering of segments, no depth", entry.label)
        return Label(depth, np.isfinite(depth) & (depth > 0))
