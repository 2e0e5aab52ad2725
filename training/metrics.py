"""Depth metrics and the alignment before them, in float64 over valid pixels. They refuse a prediction of the wrong kind.

What is fitted to what (least squares, one scale and one shift per image):

| preset | relative disparity | depth in metres |
|---|---|---|
| midas | disparity to 1/truth, clamped at 1/cap, inverted | 1/depth to 1/truth, clamped at 1/cap, inverted |
| marigold | disparity to 1/truth where it is above 0, clamped at 1e-3 per metre, inverted, clamped to a range | depth to truth, clamped to a range |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from depth_anything_ros.structs import DepthMap, MapKind

FloatArray = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Range = tuple[float, float]
Preset = Literal["midas", "marigold"]

MIN_PIXELS = 16
KINDS = get_args(MapKind)
MARIGOLD_CAP_M = 1000.0
"""1 / 1e-3 per metre, where Marigold's `least_square_disparity` clips an aligned disparity."""


@dataclass(frozen=True)
class DepthMetrics:
    """Errors of one image, p = prediction, t = truth.

    Attributes:
        abs_rel: mean of |p - t| / t.
        rmse_m: root of the mean squared difference, metres (or the truth's unit).
        delta1, delta2, delta3: share of pixels with max(p/t, t/p) below 1.25, 1.25^2, 1.25^3.
        log10: mean of |log10 p - log10 t|.
        silog: 100 * sqrt(mean(g^2) - mean(g)^2) with g = ln p - ln t. Source: scale-invariant error of Eigen et al. 2014
            (arXiv:1406.2283, equation 2) with root and factor of the KITTI depth prediction benchmark.
        pixels: number of valid pixels.
    """

    abs_rel: float
    rmse_m: float
    delta1: float
    delta2: float
    delta3: float
    log10: float
    silog: float
    pixels: int


def align_disparity(disparity: FloatArray, true_depth: FloatArray, mask: Mask, cap_m: float) -> FloatArray:
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
    aligned = _fitted(disparity, 1.0 / true_depth[mask].astype(np.float64), mask)
    return 1.0 / np.maximum(aligned, 1.0 / cap_m)


def align_depth(depth: FloatArray, true_depth: FloatArray, mask: Mask, range_m: Range) -> FloatArray:
    """Fit scale and shift of a depth to the truth by least squares, and clamp the result to a range.

    +Inf (beyond range) takes no part in the fit and counts as the end of the range, or as the largest aligned depth
    where the range has no end.

    Source: `least_square` of Marigold (Ke et al. 2024, arXiv:2312.02145), section 4.1, and its evaluation script.

    Args:
        depth: (H, W), any unit; +Inf = beyond range.
        true_depth: (H, W) metres, used where the mask is True.
        mask: (H, W) bool, True = valid truth.
        range_m: smallest (above 0) and largest depth of the result, metres.

    Returns:
        (H, W) float64 metres within the range.

    Raises:
        ValueError: too few valid pixels, or NaN there.
    """
    near = mask & ~np.isposinf(depth)
    aligned = _fitted(np.where(np.isposinf(depth), 0, depth), true_depth[near].astype(np.float64), near)
    farthest = range_m[1] if np.isfinite(range_m[1]) else aligned[near].max()
    return np.clip(np.where(np.isposinf(depth), farthest, aligned), *range_m)


def _fitted(values: FloatArray, target: npt.NDArray[np.float64], mask: Mask) -> npt.NDArray[np.float64]:
    """Return scale * values + shift, fitted to `target`, which holds the masked pixels."""
    x = values[mask].astype(np.float64)
    if x.size < MIN_PIXELS:
        raise ValueError(f"only {x.size} valid pixels; at least {MIN_PIXELS} are needed to align a prediction")
    if not np.isfinite(x).all():
        raise ValueError("the prediction is not finite at valid pixels of the truth; fill or mask them first")
    centred = x - x.mean()
    spread = float(centred @ centred)
    scale = float(centred @ (target - target.mean())) / spread if spread > 0 else 0.0
    return scale * (values.astype(np.float64) - x.mean()) + target.mean()


def align(prediction: DepthMap, true_depth: FloatArray, mask: Mask, preset: Preset, range_m: Range) -> FloatArray:
    """Bring a prediction of either kind to the truth's scale and shift, as the table of this module says.

    Args:
        prediction: (H, W); +Inf (beyond range) is allowed in metres, NaN nowhere where the mask is True.
        true_depth: (H, W) metres, used where the mask is True.
        mask: (H, W) bool, True = valid truth.
        preset: the row of the table.
        range_m: smallest and largest depth of the result, metres; the largest is MiDaS' cap.

    Returns:
        (H, W) float64 metres.

    Raises:
        ValueError: unknown kind of prediction, too few valid pixels, or the prediction is not finite there.
    """
    if prediction.kind not in KINDS:
        raise ValueError(f"a '{prediction.kind}' prediction cannot be aligned; known kinds are {', '.join(KINDS)}")
    values = prediction.values.astype(np.float64)
    if preset == "marigold" and prediction.kind == "depth_m":
        return align_depth(values, true_depth, mask, range_m)
    disparity = 1.0 / values if prediction.kind == "depth_m" else values
    if preset == "midas":
        return np.maximum(align_disparity(disparity, true_depth, mask, range_m[1]), range_m[0])
    return np.clip(align_disparity(disparity, true_depth, mask & (disparity > 0), MARIGOLD_CAP_M), *range_m)


def compare_depth(depth_m: FloatArray, true_depth: FloatArray, mask: Mask) -> DepthMetrics:
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
    log_error = np.log(p) - np.log(t)
    return DepthMetrics(
        abs_rel=float((np.abs(p - t) / t).mean()),
        rmse_m=float(np.sqrt(((p - t) ** 2).mean())),
        delta1=float((ratio < 1.25).mean()),
        delta2=float((ratio < 1.25**2).mean()),
        delta3=float((ratio < 1.25**3).mean()),
        log10=float(np.abs(log_error).mean() / np.log(10)),
        silog=float(100 * log_error.std()),
        pixels=p.size,
    )


def evaluate_aligned(prediction: DepthMap, true_depth: FloatArray, mask: Mask, preset: Preset, range_m: Range) -> DepthMetrics:
    """Compare after alignment; see `align`. NaN at a valid pixel is refused."""
    return compare_depth(align(prediction, true_depth, mask, preset, range_m), true_depth, mask)


def evaluate_metric(prediction: DepthMap, true_depth_m: FloatArray, mask: Mask, range_m: Range) -> DepthMetrics:
    """Compare metres with metres, without any alignment; the prediction is clamped to the range, +Inf counts as its end.

    Raises:
        ValueError: the prediction is relative disparity.
    """
    if prediction.kind != "depth_m":
        raise ValueError(f"a '{prediction.kind}' prediction has no unit; metric errors need 'depth_m'")
    return compare_depth(np.clip(prediction.values, *range_m), true_depth_m, mask)
