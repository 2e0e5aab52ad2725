"""Scale and shift of inverse depth: the robust fit of one frame, its filter over frames, and metres from both.

    1 / depth_m = scale * x + shift,  x = disparity of a relative map, or 1 / depth of a metric map

What gives the depth (a sensor, the floor) is somebody else's matter: `reference_scale` and `ground_scale` make a `Fit`
of a frame, `ScaleFilter` makes the frames agree, `ScaleState.apply` makes metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .config_scale import ScaleConfig
from .scale import metric_map
from .structs import DepthMap

_TRIALS = 200  # with half of the points wrong, the chance that no trial draws two good ones is 0.75^200 = 1e-25
_SCORED = 1000
_REFINEMENTS = 10
_CONFIRMATIONS = 3
_STILL_FRAMES = 10
"""So many images of one stamp in a row, and the scale is no longer used."""
_GAP_S = 1.0
_MAX_BEYOND_INFINITY = 0.1

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScaleLimits:
    """What a fit and its filter may do.

    Attributes:
        max_error: a point agrees with a fit where its inverse depth is off by at most this share (0.1: 10 %).
        min_points: fewer usable points are refused.
        min_inlier_ratio: share of the points that must agree; up to one minus this may be wrong.
        min_depth_ratio: how many times as far as the nearest tenth the farthest tenth of the agreeing points must be, so that
            scale and shift can be told apart.
        filter_s: time constant of the filter in seconds; 0 = each frame for itself.
        max_jump: a fit that changes depth by more than this share must be seen three times in a row.
        max_age_s: seconds for which the last good scale is held without a new one.
    """

    max_error: float
    min_points: int
    min_inlier_ratio: float
    min_depth_ratio: float
    filter_s: float
    max_jump: float
    max_age_s: float


@dataclass(frozen=True)
class Fit:
    """What one frame says about the scale.

    Attributes:
        scale: 1 / depth_m = scale * x + shift; NaN where nothing could be fitted.
        shift: in 1/metres; 0 where only a factor was fitted.
        points: how many points were usable.
        inlier_ratio: share of them that agree with the fit, 0..1.
        residual: median error of those that agree, as a share of the inverse depth (so of the depth, too).
        x_span: the tenth and the ninetieth percentile of x where they agree.
        reason: why the fit must not be used; empty where it may.
    """

    scale: float = math.nan
    shift: float = math.nan
    points: int = 0
    inlier_ratio: float = 0.0
    residual: float = math.nan
    x_span: tuple[float, float] = (math.nan, math.nan)
    reason: str = ""


def inverse_depth(depth_map: DepthMap) -> npt.NDArray[np.float32]:
    """Return x of a map: (H, W) float32, NaN = unknown; of a metric map 1 / depth_m, 0 = beyond range."""
    if depth_map.kind != "depth_m":
        return depth_map.values
    return np.reciprocal(np.where(depth_map.values > 0, depth_map.values, np.float32(np.nan)))


def beyond_infinity(x: npt.NDArray[np.floating[Any]], fit: Fit, slack: float) -> str:
    """Return why a fit cannot be right: it puts much of a map (x of any shape, NaN = unknown) beyond infinity; empty where not.

    The `slack` in 1/metres below zero is what noise may do to the far parts of a map.
    """
    share = float((fit.scale * x[np.isfinite(x)] + fit.shift < -slack).mean())
    return "" if share <= _MAX_BEYOND_INFINITY else f"{share:.0%} of the map would lie beyond infinity, {_MAX_BEYOND_INFINITY:.0%} may"


def fit_inverse_depth(x: Vector, y: Vector, limits: ScaleLimits, with_shift: bool = True, seed: int = 0) -> Fit:
    """Fit y = scale * x + shift where a share of the points is wrong: random pairs, then reweighted least squares.

    Errors count as a share of y, so near and far weigh the same in per cent of depth.

    Args:
        x: (N,) the map's numbers. NaN and Inf are left out, and without shift what is not above 0.
        y: (N,) inverse depth of the reference, 1/metres, above 0; others are left out.
        limits: see `ScaleLimits`; up to 1 - min_inlier_ratio of the points may be wrong.
        with_shift: False fits y = scale * x, for which one depth is enough.
        seed: the same points and seed give the same fit.

    Returns:
        The fit; with a `reason` where there are too few points or too few agree, and with_shift where they agree on one depth
        only or the scale is not above 0.

    Source: RANSAC (Fischler & Bolles 1981) with the truncated loss of MSAC (Torr & Zisserman 2000); Tukey's biweight.
    """
    usable = np.isfinite(x) & np.isfinite(y) & (y > 0) & (with_shift | (x > 0))
    x, y = np.asarray(x[usable], np.float64), np.asarray(y[usable], np.float64)
    if x.size < max(limits.min_points, 1):
        return Fit(points=x.size, reason=f"only {x.size} usable points, {limits.min_points} are needed")
    rng = np.random.default_rng(seed)
    drawn = _pairs(x, y, limits.min_depth_ratio, rng) if with_shift else _singles(x, y, rng)
    if not drawn.size:
        return Fit(points=x.size, reason="one depth only: no two points differ enough to tell scale and shift apart")
    start = drawn[_costs(drawn, x, y, limits.max_error, rng).argmin()]
    scale, shift = _refined(x, y, start, limits.max_error, with_shift)
    errors = np.abs((scale * x + shift) / y - 1)
    agree = errors <= limits.max_error
    fit = Fit(scale, shift, x.size, float(agree.mean()))
    if fit.inlier_ratio < limits.min_inlier_ratio:
        agreeing = f"{fit.inlier_ratio:.0%} of {fit.points} points agree within {limits.max_error:.0%}"
        return replace(fit, reason=f"only {agreeing}, {limits.min_inlier_ratio:.0%} are needed")
    low, high = np.percentile(x[agree], (10, 90))
    fit = replace(fit, residual=float(np.median(errors[agree])), x_span=(float(low), float(high)))
    return replace(fit, reason=_objection(fit, y[agree], limits) if with_shift else "")


def _pairs(x: Vector, y: Vector, min_depth_ratio: float, rng: np.random.Generator) -> Vector:
    """Return scale and shift (T, 2) of random pairs of points of different depth.

    Two points of one depth would give a line of no slope, which fits a wall that fills the view perfectly: the reference
    is exact, and the map's own waviness is multiplied by nothing.
    """
    first, second = rng.integers(0, x.size, (2, 5 * _TRIALS))
    apart = (np.maximum(y[first], y[second]) >= min_depth_ratio * np.minimum(y[first], y[second])) & (x[first] != x[second])
    first, second = first[apart][:_TRIALS], second[apart][:_TRIALS]
    scales = (y[second] - y[first]) / (x[second] - x[first])
    return np.column_stack([scales, y[first] - scales * x[first]])


def _singles(x: Vector, y: Vector, rng: np.random.Generator) -> Vector:
    """Return scale and no shift (T, 2) of random points."""
    one = rng.integers(0, x.size, _TRIALS)
    return np.column_stack([y[one] / x[one], np.zeros(_TRIALS)])


def _costs(candidates: Vector, x: Vector, y: Vector, max_error: float, rng: np.random.Generator) -> Vector:
    """Return the mean truncated loss of each scale and shift (T, 2), 0..1: 0 = all points on it, 1 = no point agrees."""
    scored = rng.integers(0, x.size, _SCORED) if x.size > _SCORED else slice(None)
    errors = candidates @ np.stack([x[scored] / y[scored], 1 / y[scored]]) - 1
    return np.minimum(np.square(errors / max_error), 1).mean(axis=1)


def _refined(x: Vector, y: Vector, start: Vector, max_error: float, with_shift: bool) -> tuple[float, float]:
    """Return scale and shift after some rounds of least squares of x on y, near the start.

    Of x on y, since the map errs and the reference hardly does: the other way round noise of the map would make the scale too small.
    """
    a, b = x / y, 1 / y
    scale, shift = start
    for _ in range(_REFINEMENTS):
        weights = np.square(np.clip(1 - np.square((scale * a + shift * b - 1) / max_error), 0, None))
        total, wb, wa = weights.sum(), weights @ b, weights @ a
        bb, ab = (weights * b) @ b, (weights * b) @ a
        determinant = total * bb - wb * wb
        if total <= 0 or (with_shift and determinant <= 1e-9 * total * bb):
            break
        slope, offset = ((wa * bb - ab * wb) / determinant, (ab * total - wa * wb) / determinant) if with_shift else (wa / total, 0.0)
        if slope == 0:
            break
        scale, shift = 1 / slope, 0.0 - offset / slope
    return float(scale), float(shift)


def _objection(fit: Fit, y_agreeing: Vector, limits: ScaleLimits) -> str:
    """Return why scale and shift on which enough points agree must not be used; empty where they may."""
    low, high = np.percentile(y_agreeing, (10, 90))
    fitted = [fit.scale * end + fit.shift for end in fit.x_span]
    ratio = min(high / low, max(fitted) / min(fitted) if min(fitted) else math.inf)
    if ratio < limits.min_depth_ratio:
        return f"one depth only: the far points are {ratio:.2f} times as far as the near ones, {limits.min_depth_ratio:.2f} are needed"
    if fit.scale <= 0:
        return "the map falls where the inverse depth rises: is it depth in place of disparity, or the geometry wrong?"
    return ""


@dataclass(frozen=True)
class ScaleState:
    """The scale to use for a frame.

    Attributes:
        scale: 1 / depth_m = scale * x + shift; None where there has been no good fit within `max_age_s`.
        shift: in 1/metres; None like `scale`.
        held: the frame's own fit was not used; `reason` says why.
        age_s: seconds since the last fit that was used; +Inf where there has been none.
        fit: what the frame itself said.
        reason: why the frame's fit was not used; empty where it was.
    """

    scale: float | None
    shift: float | None
    held: bool
    age_s: float
    fit: Fit
    reason: str

    def apply(self, depth_map: DepthMap) -> DepthMap | None:
        """Return the map in metres, or None where there is no scale; invalid and beyond as `scale.metric_map` has them."""
        if self.scale is None or self.shift is None:
            return None
        fixed = ScaleConfig(mode="fixed", factor=self.scale, offset=self.shift)
        metric = metric_map(DepthMap(inverse_depth(depth_map), "disparity_affine_invariant"), fixed)
        if metric is not None and depth_map.kind == "depth_m":
            metric.values[np.isposinf(depth_map.values)] = np.inf  # what is beyond range stays there, whatever the shift
        return metric

    def diagnostics(self) -> dict[str, str]:
        """Return what belongs into the diagnostics, by key."""
        numbers = {"scale_factor": self.scale, "scale_offset": self.shift, "scale_age_s": self.age_s}
        numbers |= {"scale_inlier_ratio": self.fit.inlier_ratio, "scale_residual": self.fit.residual}
        texts = {key: "none" if value is None else f"{value:.4g}" for key, value in numbers.items()}
        return texts | {"scale_points": str(self.fit.points), "scale_held": str(self.held).lower(), "scale_problem": self.reason}


class ScaleFilter:
    """Makes one scale of the fits of many frames: smoothed, guarded against single bad fits, held while there is none.

    Not thread-safe: the thread that infers owns it.
    """

    def __init__(self) -> None:
        """Start without a scale."""
        self._scale_shift: tuple[float, float] | None = None
        self._used_ns = 0
        self._stamp_ns: int | None = None
        self._still = 0
        self._doubted: Fit | None = None
        self._doubts = 0

    def update(self, fit: Fit, stamp_ns: int, limits: ScaleLimits) -> ScaleState:
        """Take the fit of a frame and return the scale for it.

        Args:
            fit: of this frame; one with a `reason` is not used.
            stamp_ns: the frame's stamp. One that is not after the last is not used, and time counts on from it.
            limits: `filter_s`, `max_jump` and `max_age_s`.
        """
        last_ns, self._stamp_ns = self._stamp_ns, stamp_ns
        reason = fit.reason
        self._still = self._still + 1 if stamp_ns == last_ns else 0
        if last_ns is not None and stamp_ns <= last_ns:
            reason = f"the image's stamp is {(last_ns - stamp_ns) * 1e-9:.3f} s before the last one"
            self._used_ns = min(self._used_ns, stamp_ns)
        if self._still >= _STILL_FRAMES:
            self._scale_shift, reason = None, "the stamps of the images stand still: how old the scale is cannot be told"
        if self._age_s(stamp_ns) > limits.max_age_s:
            self._scale_shift = None
        reason = reason or self._take(fit, stamp_ns, limits)
        if fit.reason:
            self._doubted = None
        scale, shift = self._scale_shift or (None, None)
        return ScaleState(scale, shift, bool(reason), self._age_s(stamp_ns), fit, reason)

    def _age_s(self, stamp_ns: int) -> float:
        return math.inf if self._scale_shift is None else (stamp_ns - self._used_ns) * 1e-9

    def _take(self, fit: Fit, stamp_ns: int, limits: ScaleLimits) -> str:
        """Use a fit; return why not."""
        age_s, weight = self._age_s(stamp_ns), 1.0
        back_after_a_gap = age_s > _GAP_S and self._doubted is None
        if self._scale_shift is not None and not back_after_a_gap:
            jump = _jump(fit, self._scale_shift)
            if jump <= limits.max_jump:
                weight = 1 - math.exp(-age_s / limits.filter_s) if limits.filter_s > 0 else 1.0
            elif not self._confirmed(fit, limits):
                return f"the depth would jump by {jump:.0%}; waiting for {_CONFIRMATIONS} frames that agree"
        old = self._scale_shift or (0.0, 0.0)
        self._scale_shift = old[0] + weight * (fit.scale - old[0]), old[1] + weight * (fit.shift - old[1])
        self._used_ns, self._doubted = stamp_ns, None
        return ""

    def _confirmed(self, fit: Fit, limits: ScaleLimits) -> bool:
        again = self._doubted is not None and _jump(fit, (self._doubted.scale, self._doubted.shift)) <= limits.max_jump
        self._doubts = self._doubts + 1 if again else 1
        self._doubted = fit
        return self._doubts >= _CONFIRMATIONS


def _jump(fit: Fit, scale_shift: tuple[float, float]) -> float:
    """Return by what share a fit changes the inverse depth of what it was made of."""
    old = [scale_shift[0] * x + scale_shift[1] for x in fit.x_span]
    return max(math.inf if o <= 0 else abs((fit.scale * x + fit.shift) / o - 1) for x, o in zip(fit.x_span, old))
