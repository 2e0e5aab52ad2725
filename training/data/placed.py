"""Scene + library -> the arrays that drawing needs, computed for all instances at once; numpy only, no OpenGL."""

from __future__ import annotations

import numpy as np

from .library import FAR_MESHES, Library
from .scene import Camera, Material, Matrix, Scene

NEAR_M, FAR_M = 0.05, 2000.0
SHADOW_PX = 1024

ITEM = np.dtype(
    [
        ("world_T_mesh", "f4", (4, 4)),
        ("normal_matrix", "f4", (3, 4)),
        ("mesh_scale", "f4", 3),
        ("tiles_per_m", "f4"),
        ("tint", "f4", 3),
        ("gloss", "f4"),
        ("glow", "f4"),
        ("alpha_cutoff", "f4"),
        ("class_id", "f4"),
        ("unused", "f4", 25),  # OpenGL wants uniform blocks to begin at multiples of up to 256 bytes
    ]
)
"""The uniform block `Item` of the surface shaders, std140; matrices by columns."""


class PlacedScene:
    """A scene's instances as arrays; an item is one part of one instance.

    Attributes:
        scene: what was placed.
        items: (M,) of `ITEM`.
        textures: texture key of each item.
        first_item: (N + 1,) number of the first item of each instance.
        poses: (N, 4, 4) world_T_mesh.
        centres, radii: (N, 3) and (N,) bounding spheres in the world, metres.
    """

    def __init__(self, scene: Scene, library: Library) -> None:
        """Look up the meshes; their files are read when they are placed for the first time."""
        self.scene = scene
        meshes = [library.mesh(instance.mesh) for instance in scene.instances]
        counts = [len(mesh.parts) for mesh in meshes]
        self.first_item = np.concatenate([[0], np.cumsum(counts)])
        self.poses = np.stack([instance.world_T_mesh for instance in scene.instances])
        rotations = self.poses[:, :3, :3]
        spheres = np.array([mesh.sphere for mesh in meshes])
        self.centres = (rotations @ spheres[:, :3, None])[..., 0] + self.poses[:, :3, 3]
        scales = np.linalg.norm(rotations, axis=1).astype(np.float32)
        self.radii = spheres[:, 3] * scales.max(1)
        owner = np.repeat(np.arange(len(meshes)), counts)
        self.items = np.zeros(len(owner), ITEM)
        self.items["world_T_mesh"] = self.poses.transpose(0, 2, 1)[owner]
        self.items["normal_matrix"][..., :3] = np.linalg.inv(rotations)[owner]  # the inverse transpose, by columns
        self.items["mesh_scale"] = scales[owner]
        self.textures = self._lay_on_materials([mesh.parts for mesh in meshes])

    def _lay_on_materials(self, parts_of: list) -> list[str]:
        textures, rows = [], []
        for instance, parts in zip(self.scene.instances, parts_of, strict=True):
            for part in parts:
                material = instance.material or Material(part.texture, part.tint, tile_m=0.0, gloss=0.1)
                tiles_per_m = 1 / material.tile_m if material.tile_m else 0.0
                cutoff = part.alpha_cutoff if instance.material is None else -1.0
                class_id = instance.class_id if part.class_id is None else part.class_id
                textures.append(material.texture)
                rows.append((*material.tint, material.gloss, material.glow, tiles_per_m, cutoff, class_id))
        columns = np.array(rows, np.float64)
        self.items["tint"] = columns[:, :3]
        for i, name in enumerate(("gloss", "glow", "tiles_per_m", "alpha_cutoff", "class_id")):
            self.items[name] = columns[:, 3 + i]
        return textures

    def visible(self, camera: Camera, camera_T_world: Matrix) -> list[tuple[int, str]]:
        """Return (instance, mesh key) of all whose bounding sphere meets the view, in the order of their far ends.

        Walls come after what stands before them then, and are not shaded behind it. What is small gets a mesh with fewer triangles.
        """
        x, y, z = (self.centres @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]).T
        height, width = camera.size_hw
        tan_x = max(camera.cx, width - camera.cx) / camera.focal_px
        tan_y = max(camera.cy, height - camera.cy) / camera.focal_px
        radii = self.radii
        inside = (z + radii > NEAR_M) & (z - radii < FAR_M)
        inside &= np.abs(x) - radii * np.hypot(1, tan_x) < np.maximum(z, 0) * tan_x + 1e-6
        inside &= np.abs(y) - radii * np.hypot(1, tan_y) < np.maximum(z, 0) * tan_y + 1e-6
        order = np.argsort(z + radii)
        radii_px = radii * camera.focal_px / np.maximum(z, NEAR_M)
        return [(i, self._mesh_for(i, radii_px[i])) for i in order[inside[order]].tolist()]

    def _mesh_for(self, i: int, radius_px: float) -> str:
        mesh = self.scene.instances[i].mesh
        for limit_px, far_mesh in FAR_MESHES.get(mesh, ()):
            if radius_px < limit_px:
                mesh = far_mesh
        return mesh

    def casters(self) -> list[tuple[int, str]]:
        """Return (instance, mesh key) of all that may cast a shadow into what the shadow map covers."""
        scene = self.scene
        reach = np.abs(self.centres - np.asarray(scene.shadow_centre)).max(1) - self.radii < 2 * scene.shadow_radius_m
        radii_px = self.radii / scene.shadow_radius_m * SHADOW_PX / 2
        return [(i, self._mesh_for(i, radii_px[i])) for i, instance in enumerate(scene.instances) if instance.casts_shadow and reach[i]]


def projection(camera: Camera) -> Matrix:
    """Return clip_T_camera. Image y down becomes clip y up, so that row 0 of what is read back is the image's top row."""
    height, width = camera.size_hw
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * camera.focal_px / width, 2 * camera.cx / width - 1
    matrix[1, 1], matrix[1, 2] = 2 * camera.focal_px / height, 2 * camera.cy / height - 1
    matrix[2, 2], matrix[2, 3] = (FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    matrix[3, 2] = 1.0
    return matrix


def light_T_world(scene: Scene) -> Matrix:
    """Return the 4x4 that maps world points to the shadow map's clip space (orthographic along the sun)."""
    back = np.asarray(scene.sun_direction) / np.linalg.norm(scene.sun_direction)
    side = np.cross(back, [0.123, 0.456, 0.88])
    side /= np.linalg.norm(side)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([side, np.cross(back, side), -back]) / scene.shadow_radius_m
    matrix[2, :3] /= 4
    matrix[:3, 3] = -matrix[:3, :3] @ np.asarray(scene.shadow_centre)
    return matrix
