"""Between stages 4 and 5: stability from frame to frame, at the network's size, before anything becomes metres or is enlarged.

A network that sees one frame at a time gives the same scene another scale (a relative one: another shift, too) in every frame. Where
the image did not change, the scene did not either, so the maps must agree there: that gives the correction. It leaks away with
`memory_s`, which makes it a running mean of the scale: flicker is averaged out, a scale that changes for good comes through.

A camera that drives towards something makes every depth smaller, which is no flicker. So metric maps are corrected only while the
camera stands; the scale of relative maps means nothing, they are corrected in motion, too, by what is textured and does not move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .contract import ModelContract
from .structs import DepthMap, EngineInput, MapKind

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

TEMPORAL_MODES = ("off", "align", "filter")

LONGEST_GAP_S = 1.0
"""Frames farther apart have nothing to do with each other."""
CUT_CORRELATION = 0.5
"""Frames whose brightness correlates less show different scenes (five videos: at least 0.7 within one, at most 0.33 between two)."""
_TEXTURE = 8.0
"""Grey levels per pixel: from here on a shift of `_STILL_PX` is more than a camera's noise."""
_STILL_PX = 0.15
"""A textured pixel whose brightness changed by less than this shift would cause did not move."""
_NOISE = 4.0
"""Grey levels by which a pixel may change without anything moving."""
_LARGEST_GREY = 40000
"""Images of more pixels are compared on every second, third … row and column."""
_LEAST_PIXELS = 100
_MOST_PIXELS = 10000
"""The correction comes from about so many pixels at most."""
_STANDING_PX = 0.05
"""The camera stands where the whole image moved by less from one frame to the next (root mean square)."""
_LARGEST_FACTOR = 4.0
"""A larger correction is no flicker (small networks jump by 2): the new map is taken as it is."""


def grey_from_input(engine_input: EngineInput, contract: ModelContract) -> Array:
    """Return the brightness of what the network was given: (h, w) float32 grey levels 0..255 of the image content, padding cut away.

    Made from the tensor, because that has few pixels however large the camera's image is; of a tensor with many, every `grey_step`-th.
    """
    top, left, height, width = engine_input.resize.content_tlhw
    step = grey_step((height, width))
    planes = engine_input.tensor[0, :, top : top + height : step, left : left + width : step]
    gains = [np.float32(85.0 * std) for std in contract.std]
    return planes[0] * gains[0] + planes[1] * gains[1] + planes[2] * gains[2] + np.float32(85.0 * sum(contract.mean))


def grey_step(size_hw: tuple[int, int]) -> int:
    """Return from every how-manieth row and column of a map the brightness is needed."""
    return max(1, math.ceil(math.sqrt(size_hw[0] * size_hw[1] / _LARGEST_GREY)))


@dataclass(frozen=True)
class _Frame:
    """What is kept of a frame: its brightness, its map after the correction, and what was given out for it."""

    stamp_ns: int
    grey: Array
    aligned: Array
    given: Array


