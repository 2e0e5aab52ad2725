"""Data sets that models are compared on and never trained on: DDAD, DIODE, ETH3D and Sintel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..samples import BrokenFileError
from .base import Adapter, Entry, Label

_SINTEL_TAG = 202021.25


class Sintel(Adapter):
    """MPI Sintel (Butler et al. 2012) with its depth archive: z-depth of the left camera, float32, in metres of the film's scale.

    Splits are the two renderings: `final` (blur, fog; what stereo archives call `final_left`) and `clean`. The sky has no mask; it is very
    far, so evaluation limits the depth. Valid: finite and above 0.

    Source: readers that come with the depth archive, as public code repeats them: .dpt = float32 202021.25, int32 width and
        height, float32 rows from the top; .cam = the same tag, then the float64 3 x 3 intrinsic matrix.
    Not checked: what value the sky has; the archive's occlusion masks are not applied.
    """

    name, kind = "sintel", "depth_m"
    layout = (
        "[training/]depth/SCENE/frame_NNNN.dpt and {final,clean}[_left]/SCENE/frame_NNNN.png; for focal lengths camdata_left/SCENE/frame_NNNN.cam"
    )

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the two renderings."""
        return ("final", "clean")

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by scene and frame."""
        base = root / "training" if (root / "training").is_dir() else root
        images = base / f"{split}_left" if (base / f"{split}_left").is_dir() else base / split
        entries = []
        for label in (base / "depth").glob("*/*.dpt"):
            scene, frame = label.parent.name, label.stem
            entries.append(Entry(f"{scene}/{frame}", images / scene / f"{frame}.png", label, base / "camdata_left" / scene / f"{frame}.cam"))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read depth, and the focal length where the camera file is there."""
        data = _sintel_bytes(entry.label, "unreadable label")
        width, height = map(int, np.frombuffer(data, "<i4", 2))
        depth_m = _floats(data[8:], (height, width), entry.label)
        return Label(depth_m, np.isfinite(depth_m) & (depth_m > 0), focal_px=self._focal_px(entry.extra))

    def _focal_px(self, path: Path | None) -> float | None:
        if path is None or not path.is_file():
            return None
        return float(np.frombuffer(_sintel_bytes(path, "unreadable camera file"), "<f8", 1)[0])


class Ddad(Adapter):
    """DDAD (Guizilini et al. 2020), exported to pairs of files: NAME_rgb.png and NAME_depth.npy, z-depth in metres, 0 = no return.

    The published archive needs the publisher's package (dgp) to project LiDAR into the cameras; this is the layout of such an export
    in ZoeDepth, whose reader Depth Anything's metric code keeps. Focal length unknown.

    Source: isl-org/ZoeDepth and metric_depth/zoedepth of LiheYoung/Depth-Anything, data/ddad.py (names, .npy in metres).
    Not checked: which cameras and frames their exports hold; how pixels without a return are stored (0, negative, NaN and infinite
        ones are invalid here).
    """

    name, kind = "ddad", "depth_m"
    layout = "NAME_rgb.png and NAME_depth.npy, in any folders"

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by name within each folder."""
        entries = []
        for label in root.rglob("*_depth.npy"):
            stem = label.name.removesuffix("_depth.npy")
            entries.append(Entry((label.parent / stem).relative_to(root).as_posix(), label.with_name(f"{stem}_rgb.png"), label))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read metres."""
        depth_m = _read_npy(entry.label)
        return Label(depth_m, np.isfinite(depth_m) & (depth_m > 0))


