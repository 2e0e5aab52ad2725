"""Scene + Camera -> RGB, exact z-depth, sky mask; OpenGL 3.3 through EGL, in software where there is no GPU."""

from __future__ import annotations

from dataclasses import dataclass

import moderngl
import numpy as np
import numpy.typing as npt

from .library import Library, MeshPart
from .scene import Camera, Instance, Material, Scene
from .shaders import FRAGMENT, SHADOW_FRAGMENT, SHADOW_VERTEX, SKY_FRAGMENT, SKY_VERTEX, VERTEX

SHADOW_PX = 1024
NEAR_M, FAR_M = 0.05, 2000.0
MAX_LAMPS = 4


@dataclass(frozen=True)
class RenderedView:
    """One labelled image.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, metres along the optical axis; +Inf in the sky.
        sky_mask: (H, W) bool, True = sky.
        camera: where it was taken from and its intrinsics.
    """

    rgb: npt.NDArray[np.uint8]
    depth_m: npt.NDArray[np.float32]
    sky_mask: npt.NDArray[np.bool_]
    camera: Camera


@dataclass(frozen=True)
class _GpuPart:
    part: MeshPart
    vao: moderngl.VertexArray
    shadow_vao: moderngl.VertexArray


class _Placed:
    """What drawing needs of a scene's instances, computed for all of them at once (drawing is bound by Python calls)."""

    def __init__(self, instances: list[Instance], library: Library) -> None:
        self.instances = instances
        self.poses = np.stack([instance.world_T_mesh for instance in instances])
        rotations = self.poses[:, :3, :3]
        spheres = np.array([library.mesh(instance.mesh).sphere for instance in instances])
        self.centres = (rotations @ spheres[:, :3, None])[..., 0] + self.poses[:, :3, 3]
        self.scales = np.linalg.norm(rotations, axis=1).astype(np.float32)
        self.radii = spheres[:, 3] * self.scales.max(1)
        # column-major for OpenGL: a matrix is written as its transpose; a normal goes with the inverse transpose
        self.pose_columns = np.ascontiguousarray(self.poses.transpose(0, 2, 1), np.float32)
        self.normal_columns = np.ascontiguousarray(np.linalg.inv(rotations), np.float32)


