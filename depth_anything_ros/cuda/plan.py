"""What fixes the sizes of the GPU's work, and the numbers that may differ from frame to frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..color import log_range
from ..decode import ImageLayout
from ..errors import EngineError
from ..postprocess import FARTHEST_M
from ..structs import Intrinsics, ResizeRecord

OUTPUTS = ("depth", "relative", "points", "color")


@dataclass(frozen=True)
class FramePlan:
    """What fixes every size and address.

    Attributes:
        layout: of the raw image.
        resize: what `preprocess.plan_resize` chose for it.
        published_size_hw: of depth, relative map and picture, in pixels.
        outputs: what to bring to host memory, of `OUTPUTS`. `depth` of a relative model needs a scale in every frame's numbers.
            `color` is of metric depth: the range of a picture of a relative map is percentiles of that very map, so
            `color.rgb_from_map` makes it from the finished map.
        cloud_stride: one point for every n-th pixel.
        cloud_fields: `xyz` or `xyzrgb`.
        colormap: of the picture; see `color.rgb_from_map`.
    """

    layout: ImageLayout
    resize: ResizeRecord
    published_size_hw: tuple[int, int]
    outputs: frozenset[str]
    cloud_stride: int = 1
    cloud_fields: str = "xyzrgb"
    colormap: str = "turbo"

    @property
    def cloud_size_hw(self) -> tuple[int, int]:
        """Height and width of the cloud in points."""
        return -(-self.published_size_hw[0] // self.cloud_stride), -(-self.published_size_hw[1] // self.cloud_stride)

    def result(self, output: str) -> tuple[tuple[int, ...], type]:
        """Return shape and type of one of the outputs."""
        if output == "points":
            return (*self.cloud_size_hw, 4 if self.cloud_fields == "xyzrgb" else 3), np.float32
        return ((*self.published_size_hw, 3), np.uint8) if output == "color" else (self.published_size_hw, np.float32)


@dataclass(frozen=True)
class FrameNumbers:
    """What may differ from frame to frame.

    Attributes:
        raw_scale: `postprocess.canonical_scale` for a `depth_canonical_focal` model, otherwise 1.
        model_max_m: metric models: farther is +Inf, before the scale.
        scale_factor, scale_offset: of `scale.mode` fixed, otherwise 1 and 0.
        max_depth_m: farther is +Inf.
        clamp_m: a point that is farther along Z, also one beyond range, is put here.
        cloud_range_m: nearest and farthest Z in metres that make a point.
        up: unit vector against gravity in the camera's optical frame, for `heights_m`; without it points of any height are made.
        heights_m: lowest and highest metres above the camera (not above the floor) that make a point.
        color_range_m: metres in the nearest and in the farthest colour.
        intrinsics: of an image of the published size; needed for `points` of a plan without a table of rays.
    """

    raw_scale: float = 1.0
    model_max_m: float = math.inf
    scale_factor: float = 1.0
    scale_offset: float = 0.0
    max_depth_m: float = FARTHEST_M
    clamp_m: float = math.inf
    cloud_range_m: tuple[float, float] = (0.0, math.inf)
    up: tuple[float, float, float] = (0.0, 0.0, 0.0)
    heights_m: tuple[float, float] = (-math.inf, math.inf)
    color_range_m: tuple[float, float] = (0.3, 10.0)
    intrinsics: Intrinsics | None = None

    def packed(self) -> npt.NDArray[np.float32]:
        """Return the fields of `Numbers` of arguments.h in their order."""
        limits = np.finfo(np.float32)
        scale = self.raw_scale, self.model_max_m, self.scale_factor, self.scale_offset, self.max_depth_m
        range_m = max(self.cloud_range_m[0], float(limits.tiny)), min(self.cloud_range_m[1], float(limits.max))
        return np.array([*scale, self.clamp_m, *range_m, *self.up, *self.heights_m, *log_range(*self.color_range_m)], np.float32)

    def packed_rays(self, plan: FramePlan) -> npt.NDArray[np.float32]:
        """Return x/z of every column, then y/z of every row of the cloud of a pinhole camera.

        Raises:
            EngineError: there are no intrinsics of the published size.
        """
        camera = self.intrinsics
        if camera is None or camera.size_hw != plan.published_size_hw:
            raise EngineError("points need the camera of an image of the published size, or a table of rays")
        rows, columns = (np.arange(length) * plan.cloud_stride for length in plan.cloud_size_hw)
        return np.concatenate([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy]).astype(np.float32)
