"""How each data set is evaluated under each preset: depth limits and crops, with their sources. The only place where they are written.

Neither paper of Depth Anything states its crops, limits or splits, and no code was released, so no row here is "theirs".
`midas` follows MiDaS (whole image, limits per data set), `marigold` follows Marigold's configuration (crops, limits).
Where a preset's origin does not cover a data set, the row's source says whose numbers were taken instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from .metrics import Preset, Range

Window = tuple[slice, slice]
"""Rows and columns."""
Crop = Callable[[tuple[int, int]], Window]
"""(height, width) -> the part that is kept. Raises ValueError where the size does not fit."""

BENCHMARK_HW = (352, 1216)
NYU_HW = (480, 640)
INFINITY = float("inf")


def whole_image(size_hw: tuple[int, int]) -> Window:
    """Keep everything."""
    return slice(0, size_hw[0]), slice(0, size_hw[1])


def garg_crop(size_hw: tuple[int, int]) -> Window:
    """Keep what LiDAR covers of a driving scene. Source: Garg et al. 2016 (arXiv:1603.04992), as fractions by Godard et al. 2017."""
    height, width = size_hw
    return slice(int(0.40810811 * height), int(0.99189189 * height)), slice(int(0.03594771 * width), int(0.96405229 * width))


def eigen_kitti_crop(size_hw: tuple[int, int]) -> Window:
    """Keep the part of a KITTI image that Eigen et al. 2014 (arXiv:1406.2283) evaluate, as fractions by Godard et al. 2017."""
    height, width = size_hw
    return slice(int(0.3324324 * height), int(0.91351351 * height)), slice(int(0.0359477 * width), int(0.96405229 * width))


def eigen_nyu_crop(size_hw: tuple[int, int]) -> Window:
    """Keep rows 45 to 470 and columns 41 to 600 of an NYUv2 image (Eigen et al. 2014): inside the white frame of the registered images."""
    if size_hw != NYU_HW:
        raise ValueError(f"the NYUv2 crop is made for images of 480x640, height x width; this one has {size_hw[0]}x{size_hw[1]}")
    return slice(45, 471), slice(41, 601)


def kitti_benchmark_crop(size_hw: tuple[int, int]) -> Window:
    """Keep the lowest 352 rows and the middle 1216 columns, as the KITTI depth prediction benchmark does (Uhrig et al. 2017)."""
    top, left = size_hw[0] - BENCHMARK_HW[0], (size_hw[1] - BENCHMARK_HW[1]) // 2
    if top < 0 or left < 0:
        raise ValueError(f"the KITTI benchmark crop needs at least 352x1216 pixels, height x width; this image has {size_hw[0]}x{size_hw[1]}")
    return slice(top, top + BENCHMARK_HW[0]), slice(left, left + BENCHMARK_HW[1])


@dataclass(frozen=True)
class Protocol:
    """How one data set is evaluated under one preset.

    Attributes:
        truth_m: truth strictly between these counts, metres.
        prediction_m: aligned and metric predictions are clamped to this, metres. In `midas` the second one is the cap.
        source: whose choice this is.
        crop: where errors are computed, of what the model saw.
        image_crop: what the model is shown; the truth is cropped with it.
        metric_cap_m: largest metric prediction where that differs from the end of `prediction_m`.
    """

    truth_m: Range
    prediction_m: Range
    source: str
    crop: Crop = whole_image
    image_crop: Crop = whole_image
    metric_cap_m: float | None = None

    @property
    def metric_range_m(self) -> Range:
        """Range that a prediction in metres is clamped to when it is compared without alignment."""
        return self.prediction_m[0], self.metric_cap_m or self.prediction_m[1]

    def mask(self, true_depth: npt.NDArray[np.floating], valid_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return where errors are computed: (H, W) bool.

        Raises:
            ValueError: the crop does not fit the size.
        """
        mask = np.zeros(valid_mask.shape, bool)
        window = self.crop(valid_mask.shape)
        inside = (true_depth[window] > self.truth_m[0]) & (true_depth[window] < self.truth_m[1])
        mask[window] = valid_mask[window] & inside
        return mask


