"""Ambient occlusion from a depth image: corners, and what stands close to something, get less of the light that comes from everywhere.

Source: McGuire et al. 2011, "The Alchemy screen-space ambient obscurance algorithm", here with a linear fall-off; what the image does not
show occludes nothing.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

STEP = 2
"""It is computed on every n-th pixel: it is smooth, but for the outlines of things."""
SAMPLES = 12
TILE = 4
"""Pixels of a TILE x TILE square look in different directions; a box filter of that size takes the pattern away."""
MIN_REACH_PX, MAX_REACH_PX = 1.5, 40.0
FLAT = 0.015
"""Elevation (sine of the angle) below which a neighbour occludes nothing: depth has only so many digits."""
FloatArray = npt.NDArray[np.float32]


def ambient_light(depth_m: FloatArray, focal_px: float, radius_m: float = 0.5) -> FloatArray:
    """Return how much of the ambient light reaches each pixel.

    Args:
        depth_m: (H, W) float32, metres along the optical axis, +Inf in the sky.
        focal_px: focal length in pixels; square pixels, principal point near the centre.
        radius_m: what is farther away occludes nothing.

    Returns:
        (H, W) float32, 0 = none to 1 = all; 1 in the sky.
    """
    height, width = depth_m.shape
    z = np.ascontiguousarray(depth_m[::STEP, ::STEP])
    sky = ~np.isfinite(z)
    z = np.where(sky, np.float32(1e4), z)
    points = _points(z, focal_px / STEP)
    normals = _normals(points)
    rows, columns = np.indices(z.shape, dtype=np.int32)
    turn = ((rows % TILE) * TILE + columns % TILE).astype(np.float32) * np.float32(2 * np.pi / TILE**2 / SAMPLES)
    reach_px = np.clip(radius_m * focal_px / STEP / z, MIN_REACH_PX, MAX_REACH_PX)
    total = np.zeros_like(z)
    for number in range(SAMPLES):
        angle = turn + np.float32(2 * np.pi * number * 5 / SAMPLES)  # 5 and SAMPLES have no common divisor: near and far in all directions
        length = reach_px * np.float32(((number + 1) / SAMPLES) ** 0.7)
        v = np.clip(rows + np.rint(length * np.sin(angle)).astype(np.int32), 0, z.shape[0] - 1)
        u = np.clip(columns + np.rint(length * np.cos(angle)).astype(np.int32), 0, z.shape[1] - 1)
        towards = points[v, u] - points
        distance = np.sqrt(np.einsum("hwc,hwc->hw", towards, towards)) + np.float32(1e-4)
        rise = np.einsum("hwc,hwc->hw", towards, normals) / distance
        total += np.clip(rise - FLAT, 0, 1) * np.clip(1 - distance / radius_m, 0, 1)
    light = np.clip(1 - total * np.float32(3.0 / SAMPLES), 0, 1)
    light[sky] = 1
    return cv2.resize(cv2.blur(light, (TILE, TILE)), (width, height), interpolation=cv2.INTER_LINEAR)


def _points(z: FloatArray, focal_px: float) -> FloatArray:
    """Return (H, W, 3) positions in the camera's frame."""
    height, width = z.shape
    x = (np.arange(width, dtype=np.float32) - width / 2 + 0.5) / np.float32(focal_px)
    y = (np.arange(height, dtype=np.float32) - height / 2 + 0.5) / np.float32(focal_px)
    return np.stack([x[None] * z, y[:, None] * z, z], -1)


def _normals(points: FloatArray) -> FloatArray:
    """Return (H, W, 3) unit normals towards the camera, from the nearer of the two neighbours along each axis."""
    across, down = (_difference(points, axis) for axis in (1, 0))
    normals = np.cross(down, across)
    return normals / (np.linalg.norm(normals, axis=-1, keepdims=True) + np.float32(1e-9))


def _difference(points: FloatArray, axis: int) -> FloatArray:
    step = np.diff(points, axis=axis)
    before = np.concatenate([np.take(step, [0], axis), step], axis)
    after = np.concatenate([step, np.take(step, [-1], axis)], axis)
    return np.where(np.abs(before[..., 2:]) < np.abs(after[..., 2:]), before, after)
