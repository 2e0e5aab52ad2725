"""Which source pixels make one output row or column, and how much each counts: OpenCV's tables, made once for a size.

They are computed here in double precision, as OpenCV does, and read by the kernels: GPUs of robots are slow at doubles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DEPTH_TAPS = np.dtype([("index", "<i4", 2), ("weight", "<f4", 2)])
"""One row or column of a bilinear resize of float32; `DepthTaps` of arguments.h."""

_PIXEL_ONE = 2048
_CUBIC_A = np.float32(-0.75)


def pixel_taps(source_px: int, target_px: int, interpolation: str, is_row: bool) -> npt.NDArray[np.void]:
    """Return the taps of `cv2.resize` of a uint8 image along one direction.

    Args:
        source_px: rows or columns of the image.
        target_px: rows or columns of the result.
        interpolation: `linear` (two taps) or `cubic` (four).
        is_row: rows; at the edge OpenCV repeats a row with its weights, but a column with weight one.

    Returns:
        (target_px,) of `index` and `weight` in 1/2048 as int32; `PixelTaps` of arguments.h.
    """
    first, fraction = _positions(source_px, target_px)
    if interpolation == "cubic":
        first, weights = first - 1, _cubic_weights(fraction)
    else:
        if not is_row:
            first, fraction = _clamped(first, fraction, source_px)
        weights = np.stack([1 - fraction, fraction], axis=1)
    taps = np.zeros(target_px, [("index", "<i4", weights.shape[1]), ("weight", "<i4", weights.shape[1])])
    taps["index"] = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, source_px - 1)
    taps["weight"] = np.rint(weights * np.float32(_PIXEL_ONE))
    return taps


def depth_taps(source_px: int, target_px: int, is_row: bool, copies: bool) -> npt.NDArray[np.void]:
    """Return the taps of a bilinear `cv2.resize` of a float32 map along one direction.

    Args:
        source_px: rows or columns of the map.
        target_px: rows or columns of the result.
        is_row: as in `pixel_taps`.
        copies: both sizes are the same, so that no neighbour's NaN may touch a value.

    Returns:
        (target_px,) of `DEPTH_TAPS`.
    """
    first, fraction = _positions(source_px, target_px)
    if not is_row:
        first, fraction = _clamped(first, fraction, source_px)
    taps = np.zeros(target_px, DEPTH_TAPS)
    taps["index"] = np.clip(first[:, None] + (0 if copies else np.arange(2)), 0, source_px - 1)
    taps["weight"] = np.stack([1 - fraction, fraction], axis=1)
    return taps


def nearest_taps(source_px: int, target_px: int) -> npt.NDArray[np.int32]:
    """Return which row or column `cv2.resize` with INTER_NEAREST takes, (target_px,) int32."""
    taken = np.floor(np.arange(target_px) * (1.0 / (target_px / source_px)))
    return np.minimum(taken, source_px - 1).astype(np.int32)


def _positions(source_px: int, target_px: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the source pixel at or before each target pixel's centre, and how far beyond it the centre is."""
    centres = ((np.arange(target_px) + 0.5) * (1.0 / (target_px / source_px)) - 0.5).astype(np.float32)
    first = np.floor(centres)
    return first.astype(np.int64), centres - first


def _clamped(
    first: npt.NDArray[np.int64], fraction: npt.NDArray[np.float32], source_px: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    outside = (first < 0) | (first >= source_px - 1)
    return np.clip(first, 0, source_px - 1), np.where(outside, np.float32(0), fraction)


def _cubic_weights(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (n, 4) float32. Source: Keys 1981, "Cubic convolution interpolation", equation 4 with a = -0.75, in OpenCV's order of operations."""
    a, one = _CUBIC_A, np.float32(1)
    before = ((a * (x + one) - 5 * a) * (x + one) + 8 * a) * (x + one) - 4 * a
    here = ((a + 2) * x - (a + 3)) * x * x + one
    after = ((a + 2) * (one - x) - (a + 3)) * (one - x) * (one - x) + one
    return np.stack([before, here, after, one - before - here - after], axis=1)