@dataclass(frozen=True)
class DatasetProtocol:
    """The row of one data set.

    Attributes:
        split: opened where the command names none; None = the folder has no splits.
        presets: preset -> protocol.
        open_question: what the sources leave open, or an empty string.
    """

    split: str | None
    presets: Mapping[Preset, Protocol]
    open_question: str = ""


def _dataset(split: str | None, midas: Protocol, marigold: Protocol, open_question: str = "") -> DatasetProtocol:
    return DatasetProtocol(split, MappingProxyType({"midas": midas, "marigold": marigold}), open_question)


_MIDAS = "MiDaS: truth below the cap, whole image; caps as in the port of its evaluation to MindSpore (eval.py)"
_MARIGOLD = "Marigold, src/dataset and config/dataset_depth"
_ZOE = "ZoeDepth, zoedepth/utils/config.py"

PROTOCOLS: Mapping[str, DatasetProtocol] = MappingProxyType(
    {
        "index": _dataset(
            None,
            Protocol((0, INFINITY), (0, 1000), "this package: disparity clamped at 1e-3 per metre, as in Marigold", metric_cap_m=80),
            Protocol((0, 80), (1e-3, 80), "this package: Marigold's limit for driving"),
        ),
        "kitti": _dataset(
            "val",
            Protocol((0, 80), (0, 80), _MIDAS),
            Protocol((1e-5, 80), (1e-5, 80), _MARIGOLD, eigen_kitti_crop, kitti_benchmark_crop),
            "crop and split of the papers; others are off by about 10 % without the same ones (Depth-Anything-V2, issue 91)",
        ),
        "nyuv2": _dataset(
            "test",
            Protocol((0, 10), (0, 10), _MIDAS),
            Protocol((1e-3, 10), (1e-3, 10), _MARIGOLD, eigen_nyu_crop),
            "crop of the papers; raw or filled depth (raw here)",
        ),
        "sintel": _dataset(
            "final",
            Protocol((0, 72), (0, 72), _MIDAS + "; its occlusion masks are not applied here"),
            Protocol((0, 72), (1e-3, 72), "not evaluated by Marigold; limits of the other preset"),
            "pass and sky of the papers; a public attempt with a limit of 70 m gets .232 (V2 L), half of the published .487 (kmatzen/plumbline)",
        ),
        "ddad": _dataset(
            "all",
            Protocol((0, 80), (0, 80), _ZOE + " (limit), whole image"),
            Protocol((1e-3, 80), (1e-3, 80), "not evaluated by Marigold; " + _ZOE, garg_crop),
            "cameras, split and limit of the papers; LiDAR reaches 250 m, 80 m are the limit in their metric code",
        ),
        "eth3d": _dataset(
            "all",
            Protocol((0, 72), (0, 72), _MIDAS),
            Protocol((1e-5, INFINITY), (1e-5, INFINITY), _MARIGOLD),
            "everything: public attempts get .08 to .09 (V2 L), the paper .131 (Depth-Anything-V2, issue 281)",
        ),
        "diode_indoor": _dataset(
            "val",
            Protocol((0, 50), (0, 50), "kmatzen/plumbline (limit), whole image; MiDaS does not evaluate DIODE"),
            Protocol((0, INFINITY), (0.6, 350), _MARIGOLD + " (indoor and outdoor together there)"),
            "whether it is the published DIODE: alone it gives .072 in a public attempt, published .073 (V2 S); the authors do not say",
        ),
        "diode_outdoor": _dataset(
            "val",
            Protocol((0, 80), (0, 80), _ZOE + " (limit), whole image; MiDaS does not evaluate DIODE"),
            Protocol((0, INFINITY), (0.6, 350), _MARIGOLD + " (indoor and outdoor together there)"),
            "whether the papers use it: with it, users get .21 for DIODE instead of .066 (Depth-Anything-V2, issue 280)",
        ),
    }
)
