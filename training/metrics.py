"""Depth metrics and the alignment before them, in float64 over valid pixels. They refuse a prediction of the wrong kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depth_anything_ros.structs import DepthMap

FloatArray = npt.NDArray[np.floating]
MIN_PIXELS = 16


@dataclass(frozen=True)
class DepthMetrics:
    """Errors of one image.

    Attributes:
        abs_rel: mean of |prediction - truth| / truth.
        rmse_m: root of the mean squared difference, metres (or the truth's unit).
        delta1, delta2, delta3: share of pixels with max(p/t, t/p) below 1.25, 1.25^2, 1.25^3.
        pixels: number of valid pixels.
    """

    abs_rel: float
    rmse_m: float
    delta1: float
    delta2: float
    delta3: float
    pixels: int


def align_disparity(disparity: FloatArray, true_depth: FloatArray, mask: npt.NDArray[np.bool_], cap_m: float) -> FloatArray:
    """Fit scale and shift of a disparity to 1/truth by least squares, and return the depth.

    Source: MiDaS (Ranftl et al. 2020, arXiv:1907.01341), equation 4, and its evaluation: aligned disparity is clamped at
    1/cap (an unclamped one may be 0 or negative, and depth explodes).

    Args:
        disparity: (H, W), larger = nearer, unknown scale and shift.
        true_depth: (H, W) metres, used where the mask is True.
        mask: (H, W) bool, True = valid truth.
        cap_m: largest depth, metres.

    Returns:
        (H, W) float64 metres, at most `cap_m`.

    Raises:
        ValueError: too few valid pixels, or the prediction is not finite there.
    """
    x, y = disparity[mask].astype(np.float64), 1.0 / true_depth[mask].astype(np.float64)
    if x.size < MIN_PIXELS:
        raise ValueError(f"only {x.size} valid pixels; at least {MIN_PIXELS} are needed to align a prediction")
    if not np.isfinite(x).all():
        raise ValueError("the prediction is not finite at valid pixels of the truth; fill or mask them first")
    centred = x - x.mean()
    spread = float(centred @ centred)
    scale = float(centred @ (y - y.mean())) / spread if spread > 0 else 0.0
    aligned = scale * (disparity.astype(np.float64) - x.mean()) + y.mean()
    return 1.0 / np.maximum(aligned, 1.0 / cap_m)


def compare_depth(depth_m: FloatArray, true_depth: FloatArray, mask: npt.NDArray[np.bool_]) -> DepthMetrics:
    """Compute the metrics over valid pixels; the prediction must be above 0 there.

    Raises:
        ValueError: no valid pixel, or a prediction that is not a finite number above 0 at one.
    """
    p, t = depth_m[mask].astype(np.float64), true_depth[mask].astype(np.float64)
    if not p.size:
        raise ValueError("no valid pixels to compare")
    if not (np.isfinite(p) & (p > 0)).all():
        raise ValueError("the prediction is not a finite depth above 0 at every valid pixel")
    ratio = np.maximum(p / t, t / p)
    deltas = [float((ratio < 1.25**power).mean()) for power in (1, 2, 3)]
    return DepthMetrics(float((np.abs(p - t) / t).mean()), float(np.sqrt(((p - t) ** 2).mean())), *deltas, p.size)


def evaluate_aligned(prediction: DepthMap, true_depth: FloatArray, mask: npt.NDArray[np.bool_], cap_m: float) -> DepthMetrics:
    """Compare after least-squares alignment in disparity. Both kinds are allowed: depth is turned into disparity first.

    +Inf (beyond range) is disparity 0; NaN at a valid pixel is refused.
    """
    values = prediction.values.astype(np.float64)
    disparity = 1.0 / values if prediction.kind == "depth_m" else values
    return compare_depth(align_disparity(disparity, true_depth, mask, cap_m), true_depth, mask)


def evaluate_metric(prediction: DepthMap, true_depth_m: FloatArray, mask: npt.NDArray[np.bool_], cap_m: float) -> DepthMetrics:
    """Compare metres with metres, without any alignment; +Inf (beyond range) counts as `cap_m`.

    Raises:
        ValueError: the prediction is relative disparity.
    """
    if prediction.kind != "depth_m":
        raise ValueError(f"a '{prediction.kind}' prediction has no unit; metric errors need 'depth_m'")
    return compare_depth(np.minimum(prediction.values, cap_m), true_depth_m, mask)
