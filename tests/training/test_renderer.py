"""The renderer: exact depth, right geometry, the same images for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
moderngl = pytest.importorskip("moderngl", reason="rendering needs moderngl")
pytest.importorskip("trimesh", reason="rendering needs trimesh")

from training.data.library import Library  # noqa: E402
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
    scene.add("box", (3.5, 0, 0), (1, 50, 50), material=Material())
    view = renderer.render(scene, [_camera((0, 0, 0))], [1.0])[0]
    np.testing.assert_allclose(view.depth_m, 3.0, rtol=1e-6)
    assert not view.sky_mask.any()


def test_the_floor_below_a_level_camera_follows_the_pinhole_formula(renderer: Renderer) -> None:
    # pixel row v sees the floor h metres below at z = h * focal / (v + 0.5 - cy)
    scene = Scene()
    scene.add("box", (0, 0, -0.5), (1000, 1000, 1), material=Material())
    view = renderer.render(scene, [_camera((0, 0, 1.5))], [1.0])[0]
    rows = np.arange(60, 96)
    expected = 1.5 * FOCAL / (rows + 0.5 - SIZE_HW[0] / 2)
    np.testing.assert_allclose(view.depth_m[rows, 64], expected, rtol=1e-5)
    assert view.sky_mask[:40].all()
    assert np.isinf(view.depth_m[:40]).all()


def test_a_box_stands_where_it_was_put(renderer: Renderer) -> None:
    # front face 2 m ahead, from 0.2 m to 0.6 m to the left (+Y) and between 0 and 0.5 m below the camera
    scene = Scene()
    scene.add("box", (2.5, 0.4, -0.25), (1, 0.4, 0.5), material=Material())
    view = renderer.render(scene, [_camera((0, 0, 0))], [1.0])[0]
    inside = np.isclose(view.depth_m, 2.0, rtol=1e-5)
    v, u = np.nonzero(inside)
    assert (u.min(), u.max() + 1) == (64 - 30, 64 - 10)
    assert (v.min(), v.max() + 1) == (48, 48 + 25)


def test_looking_down_and_aside_keeps_z_depth(renderer: Renderer) -> None:
    scene = Scene()
    scene.add("box", (0, 0, -0.5), (100, 100, 1), material=Material())
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
