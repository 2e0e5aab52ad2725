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

    def __call__(self, frame: RgbFrame, config: RuntimeConfig, intrinsics: Intrinsics | None) -> Prediction:
        """Predict the depth of one frame.

        Args:
            frame: a decoded image.
            config: scale, size and range of the result.
            intrinsics: the camera's, for an image of the frame's size; None where it is not calibrated.

        Raises:
            EngineError: the engine failed on this frame.
        """
        started = time.perf_counter()
        engine_input = self._preprocess(frame)
        preprocessed = time.perf_counter()
        raw = self.engine.infer(engine_input.tensor)
        inferred = time.perf_counter()
        contract = self.engine.contract
        size_hw = published_size_hw(frame.size_hw, config)
        depth = relative = None
        focal_px, reason = self._focal_px(frame, config, intrinsics)
        if not reason:
            predicted = map_from_raw(raw, engine_input.resize, contract, focal_px)
            metric = metric_map(predicted, config.scale)
            limits = [limit for limit in (contract.max_depth_m, config.depth.max_m) if limit]
            depth = enlarge(metric, size_hw, min(limits, default=FARTHEST_M)) if metric else None
            relative = None if contract.is_metric else enlarge(predicted, size_hw)
            reason = "" if depth else RELATIVE_MODEL_REASON
        done = time.perf_counter()
        stages = {"preprocess": preprocessed - started, "infer": inferred - preprocessed, "postprocess": done - inferred}
        return Prediction(depth, relative, reason, stages)

    def _focal_px(self, frame: RgbFrame, config: RuntimeConfig, intrinsics: Intrinsics | None) -> tuple[float | None, str]:
        """Return the focal length that the model needs (None: it needs none), or why there is none."""
        if self.engine.contract.output_kind != "depth_canonical_focal":
            return None, ""
        if intrinsics is not None:
            return intrinsics.fx, ""
        if config.fallback_hfov_deg > 0:
            return intrinsics_from_hfov(config.fallback_hfov_deg, frame.size_hw).fx, ""
        return None, "the model needs the focal length: publish a valid camera_info or set fallback_hfov_deg"


RELATIVE_MODEL_REASON = "the model is relative: set scale.mode to fixed with scale.factor and scale.offset, or use a metric model"


def published_size_hw(image_size_hw: tuple[int, int], config: RuntimeConfig) -> tuple[int, int]:
    """Return height and width in pixels of the depth image for a camera image."""
    return max(1, image_size_hw[0] // config.depth.downsample), max(1, image_size_hw[1] // config.depth.downsample)
