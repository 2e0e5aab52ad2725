"""Rooms of boxes, traced ray by ray: exact depth maps and laser scans from different places of the same world (x forward, y left, z up)."""

from __future__ import annotations

import math

import numpy as np

from depth_anything_ros.geometry import intrinsics_from_hfov
from depth_anything_ros.structs import DepthMap

CAMERA = intrinsics_from_hfov(80.0, (480, 640))
MAP_HW = (128, 160)


class Room:
    """The inside of a cuboid with cuboids in it; `low` and `high` are opposite corners in metres."""

    def __init__(self, low=(-2.0, -3.0, 0.0), high=(7.0, 3.0, 2.6), boxes=()):
        self.inside, self.boxes = (np.array(low), np.array(high)), [(np.array(a), np.array(b)) for a, b in boxes]

    def distances(self, origin, directions):
        """Return how far each ray goes, in lengths of its direction (..., 3)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            nearest = self._slabs(self.inside, origin, directions)[1]
            for box in self.boxes:
                enter, leave = self._slabs(box, origin, directions)
                nearest = np.where((enter <= leave) & (enter > 0), np.minimum(nearest, enter), nearest)
        return nearest

    def _slabs(self, box, origin, directions):
        first, second = (box[0] - origin) / directions, (box[1] - origin) / directions
        return np.nanmax(np.minimum(first, second), axis=-1), np.nanmin(np.maximum(first, second), axis=-1)


def world_t_camera(position, pitch_deg=0.0, yaw_deg=0.0):
    """Return the pose of a camera (optical frame) that looks along x, down by `pitch_deg`."""
    p, w = math.radians(pitch_deg), math.radians(yaw_deg)
    forward = np.array([math.cos(p) * math.cos(w), math.cos(p) * math.sin(w), -math.sin(p)])
    right = np.array([math.sin(w), -math.cos(w), 0.0])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.column_stack([right, np.cross(forward, right), forward]), position
    return pose


def world_t_sensor(position, yaw_deg=0.0):
    """Return the pose of a level sensor (x forward, z up)."""
    w, pose = math.radians(yaw_deg), np.eye(4)
    pose[:2, :2], pose[:3, 3] = [[math.cos(w), -math.sin(w)], [math.sin(w), math.cos(w)]], position
    return pose


def depth_m(room, pose, size_hw=MAP_HW, camera=CAMERA):
    """Return the exact depth map (H, W) float32 of a view."""
    u = ((np.arange(size_hw[1]) + 0.5) * camera.size_hw[1] / size_hw[1] - 0.5 - camera.cx) / camera.fx
    v = ((np.arange(size_hw[0]) + 0.5) * camera.size_hw[0] / size_hw[0] - 0.5 - camera.cy) / camera.fy
    rays = np.stack([*np.meshgrid(u, v), np.ones(size_hw)], axis=-1)
    return room.distances(pose[:3, 3], rays @ pose[:3, :3].T).astype(np.float32)


def scan(room, pose, angles):
    """Return the ranges of a planar laser scanner."""
    directions = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))])
    return room.distances(pose[:3, 3], directions @ pose[:3, :3].T)


def relative(truth_m, scale=0.37, shift=0.05, noise=0.0, rng=None):
    """Return the disparity that a relative model would give: 1 / truth = scale * disparity + shift, times 1 +- noise."""
    inverse = 1 / truth_m.astype(np.float64)
    if noise:
        inverse = inverse * (1 + noise * rng.normal(size=inverse.shape))
    return DepthMap(((inverse - shift) / scale).astype(np.float32), "disparity_affine_invariant")


def median_error(depth_map, truth_m):
    """Return the median of |depth / truth - 1|."""
    return float(np.median(np.abs(depth_map.values / truth_m - 1)))
