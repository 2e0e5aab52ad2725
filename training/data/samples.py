"""A labelled image read from disk, what its label means, and the record of files that could not be used.

Published data sets hold three kinds of label (metres, depth of unknown scale, disparity of unknown scale and shift);
`LabelledSample` states which one it carries, and everything that mixes data sets works on `disparity()`.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from depth_anything_ros.errors import DepthAnythingError

LabelKind = Literal["depth_m", "depth_up_to_scale", "disparity_affine_invariant"]
"""What a label's numbers are: z-depth in metres; z-depth in an unknown unit that is the same within one image; larger is
nearer with unknown scale and shift."""

_log = logging.getLogger(__name__)


class DatasetError(DepthAnythingError):
    """A data set cannot be opened: wrong folder, unknown name or split, or a missing package; the message says which."""


class BrokenFileError(DatasetError):
    """One sample cannot be used; the others may be fine.

    Attributes:
        reason: a few words, the same for all files with the same trouble, so that they can be counted.
        path: the file.
    """

    def __init__(self, reason: str, path: Path | str, detail: str = "") -> None:
        """Say what is wrong with which file."""
        super().__init__(f"{path}: {reason}" + (f" ({detail})" if detail else ""))
        self.reason, self.path = reason, path


@dataclass(frozen=True)
class LabelledSample:
    """One image with its label.

    Attributes:
        rgb: (H, W, 3) uint8, channel order R, G, B.
        values: (H, W) float32, of kind `kind`. NaN where not valid; in the sky +Inf for depth and 0 for disparity.
        kind: what `values` is.
        valid_mask: (H, W) bool, True = usable. Labelled sky is usable.
        sky_mask: (H, W) bool, or None where the data set does not label the sky.
        focal_px: horizontal focal length in pixels of this image, or None where it is not published.
        name: unique within the data set, stable.
        dataset: name of the data set.
        class_ids: (H, W) uint8, what each pixel shows (`classes.CLASSES`), or None where that is not known.
    """

    rgb: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]
    kind: LabelKind
    valid_mask: npt.NDArray[np.bool_]
    sky_mask: npt.NDArray[np.bool_] | None
    focal_px: float | None
    name: str
    dataset: str
    class_ids: npt.NDArray[np.uint8] | None = None

    def disparity(self) -> npt.NDArray[np.float32]:
        """Return the label as (H, W) float32 disparity: larger is nearer, 0 in the sky, NaN where not valid.

        Only `depth_m` has a known scale, then it is in 1/m. Source: supervised target d = 1/t of Depth Anything
        (Yang et al. 2024, arXiv:2401.10891), section 3.1; the sky is at disparity 0 there.
        """
        if self.kind == "disparity_affine_invariant":
            return self.values
        return np.float32(1) / self.values


@dataclass
class SkipLog:
    """Counts what was left out, and why; the first file of every reason goes to the log.

    Attributes:
        counts: files per reason.
        first: per reason the message of the first file.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, error: BrokenFileError) -> None:
        """Count one file."""
        self.counts[error.reason] += 1
        if error.reason not in self.first:
            self.first[error.reason] = str(error)
            _log.warning("skipped %s; more files with this trouble are counted only", error)

    @property
    def total(self) -> int:
        """All files left out."""
        return sum(self.counts.values())

    def summary(self) -> str:
        """Return one line: how many files for which reason."""
        reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(self.counts.items()))
        return f"{self.total} skipped" + (f": {reasons}" if reasons else "")
