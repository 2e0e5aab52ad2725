"""A picture of a depth map, for people. Never an input for a program: the depth image is that."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from .structs import DepthMap

_COLORMAPS = {"turbo": cv2.COLORMAP_TURBO, "inferno": cv2.COLORMAP_INFERNO, "viridis": cv2.COLORMAP_VIRIDIS}


def rgb_from_map(depth_map: DepthMap, colormap: str, near_m: float, far_m: float) -> npt.NDArray[np.uint8]:
    """Colour a map: near is the end of the colour map, unknown is black.

    Args:
        depth_map: metric maps are shown in log depth between two fixed distances, so that a colour always means the
            same distance; relative maps between their own 2nd and 98th percentile.
        colormap: turbo, inferno, viridis or gray.
        near_m: metres in the nearest colour.
        far_m: metres in the farthest colour; +Inf too.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    values = depth_map.values
    if depth_map.kind == "depth_m":
        nearness, (low, gain) = -cv2.log(values), log_range(near_m, far_m)
    else:
        nearness = values
        low, high = np.nanpercentile(values[::4, ::4], (2, 98)) if np.isfinite(values[::4, ::4]).any() else (0.0, 1.0)
        gain = _gain(low, high)
    scaled = np.clip((nearness - np.float32(low)) * np.float32(gain), 0, 255)
    unknown = np.isnan(values)
    index = np.where(unknown, np.float32(0), scaled).astype(np.uint8)
    if colormap == "gray":
        rgb = cv2.cvtColor(index, cv2.COLOR_GRAY2RGB)
    else:
        rgb = cv2.cvtColor(cv2.applyColorMap(index, _COLORMAPS[colormap]), cv2.COLOR_BGR2RGB)
    rgb[unknown] = 0
    return rgb  # type: ignore[return-value]


def log_range(near_m: float, far_m: float) -> tuple[float, float]:
    """Return low and gain, so that (-log(depth) - low) * gain is 0 at the farthest colour and 255 at the nearest."""
    low, high = -math.log(far_m), -math.log(near_m)
    return low, _gain(low, high)


def _gain(low: float, high: float) -> float:
    return 255 / max(high - low, 1e-9)
