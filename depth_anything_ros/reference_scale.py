"""Scale against a reference: a map and known depths at some of its pixels -> scale and shift of inverse depth.

The places need not be spread over the image (a planar scan is a line there); their depths must be.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from .reference_points import ReferencePixels
from .scale_filter import Fit, ScaleLimits, Vector, beyond_infinity, fit_inverse_depth, inverse_depth
from .structs import DepthMap

_EDGE = 0.15
_HIDDEN = 1.25
_AROUND_PX = 5
_ONE_SURFACE_INLIERS = 0.9
_COMPARED, _VALUES = 1000, 200
_MAX_COST_SHARE = 0.75  # with the right transform and 40 % wrong points it is up to 0.68


def fit_to_reference(depth_map: DepthMap, reference: ReferencePixels | None, stamp_ns: int, max_dt_s: float, limits: ScaleLimits) -> Fit:
    """Fit a map to the depths of a sensor.

    A relative map needs scale and shift, so points of different depth; a fit that follows the reference hardly better than
    chance, or puts much of the map beyond infinity, is refused. A metric map gets a factor (shift 0), for which one
    depth is enough, unless scale and shift explain the points clearly better. A single distance (Range) gives a factor for
    a metric map, where the map has one depth all over the sensor's cone.

    Args:
        depth_map: what the model gave, of either kind, NaN = unknown.
        reference: what the sensor saw; None where it gave nothing.
        stamp_ns: of the image.
        max_dt_s: a reference farther away in time is refused: nothing here knows how the robot moved meanwhile.
        limits: see `ScaleLimits`.

    Returns:
        The fit of this frame, for `ScaleFilter.update`.
    """
    if reference is None:
        return Fit(reason="no reference has arrived")
    apart_s = (reference.stamp_ns - stamp_ns) * 1e-9
    if abs(apart_s) > max_dt_s:
        return Fit(reason=f"the nearest reference is {abs(apart_s):.3f} s {'after' if apart_s > 0 else 'before'} the image")
    x, y = samples(depth_map, reference)
    metric = depth_map.kind == "depth_m"
    if reference.one_surface:
        if not metric:
            return Fit(points=x.size, reason="one depth only: a range sensor cannot give scale and shift of a relative map")
        return fit_inverse_depth(x, y, replace(limits, min_points=1, min_inlier_ratio=_ONE_SURFACE_INLIERS), with_shift=False)
    affine = fit_inverse_depth(x, y, limits)
    if not affine.reason:
        too_far = beyond_infinity(inverse_depth(depth_map), affine, limits.max_error * float(np.median(y)))
        affine = replace(affine, reason=too_far or _unrelated(affine, x, y, limits.max_error))
    if not metric:
        return affine
    factor = fit_inverse_depth(x, y, limits, with_shift=False)
    clearly_better = affine.residual < 0.5 * factor.residual or affine.inlier_ratio > factor.inlier_ratio + 0.1
    return affine if not affine.reason and (factor.reason or clearly_better) else factor


def _unrelated(fit: Fit, x: Vector, y: Vector, max_error: float) -> str:
    """Return why scale and shift are chance: the map follows the reference hardly better than one value in its place would.

    A wrong transform makes points of the wrong places meet; in a room, half of them may still agree on some line.
    """
    rng = np.random.default_rng(0)
    some = rng.integers(0, x.size, min(x.size, _COMPARED))
    x, y, values = x[some], y[some], x[rng.integers(0, x.size, _VALUES)]
    cost = np.minimum(np.square((fit.scale * x + fit.shift) / y - 1), max_error**2).mean()
    without = np.minimum(np.square(fit.scale * (x - values[:, None]) / y), max_error**2).mean(axis=1).min()
    related = cost <= _MAX_COST_SHARE * without
    return "" if related else "the map follows the reference hardly better than one value would: is the transform wrong?"


def samples(depth_map: DepthMap, reference: ReferencePixels) -> tuple[Vector, Vector]:
    """Return the map's numbers and the reference's inverse depths (1/metres) where both can be trusted, (N,) float64 each.

    Of several points in a pixel the nearest counts. A point is left out where the sensor saw something much nearer close by
    (it may look past what hides the point from the camera), where the map is unknown or beyond range, and at edges of
    the map, where a pixel more or less decides between two depths.
    """
    height, width = depth_map.size_hw
    share_x, share_y = reference.share_xy.T
    inside = (share_x >= 0) & (share_x < 1) & (share_y >= 0) & (share_y < 1)  # False for NaN
    columns, rows = (share_x[inside] * width).astype(np.intp), (share_y[inside] * height).astype(np.intp)
    depth_m = np.full((height, width), np.inf, np.float32)
    np.minimum.at(depth_m.ravel(), rows * width + columns, reference.depth_m[inside].astype(np.float32))  # ravel: a view
    nearest_around = cv2.erode(depth_m, np.ones((_AROUND_PX, _AROUND_PX), np.uint8))
    x = inverse_depth(depth_map)
    usable = np.isfinite(depth_m) & (depth_m / _HIDDEN <= nearest_around) & smooth_mask(x, depth_map.kind == "depth_m")
    return x[usable].astype(np.float64), 1 / depth_m[usable].astype(np.float64)


def smooth_mask(x: npt.NDArray[np.float32], metric: bool) -> npt.NDArray[np.bool_]:
    """Return where a map is known and has no edge: (H, W) bool.

    Args:
        x: (H, W) float32 of `inverse_depth`.
        metric: True: an edge changes x by more than 15 % within 3x3 pixels, and x = 0 (beyond range) is unknown. False: the
            zero of x means nothing, so the limit is 15 % of half of what x spans in the whole map.
    """
    known = np.isfinite(x)
    if not known.any():
        return known
    filled = np.where(known, x, np.float32(1e30))  # so that the surroundings of what is unknown are edges
    window = np.ones((3, 3), np.uint8)
    change = cv2.dilate(filled, window) - cv2.erode(filled, window)
    if metric:
        return np.asarray(known & (x > 0) & (change <= _EDGE * x))
    low, high = np.percentile(x[known], (2, 98))
    return np.asarray(known & (change <= _EDGE * (high - low) / 2))
