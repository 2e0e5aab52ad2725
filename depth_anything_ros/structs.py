"""The data that flows between the stages: frozen dataclasses over numpy arrays, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

OutputKind = Literal["disparity_affine_invariant", "depth_m", "depth_canonical_focal"]
"""What a model's raw numbers are. The last two are metric; the first has unknown scale and shift."""

MapKind = Literal["depth_m", "disparity_affine_invariant"]
"""What a `DepthMap` holds."""


@dataclass(frozen=True)
class RgbFrame:
    """One decoded camera image.

    Attributes:
        rgb: (H, W, 3) uint8, channel order R, G, B. May be a view into the message (rows may be padded): read only.
        stamp_ns: time of the image in nanoseconds, as in its header.
        frame_id: the camera's optical frame, as in its header.
        decode_s: seconds that decoding took so far; see `decode.RawFrame`, which may not be decoded yet.
    """

    rgb: npt.NDArray[np.uint8]
    stamp_ns: int = 0
    frame_id: str = ""
    decode_s: float = 0.0

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera for an image of `size_hw`: focal lengths and principal point in pixels (REP 103 optical frame)."""

    fx: float
    fy: float
    cx: float
    cy: float
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class ResizeRecord:
    """How an image was brought to the network's size, so that the output can be brought back.

    Attributes:
        image_size_hw: size of the camera image.
        network_size_hw: size of the network's input.
        content_tlhw: (top, left, height, width) of the camera image inside the network's input; the rest is padding.
    """

    image_size_hw: tuple[int, int]
    network_size_hw: tuple[int, int]
    content_tlhw: tuple[int, int, int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Network pixels per image pixel, along x and along y."""
        _, _, height, width = self.content_tlhw
        return width / self.image_size_hw[1], height / self.image_size_hw[0]


@dataclass(frozen=True)
class EngineInput:
    """What an engine is given.

    Attributes:
        tensor: (N, 3, h, w) float32, normalised as the model's contract says. Owned by the preprocessor, which writes
            over it for the next frame.
        resize: how to undo the resize.
    """

    tensor: npt.NDArray[np.float32]
    resize: ResizeRecord


@dataclass(frozen=True)
class DepthMap:
    """One dense prediction.

    Attributes:
        values: (H, W) float32. `depth_m`: metres along the optical +Z axis (REP 118), NaN = unknown, +Inf = beyond
            range (REP 117), never 0. `disparity_affine_invariant`: larger is nearer, unknown scale and shift, NaN = unknown.
        kind: what `values` is.
    """

    values: npt.NDArray[np.float32]
    kind: MapKind

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]