class Renderer:
    """Owns the OpenGL context and what was uploaded to it; one per process."""

    def __init__(self, library: Library) -> None:
        """Open an EGL context.

        Raises:
            Exception: no EGL device or driver; install libegl1 and libgl1-mesa-dri.
        """
        self._library = library
        self._gl = moderngl.create_context(standalone=True, backend="egl")
        self._program = self._gl.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
        self._shadow_program = self._gl.program(vertex_shader=SHADOW_VERTEX, fragment_shader=SHADOW_FRAGMENT)
        self._sky_program = self._gl.program(vertex_shader=SKY_VERTEX, fragment_shader=SKY_FRAGMENT)
        self._sky_vao = self._gl.vertex_array(self._sky_program, [])
        self._shadow_map = self._gl.depth_texture((SHADOW_PX, SHADOW_PX))
        self._shadow_map.compare_func = ""
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow_target = self._gl.framebuffer(depth_attachment=self._shadow_map)
        self._targets: dict[tuple[int, int], moderngl.Framebuffer] = {}
        self._meshes: dict[str, list[_GpuPart]] = {}
        self._textures: dict[str, moderngl.Texture] = {}

    def render(self, scene: Scene, cameras: list[Camera], exposures: list[float]) -> list[RenderedView]:
        """Render views of one scene; the shadow map is drawn once.

        Args:
            scene: what to draw.
            cameras: one per view.
            exposures: one per view; multiplies the automatic exposure (1 = neutral).
        """
        placed = _Placed(scene.instances, self._library)
        light_T_world = self._draw_shadows(scene, placed)
        views = zip(cameras, exposures, strict=True)
        return [self._view(scene, placed, camera, light_T_world, exposure) for camera, exposure in views]

    def _view(self, scene: Scene, placed: _Placed, camera: Camera, light_T_world: npt.NDArray, exposure: float) -> RenderedView:
        target = self._target(camera.size_hw)
        target.use()
        target.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        camera_T_world = np.linalg.inv(camera.world_T_camera)
        self._gl.disable(moderngl.DEPTH_TEST)
        self._draw_sky(scene, camera)
        self._gl.enable(moderngl.DEPTH_TEST)
        self._set_frame_uniforms(scene, camera, camera_T_world, light_T_world)
        for i in _visible(placed, camera, camera_T_world):
            self._draw(placed, i)
        height, width = camera.size_hw
        raw = np.frombuffer(target.read(components=4, attachment=0, dtype="f2"), np.uint16).reshape(height, width, 4)
        z = np.frombuffer(target.read(components=1, attachment=1, dtype="f4"), np.float32).reshape(height, width)
        sky = z <= 0
        return RenderedView(_tone_mapped(raw[..., :3], exposure), np.where(sky, np.float32(np.inf), z), sky, camera)

    def _target(self, size_hw: tuple[int, int]) -> moderngl.Framebuffer:
        if size_hw not in self._targets:
            size = (size_hw[1], size_hw[0])
            attachments = [self._gl.texture(size, 4, dtype="f2"), self._gl.texture(size, 1, dtype="f4")]
            self._targets[size_hw] = self._gl.framebuffer(attachments, self._gl.depth_renderbuffer(size))
        return self._targets[size_hw]

    def _draw_shadows(self, scene: Scene, placed: _Placed) -> npt.NDArray[np.float64]:
        """Fill the shadow map; return the 4x4 that maps world points to its clip space (orthographic along the sun)."""
        back = np.asarray(scene.sun_direction) / np.linalg.norm(scene.sun_direction)
        side = np.cross(back, [0.123, 0.456, 0.88])
        side /= np.linalg.norm(side)
        light_T_world = np.eye(4)
        light_T_world[:3, :3] = np.stack([side, np.cross(back, side), -back]) / scene.shadow_radius_m
        light_T_world[2, :3] /= 4
        light_T_world[:3, 3] = -light_T_world[:3, :3] @ np.asarray(scene.shadow_centre)
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        self._gl.enable(moderngl.DEPTH_TEST)
        reach = np.abs(placed.centres - np.asarray(scene.shadow_centre)).max(1) - placed.radii < 2 * scene.shadow_radius_m
        matrices = np.ascontiguousarray((light_T_world @ placed.poses).transpose(0, 2, 1), np.float32)
        for i, instance in enumerate(scene.instances):
            if instance.casts_shadow and reach[i]:
                self._shadow_program["clip_T_mesh"].write(matrices[i])
                for gpu_part in self._parts(instance.mesh):
                    if gpu_part.part.alpha_cutoff > 0:
                        self._bind(gpu_part.part.texture, 0)
                    self._shadow_program["alpha_cutoff"].value = gpu_part.part.alpha_cutoff
                    gpu_part.shadow_vao.render()
        return light_T_world

    def _draw_sky(self, scene: Scene, camera: Camera) -> None:
        height, width = camera.size_hw
        self._bind(f"sky:{scene.sky}", 0)
        program = self._sky_program
        program["world_R_camera"].write(_columns(camera.world_T_camera[:3, :3]))
        program["ray_scale"].value = (width / 2 / camera.focal_px, height / 2 / camera.focal_px)
        program["ray_offset"].value = ((width / 2 - camera.cx) / camera.focal_px, (height / 2 - camera.cy) / camera.focal_px)
        program["gain"].value, program["sky_yaw"].value = scene.sky_gain, scene.sky_yaw
        self._sky_vao.render(moderngl.TRIANGLES, vertices=3)

    def _set_frame_uniforms(self, scene: Scene, camera: Camera, camera_T_world: npt.NDArray, light_T_world: npt.NDArray) -> None:
        program = self._program
        program["camera_T_world"].write(_columns(camera_T_world))
        program["clip_T_camera"].write(_columns(_projection(camera)))
        program["light_T_world"].write(_columns(light_T_world))
        program["eye"].value = tuple(camera.world_T_camera[:3, 3])
        program["sun_direction"].value = tuple(np.asarray(scene.sun_direction) / np.linalg.norm(scene.sun_direction))
        program["sun_rgb"].value, program["ambient_rgb"].value = scene.sun_rgb, scene.ambient_rgb
        lamps = scene.lamps[:MAX_LAMPS]
        positions, colours = np.zeros((MAX_LAMPS, 3), np.float32), np.zeros((MAX_LAMPS, 3), np.float32)
        for i, lamp in enumerate(lamps):
            positions[i], colours[i] = lamp.position, lamp.rgb
        program["lamp_position"].write(positions.tobytes())
        program["lamp_rgb"].write(colours.tobytes())
        program["lamp_count"].value = len(lamps)
        program["albedo"].value, program["shadow_map"].value = 0, 1
        self._shadow_map.use(1)

    def _draw(self, placed: _Placed, i: int) -> None:
        program, instance = self._program, placed.instances[i]
        program["world_T_mesh"].write(placed.pose_columns[i])
        program["normal_matrix"].write(placed.normal_columns[i])
        program["mesh_scale"].write(placed.scales[i])
        for gpu_part in self._parts(instance.mesh):
            part = gpu_part.part
            material = instance.material or Material(part.texture, part.tint, tile_m=0.0, gloss=0.1)
            self._bind(material.texture, 0)
            program["tint"].value, program["gloss"].value, program["glow"].value = material.tint, material.gloss, material.glow
            program["tiles_per_m"].value = 1 / material.tile_m if material.tile_m else 0.0
            program["alpha_cutoff"].value = part.alpha_cutoff if instance.material is None else -1.0
            gpu_part.vao.render()

    def _parts(self, key: str) -> list[_GpuPart]:
        if key not in self._meshes:
            self._meshes[key] = [self._upload(part) for part in self._library.mesh(key).parts]
        return self._meshes[key]

    def _upload(self, part: MeshPart) -> _GpuPart:
        vertices = self._gl.buffer(np.hstack([part.positions, part.normals, part.uvs]).astype(np.float32).tobytes())
        indices = self._gl.buffer(part.triangles.astype(np.int32).tobytes())
        vao = self._gl.vertex_array(self._program, [(vertices, "3f 3f 2f", "in_position", "in_normal", "in_uv")], indices)
        shadow = self._gl.vertex_array(self._shadow_program, [(vertices, "3f 12x 2f", "in_position", "in_uv")], indices)
        return _GpuPart(part, vao, shadow)

    def _bind(self, key: str, unit: int) -> None:
        if key not in self._textures:
            image = self._library.sky(key[4:]) if key.startswith("sky:") else self._library.texture(key)
            texture = self._gl.texture(image.shape[1::-1], image.shape[2], np.ascontiguousarray(image).tobytes(), alignment=1)
            texture.build_mipmaps()
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            if key.startswith("sky:"):
                texture.filter = (moderngl.LINEAR, moderngl.LINEAR)
            self._textures[key] = texture
        self._textures[key].use(unit)