class Eth3d(Adapter):
    """ETH3D high-resolution multi-view, training scenes (Schoeps et al. 2017): laser-scanned depth in metres; +Inf = nothing measured.

    Depth fits the distorted photographs (archives *_dslr_jpg and *_dslr_depth), not the undistorted ones. The lens is distorted, so no
    pinhole focal length is given.

    Source: documentation of the data set (raw float32 under the photograph's name, row by row), and prs-eth/Marigold,
        src/dataset/eth3d_dataset.py (4032 x 6048 for all of them, infinite ones invalid).
    Not checked: that depth is along the optical axis.
    """

    name, kind = "eth3d", "depth_m"
    layout = "SCENE/ground_truth_depth/dslr_images/NAME.JPG (raw float32) and SCENE/images/dslr_images/NAME.JPG"
    size_hw = (4032, 6048)

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by scene and name, whether the archives' own folders were kept or not."""
        entries = []
        for label in (*root.glob("*/ground_truth_depth/dslr_images/*.JPG"), *root.glob("*/*/ground_truth_depth/dslr_images/*.JPG")):
            scene = label.parents[2]
            entries.append(Entry(f"{scene.relative_to(root).as_posix()}/{label.stem}", self._image(root, scene, label.name), label))
        return entries

    def _image(self, root: Path, scene: Path, name: str) -> Path:
        inside = scene / "images" / "dslr_images" / name
        other = root / f"{scene.name}_dslr_jpg" / scene.name / "images" / "dslr_images" / name
        return other if other.is_file() and not inside.is_file() else inside

    def label(self, entry: Entry) -> Label:
        """Read metres."""
        depth_m = _floats(_bytes(entry.label), self.size_hw, entry.label)
        return Label(depth_m, np.isfinite(depth_m) & (depth_m > 0))


class Diode(Adapter):
    """DIODE (Vasiljevic et al. 2019), indoors or outdoors: laser-scanned depth in metres; valid where the mask is not 0 and depth above 0.

    Source: README and intrinsics.txt of diode-dataset/diode-devkit (names, masks, fx = 886.81 px, fy = 927.06 px at 1024 x 768).
    Not stated there: the unit (the paper's metres), and whether depth is along the optical axis or along the ray; it is taken
        for the former, as other evaluations do.
    """

    kind = "depth_m"
    focal_px = 886.81

    def __init__(self, domain: str, name: str) -> None:
        """Choose the part: `indoors` or `outdoor`, as the folders are called."""
        self.domain, self.name = domain, name
        self.layout = f"{{val,train}}/{domain}/scene_NNNNN/scan_NNNNN/NAME.png with NAME_depth.npy and NAME_depth_mask.npy"

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the published ones."""
        return ("val", "train")

    def entries(self, root: Path, split: str) -> list[Entry]:
        """Pair by name within each scan."""
        base = root / split
        entries = []
        for label in (base / self.domain).glob("scene_*/scan_*/*_depth.npy"):
            stem = label.name.removesuffix("_depth.npy")
            mask = label.with_name(f"{stem}_depth_mask.npy")
            entries.append(Entry((label.parent / stem).relative_to(base).as_posix(), label.with_name(f"{stem}.png"), label, mask))
        return entries

    def label(self, entry: Entry) -> Label:
        """Read metres and the mask."""
        if entry.extra is None or not entry.extra.is_file():
            raise BrokenFileError("label without its mask", entry.label, f"expected '{entry.extra}'")
        depth_m, mask = _read_npy(entry.label), _read_npy(entry.extra)
        if mask.shape != depth_m.shape:
            raise BrokenFileError("mask and label differ in size", entry.extra)
        return Label(depth_m, (mask > 0) & np.isfinite(depth_m) & (depth_m > 0), focal_px=self.focal_px)


def diode_indoor() -> Diode:
    """Return the adapter of the indoor part."""
    return Diode("indoors", "diode_indoor")


def diode_outdoor() -> Diode:
    """Return the adapter of the outdoor part."""
    return Diode("outdoor", "diode_outdoor")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenFileError("unreadable label", path, str(error)) from error


def _sintel_bytes(path: Path, reason: str) -> bytes:
    """Return what follows the tag of a Sintel file: 8 bytes at least."""
    data = _bytes(path)
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(_SINTEL_TAG):
        raise BrokenFileError(reason, path, "it does not begin as a Sintel file")
    return data[4:]


def _floats(data: bytes, size_hw: tuple[int, int], path: Path) -> npt.NDArray[np.float32]:
    expected = size_hw[0] * size_hw[1] * 4
    if len(data) != expected:
        raise BrokenFileError("unreadable label", path, f"{len(data)} bytes of depth; {size_hw[0]}x{size_hw[1]} float32 are {expected}")
    return np.frombuffer(data, "<f4").reshape(size_hw)


def _read_npy(path: Path) -> npt.NDArray[np.float32]:
    """Read (H, W) or (H, W, 1) as (H, W) float32."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BrokenFileError("unreadable label", path, str(error)) from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise BrokenFileError("label of unexpected type", path, f"{array.ndim} axes")
    return array.astype(np.float32)
