"""Scenes from the asset folder's world layouts, with new surfaces and light each time."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .classes import CLASS_IDS
from .indoor import PoseSampler
from .library import Library
from .scene import Instance, Lamp, Material, Matrix, Scene, camera_pose

STRUCTURE = {"wall": "wall", "floor": "floor", "ceiling": "ceiling", "road": "road", "ground": "ground"}
"""Part of a model's name -> the surface that may replace its own."""


@cache
def _layout(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def build_world(library: Library, rng: np.random.Generator) -> tuple[Scene, PoseSampler]:
    """One of the worlds; with probability 0.7 walls, floors and ceilings get other materials. Needs an asset folder."""
    assert library.assets is not None
    file = str(rng.choice(library.worlds))
    layout = _layout(library.assets / file)
    outdoor = layout["domain"] == "outdoor"
    sky = library.draw_sky(rng, "outdoor" if outdoor else "indoor")
    scene = Scene(outdoor=outdoor, sky=sky, sky_yaw=float(rng.uniform(0, 6.3)))
    for item in layout["items"]:
        if item["file"] in library.left_out:
            continue
        material = _replacement(library, rng, item["file"].lower()) if rng.random() < 0.7 else None
        structural = any(name in item["file"].lower() for name in STRUCTURE)
        class_id = CLASS_IDS[library.label(item["file"])]
        scene.instances.append(Instance(item["file"], np.asarray(item["pose"]), class_id, material, not structural))
    low, high = _bounds(library, scene)
    base = 5.0 if "simple_city" in file else max(float(low[2]), 0.0)
    centre = rng.uniform(low, high)
    _light(scene, rng, outdoor, np.array([centre[0], centre[1], base]))

    def sample(chance: np.random.Generator) -> Matrix:
        eye = chance.uniform(low, high)
        # the views of one scene share one shadow map, so they stay near its centre
        eye[:2] = np.clip(centre[:2] + chance.normal(0, 5.0, 2), low[:2], high[:2])
        height = base + chance.uniform(0.3, 1.9)
        return camera_pose((eye[0], eye[1], height), chance.uniform(0, 6.3), chance.normal(-0.12, 0.18), chance.normal(0, 0.04))

    return scene, sample


def _replacement(library: Library, rng: np.random.Generator, name: str) -> Material | None:
    for part, surface in STRUCTURE.items():
        if part in name and "sign" not in name:
            return library.material(rng, surface, plain=0.3)
    return None


def _bounds(library: Library, scene: Scene) -> tuple[Matrix, Matrix]:
    corners = []
    for instance in scene.instances:
        for corner in library.mesh(instance.mesh).bounds:
            corners.append(instance.world_T_mesh[:3, :3] @ corner + instance.world_T_mesh[:3, 3])
    return np.percentile(corners, 3, axis=0), np.percentile(corners, 97, axis=0)


def _light(scene: Scene, rng: np.random.Generator, outdoor: bool, centre: Matrix) -> None:
    warm = np.array([1.0, rng.uniform(0.85, 1.0), rng.uniform(0.7, 1.05)])
    scene.ambient_rgb = tuple(warm[::-1] * rng.uniform(0.3, 0.9))
    scene.sun_rgb = tuple(warm * rng.uniform(0.2, 1.4 if outdoor else 0.7))
    scene.sun_direction = tuple(np.append(rng.normal(0, 0.6, 2), 1.0))
    scene.shadow_centre, scene.shadow_radius_m = tuple(centre), 25.0 if outdoor else 8.0
    for _ in range(0 if outdoor else 4):
        at = centre + np.append(rng.normal(0, 3.0, 2), rng.uniform(2.0, 2.6))
        scene.lamps.append(Lamp(tuple(at), tuple(warm * rng.uniform(0.2, 2.0))))
