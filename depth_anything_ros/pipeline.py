"""RgbFrame -> metric depth, in one readable line of stages. The file to read first.

    RgbFrame --preprocess--> EngineInput --engine--> raw --map_from_raw--> DepthMap --temporal--> DepthMap --scale--> metres
    --enlarge--> published size

The node, the command line and the evaluation share this; none of them does arithmetic of its own. `Pipeline.prepare`, `infer_together` and
`Pipeline.finish` are its three parts, for those who infer the frames of several cameras at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .confidence import confidence
from .config import RuntimeConfig
from .edges import enlarge_metric
from .engines import Engine
from .geometry import intrinsics_from_hfov
from .postprocess import enlarge, map_from_raw
from .prediction import EVERYTHING, MEASURED_SCALES, Inferred, MeasureScale, Prediction, Prepared, PreparedTensor, Request
from .preprocess import Preprocessor
from .rays import ImageCamera
from .scale import metric_map, range_limits
from .structs import DepthMap, EngineInput, Intrinsics, RgbFrame
from .temporal import TemporalFilter, grey_from_input


def infer_together(engine: Engine, prepared: Sequence[Prepared]) -> list[Inferred]:
    """Run the network once for frames of the same `Prepared.batch_key`.

    Args:
        engine: open; more than one frame needs one that takes so large a batch (see `Engine.batch_max`).
        prepared: frames of different pipelines.

    Raises:
        EngineError: the engine failed, or does not take the batch.
    """
    return prepared[0].infer(engine, prepared)


def pipeline_for(engine: Engine) -> Pipeline:
    """Return a pipeline for one camera: on the engine's GPU where it has one that runs the stages, otherwise in numpy."""
    if engine.gpu is None:
        return Pipeline(engine)
    from .gpu_pipeline import GpuPipeline

    return GpuPipeline(engine, engine.gpu)


class Pipeline:
    """What one camera's frames go through, one after another. Not thread-safe: one thread owns it. Several may share an engine.

    Attributes:
        reads_raw_images: whether frames that are not decoded yet are best left so.
    """

    reads_raw_images: ClassVar[bool] = False

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
            intrinsics: of the camera; None where it is not calibrated.
            is_measured: whether the request will have a `measure_scale`; what that finds is not known before.
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
        camera: ImageCamera | None = None,
        wanted: frozenset[str] = EVERYTHING,
        measure_scale: MeasureScale | None = None,
    ) -> Prediction:
        """Predict the depth of one frame; the arguments are those of `Request`.

        Raises:
            DecodeError: the frame cannot be decoded, or has a size that the model cannot take.
            EngineError: the engine failed on this frame.
        """
        prepared = self.prepare(Request(frame, config, camera, wanted, measure_scale))
        return self.finish(prepared, infer_together(self.engine, [prepared])[0])

    def prepare(self, request: Request) -> Prepared:
        """Bring a frame into the network's form.

        Raises:
            DecodeError: the frame cannot be decoded, or has a size that the model cannot take.
        """
        request.frame.rgb  # noqa: B018 - decoded here, so that it does not count as preprocessing
        started = time.perf_counter()
        engine_input = self._preprocess(request.frame)
        return PreparedTensor(request, time.perf_counter() - started, engine_input)

    def finish(self, prepared: Prepared, inferred: Inferred) -> Prediction:
        """Turn the network's output for a frame that this pipeline prepared into what is wanted of it."""
        started = time.perf_counter()
        assert isinstance(prepared, PreparedTensor)
        assert inferred.raw is not None
        request, engine_input = prepared.request, prepared.engine_input
        frame, config, intrinsics = request.frame, request.config, request.camera.intrinsics if request.camera else None
        prediction = Prediction(None, None, self.no_depth_reason(config, intrinsics, request.measure_scale is not None), {})
        if not prediction.no_depth_reason or not self.engine.contract.is_metric:
            predicted = map_from_raw(inferred.raw, engine_input.resize, self.engine.contract, self._focal_px(frame, config, intrinsics))
            predicted = self._steadied(predicted, engine_input, frame.stamp_ns, config)
            prediction = self._prediction(predicted, request, prediction.no_depth_reason)
        stage_s = {"decode": frame.decode_s, "preprocess": prepared.seconds, "infer": inferred.seconds}
        return replace(prediction, stage_s=stage_s | {"postprocess": time.perf_counter() - started})

    def _steadied(self, predicted: DepthMap, engine_input: EngineInput, stamp_ns: int, config: RuntimeConfig) -> DepthMap:
        """Return the map in agreement with the frames before; the very same with temporal.mode off."""
        temporal = config.temporal
        if temporal.mode == "off":
            self._temporal.reset()
            return predicted
        grey = grey_from_input(engine_input, self.engine.contract)
        return self._temporal(predicted, grey, stamp_ns, temporal.mode, temporal.memory_s, temporal.depth_change)

    def _prediction(self, predicted: DepthMap, request: Request, reason: str) -> Prediction:
        """Give a map its scale and bring what is wanted of it to the published size; a `reason` keeps it from becoming depth."""
        config, wanted, measure_scale = request.config, request.wanted, request.measure_scale
        size_hw = published_size_hw(request.frame.size_hw, config)
        depth = scale = sure = range_limit_m = None
        if "depth" in wanted and not reason:
            scale = measure_scale(predicted) if config.scale.mode in MEASURED_SCALES and measure_scale is not None else None
            to_metres = scale.apply if scale is not None else partial(metric_map, scale=config.scale)
            limits = range_limits(self.engine.contract, config, to_metres)
            metric = to_metres(limits.cut(predicted))
            depth = enlarge_metric(metric, size_hw, limits.max_depth_m, config.edges) if metric else None
            range_limit_m = limits.known_m if depth else None
            reason = scale.reason if scale is not None and depth is None else ""
        # Where no scale was found, the relative map takes the place of the depth in the picture for people.
        shows_relative = "relative" in wanted or (scale is not None and depth is None)
        relative = enlarge(predicted, size_hw) if shows_relative and predicted.kind != "depth_m" else None
        if "confidence" in wanted or config.confidence.min > 0:
            unitless = DepthMap(confidence(predicted, self._temporal.before), "disparity_affine_invariant")
            sure = enlarge(unitless, size_hw).values
        return Prediction(depth, relative, reason, {}, sure, _without(depth, sure, config.confidence.min), scale, range_limit_m)

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
