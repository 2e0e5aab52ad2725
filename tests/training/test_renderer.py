"""The renderer: exact depth and classes, right geometry, the same images for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
moderngl = pytest.importorskip("moderngl", reason="rendering needs moderngl")
pytest.importorskip("trimesh", reason="rendering needs trimesh")

from training.data.classes import CLASS_IDS, CLASSES, class_of_mesh  # noqa: E402
from training.data.library import FAR_MESHES, Library  # noqa: E402
from training.data.placed import PlacedScene  # noqa: E402
from training.data.renderer import Renderer  # noqa: E402
from training.data.scene import Camera, Material, Scene, camera_pose  # noqa: E402
from training.data.synthetic import BUILDERS, render_scene  # noqa: E402

SIZE_HW, FOCAL = (96, 128), 100.0


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


@pytest.fixture(scope="module")
def renderer(library: Library) -> Renderer:
    try:
        return Renderer(library)
    except Exception as error:  # moderngl raises a bare Exception
        pytest.skip(f"no EGL device: {error}")


def _camera(eye: tuple[float, float, float], pitch: float = 0.0, yaw: float = 0.0) -> Camera:
    return Camera(camera_pose(eye, yaw, pitch), FOCAL, SIZE_HW[1] / 2, SIZE_HW[0] / 2, SIZE_HW)


def test_a_wall_across_the_view_has_its_distance_everywhere(renderer: Renderer) -> None:
    scene = Scene()
    scene.add("box", (3.5, 0, 0), (1, 50, 50), material=Material(), label="wall")
    view = renderer.render(scene, [_camera((0, 0, 0))], [1.0])[0]
    np.testing.assert_allclose(view.depth_m, 3.0, rtol=1e-6)
    assert not view.sky_mask.any()


def test_the_floor_below_a_level_camera_follows_the_pinhole_formula(renderer: Renderer) -> None:
    # pixel row v sees the floor h metres below at z = h * focal / (v + 0.5 - cy)
    scene = Scene()
    scene.add("box", (0, 0, -0.5), (1000, 1000, 1), material=Material(), label="wall")
    view = renderer.render(scene, [_camera((0, 0, 1.5))], [1.0])[0]
    rows = np.arange(60, 96)
    expected = 1.5 * FOCAL / (rows + 0.5 - SIZE_HW[0] / 2)
    np.testing.assert_allclose(view.depth_m[rows, 64], expected, rtol=1e-5)
    assert view.sky_mask[:40].all()
    assert np.isinf(view.depth_m[:40]).all()


def test_a_box_stands_where_it_was_put(renderer: Renderer) -> None:
    # front face 2 m ahead, from 0.2 m to 0.6 m to the left (+Y) and between 0 and 0.5 m below the camera
    scene = Scene()
    scene.add("box", (2.5, 0.4, -0.25), (1, 0.4, 0.5), material=Material(), label="wall")
    view = renderer.render(scene, [_camera((0, 0, 0))], [1.0])[0]
    inside = np.isclose(view.depth_m, 2.0, rtol=1e-5)
    v, u = np.nonzero(inside)
    assert (u.min(), u.max() + 1) == (64 - 30, 64 - 10)
    assert (v.min(), v.max() + 1) == (48, 48 + 25)


def test_looking_down_and_aside_keeps_z_depth(renderer: Renderer) -> None:
    scene = Scene()
    scene.add("box", (0, 0, -0.5), (100, 100, 1), material=Material(), label="wall")
    view = renderer.render(scene, [_camera((1, 2, 0.7), pitch=-np.pi / 2, yaw=0.3)], [1.0])[0]
    np.testing.assert_allclose(view.depth_m, 0.7, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind != "world"])
def test_every_kind_renders_the_same_for_the_same_seed(renderer: Renderer, library: Library, kind: str) -> None:
    _, first = render_scene(renderer, library, seed=3, index=4, kind=kind)
    _, again = render_scene(renderer, library, seed=3, index=4, kind=kind)
    assert len(first) == len(again) > 0
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.rgb, two.rgb)
        assert np.array_equal(one.depth_m, two.depth_m)
        assert (one.depth_m > 0).all()
        assert one.rgb.std() > 5
        assert np.array_equal(one.sky_mask, np.isinf(one.depth_m))
        assert np.array_equal(one.class_ids, two.class_ids)
        assert np.array_equal(one.class_ids == CLASS_IDS["sky"], one.sky_mask)
        assert one.class_ids.max() < CLASS_IDS["other"], "the builders say of everything what it is"


def test_each_pixel_has_the_class_of_the_surface_that_its_depth_belongs_to(renderer: Renderer) -> None:
    scene = Scene()
    scene.add("box", (3.5, 0, -24), (1, 50, 50), material=Material(), label="wall")
    scene.add("sphere", (2, 0.1, -0.2), 0.5, material=Material(), label="chair")
    scene.add("blob", (1.5, -0.5, -0.2), 0.5, material=Material(), label="vegetation")
    view = renderer.render(scene, [_camera((0, 0, 0), pitch=0.15)], [1.0])[0]
    expected = np.full(SIZE_HW, CLASS_IDS["sky"], np.uint8)
    forward = np.array([np.cos(0.15), 0, np.sin(0.15)])
    v, u = np.mgrid[:96, :128] + 0.5
    rays = forward + np.stack([0 * u, (64 - u) / FOCAL, 0 * u], -1) + ((v - 48) / FOCAL)[..., None] * np.array([np.sin(0.15), 0, -np.cos(0.15)])
    points = rays * np.where(np.isinf(view.depth_m), 0, view.depth_m)[..., None]
    for name, centre, radius in (("chair", (2, 0.1, -0.2), 0.26), ("vegetation", (1.5, -0.5, -0.2), 0.26)):
        expected[np.linalg.norm(points - centre, axis=-1) < radius] = CLASS_IDS[name]
    expected[np.abs(points[..., 0] - 3) < 1e-3] = CLASS_IDS["wall"]
    assert set(np.unique(expected)) == {CLASS_IDS[name] for name in ("sky", "wall", "chair", "vegetation")}
    np.testing.assert_array_equal(view.class_ids, expected)


def test_a_preview_has_the_depth_of_every_fourth_pixel(renderer: Renderer, library: Library) -> None:
    scene = Scene()
    scene.add("box", (0, 0, -0.5), (1000, 1000, 1), material=Material(), label="floor")
    scene.add("box", (4, 0.3, 0.5), (1, 1, 1), material=Material(), label="table")
    camera, placed = _camera((0, 0, 1.5), pitch=-0.1), PlacedScene(scene, library)
    exact = renderer.view(placed, camera, 1.0).depth_m[::4, ::4]
    preview = renderer.preview_depth(placed, camera.subsampled(4))
    assert preview.shape == exact.shape == (24, 32)
    near = exact < 10
    assert near.mean() > 0.3
    np.testing.assert_allclose(preview[near], exact[near], rtol=1e-3)
    np.testing.assert_array_equal(np.isinf(preview), np.isinf(exact))


def test_scenes_in_turn_keep_their_own_shadows_and_materials(renderer: Renderer, library: Library) -> None:
    lit, shaded = Scene(sun_direction=(0, 0, 1)), Scene(sun_direction=(0, 0, 1))
    for scene in (lit, shaded):
        scene.add("box", (3, 0, -0.5), (6, 6, 1), material=Material(tint=(0.2, 0.2, 0.2)), label="floor")
    shaded.add("box", (3, 1.5, 3), (6, 3, 0.1), material=Material(), label="ceiling")
    camera, placed = _camera((3, 0, 2), pitch=-np.pi / 2), [PlacedScene(scene, library) for scene in (lit, shaded, lit)]
    sunny, half_dark, again = (renderer.view(one, camera, 1.0).rgb for one in placed)
    np.testing.assert_array_equal(renderer.view(placed[1], camera, 1.0).rgb, half_dark)
    np.testing.assert_array_equal(sunny, again)
    assert sunny.std() < 2
    assert half_dark[:, 96:].mean() + 20 < half_dark[:, :32].mean() or half_dark[:, :32].mean() + 20 < half_dark[:, 96:].mean()


def test_occlusion_darkens_corners_in_the_picture_alone(renderer: Renderer, library: Library) -> None:
    scene = Scene(sun_rgb=(0, 0, 0), ambient_rgb=(1, 1, 1))
    scene.add("box", (0, 0, -0.5), (100, 100, 1), material=Material(tint=(0.3, 0.3, 0.3)), label="floor")
    scene.add("box", (3.5, 0, 0), (1, 50, 50), material=Material(tint=(0.3, 0.3, 0.3)), label="wall")
    placed, camera = PlacedScene(scene, library), _camera((0, 0, 1.0))
    plain, dark = renderer.view(placed, camera, 1.0), renderer.view(placed, camera, 1.0, occlusion=1.0)
    np.testing.assert_array_equal(plain.depth_m, dark.depth_m)
    share = dark.rgb.mean((1, 2)) / plain.rgb.mean((1, 2))
    corner = int(48 + FOCAL / 3)
    assert share[corner] < 0.94
    assert share[:5].min() > 0.97
    assert share[-3:].min() > 0.97


@pytest.mark.parametrize(("mesh", "limit_px", "far_mesh"), [(mesh, *level) for mesh, levels in FAR_MESHES.items() for level in levels])
def test_a_mesh_for_far_away_looks_like_the_near_one(renderer: Renderer, library: Library, mesh: str, limit_px: float, far_mesh: str) -> None:
    def image(key: str) -> np.ndarray:
        scene = Scene(outdoor=True)
        scene.add(key, (FOCAL * 0.5 / limit_px, 0, 0), 1.0, material=Material(), label="object")
        placed = PlacedScene(scene, library)
        placed.visible = lambda *_: [(0, key)]
        return renderer.view(placed, _camera((0, 0, 0)), 1.0).class_ids > 0

    near, far = image(mesh), image(far_mesh)
    assert near.sum() > 0.5 * np.pi * limit_px**2
    assert (near ^ far).sum() < 0.15 * near.sum()


@pytest.mark.parametrize(
    ("file", "domain", "expected"),
    [
        ("scenes/house__aws_robomaker_residential_TVCabinet_01.glb", "indoor", "cabinet"),
        ("scenes/house__aws_robomaker_residential_Tablet_01.glb", "indoor", "machine"),
        ("scenes/hospital__aws_robomaker_hospital_floor_01_walls.glb", "indoor", "wall"),
        ("scenes/warehouse__aws_robomaker_warehouse_GroundB_01.glb", "indoor", "floor"),
        ("scenes/gz__post_office.glb", "outdoor", "building"),
        ("scenes/gz__stop_light_post.glb", "outdoor", "pole"),
        ("objects/servicesim__office_chair.glb", "indoor", "chair"),
        ("objects/kenney__car-wheel.glb", "object", "object"),
        ("objects/kenney__survivor-male.glb", "person", "person"),
        ("objects/new__thingamajig.glb", "object", "object"),
        ("scenes/new__thingamajig.glb", "indoor", "other"),
    ],
)
def test_the_class_of_a_mesh_comes_from_its_name(file: str, domain: str, expected: str) -> None:
    assert class_of_mesh({"file": file, "domain": domain, "source": "somewhere"}) == expected


def test_a_numbered_part_of_a_world_is_named_by_its_source() -> None:
    entry = {"file": "scenes/service_office__inline_000.glb", "domain": "indoor", "source": "worlds/service.world#ceiling"}
    assert class_of_mesh(entry) == "ceiling"


def test_the_sky_is_class_0_and_names_are_unique() -> None:
    assert CLASSES[0] == "sky"
    assert len(set(CLASSES)) == len(CLASSES) < 256
