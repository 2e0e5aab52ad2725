"""A furnished room seen by a moving camera, drawn with numpy and OpenCV, with the exact depth of every pixel.

Every surface is a textured parallelogram. For a pixel with ray r = K^-1 (x, y, 1) the inverse depth of a plane n.X = d is
n.r / d, linear in x and y, and so are both texture coordinates times depth: one z-buffer over a few linear forms is all there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..structs import Intrinsics

Vector = npt.NDArray[np.float64]
Rgb = npt.NDArray[np.uint8]
FRAMES_PER_LOOP = 60


@dataclass(frozen=True)
class Surface:
    """A parallelogram: one corner and two edges in metres (world: x right, y forward, z up), and its repeated texture."""

    corner: Vector
    edge_u: Vector
    edge_v: Vector
    texture: Rgb
    tile_m: float
    shade: float


def surfaces_of_box(
    centre: tuple[float, float, float], size: tuple[float, float, float], yaw: float, texture: Rgb, tile_m: float = 0.5
) -> list[Surface]:
    """Return the six sides of an upright box; `centre` is the middle of its floor."""
    c, s = math.cos(yaw), math.sin(yaw)
    axes = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) * np.array(size)[:, None]
    low = np.array(centre) - axes[0] / 2 - axes[1] / 2
    light = np.array([0.4, -0.6, 0.7]) / np.linalg.norm([0.4, -0.6, 0.7])
    sides = []
    for i in range(3):
        u, v = axes[(i + 1) % 3], axes[(i + 2) % 3]
        normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
        for corner, outward in ((low, -normal), (low + axes[i], normal)):
            sides.append(Surface(corner, u, v, texture, tile_m, 0.62 + 0.38 * float(outward @ light)))
    return sides


def noise_texture(rng: np.random.Generator, rgb: tuple[int, int, int], contrast: float = 0.15, size: int = 256) -> Rgb:
    """Return a mottled texture of one colour."""
    grain = sum(cv2.resize(rng.normal(size=(n, n)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC) for n in (4, 16, 64))
    return np.clip(np.array(rgb) * (1 + contrast * 0.4 * np.asarray(grain))[..., None], 0, 255).astype(np.uint8)


def plank_texture(rng: np.random.Generator, rgb: tuple[int, int, int], planks: int = 6, size: int = 256) -> Rgb:
    """Return boards with dark joints."""
    texture = noise_texture(rng, rgb, 0.12, size).astype(np.float32)
    for i, edge in enumerate(np.linspace(0, size, planks + 1)[:-1].astype(int)):
        texture[:, edge : edge + size // planks] *= rng.uniform(0.8, 1.1)
        texture[:, edge : edge + 2] *= 0.45
        joint = (i * 97) % size
        texture[joint : joint + 2, edge : edge + size // planks] *= 0.5
    return np.clip(texture, 0, 255).astype(np.uint8)


def _room(rng: np.random.Generator) -> list[Surface]:
    floor, wall = plank_texture(rng, (150, 108, 70)), noise_texture(rng, (205, 198, 182), 0.06)
    wood, cloth, card, dark = (noise_texture(rng, rgb, 0.2) for rgb in ((122, 78, 44), (62, 84, 120), (176, 142, 96), (60, 58, 56)))
    books, green, picture = plank_texture(rng, (140, 60, 50), 14), noise_texture(rng, (58, 110, 52), 0.5), noise_texture(rng, (90, 120, 150), 0.9)

    def plane(corner: tuple[float, ...], u: tuple[float, ...], v: tuple[float, ...], texture: Rgb, tile_m: float, shade: float) -> Surface:
        return Surface(np.array(corner), np.array(u), np.array(v), texture, tile_m, shade)

    surfaces = [
        plane((-3, -1, 0), (6, 0, 0), (0, 8, 0), floor, 1.2, 0.95),
        plane((-3, -1, 2.6), (6, 0, 0), (0, 8, 0), wall, 2.0, 0.9),
        plane((-3, 7, 0), (6, 0, 0), (0, 0, 2.6), wall, 2.0, 0.85),
        plane((-3, -1, 0), (0, 8, 0), (0, 0, 2.6), wall, 2.0, 0.75),
        plane((3, -1, 0), (0, 8, 0), (0, 0, 2.6), wall, 2.0, 0.7),
        plane((-3, -1, 0), (6, 0, 0), (0, 0, 2.6), wall, 2.0, 0.7),
        plane((-1.2, 6.98, 1.2), (1.6, 0, 0), (0, 0, 0.9), picture, 1.6, 1.0),
        plane((2.98, 2.0, 0.9), (0, 1.6, 0), (0, 0, 1.2), noise_texture(rng, (225, 235, 245), 0.05), 2.0, 1.05),
    ]
    boxes = [
        ((0.5, 3.6, 0.72), (1.4, 0.8, 0.04), 0.1, wood),
        ((-0.05, 3.3, 0), (0.06, 0.06, 0.72), 0.1, wood), ((1.05, 3.4, 0), (0.06, 0.06, 0.72), 0.1, wood),
        ((-0.1, 3.95, 0), (0.06, 0.06, 0.72), 0.1, wood), ((0.95, 4.0, 0), (0.06, 0.06, 0.72), 0.1, wood),
        ((0.3, 3.5, 0.76), (0.3, 0.22, 0.2), 0.5, card), ((0.85, 3.65, 0.76), (0.12, 0.12, 0.3), 0.0, green),
        ((-2.2, 4.2, 0), (0.9, 2.0, 0.42), 0.0, cloth), ((-2.55, 4.2, 0.42), (0.22, 2.0, 0.45), 0.0, cloth),
        ((-1.6, 6.7, 0), (1.2, 0.4, 2.0), 0.0, books), ((2.3, 6.2, 0), (0.7, 0.7, 1.1), 0.3, dark),
        ((1.9, 2.4, 0), (0.5, 0.5, 0.5), 0.6, card), ((2.2, 2.9, 0), (0.4, 0.4, 0.8), 0.2, card), ((-0.9, 2.3, 0), (0.35, 0.35, 0.3), 0.9, green),
    ]  # fmt: skip
    for centre, size, yaw, texture in boxes:
        surfaces += surfaces_of_box(centre, size, yaw, texture)  # type: ignore[arg-type]
    return surfaces


class MovingScene:
    """The room, the camera's path through it, and a box that rolls by. Frame numbers repeat after `FRAMES_PER_LOOP`."""

    def __init__(self, size_hw: tuple[int, int] = (480, 640), hfov_deg: float = 70.0, seed: int = 0) -> None:
        """Furnish the room; everything is determined by the seed."""
        focal_px = size_hw[1] / 2 / math.tan(math.radians(hfov_deg) / 2)
        self.intrinsics = Intrinsics(focal_px, focal_px, size_hw[1] / 2, size_hw[0] / 2, size_hw)
        self._rng_seed = seed
        rng = np.random.default_rng(seed)
        self._room = _room(rng)
        self._box_texture = noise_texture(rng, (190, 60, 50), 0.3)
        columns, rows = np.arange(size_hw[1]), np.arange(size_hw[0])
        self._ray_x = ((columns - self.intrinsics.cx) / focal_px)[None, :]
        self._ray_y = ((rows - self.intrinsics.cy) / focal_px)[:, None]

    def render(self, number: int) -> tuple[Rgb, npt.NDArray[np.float32]]:
        """Draw one frame.

        Returns:
            (H, W, 3) uint8 RGB, and (H, W) float32 metres along the optical axis.
        """
        phase = 2 * math.pi * (number % FRAMES_PER_LOOP) / FRAMES_PER_LOOP
        position = np.array([0.5 * math.sin(phase), 0.35 * math.sin(2 * phase), 1.3])
        yaw, pitch = 0.12 * math.sin(phase + 0.5), math.radians(12)
        forward = np.array([math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), -math.sin(pitch)])
        right = np.array([math.cos(yaw), -math.sin(yaw), 0.0])
        camera_r_world = np.array([right, np.cross(forward, right), forward])
        rolling = surfaces_of_box((-1.5 + 2.5 * (phase / (2 * math.pi)), 5.2, 0), (0.4, 0.4, 0.4), phase, self._box_texture)
        inverse_depth = np.zeros(self.intrinsics.size_hw, np.float32)
        rgb = np.zeros((*self.intrinsics.size_hw, 3), np.uint8)
        for surface in self._room + rolling:
            self._draw(surface, camera_r_world, position, rgb, inverse_depth)
        rng = np.random.default_rng((self._rng_seed, number % FRAMES_PER_LOOP))
        noise = rng.normal(0, 2.5, rgb.shape[:2]).astype(np.int16)[..., None]
        return np.clip(rgb + noise, 0, 255).astype(np.uint8), np.reciprocal(inverse_depth)

    def _draw(self, surface: Surface, camera_r_world: Vector, position: Vector, rgb: Rgb, inverse_depth: npt.NDArray[np.float32]) -> None:
        corner = camera_r_world @ (surface.corner - position)
        basis = np.column_stack([camera_r_world @ surface.edge_u, camera_r_world @ surface.edge_v, corner])
        if abs(np.linalg.det(basis)) < 1e-9:
            return
        # X = z r = basis (u, v, 1): the rows of basis^-1 applied to r give (u/z, v/z, 1/z).
        window = self._window(basis)
        if window is None:
            return
        rows, columns = window
        forms = [(f[0] * self._ray_x[:, columns] + f[1] * self._ray_y[rows] + f[2]).astype(np.float32) for f in np.linalg.inv(basis)]
        u_over_z, v_over_z, near = forms
        seen = (near > inverse_depth[rows, columns]) & (u_over_z >= 0) & (v_over_z >= 0) & (u_over_z <= near) & (v_over_z <= near)
        if not seen.any():
            return
        z = np.reciprocal(np.where(seen, near, np.float32(1)))
        pixels_per_m = surface.texture.shape[0] / surface.tile_m
        map_u = u_over_z * z * np.float32(np.linalg.norm(surface.edge_u) * pixels_per_m)
        map_v = v_over_z * z * np.float32(np.linalg.norm(surface.edge_v) * pixels_per_m)
        colour = cv2.remap(surface.texture, map_u, map_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        colour = cv2.convertScaleAbs(colour, alpha=surface.shade)
        np.copyto(rgb[rows, columns], colour, where=seen[..., None])
        np.copyto(inverse_depth[rows, columns], near, where=seen)

    def _window(self, basis: Vector) -> tuple[slice, slice] | None:
        """Return the rows and columns that the surface can touch: the box around its corners, or all if one is behind."""
        corners = [basis @ np.array([u, v, 1.0]) for u in (0, 1) for v in (0, 1)]
        if max(c[2] for c in corners) < 0.05:
            return None
        height, width = self.intrinsics.size_hw
        if min(c[2] for c in corners) < 0.05:
            return slice(0, height), slice(0, width)
        x = [c[0] / c[2] * self.intrinsics.fx + self.intrinsics.cx for c in corners]
        y = [c[1] / c[2] * self.intrinsics.fy + self.intrinsics.cy for c in corners]
        left, right = max(0, math.floor(min(x))), min(width, math.ceil(max(x)) + 1)
        top, bottom = max(0, math.floor(min(y))), min(height, math.ceil(max(y)) + 1)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None
