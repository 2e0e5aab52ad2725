"""Stage 5/6: depth -> the nearest obstacle at every bearing, as a level laser scanner at the camera's place would see it.

How far, how high and in which direction a pixel is, all are its ray times its depth. So a table per camera holds, for each pixel that
can be in the band of heights at all, the bearing's bin and what a metre of depth adds to range and height; a frame is two products, one comparison
and the smallest of each bin (pixels are kept sorted by bin, because `numpy.minimum.at` is slow).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .geometry import Level

Array = npt.NDArray[np.float32]


_ROUNDING = 1e-6
"""Share by which float32 rays are off: a limit of just the farthest range is enough straight ahead."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan in the level frame (origin at the camera, x where it looks, z up), content of a LaserScan.

    Attributes:
        ranges_m: (n,) float32 horizontal distances from right to left (bearings increase, REP 103). +Inf = seen to be free as far as
            `range_m[1]` (REP 117), NaN = nothing known.
        angle_min_rad, angle_increment_rad: bearing of the first one, and from one to the next.
        range_m: nearest and farthest metres that can be told.
    """

    ranges_m: Array
    angle_min_rad: float
    angle_increment_rad: float
    range_m: tuple[float, float]

    @property
    def angle_max_rad(self) -> float:
        """Bearing of the last range."""
        return self.angle_min_rad + self.angle_increment_rad * (len(self.ranges_m) - 1)


@dataclass(frozen=True)
class _Settings:
    level: Level
    height_m: tuple[float, float]
    range_m: tuple[float, float]


class ScanBuilder:
    """Makes scans; keeps the table of the last camera. Not thread-safe."""

    def __init__(self) -> None:
        """Start without a camera."""
        self._rays: Array | None = None
        self._settings: _Settings | None = None
        self._table: _Table | None = None

    def __call__(
        self,
        depth_m: Array,
        rays: Array,
        level: Level,
        height_m: tuple[float, float],
        range_m: tuple[float, float],
        range_limit_m: float = math.inf,
    ) -> Scan:
        """Make the scan of one depth image.

        Bearings go from the rightmost to the leftmost ray that is between the heights at the farthest range. The increment is the widest
        angle between neighbouring pixels of the middle row or column, so that no bearing is without a pixel however the camera is rolled.

        Args:
            depth_m: (H, W) float32 metres along +Z, NaN = unknown, +Inf = beyond range.
            rays: (H, W, 2) float32, x/z and y/z of every pixel, NaN = no ray (`rays.RayTable.xy`). An array that was given once must not change.
            level: how the camera stands. A new one costs a new table.
            height_m: lowest and highest metres above the floor of what counts as an obstacle.
            range_m: nearest and farthest horizontal metres.
            range_limit_m: metres along Z; a depth of +Inf is known to be farther than this, not more.

        Returns:
            Per bearing the nearest point between the heights; +Inf where there is none and a pixel, whose ray is still between the heights at the
            farthest range, sees as far; otherwise NaN.

        Raises:
            ConfigError: the camera looks straight up or down, sees nothing between the heights at the farthest range, or would need more
                bearings than its image has rows and columns.
            ValueError: rays of another size than the depth.
        """
        if rays.shape != (*depth_m.shape, 2):
            raise ValueError(f"rays have shape {rays.shape}, the depth {depth_m.shape}")
        settings = _Settings(level, height_m, range_m)
        if self._table is None or self._rays is not rays or self._settings != settings:
            self._table = None
            self._table, self._rays, self._settings = _Table(rays, settings), rays, settings
        return self._table.scan(depth_m, range_limit_m)


class _Table:
    """What is known of every pixel without its depth; pixels sorted by bearing."""

    def __init__(self, rays: Array, settings: _Settings) -> None:
        self._settings = settings
        directions = rays.reshape(-1, 2).astype(np.float64) @ settings.level.level_R_camera[:, :2].T + settings.level.level_R_camera[:, 2]
        run, bearing = np.hypot(directions[:, 0], directions[:, 1]), np.arctan2(directions[:, 1], directions[:, 0])
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = directions[:, 2] / run
        low, high = settings.height_m[0] - settings.level.height_m, settings.height_m[1] - settings.level.height_m
        near_end, far_end = slope * settings.range_m[0], slope * settings.range_m[1]
        reaches = (far_end >= low) & (far_end <= high)
        if not reaches.any():
            band = f"between {settings.height_m[0]:g} and {settings.height_m[1]:g} m above the floor at {settings.range_m[1]:g} m"
            raise ConfigError(
                f"the camera sees nothing {band}: lower the scan's farthest range, widen its heights, or correct the camera's height and angles"
            )
        meets = (np.maximum(near_end, far_end) >= low) & (np.minimum(near_end, far_end) <= high)
        self._increment = _widest_step(bearing.reshape(rays.shape[:2]), meets.reshape(rays.shape[:2]))
        self._angle_min = float(bearing[reaches].min())
        self._count = _bearing_count(float(bearing[reaches].max()) - self._angle_min, self._increment, rays.shape[0] + rays.shape[1])
        with np.errstate(invalid="ignore"):  # pixels without a ray
            place = np.rint((bearing - self._angle_min) / self._increment)
            useful = np.flatnonzero(meets & (place >= 0) & (place < self._count))
        bins = place[useful].astype(np.uint16)  # numpy sorts small integers by radix
        order = np.argsort(bins, kind="stable")
        self._pixels, bins = useful[order], bins[order]
        self._starts = np.flatnonzero(np.diff(bins, prepend=-1))
        self._bins = bins[self._starts]
        self._run, self._slope = run[self._pixels].astype(np.float32), slope[self._pixels].astype(np.float32)
        self._low, self._high = np.float32(low), np.float32(high)
        self._reaches = reaches[self._pixels]

    def scan(self, depth_m: Array, range_limit_m: float) -> Scan:
        nearest, farthest = self._settings.range_m
        distance = np.take(depth_m.reshape(-1), self._pixels)
        distance *= self._run
        with np.errstate(invalid="ignore"):  # a level ray to +Inf
            height = distance * self._slope
        beyond = self._reaches & (distance > np.float32(farthest))
        if range_limit_m < math.inf:
            beyond &= np.isfinite(distance) | (self._run * np.float32(range_limit_m) >= np.float32(farthest * (1 - _ROUNDING)))
        inside = (height >= self._low) & (height <= self._high) & (distance >= np.float32(nearest)) & (distance <= np.float32(farthest))
        distance[~inside] = np.inf
        ranges = np.full(self._count, np.nan, np.float32)
        found = np.minimum.reduceat(distance, self._starts)
        free = np.maximum.reduceat(beyond, self._starts)
        ranges[self._bins] = np.where(np.isfinite(found) | free, found, np.float32(np.nan))
        return Scan(ranges, self._angle_min, self._increment, self._settings.range_m)


def _widest_step(bearing: npt.NDArray[np.float64], meets: npt.NDArray[np.bool_]) -> float:
    """Return the largest angle between neighbouring pixels of the middle row and column, a little more: rounding must leave no bearing empty.

    Args:
        bearing: (H, W) radians, NaN = no ray.
        meets: (H, W), pixels that can be in the band. Where a line has some, only they count: near the nadir a step is as wide as one likes.
    """
    row, column = bearing.shape[0] // 2, bearing.shape[1] // 2
    steps = np.concatenate([_steps(bearing[row], meets[row]), _steps(bearing[:, column], meets[:, column])])
    if steps.size == 0:
        raise ConfigError("a scan needs a camera with at least two rays in the middle row or column of its image")
    return float(steps.max()) * 1.001


def _steps(bearing: npt.NDArray[np.float64], meets: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    steps = np.abs(np.diff(bearing))
    counts = np.isfinite(steps) & (steps < math.pi)
    both = counts & meets[1:] & meets[:-1]
    return steps[both if both.any() else counts]


def _bearing_count(span_rad: float, increment_rad: float, most: int) -> int:
    if not span_rad < increment_rad * (most - 0.5):
        raise ConfigError(
            f"the bearings between the scan's heights span {math.degrees(span_rad):.1f} degrees, their step is {math.degrees(increment_rad):.2g}: "
            f"more than the {most} that the image has rows and columns; correct the camera's angles or its camera_info"
        )
    return int(np.rint(span_rad / increment_rad)) + 1
