"""Stage 5/6: DepthMap + camera -> points in the camera's optical frame (REP 103: z forward, x right, y down)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from .structs import Intrinsics


def intrinsics_from_k(k: Sequence[float], size_hw: tuple[int, int]) -> Intrinsics | None:
    """Read a row-major 3x3 camera matrix.

    Returns:
        The intrinsics, or None where the matrix is not of a calibrated camera (zero or negative focal length, NaN, Inf).
    """
    fx, fy, cx, cy = float(k[0]), float(k[4]), float(k[2]), float(k[5])
    if not all(math.isfinite(v) for v in (fx, fy, cx, cy)) or fx <= 0 or fy <= 0:
        return None
    return Intrinsics(fx, fy, cx, cy, size_hw)


def intrinsics_from_hfov(hfov_deg: float, size_hw: tuple[int, int]) -> Intrinsics:
    """Return an ideal camera of the given horizontal field of view in degrees, with its centre in the middle."""
    focal_px = size_hw[1] / 2 / math.tan(math.radians(hfov_deg) / 2)
    return Intrinsics(focal_px, focal_px, size_hw[1] / 2, size_hw[0] / 2, size_hw)


def scaled(intrinsics: Intrinsics, size_hw: tuple[int, int]) -> Intrinsics:
    """Return the intrinsics of the same camera for an image of another size.

    K is multiplied by the ratio of sizes, principal point included, as image_proc's ResizeNode and image_geometry's binning do it.
    """
    sx, sy = size_hw[1] / intrinsics.size_hw[1], size_hw[0] / intrinsics.size_hw[0]
    return Intrinsics(intrinsics.fx * sx, intrinsics.fy * sy, intrinsics.cx * sx, intrinsics.cy * sy, size_hw)


class CloudBuilder:
    """Builds organised point clouds; keeps the rays of the last camera and one output buffer. Not thread-safe."""

    def __init__(self) -> None:
        """Start with empty caches."""
        self._key: tuple[Intrinsics, int] | None = None
        self._ray_x = self._ray_y = np.empty(0, np.float32)
        self._x = self._y = np.empty((0, 0), np.float32)
        self._points = np.empty((0, 0, 0), np.float32)

    def __call__(
        self,
        depth_m: npt.NDArray[np.float32],
        intrinsics: Intrinsics,
        rgb: npt.NDArray[np.uint8] | None = None,
        stride: int = 1,
        range_m: tuple[float, float] = (0.0, math.inf),
    ) -> npt.NDArray[np.float32]:
        """Back-project every `stride`-th pixel.

        Args:
            depth_m: (H, W) float32 metres along +Z, NaN or +Inf = no point.
            intrinsics: camera of an image of the depth's size.
            rgb: (H', W', 3) uint8 of the same view, any size, or None for points without colour.
            stride: in pixels, in both directions.
            range_m: nearest and farthest Z in metres that make a point.

        Returns:
            (ceil(H / stride), ceil(W / stride), 3 or 4) float32: X, Y, Z in metres, NaN where there is no point, and with
            `rgb` the colour as 0x00RRGGBB in the bits of a float32 (PCL's `rgb`). Overwritten by the next call.
        """
        z = depth_m[::stride, ::stride]
        self._prepare(intrinsics, stride, (z.shape[0], z.shape[1]), 3 if rgb is None else 4)
        nearest, farthest = max(range_m[0], np.finfo(np.float32).tiny), min(range_m[1], np.finfo(np.float32).max)
        z = np.where((z >= np.float32(nearest)) & (z <= np.float32(farthest)), z, np.float32(np.nan))
        planes = [np.multiply(z, self._ray_x, out=self._x), np.multiply(z, self._ray_y, out=self._y), z]
        if rgb is not None:
            if rgb.shape[:2] != depth_m.shape:
                rgb = cv2.resize(rgb, (depth_m.shape[1], depth_m.shape[0]), interpolation=cv2.INTER_NEAREST)
            bgra = cv2.cvtColor(rgb[::stride, ::stride], cv2.COLOR_RGB2BGRA)
            # Alpha 0: with alpha 255 a bright red is a NaN, and tools that skip NaN in any field drop the point.
            planes.append((bgra.view("<u4")[..., 0] & np.uint32(0x00FFFFFF)).view(np.float32))
        return cv2.merge(planes, dst=self._points)  # type: ignore[return-value]

    def _prepare(self, intrinsics: Intrinsics, stride: int, size_hw: tuple[int, int], channels: int) -> None:
        if self._points.shape != (*size_hw, channels):
            self._x, self._y = np.empty(size_hw, np.float32), np.empty(size_hw, np.float32)
            self._points = np.empty((*size_hw, channels), np.float32)
        if self._key != (intrinsics, stride):
            self._key = (intrinsics, stride)
            columns, rows = np.arange(size_hw[1]) * stride, np.arange(size_hw[0]) * stride
            self._ray_x = ((columns - intrinsics.cx) / intrinsics.fx).astype(np.float32)[None, :]
            self._ray_y = ((rows - intrinsics.cy) / intrinsics.fy).astype(np.float32)[:, None]