class TemporalFilter:
    """Makes one map after another agree with the one before. Not thread-safe.

    Attributes:
        before: after a call, the previous frame's map in the scale of this one, (h, w) float32, NaN where the image changed; None where there
            is none.
    """

    before: Array | None

    def __init__(self) -> None:
        """Start without a past."""
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._last: _Frame | None = None
        self._kind: MapKind = "depth_m"
        self._gain, self._offset, self.before = 1.0, 0.0, None

    def __call__(self, depth_map: DepthMap, grey: Array, stamp_ns: int, mode: str, memory_s: float, depth_change: float) -> DepthMap:
        """Correct one map.

        Args:
            depth_map: (h, w), of either kind; not changed.
            grey: float32 brightness of the same frame, 0..255, of every `grey_step`-th row and column of the map (`grey_from_input`).
            stamp_ns: time of the frame in nanoseconds.
            mode: `off`: the map comes back as it is. `align`: times a factor (metric map), or gain and offset (relative map). `filter`: then
                averaged in each pixel where neither image nor depth changed.
            memory_s: time constant of the averages in seconds.
            depth_change: `filter`: a depth that changes by this share (relative map: share of the map's spread) is taken as it is; the less it
                changed, the more it is averaged. What moves without changing the image is therefore at most so far behind.

        Returns:
            A map of the same kind and size; the very same object with `off`, at the first frame, after a cut, a gap or a jump of the stamps, and when
            size or kind changed. Unknown pixels stay unknown. The next call still needs the result: it must not be changed.

        Raises:
            ValueError: `grey` has another size, or an unknown mode.
        """
        step = _checked_step(depth_map, grey, mode)
        if mode == "off":
            self.reset()
            return depth_map
        last = self._last
        same = last is not None and last.aligned.shape == depth_map.values.shape and self._kind == depth_map.kind
        if last is None or not same or not _continues(last, grey, stamp_ns):
            return self._start(depth_map, grey, stamp_ns)
        share = 1 - math.exp(-(stamp_ns - last.stamp_ns) / 1e9 / memory_s)
        moved, evidence = _moved_and_evidence(last.grey, grey, depth_map.kind)
        if not self._update_correction(last.aligned[::step, ::step], depth_map.values[::step, ::step], depth_map.kind, evidence, share):
            return self._start(depth_map, grey, stamp_ns)
        moved = np.repeat(np.repeat(moved, step, axis=0), step, axis=1)[: depth_map.size_hw[0], : depth_map.size_hw[1]]
        values = depth_map.values * np.float32(self._gain) + np.float32(self._offset)
        self.before = np.where(moved, np.float32(np.nan), last.aligned)
        given = _averaged(last.given, DepthMap(values, depth_map.kind), moved, share, depth_change) if mode == "filter" else values
        self._last = _Frame(stamp_ns, grey.copy(), values, given)
        return DepthMap(given, depth_map.kind)

    def _start(self, depth_map: DepthMap, grey: Array, stamp_ns: int) -> DepthMap:
        self.reset()
        values = depth_map.values.copy()  # it may be the engine's own memory, which the next frame overwrites
        self._last = _Frame(stamp_ns, grey.copy(), values, values)
        self._kind = depth_map.kind
        return depth_map

    def _update_correction(self, last: Array, values: Array, kind: MapKind, evidence: Mask, share: float) -> bool:
        """Find gain and offset of this frame; returns whether they are those of a flicker."""
        evidence = evidence & np.isfinite(values) & np.isfinite(last)
        every = 1 + np.count_nonzero(evidence) // _MOST_PIXELS
        new, old = values[evidence][::every], last[evidence][::every]
        gain, offset = self._gain, self._offset
        if new.size >= _LEAST_PIXELS:
            fit = _factor(new, old) if kind == "depth_m" else _gain_offset(new, old)
            gain, offset = fit if fit is not None else (gain, offset)
        if not 1 / _LARGEST_FACTOR < gain < _LARGEST_FACTOR:
            return False
        self._gain, self._offset = gain ** (1 - share), offset * (1 - share)
        return True


def _checked_step(depth_map: DepthMap, grey: Array, mode: str) -> int:
    if mode not in TEMPORAL_MODES:
        raise ValueError(f"temporal mode '{mode}' is not one of {', '.join(TEMPORAL_MODES)}")
    step = grey_step(depth_map.size_hw)
    wanted = depth_map.values[::step, ::step].shape
    if grey.shape != wanted:
        raise ValueError(f"the brightness has shape {grey.shape}, a map of {depth_map.size_hw} needs {wanted}")
    return step


def _continues(last: _Frame, grey: Array, stamp_ns: int) -> bool:
    """Whether a frame shows the scene of the last one, a moment later."""
    if not 0 < stamp_ns - last.stamp_ns <= LONGEST_GAP_S * 1e9:
        return False
    (old_mean, old_spread), (new_mean, new_spread) = ([float(v[0, 0]) for v in cv2.meanStdDev(image)] for image in (last.grey, grey))
    if max(old_spread, new_spread) < _NOISE:  # two empty pictures: there is nothing but noise that could correlate
        return abs(old_mean - new_mean) < _NOISE
    covariance = float(np.mean((last.grey - np.float32(old_mean)) * (grey - np.float32(new_mean))))
    return covariance >= CUT_CORRELATION * old_spread * new_spread


