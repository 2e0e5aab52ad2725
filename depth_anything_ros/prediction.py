"""What a pipeline is asked for, what it answers, and what a frame is in between."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import RuntimeConfig
from .engines import Engine
from .rays import ImageCamera
from .scale_filter import ScaleState
from .structs import DepthMap, EngineInput, RgbFrame

EVERYTHING = frozenset({"depth", "relative"})
READY_MADE = frozenset({"points", "color"})
"""Outputs that a prediction may bring with it; what it does not bring is made of its depth."""
MEASURED_SCALES = ("reference", "ground_plane")
"""Values of `scale.mode` that need more than the image."""

MeasureScale = Callable[[DepthMap], ScaleState]
"""Measures the scale of a frame's map, at the network's size."""


@dataclass(frozen=True, eq=False)
class Request:
    """A camera image and what is to come of it.

    Attributes:
        frame: the image.
        config: scale, size and range of the result.
        camera: the image's; None where it is not calibrated.
        wanted: of `depth`, `relative` and `confidence`; what is not wanted is not brought to the published size. Of `READY_MADE`, what is
            welcome with the depth where a GPU makes it.
        measure_scale: for the modes of `MEASURED_SCALES`.
    """

    frame: RgbFrame
    config: RuntimeConfig
    camera: ImageCamera | None = None
    wanted: frozenset[str] = EVERYTHING
    measure_scale: MeasureScale | None = None


@dataclass(frozen=True)
class Prediction:
    """What came of one frame.

    Attributes:
        depth: `depth_m` at the published size, or None where nothing makes the model's output metric.
        relative: `disparity_affine_invariant` at the published size for a relative model, otherwise None.
        no_depth_reason: why `depth` is None and what would give it; empty otherwise.
        stage_s: seconds spent in decode, preprocess, infer and postprocess.
        confidence: (H, W) float32 of `confidence.confidence` at the published size, or None where nobody asks for it.
        points_depth: `depth` without the pixels below `confidence.min` (NaN), for cloud and scan; `depth` itself where that is 0.
        scale: how the scale was measured, None where it was not.
        range_limit_m: metres along Z; what is +Inf in `depth` is known to be farther than this, not more. None: no limit was set.
        points: what `obstacles.points_from_depth` would make of `points_depth`; None where it was not made with the depth.
        color: what `color.rgb_from_map` would make of `depth`; None likewise.
    """

    depth: DepthMap | None
    relative: DepthMap | None
    no_depth_reason: str
    stage_s: dict[str, float]
    confidence: npt.NDArray[np.float32] | None = None
    points_depth: DepthMap | None = None
    scale: ScaleState | None = None
    range_limit_m: float | None = None
    points: npt.NDArray[np.float32] | None = None
    color: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Inferred:
    """What came of one frame's inference.

    Attributes:
        seconds: that it took, for all frames of the batch.
        raw: the network's output, (1, h, w) or (1, 1, h, w) float32, as the contract's `output_kind` says; valid until the engine runs again.
        results: what the engine's GPU made of it instead: see `cuda.frames.GpuFrames.run`.
    """

    seconds: float
    raw: npt.NDArray[np.float32] | None = None
    results: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prepared(ABC):
    """A frame that is ready for the network, until the same pipeline prepares its next one.

    Attributes:
        request: what it is prepared for.
        seconds: that it took, without decoding.
    """

    request: Request
    seconds: float

    @property
    @abstractmethod
    def batch_key(self) -> Hashable:
        """Frames of equal keys may be inferred together."""

    @abstractmethod
    def infer(self, engine: Engine, batch: Sequence[Any]) -> list[Inferred]:
        """Infer frames of this one's key, itself among them; see `infer_together`."""


@dataclass(frozen=True, eq=False)
class PreparedTensor(Prepared):
    """A frame in the network's form in host memory."""

    engine_input: EngineInput

    @property
    def batch_key(self) -> Hashable:
        """Frames of equal keys may be inferred together."""
        return self.engine_input.tensor.shape

    def infer(self, engine: Engine, batch: Sequence[PreparedTensor]) -> list[Inferred]:
        """Run the network between arrays."""
        started = time.perf_counter()
        tensors = [one.engine_input.tensor for one in batch]
        raw = engine.infer(tensors[0] if len(tensors) == 1 else np.concatenate(tensors))
        seconds = time.perf_counter() - started
        return [Inferred(seconds, raw[index : index + 1]) for index in range(len(tensors))]
