"""Between stages 4 and 5: how well a pixel's depth agrees with what else is known of it, for models that do not say how sure they are.

Two estimates of one depth agree by their ratio, the smaller over the larger: 1 = the same, 0.9 = a tenth apart. Confidence is the product of
two agreements: of the neighbouring pixels' depths (low at edges), and with the previous frame's where the image did not change (low where the
network flickers). Nothing is fitted and nothing chosen, and it costs no second inference.

What it is good for was measured with the default model on 26 photographs with truth, a second look from 3 pixels aside standing for
the previous frame: the least confident tenth of the pixels has 1.5 times the mean error (log depth, scale aligned per image), the most
confident half 0.9 times; rank correlation with the error is 0.13 (neighbours alone 0.10). It was of use on table tops (2.1 times) and on
streets (1.7), of none indoors (1.0). It finds edges and flicker, not a depth that is wrong but smooth and stable: no agreement can.
Agreement with the mirrored image did no better (rank correlation 0.06) at twice the cost.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .structs import DepthMap

Array = npt.NDArray[np.float32]

_NEIGHBOURS = np.ones((3, 3), np.uint8)


def confidence(depth_map: DepthMap, before: Array | None = None) -> Array:
    """Return how well each pixel agrees with its neighbours and with the previous frame.

    Args:
        depth_map: (h, w) at the network's size, of either kind, after `temporal.TemporalFilter` where that is on.
        before: (h, w) float32, the previous frame's map in the same scale, NaN where the image changed (`TemporalFilter.before`), or None.

    Returns:
        (h, w) float32, 0..1: smallest over largest depth of the pixel and its 8 neighbours, times smaller over larger of this and the
        previous frame's depth where that is known. Relative maps: exp(-difference / standard deviation of the map) in place of each ratio.
        NaN where there is no depth, or it is beyond range.
    """
    values = depth_map.values
    known = np.isfinite(values)
    if not known.any():
        return np.full(values.shape, np.nan, np.float32)
    low, high = np.where(known, values, np.float32(np.inf)), np.where(known, values, np.float32(-np.inf))
    nearest, farthest = cv2.erode(low, _NEIGHBOURS), cv2.dilate(high, _NEIGHBOURS)  # the image's border is no neighbour
    result = agreement(DepthMap(nearest, depth_map.kind), farthest, depth_map)
    if before is not None:
        seen = agreement(depth_map, before, depth_map)
        result *= np.where(np.isnan(seen), np.float32(1), seen)
    result[~known] = np.nan
    return result  # type: ignore[no-any-return]


def agreement(first: DepthMap, second: Array, unit: DepthMap | None = None) -> Array:
    """Return how well two estimates of the same depths agree.

    Args:
        first: (h, w), of either kind.
        second: (h, w) float32 of the same kind and scale.
        unit: the map whose standard deviation is the unit of relative maps; None = `first`.

    Returns:
        (h, w) float32, 0..1: smaller over larger (metric), exp(-difference / standard deviation) (relative); NaN where either is not finite.

    Raises:
        ValueError: the sizes differ.
    """
    if first.values.shape != second.shape:
        raise ValueError(f"estimates of one depth have shapes {first.values.shape} and {second.shape}")
    with np.errstate(invalid="ignore", divide="ignore"):
        if first.kind == "depth_m":
            ratio = np.minimum(first.values, second) / np.maximum(first.values, second)
        else:
            reference = (unit or first).values
            known = reference[np.isfinite(reference)]
            spread = max(float(known.std()), float(np.finfo(np.float32).tiny)) if known.size else 1.0
            ratio = np.exp(-np.abs(first.values - second) / np.float32(spread))
    return np.where(np.isfinite(first.values) & np.isfinite(second), ratio, np.float32(np.nan))
