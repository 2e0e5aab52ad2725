"""What a rendered scene is made of: camera, material, instance, lights; numpy only, no OpenGL.

World frame: Z up, metres. Camera frame: optical (x right, y down, z forward), REP 103.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .classes import CLASS_IDS

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """Surface of a primitive or a replacement for a mesh's own.

    Attributes:
        texture: a key of `Library.texture`; empty means plain white.
        tint: linear RGB factor, 0..1.
        tile_m: edge of one texture tile in metres, laid on in the primitive's own axes; 0 uses the mesh's UV coordinates.
        gloss: strength of the specular highlight, 0..1.
        glow: emitted light as a multiple of the albedo (lamps, windows).
    """

    texture: str = ""
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    tile_m: float = 1.0
    gloss: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Instance:
    """One mesh placed in the world: `mesh` is a key of `Library.mesh`, `world_T_mesh` 4x4 (scale allowed), `class_id` what it is."""

    mesh: str
    world_T_mesh: Matrix
    class_id: int
    material: Material | None = None
    casts_shadow: bool = True


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: optical frame in the world, and intrinsics in pixels for `size_hw`."""

    world_T_camera: Matrix
    focal_px: float
    cx: float
    cy: float
    size_hw: tuple[int, int]

    def subsampled(self, step: int) -> Camera:
        """Return the camera whose pixel (v, u) looks where this one's pixel (v * step, u * step) does."""
        height, width = self.size_hw
        cx, cy = (self.cx - 0.5) / step + 0.5, (self.cy - 0.5) / step + 0.5
        return Camera(self.world_T_camera, self.focal_px / step, cx, cy, (-(-height // step), -(-width // step)))


@dataclass(frozen=True)
class Lamp:
    """A point light: position in the world, linear RGB intensity (irradiance at 1 m)."""

    position: tuple[float, float, float]
    rgb: tuple[float, float, float]


@dataclass
class Scene:
    """Instances and light; builders append to `instances` and `lamps`.

    Attributes:
        outdoor: whether the open sky may be seen.
        sky: a key of `Library.sky`; drawn where no surface is.
        sky_gain: brightness of the sky relative to white.
        sun_direction: unit vector from the scene towards the sun (or the main soft light); casts the shadows.
        sun_rgb, ambient_rgb: linear RGB irradiance.
        shadow_centre, shadow_radius_m: what the shadow map covers.
    """

    instances: list[Instance] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    outdoor: bool = False
    sky: str = "proc:0"
    sky_gain: float = 1.0
    sky_yaw: float = 0.0
    sun_direction: tuple[float, float, float] = (0.3, 0.2, 0.93)
    sun_rgb: tuple[float, float, float] = (0.6, 0.6, 0.6)
    ambient_rgb: tuple[float, float, float] = (0.4, 0.4, 0.4)
    shadow_centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shadow_radius_m: float = 8.0

    def add(
        self,
        mesh: str,
        position: tuple[float, float, float] | Matrix,
        scale: tuple[float, float, float] | float = 1.0,
        rotation: Matrix | None = None,
        material: Material | None = None,
        casts_shadow: bool = True,
        *,
        label: str,
    ) -> None:
        """Place a mesh: `scale` in its own axes first, then `rotation` (3x3), then `position` (metres); `label` is a name in `CLASSES`."""
        pose = np.eye(4)
        pose[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.asarray(scale)
        pose[:3, 3] = position
        self.instances.append(Instance(mesh, pose, CLASS_IDS[label], material, casts_shadow))


def yaw_rotation(yaw: float) -> Matrix:
    """Return the 3x3 rotation about world Z by `yaw` radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def random_rotation(rng: np.random.Generator) -> Matrix:
    """Return a uniformly random 3x3 rotation (QR of a Gaussian matrix)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def camera_pose(eye: tuple[float, float, float] | Matrix, yaw: float, pitch: float, roll: float = 0.0) -> Matrix:
    """Return `world_T_camera` of a camera looking along `yaw` (radians about Z, 0 = +X), `pitch` up, then `roll`ed."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, -s * right + c * down, forward], axis=1)
    pose[:3, 3] = eye
    return pose
