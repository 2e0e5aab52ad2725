"""Scene + Camera -> RGB, exact z-depth, classes, sky mask; OpenGL 3.3 through EGL, in software where there is no GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import moderngl
import numpy as np
import numpy.typing as npt

from .library import Library, MeshPart
from .occlusion import ambient_light
from .placed import FAR_M, ITEM, NEAR_M, SHADOW_PX, PlacedScene, light_T_world, projection
from .scene import Camera, Matrix, Scene
from .shaders import FRAGMENT, SHADOW_FRAGMENT, SHADOW_VERTEX, SKY_FRAGMENT, SKY_VERTEX, VERTEX

MAX_LAMPS = 4
GAMMA = 2.2
ITEM_BLOCK, ALBEDO_UNIT, SHADOW_UNIT = 0, 0, 1


@dataclass(frozen=True)
class RenderedView:
    """One labelled image.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, metres along the optical axis; +Inf in the sky.
        sky_mask: (H, W) bool, True = sky.
        camera: where it was taken from and its intrinsics.
        class_ids: (H, W) uint8, positions in `classes.CLASSES`, 0 in the sky; None where that is not known.
    """

    rgb: npt.NDArray[np.uint8]
    depth_m: npt.NDArray[np.float32]
    sky_mask: npt.NDArray[np.bool_]
    camera: Camera
    class_ids: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class _GpuPart:
    part: MeshPart
    vao: moderngl.VertexArray
    shadow_vao: moderngl.VertexArray


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
        self._program["Item"].binding = ITEM_BLOCK
        self._program["albedo"].value, self._program["shadow_map"].value = ALBEDO_UNIT, SHADOW_UNIT
        self._shadow_program = self._gl.program(vertex_shader=SHADOW_VERTEX, fragment_shader=SHADOW_FRAGMENT)
        self._sky_program = self._gl.program(vertex_shader=SKY_VERTEX, fragment_shader=SKY_FRAGMENT)
        self._sky_vao = self._gl.vertex_array(self._sky_program, [])
        self._shadow_map, self._shadow_target = self._depth_target((SHADOW_PX, SHADOW_PX))
        self._targets: dict[tuple[int, int], moderngl.Framebuffer] = {}
        self._previews: dict[tuple[int, int], moderngl.Framebuffer] = {}
        self._meshes: dict[str, list[_GpuPart]] = {}
        self._textures: dict[str, moderngl.Texture] = {}
        self._items = self._gl.buffer(reserve=ITEM.itemsize)
        self._current: PlacedScene | None = None

    def render(self, scene: Scene, cameras: list[Camera], exposures: list[float]) -> list[RenderedView]:
        """Render views of one scene.

        Args:
            scene: what to draw.
            cameras: one per view.
            exposures: one per view; multiplies the automatic exposure (1 = neutral).
        """
        placed = PlacedScene(scene, self._library)
        return [self.view(placed, camera, exposure) for camera, exposure in zip(cameras, exposures, strict=True)]

    def view(self, placed: PlacedScene, camera: Camera, exposure: float, occlusion: float = 0.0) -> RenderedView:
        """Render one view of a placed scene.

        Args:
            placed: what to draw.
            camera: where from.
            exposure: multiplies the automatic one (1 = neutral).
            occlusion: how dark corners are; 0 = as bright as all else, 1 = as `ambient_light` says.
        """
        self._use(placed)
        camera_T_world = np.linalg.inv(camera.world_T_camera)
        draws = self._draws(placed, placed.visible(camera, camera_T_world))
        sky = self._texture(f"sky:{placed.scene.sky}")
        target = self._target(camera.size_hw)
        target.use()
        target.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self._gl.enable(moderngl.DEPTH_TEST)
        self._set_frame_uniforms(placed.scene, camera, camera_T_world)
        self._gl.front_face = "cw"  # the projection mirrors the image's y
        bound = culling = None
        for offset, texture, gpu_part in draws:
            self._items.bind_to_uniform_block(ITEM_BLOCK, offset=offset, size=ITEM.itemsize)
            if texture is not bound:
                texture.use(ALBEDO_UNIT)
                bound = texture
            if gpu_part.part.closed is not culling:
                culling = self._cull(gpu_part.part.closed)
            gpu_part.vao.render()
        self._draw_sky(placed.scene, camera, sky)
        view = self._read(target, camera, exposure)
        return darkened(view, occlusion) if occlusion else view

    def preview_depth(self, placed: PlacedScene, camera: Camera) -> npt.NDArray[np.float32]:
        """Return only the (H, W) float32 z-depth in metres of a view, +Inf in the sky; to 0.1 % within 10 m, coarser beyond."""
        camera_T_world = np.linalg.inv(camera.world_T_camera)
        visible = placed.visible(camera, camera_T_world)
        if camera.size_hw not in self._previews:
            self._previews[camera.size_hw] = self._depth_target(camera.size_hw[::-1])[1]
        target = self._previews[camera.size_hw]
        self._gl.front_face = "cw"
        self._draw_depth(target, placed, visible, projection(camera) @ camera_T_world)
        window_z = np.frombuffer(target.read(components=1, attachment=-1, dtype="f4"), np.float32).reshape(camera.size_hw)
        with np.errstate(divide="ignore"):
            z = FAR_M * NEAR_M / (FAR_M - window_z.astype(np.float64) * (FAR_M - NEAR_M))
        return np.where(window_z < 1, z, np.inf).astype(np.float32)

    def _use(self, placed: PlacedScene) -> None:
        """Upload a scene's items and draw its shadow map, unless it is the one that was used last."""
        if placed is self._current:
            return
        self._current = None
        if self._items.size < placed.items.nbytes:
            self._items.release()
            self._items = self._gl.buffer(reserve=2 * placed.items.nbytes)
        self._items.write(placed.items.tobytes())
        self._gl.front_face = "ccw"
        self._draw_depth(self._shadow_target, placed, placed.casters(), light_T_world(placed.scene))
        self._current = placed

    def _draws(self, placed: PlacedScene, instances: list[tuple[int, str]]) -> list[tuple[int, moderngl.Texture, _GpuPart]]:
        """List (offset in the items' buffer, texture, part) first: an upload between two draws would cut the frame in two."""
        draws = []
        for i, mesh in instances:
            for number, gpu_part in enumerate(self._parts(mesh), start=int(placed.first_item[i])):
                draws.append((number * ITEM.itemsize, self._texture(placed.textures[number]), gpu_part))
        return draws

    def _draw_depth(self, target: moderngl.Framebuffer, placed: PlacedScene, instances: list[tuple[int, str]], clip_T_world: Matrix) -> None:
        """Draw the depth of some instances and nothing else."""
        parts = [(gpu_part, i) for i, mesh in instances for gpu_part in self._parts(mesh)]
        masks = {gpu_part.part.texture: self._texture(gpu_part.part.texture) for gpu_part, _ in parts if gpu_part.part.alpha_cutoff > 0}
        matrices = np.ascontiguousarray((clip_T_world @ placed.poses).transpose(0, 2, 1), np.float32)
        clip_T_mesh, alpha_cutoff = self._shadow_program["clip_T_mesh"], self._shadow_program["alpha_cutoff"]
        target.use()
        target.clear(depth=1.0)
        self._gl.enable(moderngl.DEPTH_TEST)
        written, cutoff, culling = -1, None, None
        for gpu_part, i in parts:
            if i != written:
                clip_T_mesh.write(matrices[i])
                written = i
            if gpu_part.part.alpha_cutoff > 0:
                masks[gpu_part.part.texture].use(ALBEDO_UNIT)
            if gpu_part.part.alpha_cutoff != cutoff:
                alpha_cutoff.value = cutoff = gpu_part.part.alpha_cutoff
            if gpu_part.part.closed is not culling:
                culling = self._cull(gpu_part.part.closed)
            gpu_part.shadow_vao.render()

    def _cull(self, culling: bool) -> bool:
        """Leave out triangles that are seen from behind, or draw all; return which."""
        (self._gl.enable if culling else self._gl.disable)(moderngl.CULL_FACE)
        return culling

    def _read(self, target: moderngl.Framebuffer, camera: Camera, exposure: float) -> RenderedView:
        height, width = camera.size_hw
        raw = np.frombuffer(target.read(components=4, attachment=0, dtype="f2"), np.uint16).reshape(height, width, 4)
        z = np.frombuffer(target.read(components=1, attachment=1, dtype="f4"), np.float32).reshape(height, width)
        sky = z <= 0
        class_ids = raw[..., 3].view(np.float16).astype(np.uint8)
        return RenderedView(_tone_mapped(raw, exposure), np.where(sky, np.float32(np.inf), z), sky, camera, class_ids)

    def _target(self, size_hw: tuple[int, int]) -> moderngl.Framebuffer:
        if size_hw not in self._targets:
            size = (size_hw[1], size_hw[0])
            attachments = [self._gl.texture(size, 4, dtype="f2"), self._gl.texture(size, 1, dtype="f4")]
            self._targets[size_hw] = self._gl.framebuffer(attachments, self._gl.depth_renderbuffer(size))
        return self._targets[size_hw]

    def _depth_target(self, size: tuple[int, int]) -> tuple[moderngl.Texture, moderngl.Framebuffer]:
        texture = self._gl.depth_texture(size)
        texture.compare_func = ""
        texture.repeat_x = texture.repeat_y = False
        return texture, self._gl.framebuffer(depth_attachment=texture)

    def _draw_sky(self, scene: Scene, camera: Camera, panorama: moderngl.Texture) -> None:
        height, width = camera.size_hw
        panorama.use(ALBEDO_UNIT)
        program = self._sky_program
        program["world_R_camera"].write(_columns(camera.world_T_camera[:3, :3]))
        program["ray_scale"].value = (width / 2 / camera.focal_px, height / 2 / camera.focal_px)
        program["ray_offset"].value = ((width / 2 - camera.cx) / camera.focal_px, (height / 2 - camera.cy) / camera.focal_px)
        program["gain"].value, program["sky_yaw"].value = scene.sky_gain, scene.sky_yaw
        self._cull(False)
        self._gl.depth_func = "<="  # the sky lies at the depth that the target was cleared to
        self._sky_vao.render(moderngl.TRIANGLES, vertices=3)
        self._gl.depth_func = "<"

    def _set_frame_uniforms(self, scene: Scene, camera: Camera, camera_T_world: Matrix) -> None:
        program = self._program
        program["camera_T_world"].write(_columns(camera_T_world))
        program["clip_T_camera"].write(_columns(projection(camera)))
        program["light_T_world"].write(_columns(light_T_world(scene)))
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
        self._shadow_map.use(SHADOW_UNIT)

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

    def _texture(self, key: str) -> moderngl.Texture:
        if key not in self._textures:
            image = self._library.sky(key[4:]) if key.startswith("sky:") else self._library.texture(key)
            texture = self._gl.texture(image.shape[1::-1], image.shape[2], np.ascontiguousarray(image).tobytes(), alignment=1)
            if key.startswith("sky:"):  # is read without mipmaps
                texture.filter = (moderngl.LINEAR, moderngl.LINEAR)
            else:
                texture.build_mipmaps()
                texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            self._textures[key] = texture
        return self._textures[key]


