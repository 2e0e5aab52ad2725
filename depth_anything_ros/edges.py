"""Stage 5/6: which pixels of an enlarged map lie between two surfaces ('flying pixels'), and what becomes of what is beyond range.

Enlarging interpolates, and a network blurs, so an edge between 1 m and 4 m leaves points in the air between them, which a map of
obstacles takes for real. They are found at the network's size, where an edge is one or two samples wide.

Source: 1/z of a plane is linear in pixel coordinates, so a floor seen at a grazing angle is told from an edge by going on at the same slope.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .config import EdgesConfig
from .postprocess import enlarge
from .structs import DepthMap

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FAR_POLICIES = ("nan", "clamp", "inf")

_SUPPORT = 3
"""Differences that must go on at the slope of a jump on one side of it to make it a slanted plane: five samples in a row."""
_WEAK = 1 / 3
"""The foot of an edge may be as much flatter than the edge."""
_SAME_SLOPE = 0.5
"""A difference goes on at the same slope when it is within this share of it."""


def edge_mask(depth_m: Array, size_hw: tuple[int, int], jump: float) -> Mask:
    """Return which pixels of a map that is enlarged bilinearly lie between two surfaces.

    Args:
        depth_m: (h, w) float32 metres at the network's size; NaN and +Inf have no edge (`postprocess.enlarge` mixes neither with other depths).
        size_hw: height and width of the enlarged map in pixels; may be (h, w).
        jump: share of the farther depth by which two neighbouring samples may differ. A larger difference is an edge, unless the
            depth goes on at the same slope for another three samples to one of its sides.

    Returns:
        (H, W) bool, True = between surfaces, of no use. An edge that the network spread over more than three samples, evenly in 1/z,
        looks like a steep plane and is not found.
    """
    return _Edges(depth_m, jump).mask(size_hw)


def without_edges(enlarged_m: Array, depth_m: Array, jump: float, snap: bool, max_depth_m: float = math.inf) -> Array:
    """Take what lies between two surfaces out of an enlarged map.

    Args:
        enlarged_m: (H, W) float32 metres, made of `depth_m` by `postprocess.enlarge`; not changed.
        depth_m: (h, w) float32 metres at the network's size.
        jump: see `edge_mask`.
        snap: give such a pixel the depth of the nearest sample, which keeps thin things; unknown (NaN) only where that lies between
            surfaces itself. False: all of them are unknown, one sample's width around every edge; what is thinner than that is lost.
        max_depth_m: what `enlarge` was given; what is farther has no edge.

    Returns:
        (H, W) float32 of its own.
    """
    depth_m = np.where(depth_m > np.float32(max_depth_m), np.float32(np.inf), depth_m)
    size_hw, edges = (enlarged_m.shape[0], enlarged_m.shape[1]), _Edges(depth_m, jump)
    mask = edges.mask(size_hw) & np.isfinite(enlarged_m)
    if not snap:
        return np.where(mask, np.float32(np.nan), enlarged_m)
    samples = np.where(edges.between, np.float32(np.nan), depth_m)
    rows, columns = (np.rint(_positions(depth_m.shape[axis], size_hw[axis])).astype(np.intp) for axis in (0, 1))
    return np.where(mask, np.take(np.take(samples, rows, axis=0), columns, axis=1), enlarged_m)


class _Edges:
    """Edges of a map at the network's size.

    Attributes:
        across: (h, w - 1) bool, between which neighbours of a row there is an edge.
        down: (h - 1, w) bool, of a column.
        between: (h, w) bool, which samples lie between two surfaces.
    """

    def __init__(self, depth_m: Array, jump: float) -> None:
        self.across, between_x = _row_edges(depth_m, jump)
        down, between_y = _row_edges(np.ascontiguousarray(depth_m.T), jump)
        self.down, self.between = down.T, between_x | between_y.T

    def mask(self, size_hw: tuple[int, int]) -> Mask:
        height, width = self.between.shape
        # Twice as fine as the samples: 2 i + 1 is sample i, 2 i lies between samples i - 1 and i.
        grid = np.zeros((2 * height + 1, 2 * width + 1), np.bool_)
        grid[1::2, 1::2], grid[1::2, 2:-1:2], grid[2:-1:2, 1::2] = self.between, self.across, self.down
        grid[2:-1:2, 2:-1:2] = self.across[:-1] | self.across[1:] | self.down[:, :-1] | self.down[:, 1:]
        rows, columns = _positions(height, size_hw[0]), _positions(width, size_hw[1])
        return np.take(np.take(grid, _cells(rows), axis=0), _cells(columns), axis=1)


def _positions(samples: int, pixels: int) -> npt.NDArray[np.float64]:
    """Return where the pixels of one axis are, in samples, with half-pixel centres, as OpenCV resizes."""
    return np.clip((np.arange(pixels) + 0.5) * (samples / max(pixels, 1)) - 0.5, 0, samples - 1)


def _cells(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    below = np.floor(positions)
    return (2 * below + np.where(positions > below, 2, 1)).astype(np.intp)


def _row_edges(depth_m: Array, jump: float) -> tuple[Mask, Mask]:
    """Return the edges between neighbours of a row, (h, w - 1), and the samples between two surfaces, (h, w).

    Such a sample has an edge on one side that goes on, weaker or not, in the same direction on the other.
    """
    inverse = np.float32(1) / np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(np.nan))
    difference = inverse[:, 1:] - inverse[:, :-1]
    size, largest = np.abs(difference), np.maximum(inverse[:, 1:], inverse[:, :-1]) * np.float32(jump)
    weak, between = size > largest * np.float32(_WEAK), np.zeros(depth_m.shape, np.bool_)
    if weak.any():
        weak &= ~(_goes_on(difference, size) | _goes_on(difference[:, ::-1], size[:, ::-1])[:, ::-1])
    edge, falls = weak & (size > largest), difference < 0
    between[:, 1:-1] = weak[:, :-1] & weak[:, 1:] & (edge[:, :-1] | edge[:, 1:]) & (falls[:, :-1] == falls[:, 1:])
    return edge, between


def _goes_on(difference: Array, size: Array) -> Mask:
    """Return which differences are followed by `_SUPPORT` of about the same size and sign, towards the end of the row."""
    goes_on = np.zeros(difference.shape, np.bool_)
    end = max(difference.shape[1] - _SUPPORT, 0)
    goes_on[:, :end] = True
    for ahead in range(1, _SUPPORT + 1):
        goes_on[:, :end] &= np.abs(difference[:, ahead : end + ahead] - difference[:, :end]) <= np.float32(_SAME_SLOPE) * size[:, :end]
    return goes_on


def enlarge_metric(depth_map: DepthMap, size_hw: tuple[int, int], max_depth_m: float, edges: EdgesConfig) -> DepthMap:
    """Bring metric depth to its published size as `postprocess.enlarge` does, and treat what lies between two surfaces as `edges` says."""
    large = enlarge(depth_map, size_hw, max_depth_m)
    if edges.mode == "off":
        return large
    return DepthMap(without_edges(large.values, depth_map.values, edges.jump, edges.mode == "snap", max_depth_m), depth_map.kind)


def with_far_policy(depth_m: Array, policy: str, far_m: float) -> Array:
    """Decide what becomes of what is beyond range, for points and scans; the depth image keeps +Inf (REP 117).

    Args:
        depth_m: (H, W) float32 metres, NaN = unknown, +Inf = beyond range; not changed.
        policy: `nan`: beyond range is unknown; Nav2 neither marks nor clears there. `inf`: stays +Inf; it is no point of a cloud, a
            scan says that the way is free. `clamp`: is at `far_m`, so that Nav2, which cannot follow a ray to a point at infinity, clears
            what lies before it.
        far_m: metres along Z; what is farther is beyond range. For `clamp` not above the depth's own limit, behind which nothing was
            seen, and Nav2's obstacle source needs
            obstacle_max_range < far_m, or the end of the range becomes a wall, and should have raytrace_max_range <= far_m,
            up to where it clears. It drops points outside of the source's min_obstacle_height .. max_obstacle_height before
            it clears with them, so a source for clearing (marking: false) needs wide heights.

    Returns:
        (H, W) float32 of its own.

    Raises:
        ValueError: an unknown policy.
    """
    if policy not in FAR_POLICIES:
        raise ValueError(f"far policy '{policy}' is not one of {', '.join(FAR_POLICIES)}")
    target = {"nan": np.nan, "clamp": far_m, "inf": np.inf}[policy]
    return np.where(depth_m > np.float32(far_m), np.float32(target), depth_m)
