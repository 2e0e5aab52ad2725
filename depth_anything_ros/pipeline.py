"""RgbFrame -> metric depth, in one readable line of stages. The file to read first.

    RgbFrame --preprocess--> EngineInput --engine--> raw --map_from_raw--> DepthMap --temporal--> DepthMap --scale--> metres
    --enlarge--> published size

The node, the command line and the evaluation share this; none of them does arithmetic of its own. `Pipeline.prepare`, `infer_together` and
`Pipeline.finish` are its three parts, for those who infer the frames of several cameras at once or overlap the parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .confidence import confidence
from .config import RuntimeConfig
from .edges import enlarge_metric
from .engines import Engine
from .geometry import intrinsics_from_hfov
from .postprocess import FARTHEST_M, enlarge, map_from_raw
from .preprocess import Preprocessor
from .scale import metric_map
from .scale_filter import ScaleState
from .structs import DepthMap, EngineInput, Intrinsics, RgbFrame
from .temporal import TemporalFilter, grey_from_input

EVERYTHING = frozenset({"depth", "relative"})
MEASURED_SCALES = ("reference", "ground_plane")
"""Values of `scale.mode` that need more than the image."""

MeasureScale = Callable[[DepthMap], ScaleState]
"""Measures the scale of a frame's map, at the network's size."""


@dataclass(frozen=True)
class Prediction:
    """What came of one frame.

    Attributes:
        depth: `depth_m` at the published size, or None where nothing makes the model's output metric.
        relative: `disparity_affine_invariant` at the published size for a relative model, otherwise None.
        no_depth_reason: why `depth` is None and what would give it; empty otherwise.
        stage_s: seconds spent in preprocess, infer and postprocess.
        confidence: (H, W) float32 of `confidence.confidence` at the published size, or None where nobody asks for it.
        points_depth: `depth` without the pixels below `confidence.min` (NaN), for cloud and scan; `depth` itself where that is 0.
        scale: how the scale was measured, None where it was not.
        range_limit_m: metres along Z; what is +Inf in `depth` is known to be farther than this, not more. None: no limit was set.
    """

    depth: DepthMap | None
    relative: DepthMap | None
    no_depth_reason: str
    stage_s: dict[str, float]
    confidence: npt.NDArray[np.float32] | None = None
    points_depth: DepthMap | None = None
    scale: ScaleState | None = None
    range_limit_m: float | None = None


@dataclass(frozen=True)
class Prepared:
    """A frame in the network's form.

    Attributes:
        frame: it.
        engine_input: of the network; its tensor is overwritten when the same pipeline prepares its next frame.
        seconds: that it took.
    """

    frame: RgbFrame
    engine_input: EngineInput
    seconds: float


@dataclass(frozen=True)
class Inferred:
    """The network's output for one frame.

    Attributes:
        raw: (1, h, w) or (1, 1, h, w) float32, as the contract's `output_kind` says; valid until the engine runs again.
        seconds: that the engine took, for all frames of the batch.
    """

    raw: npt.NDArray[np.float32]
    seconds: float


def infer_together(engine: Engine, prepared: Sequence[Prepared]) -> list[Inferred]:
    """Run the network once for frames whose inputs have the same size.

    Args:
        engine: open; more than one frame needs one that takes so large a batch (see `Engine.batch_max`).
        prepared: frames of different pipelines.

    Raises:
        EngineError: the engine failed, or does not take the batch.
    """
    started = time.perf_counter()
    tensors = [one.engine_input.tensor for one in prepared]
    raw = engine.infer(tensors[0] if len(tensors) == 1 else np.concatenate(tensors))
    seconds = time.perf_counter() - started
    return [Inferred(raw[index : index + 1], seconds) for index in range(len(tensors))]


class Pipeline:
    """What one camera's frames go through, one after another. Not thread-safe: one thread owns it. Several may share an engine."""

    def __init__(self, engine: Engine) -> None:
        """Take an open engine; the caller closes it."""
        self.engine = engine
        self._preprocess = Preprocessor(engine.contract)
        self._temporal = TemporalFilter()

    @property
    def needs_focal_length(self) -> bool:
        """Whether the model's depth depends on the camera's focal length."""
        return self.engine.contract.output_kind == "depth_canonical_focal"

    def reset(self) -> None:
        """Forget the frames so far: the next one starts a new sequence."""
        self._temporal.reset()

    def no_depth_reason(self, config: RuntimeConfig, intrinsics: Intrinsics | None, is_measured: bool = False) -> str:
        """Return why no metric depth can come of a frame, and what would give it; empty where it can.

        Args:
            config: of the frame.
            intrinsics: as for `__call__`.
            is_measured: whether `__call__` will be given `measure_scale`; what that finds is not known before.
        """
        kind, mode = self.engine.contract.output_kind, config.scale.mode
        if mode in MEASURED_SCALES and not is_measured:
            return f"scale.mode {mode} is for the running node: it measures while images arrive"
        if kind == "disparity_affine_invariant" and mode not in ("fixed", *MEASURED_SCALES):
            return (
                "the model is relative: set scale.mode to fixed with scale.factor and scale.offset, reference or ground_plane, or use a metric model"
            )
        if kind == "depth_canonical_focal" and intrinsics is None and config.fallback_hfov_deg == 0:
            return "the model needs the focal length: publish a valid camera_info or set fallback_hfov_deg"
        return ""

    def __call__(
        self,
        frame: RgbFrame,
        config: RuntimeConfig,
        intrinsics: Intrinsics | None = None,
        wanted: frozenset[str] = EVERYTHING,
        measure_scale: MeasureScale | None = None,
    ) -> Prediction:
        """Predict the depth of one frame.

        Args:
            frame: a decoded image.
            config: scale, size and range of the result.
            intrinsics: the camera's, for an image of the frame's size; None where it is not calibrated.
            wanted: of `depth`, `relative` and `confidence`; what is not wanted is not brought to the published size.
            measure_scale: for the modes of `MEASURED_SCALES`.

        Raises:
            DecodeError: the frame has a size that the model cannot take.
            EngineError: the engine failed on this frame.
        """
        prepared = self.prepare(frame)
        return self.finish(prepared, infer_together(self.engine, [prepared])[0], config, intrinsics, wanted, measure_scale)

    def prepare(self, frame: RgbFrame) -> Prepared:
        """Bring a frame into the network's form.

        Raises:
            DecodeError: the frame has a size that the model cannot take.
        """
        started = time.perf_counter()
        engine_input = self._preprocess(frame)
        return Prepared(frame, engine_input, time.perf_counter() - started)

    def finish(
        self,
        prepared: Prepared,
        inferred: Inferred,
        config: RuntimeConfig,
        intrinsics: Intrinsics | None = None,
        wanted: frozenset[str] = EVERYTHING,
        measure_scale: MeasureScale | None = None,
    ) -> Prediction:
        """Turn the network's output for a frame that this pipeline prepared into what is wanted; arguments as for `__call__`."""
        started = time.perf_counter()
        frame, engine_input = prepared.frame, prepared.engine_input
        prediction = Prediction(None, None, self.no_depth_reason(config, intrinsics, measure_scale is not None), {})
        if not prediction.no_depth_reason or not self.engine.contract.is_metric:
            predicted = map_from_raw(inferred.raw, engine_input.resize, self.engine.contract, self._focal_px(frame, config, intrinsics))
            predicted = self._steadied(predicted, engine_input, frame.stamp_ns, config)
            size_hw = published_size_hw(frame.size_hw, config)
            prediction = self._prediction(predicted, size_hw, config, wanted, measure_scale, prediction.no_depth_reason)
        postprocess_s = time.perf_counter() - started
        return replace(prediction, stage_s={"preprocess": prepared.seconds, "infer": inferred.seconds, "postprocess": postprocess_s})

    def _steadied(self, predicted: DepthMap, engine_input: EngineInput, stamp_ns: int, config: RuntimeConfig) -> DepthMap:
        """Return the map in agreement with the frames before; the very same with temporal.mode off."""
        temporal = config.temporal
        if temporal.mode == "off":
            self._temporal.reset()
            return predicted
        grey = grey_from_input(engine_input, self.engine.contract)
        return self._temporal(predicted, grey, stamp_ns, temporal.mode, temporal.memory_s, temporal.depth_change)

    def _prediction(
        self,
        predicted: DepthMap,
        size_hw: tuple[int, int],
        config: RuntimeConfig,
        wanted: frozenset[str],
        measure_scale: MeasureScale | None,
        reason: str,
    ) -> Prediction:
        """Give a map its scale and bring what is wanted of it to the published size; a `reason` keeps it from becoming depth."""
        depth = scale = sure = None
        limit_m = math.inf
        if "depth" in wanted and not reason:
            scale = measure_scale(predicted) if config.scale.mode in MEASURED_SCALES and measure_scale is not None else None
            metric, max_depth_m, limit_m = self._metric(predicted, config, scale)
            depth = enlarge_metric(metric, size_hw, max_depth_m, config.edges) if metric else None
            reason = scale.reason if scale is not None and depth is None else ""
        # Where no scale was found, the relative map takes the place of the depth in the picture for people.
        shows_relative = "relative" in wanted or (scale is not None and depth is None)
        relative = enlarge(predicted, size_hw) if shows_relative and predicted.kind != "depth_m" else None
        if "confidence" in wanted or config.confidence.min > 0:
            unitless = DepthMap(confidence(predicted, self._temporal.before), "disparity_affine_invariant")
            sure = enlarge(unitless, size_hw).values
        range_limit_m = limit_m if depth is not None and math.isfinite(limit_m) else None
        return Prediction(depth, relative, reason, {}, sure, _without(depth, sure, config.confidence.min), scale, range_limit_m)

    def _metric(self, predicted: DepthMap, config: RuntimeConfig, scale: ScaleState | None) -> tuple[DepthMap | None, float, float]:
        """Return the map in metres, what `enlarge_metric` takes for beyond range, and what is known of a pixel that is; metres along Z."""
        own_m = self.engine.contract.max_depth_m if predicted.kind == "depth_m" else None
        max_m = config.depth.max_m or math.inf
        if scale is None and config.scale.mode != "fixed":
            limit_m = min(own_m or math.inf, max_m)
            return metric_map(predicted, config.scale), limit_m if math.isfinite(limit_m) else FARTHEST_M, limit_m
        to_metres = scale.apply if scale is not None else lambda depth_map: metric_map(depth_map, config.scale)
        if own_m is not None:  # in the network's own metres, so before the scale
            predicted = DepthMap(np.where(predicted.values > own_m, np.float32(np.inf), predicted.values), predicted.kind)
            scaled = to_metres(DepthMap(np.full((1, 1), own_m, np.float32), predicted.kind))
            own_m = float(np.nan_to_num(scaled.values[0, 0], posinf=np.inf)) if scaled else None
        return to_metres(predicted), config.depth.max_m or FARTHEST_M, min(math.inf if own_m is None else own_m, max_m)

    def _focal_px(self, frame: RgbFrame, config: RuntimeConfig, intrinsics: Intrinsics | None) -> float | None:
        """Return the focal length that the model needs; None where it needs none."""
        if not self.needs_focal_length:
            return None
        return (intrinsics or intrinsics_from_hfov(config.fallback_hfov_deg, frame.size_hw)).fx


def _without(depth: DepthMap | None, sure: npt.NDArray[np.float32] | None, least: float) -> DepthMap | None:
    """Return the depth with NaN where the confidence is below a limit; what is beyond range has none and stays."""
    if depth is None or sure is None or least <= 0:
        return depth
    return DepthMap(np.where(sure < np.float32(least), np.float32(np.nan), depth.values), depth.kind)


def published_size_hw(image_size_hw: tuple[int, int], config: RuntimeConfig) -> tuple[int, int]:
    """Return height and width in pixels of the depth image for a camera image."""
    return max(1, image_size_hw[0] // config.depth.downsample), max(1, image_size_hw[1] // config.depth.downsample)
