"""Relative -> metric: what stands between a model's numbers and metres.

Here: the model is metric already (`model`), or two numbers from a calibration make it so (`fixed`). Alignment against a
sensor or the ground plane takes its place beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .config import RuntimeConfig
from .config_scale import ScaleConfig
from .contract import ModelContract
from .postprocess import FARTHEST_M
from .structs import DepthMap


def metric_map(depth_map: DepthMap, scale: ScaleConfig) -> DepthMap | None:
    """Return the map in metres, or None where nothing says how to make metres of it.

    Args:
        depth_map: what the model gave, (h, w) float32; not changed.
        scale: `model`: metric maps as they are. `fixed`: depth_m * factor + offset for a metric map,
            1 / (factor * disparity + offset) for an affine-invariant disparity. `none`: metric maps only, as they are.

    Returns:
        A `depth_m` map, or None for a relative map without `fixed`. A depth that is not above 0 is NaN; an inverse depth
        that is not above 0 is farther than anything: +Inf.
    """
    metric_model = depth_map.kind == "depth_m"
    if scale.mode != "fixed":
        return depth_map if metric_model else None
    values = depth_map.values * np.float32(scale.factor) + np.float32(scale.offset)
    if metric_model:
        values[values <= 0] = np.nan
        return DepthMap(values, "depth_m")
    beyond = values <= 0
    values[beyond] = 1.0
    np.reciprocal(values, out=values)
    values[beyond] = np.inf
    return DepthMap(values, "depth_m")


@dataclass(frozen=True)
class RangeLimits:
    """How far a frame's depth reaches, in metres along Z.

    Attributes:
        model_max_m: in the model's own metres: what is farther is beyond range before the scale is applied. +Inf: no limit.
        max_depth_m: of the scaled depth, for `postprocess.enlarge`: what is farther is beyond range.
        known_m: what is beyond range is known to be farther than this, not more; None: no limit was set.
    """

    model_max_m: float
    max_depth_m: float
    known_m: float | None

    def cut(self, predicted: DepthMap) -> DepthMap:
        """Return a map, (h, w) float32 in the model's own metres, with +Inf beyond `model_max_m`."""
        if math.isinf(self.model_max_m):
            return predicted
        return DepthMap(np.where(predicted.values > self.model_max_m, np.float32(np.inf), predicted.values), predicted.kind)


def range_limits(contract: ModelContract, config: RuntimeConfig, to_metres: Callable[[DepthMap], DepthMap | None]) -> RangeLimits:
    """Return the limits of the model and of `depth.max_m`, and where a scale puts the model's.

    Args:
        contract: of the model.
        config: all parameters.
        to_metres: what gives a map of this frame its scale.
    """
    own_m, max_m = (contract.max_depth_m if contract.is_metric else None) or math.inf, config.depth.max_m or math.inf
    if config.scale.mode in ("model", "none"):
        limit_m = min(own_m, max_m)
        return RangeLimits(math.inf, limit_m if math.isfinite(limit_m) else FARTHEST_M, limit_m if math.isfinite(limit_m) else None)
    known_m = max_m
    if math.isfinite(own_m):
        scaled = to_metres(DepthMap(np.full((1, 1), own_m, np.float32), "depth_m"))
        known_m = min(max_m, float(np.nan_to_num(scaled.values[0, 0], posinf=math.inf)) if scaled else math.inf)
    return RangeLimits(own_m, config.depth.max_m or FARTHEST_M, known_m if math.isfinite(known_m) else None)