def _visible(placed: _Placed, camera: Camera, camera_T_world: npt.NDArray) -> list[int]:
    """Drop what lies outside the view by its bounding sphere; nearest first, so that hidden fragments are not shaded."""
    x, y, z = (placed.centres @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]).T
    height, width = camera.size_hw
    tan_x = max(camera.cx, width - camera.cx) / camera.focal_px
    tan_y = max(camera.cy, height - camera.cy) / camera.focal_px
    radii = placed.radii
    inside = (z + radii > NEAR_M) & (z - radii < FAR_M)
    inside &= np.abs(x) - radii * np.hypot(1, tan_x) < np.maximum(z, 0) * tan_x + 1e-6
    inside &= np.abs(y) - radii * np.hypot(1, tan_y) < np.maximum(z, 0) * tan_y + 1e-6
    order = np.argsort(z - radii)
    return order[inside[order]].tolist()


def _columns(matrix: npt.NDArray) -> bytes:
    """Return a matrix in OpenGL's column-major float32 bytes."""
    return np.ascontiguousarray(matrix.T, np.float32).tobytes()


def _projection(camera: Camera) -> npt.NDArray[np.float64]:
    """Return clip_T_camera. Image y down becomes clip y up, so that row 0 of what is read back is the image's top row."""
    height, width = camera.size_hw
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * camera.focal_px / width, 2 * camera.cx / width - 1
    matrix[1, 1], matrix[1, 2] = 2 * camera.focal_px / height, 2 * camera.cy / height - 1
    matrix[2, 2], matrix[2, 3] = (FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    matrix[3, 2] = 1.0
    return matrix


def _tone_mapped(linear_bits: npt.NDArray[np.uint16], exposure: float) -> npt.NDArray[np.uint8]:
    """Expose so that the middle of the image is mid-grey, compress highlights, apply gamma; by table over all half floats."""
    samples = linear_bits[::4, ::4].reshape(-1, 3).view(np.float16).astype(np.float32)
    level = float(np.exp(np.mean(np.log(samples.mean(1) + 1e-3))))
    values = np.nan_to_num(np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32), posinf=6e4, neginf=0.0)
    gained = np.clip(values, 0, None) * (0.2 * exposure / max(level, 0.02))
    compressed = np.where(gained < 0.6, gained, 1 - 0.16 / (np.maximum(gained, 0.6) - 0.2))
    table = (np.clip(compressed, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)
    return table[linear_bits]
