"""Relative -> metric: what stands between a model's numbers and metres.

Here: the model is metric already (`model`), or two numbers from a calibration make it so (`fixed`). Alignment against a
sensor or the ground plane takes its place beside them.
"""

from __future__ import annotations

import numpy as np

from .config_scale import ScaleConfig
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
