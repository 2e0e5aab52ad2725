"""RgbFrame -> metric depth, in one readable line of stages. The file to read first.

    RgbFrame --preprocess--> EngineInput --engine--> raw --map_from_raw--> DepthMap --metric_map--> metres --enlarge--> published size

The node, the command line and the evaluation share this; none of them does arithmetic of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from .config import RuntimeConfig
from .engines import Engine
from .geometry import intrinsics_from_hfov
from .postprocess import FARTHEST_M, enlarge, map_from_raw
from .preprocess import Preprocessor
from .scale import metric_map
from .structs import DepthMap, Intrinsics, RgbFrame

EVERYTHING = frozenset({"depth", "relative"})


@dataclass(frozen=True)
class Prediction:
    """What came of one frame.

    Attributes:
        depth: `depth_m` at the published size, or None where nothing makes the model's output metric.
        relative: `disparity_affine_invariant` at the published size for a relative model, otherwise None.
        no_depth_reason: why `depth` is None and what would give it; empty otherwise.
        stage_s: seconds spent in preprocess, infer and postprocess.
    """

    depth: DepthMap | None
    relative: DepthMap | None
    no_depth_reason: str
    stage_s: dict[str, float]


class Pipeline:
    """Runs one engine on one frame after another. Not thread-safe: one thread owns it."""

    def __init__(self, engine: Engine) -> None:
        """Take an open engine; the caller closes it."""
        self.engine = engine
        self._preprocess = Preprocessor(engine.contract)

    def no_depth_reason(self, config: RuntimeConfig, intrinsics: Intrinsics | None) -> str:
        """Return why no metric depth can come of a frame, and what would give it; empty where it can."""
        kind = self.engine.contract.output_kind
        if kind == "disparity_affine_invariant" and config.scale.mode != "fixed":
            return "the model is relative: set scale.mode to fixed with scale.factor and scale.offset, or use a metric model"
        if kind == "depth_canonical_focal" and intrinsics is None and config.fallback_hfov_deg == 0:
            return "the model needs the focal length: publish a valid camera_info or set fallback_hfov_deg"
        return ""

    def __call__(
        self, frame: RgbFrame, config: RuntimeConfig, intrinsics: Intrinsics | None = None, wanted: frozenset[str] = EVERYTHING
    ) -> Prediction:
        """Predict the depth of one frame.

        Args:
            frame: a decoded image.
            config: scale, size and range of the result.
            intrinsics: the camera's, for an image of the frame's size; None where it is not calibrated.
            wanted: `depth`, `relative` or both; what is not wanted is not brought to the published size.

        Raises:
            DecodeError: the frame has a size that the model cannot take.
            EngineError: the engine failed on this frame.
        """
        started = time.perf_counter()
        engine_input = self._preprocess(frame)
        preprocessed = time.perf_counter()
        raw = self.engine.infer(engine_input.tensor)
        inferred = time.perf_counter()
        contract, size_hw = self.engine.contract, published_size_hw(frame.size_hw, config)
        depth = relative = None
        reason = self.no_depth_reason(config, intrinsics)
        if not reason or not contract.is_metric:
            predicted = map_from_raw(raw, engine_input.resize, contract, self._focal_px(frame, config, intrinsics))
            metric = metric_map(predicted, config.scale) if "depth" in wanted else None
            limits = [limit for limit in (contract.max_depth_m, config.depth.max_m) if limit]
            depth = enlarge(metric, size_hw, min(limits, default=FARTHEST_M)) if metric else None
            relative = enlarge(predicted, size_hw) if "relative" in wanted and not contract.is_metric else None
        done = time.perf_counter()
        stages = {"preprocess": preprocessed - started, "infer": inferred - preprocessed, "postprocess": done - inferred}
        return Prediction(depth, relative, reason, stages)

    def _focal_px(self, frame: RgbFrame, config: RuntimeConfig, intrinsics: Intrinsics | None) -> float | None:
        """Return the focal length that the model needs; None where it needs none."""
        if self.engine.contract.output_kind != "depth_canonical_focal":
            return None
        return (intrinsics or intrinsics_from_hfov(config.fallback_hfov_deg, frame.size_hw)).fx


def published_size_hw(image_size_hw: tuple[int, int], config: RuntimeConfig) -> tuple[int, int]:
    """Return height and width in pixels of the depth image for a camera image."""
    return max(1, image_size_hw[0] // config.depth.downsample), max(1, image_size_hw[1] // config.depth.downsample)