def darkened(view: RenderedView, strength: float) -> RenderedView:
    """Take ambient light out of a view's corners, within a quarter of its median depth; of a view of sky alone nothing."""
    if view.sky_mask.all():
        return view
    radius_m = float(np.clip(np.median(view.depth_m[~view.sky_mask]) / 4, 0.1, 2.0))
    light = ambient_light(view.depth_m, view.camera.focal_px, radius_m) ** (strength / GAMMA)
    return replace(view, rgb=(view.rgb * light[..., None] + 0.5).astype(np.uint8))


def _columns(matrix: npt.NDArray) -> bytes:
    """Return a matrix in OpenGL's column-major float32 bytes."""
    return np.ascontiguousarray(matrix.T, np.float32).tobytes()


HALF_FLOATS = np.clip(np.nan_to_num(np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32), nan=0.0, posinf=6e4, neginf=0.0), 0, None)
"""The value of each bit pattern of a half float, negative ones as 0."""


def _tone_mapped(linear_bits: npt.NDArray[np.uint16], exposure: float) -> npt.NDArray[np.uint8]:
    """Expose so that the middle of the image is mid-grey, compress highlights, apply gamma; by table over all half floats.

    Args:
        linear_bits: (H, W, 4), the bits of half floats; the last channel is left out.
        exposure: multiplies the automatic exposure.
    """
    samples = linear_bits[::4, ::4, :3].reshape(-1, 3).view(np.float16).astype(np.float32)
    level = float(np.exp(np.mean(np.log(samples.mean(1) + 1e-3))))
    gained = HALF_FLOATS[: int(linear_bits.max()) + 1] * (0.2 * exposure / max(level, 0.02))
    compressed = np.where(gained < 0.6, gained, 1 - 0.16 / (np.maximum(gained, 0.6) - 0.2))
    table = (np.clip(compressed, 0, 1) ** (1 / GAMMA) * 255 + 0.5).astype(np.uint8)
    # "clip" never happens, but numpy is faster with it; all four channels lie together in memory
    return np.ascontiguousarray(table.take(linear_bits, mode="clip")[..., :3])