def _moved_and_evidence(old: Array, new: Array, kind: MapKind) -> tuple[Mask, Mask]:
    """Return which pixels changed (with a margin of 2 pixels), and where the maps of the two frames must agree.

    Source: normal flow, |dI/dt| / |grad I|, the shift that the change of one pixel's brightness tells of.
    """
    change = new - old
    change -= np.median(change[::4, ::4])  # what changed in all of the image is the exposure
    gx, gy = cv2.Sobel(new, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(new, cv2.CV_32F, 0, 1, scale=1 / 8)
    gradient, size = cv2.magnitude(gx, gy), np.abs(change)
    explained = np.float32(_STILL_PX) * gradient
    smooth = np.abs(cv2.blur(change, (3, 3)))  # a camera's noise is one pixel wide
    moved = cv2.dilate((smooth > explained + np.float32(_NOISE)).view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_)
    textured = gradient > _TEXTURE
    if np.count_nonzero(textured) < _LEAST_PIXELS:
        return moved, np.zeros_like(moved)
    still = textured & (size < explained)
    if _image_motion_px(change, gx, gy, textured & ~moved) < _STANDING_PX:
        return moved, still | ~moved
    return moved, still if kind == "disparity_affine_invariant" else np.zeros_like(moved)


def _image_motion_px(change: Array, gx: Array, gy: Array, where: Mask) -> float:
    """Return how far, as a root mean square in pixels, shift, zoom and turn carried the image; infinite where it cannot be told.

    Source: one step of Lucas and Kanade (1981) for a similarity transform.
    """
    every = 1 + np.count_nonzero(where) // _MOST_PIXELS
    rows, columns = (index[::every] for index in np.nonzero(where))
    if rows.size < _LEAST_PIXELS:
        return math.inf
    y, x = rows - (change.shape[0] - 1) / 2, columns - (change.shape[1] - 1) / 2
    dx, dy = gx[rows, columns], gy[rows, columns]
    columns_of_a = np.stack([dx, dy, dx * x + dy * y, dy * x - dx * y])
    shift_x, shift_y, zoom, turn = np.linalg.lstsq(columns_of_a @ columns_of_a.T, -columns_of_a @ change[rows, columns], rcond=None)[0]
    square_of_radius = (change.shape[0] ** 2 + change.shape[1] ** 2) / 12
    return math.sqrt(shift_x**2 + shift_y**2 + (zoom**2 + turn**2) * square_of_radius)


def _factor(new: Array, old: Array) -> tuple[float, float]:
    return float(np.exp(np.median(np.log(old / new)))), 0.0


def _gain_offset(new: Array, old: Array) -> tuple[float, float] | None:
    """Fit old = gain * new + offset; None where it cannot be told: too few pixels, a flat map, or maps that are not alike.

    Both maps are equally noisy, so the gain is the ratio of their spreads (reduced major axis): least squares would shrink the map a
    little in every frame. Pixels that disagree by more than three times the median are left out, twice.
    """
    keep = np.ones(new.shape, np.bool_)
    gain, offset = 1.0, 0.0
    for _ in range(3):
        kept_new, kept_old = new[keep], old[keep]
        spread = float(kept_new.std())
        if kept_new.size < _LEAST_PIXELS // 2 or not spread > 1e-6 * float(np.abs(kept_new).max()):
            return None
        if not float(np.corrcoef(kept_old, kept_new)[0, 1]) > 0.5:
            return None
        gain = float(kept_old.std()) / spread
        offset = float(kept_old.mean()) - gain * float(kept_new.mean())
        residual = np.abs(old - np.float32(gain) * new - np.float32(offset))
        keep = residual <= 3 * np.median(residual)
    return gain, offset


def _averaged(given: Array, aligned: DepthMap, moved: Mask, share: float, depth_change: float) -> Array:
    """Blend a map into what was given out before: `share` of it where nothing changed, all of it where image or depth did."""
    values = aligned.values
    with np.errstate(invalid="ignore"):  # unknown pixels and those beyond range: nothing is below 1 there
        change = values - given
        unit = np.minimum(values, given) if aligned.kind == "depth_m" else _spread(values)
        weight = change / (unit * np.float32(depth_change))
        weight *= weight
        weight += np.float32(share)
        weight[moved] = 1.0
        return np.add(given, weight * change, out=values.copy(), where=weight < 1)


def _spread(values: Array) -> np.float32:
    """Return the standard deviation of what is known; never 0."""
    known = values[np.isfinite(values)]
    return np.float32(max(float(known.std()), 1e-12)) if known.size else np.float32(1.0)
