"""Indoor scenes: rooms, corridors, warehouses, table tops. Each builder returns the scene and where a camera may stand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import furniture
from .furniture import Frame, Stage
from .library import Library
from .scene import Lamp, Material, Matrix, Scene, camera_pose, yaw_rotation

PoseSampler = Callable[[np.random.Generator], Matrix]
"""Draws world_T_camera (4x4)."""
LEVEL, OBLIQUE, STEEP = (-0.05, 0.3), (0.3, 1.0), (1.0, 1.57)
"""How far a camera before a table looks down, in radians."""


def _shell(stage: Stage, w: float, d: float, h: float) -> None:
    """Floor, ceiling and four walls around x in 0..w, y in 0..d; walls sometimes differ, skirting boards, a pillar."""
    thick = 0.2
    wall = stage.material("wall", plain=0.5)
    stage.box("floor", (w / 2, d / 2, -thick / 2), (w + 1, d + 1, thick), stage.material("floor"), casts_shadow=False)
    stage.box("ceiling", (w / 2, d / 2, h + thick / 2), (w + 1, d + 1, thick), stage.material("ceiling", plain=0.6), casts_shadow=False)
    for side in range(4):
        skin = stage.material("wall", plain=0.5) if stage.rng.random() < 0.25 else wall
        along_x = side < 2
        centre = (w / 2, (-thick / 2, d + thick / 2)[side % 2], h / 2) if along_x else ((-thick / 2, w + thick / 2)[side % 2], d / 2, h / 2)
        stage.box("wall", centre, (w + 1, thick, h) if along_x else (thick, d + 1, h), skin, casts_shadow=False)
    if stage.rng.random() < 0.5:
        board = stage.material("wood", 0.6)
        for y in (0.0, d):
            stage.box("wall", (w / 2, y, 0.05), (w, 0.04, 0.1), board)
        for x in (0.0, w):
            stage.box("wall", (x, d / 2, 0.05), (0.04, d, 0.1), board)


def _wall_spot(stage: Stage, w: float, d: float, offset: float) -> tuple[float, float, float]:
    """Draw (x, y, yaw) at a wall, `offset` metres in front of it; yaw's +X faces the room."""
    side, t = stage.rng.integers(4), stage.uniform(0.12, 0.88)
    return [
        (offset, t * d, 0.0),
        (w - offset, t * d, np.pi),
        (t * w, offset, np.pi / 2),
        (t * w, d - offset, -np.pi / 2),
    ][side]


def _wall_decoration(stage: Stage, w: float, d: float, h: float) -> None:
    """Hang pictures, doors, windows, boards and radiators."""
    for _ in range(stage.rng.integers(2, 9)):
        x, y, yaw = _wall_spot(stage, w, d, 0.015)
        kind = str(stage.rng.choice(["picture", "door", "window", "radiator", "board"]))
        f = Frame(stage, x, y, 0.0, yaw, {"radiator": "machine", "board": "picture"}.get(kind, kind))
        frame = stage.material("wood", 0.6)
        if kind == "door":
            f.add("box", (0, 0, 1.03), (0.06, 1.0, 2.06), frame)
            f.add("box", (0.01, 0, 1.0), (0.07, 0.86, 2.0), stage.material("wood", 0.5))
            f.add("sphere", (0.07, 0.33, 1.0), (0.07, 0.07, 0.07), Material("", (0.5, 0.45, 0.3), 1, 0.6))
        elif kind == "window":
            width, height = stage.uniform(0.7, 2.0), stage.uniform(0.8, 1.5)
            base = stage.uniform(0.7, 1.0) + height / 2
            glow = Material(f"proc:noise:{stage.rng.integers(400)}", (0.9, 0.95, 1.0), 2.5, 0.2, stage.uniform(0.5, 4))
            f.add("box", (0, 0, base), (0.05, width + 0.12, height + 0.12), frame)
            f.add("box", (0.01, 0, base), (0.05, width, height), glow)
            f.add("box", (0.02, 0, base), (0.06, 0.05, height), frame)
        elif kind == "radiator":
            f.add("box", (0.05, 0, 0.4), (0.1, stage.uniform(0.6, 1.6), 0.55), stage.material("metal", 0.8))
        else:
            width, height = stage.uniform(0.25, 1.6), stage.uniform(0.25, 1.1)
            at = min(stage.uniform(1.2, 1.8), h - height / 2 - 0.1)
            f.add("box", (0, 0, at), (0.03, width + 0.05, height + 0.05), frame)
            f.add("box", (0.004, 0, at), (0.03, width, height), stage.material("print" if kind == "picture" else "plain"))


def _light(stage: Stage, w: float, d: float, h: float, lamps: int) -> None:
    """Lamps at the ceiling with visible bodies, soft light from above for the shadows, ambient light."""
    scene = stage.scene
    warm = np.array([1.0, stage.uniform(0.8, 1.0), stage.uniform(0.6, 1.05)])
    scene.ambient_rgb = tuple(warm[::-1] * stage.uniform(0.15, 0.7))
    scene.sun_rgb = tuple(warm * stage.uniform(0.1, 0.7))
    scene.sun_direction = tuple(np.append(stage.rng.normal(0, 0.5, 2), 1.0))
    scene.shadow_centre, scene.shadow_radius_m = (w / 2, d / 2, 0.0), min(max(w, d) * 0.75, 9.0)
    for _ in range(lamps):
        x, y = stage.uniform(0.15, 0.85) * w, stage.uniform(0.15, 0.85) * d
        scene.lamps.append(Lamp((x, y, h - 0.35), tuple(warm * stage.uniform(0.3, 2.5) * (h / 2.6) ** 2)))
        size = (0.6, 0.6, 0.06) if stage.rng.random() < 0.6 else (1.2, 0.15, 0.08)
        stage.box("lamp", (x, y, h - 0.03), size, Material("", (1, 1, 1), 1, 0, stage.uniform(1, 5)), casts_shadow=False)


FURNITURE_SHARES = {
    "model": 0.3,
    "table": 0.18,
    "shelf": 0.12,
    "cabinet": 0.1,
    "sofa": 0.07,
    "bed": 0.04,
    "chair": 0.1,
    "plant": 0.04,
    "carton": 0.05,
}


def _made_furniture(f: Frame, kind: str, room_height: float) -> None:
    stage = f.stage
    if kind == "table":
        _laid_table(f, stage.uniform(0.6, 1.8), stage.uniform(0.5, 1.0), stage.uniform(0.4, 0.95))
    elif kind in ("shelf", "cabinet"):
        build = furniture.shelf if kind == "shelf" else furniture.cabinet
        build(f, stage.uniform(0.5, 1.6), stage.uniform(0.25, 0.6), min(stage.uniform(0.5, 2.2), room_height - 0.1))
    elif kind in ("sofa", "bed", "chair"):
        {"sofa": furniture.sofa, "bed": furniture.bed, "chair": furniture.chair}[kind](f)
    elif kind == "plant":
        furniture.plant(f, stage.uniform(0.4, 1.8))
    else:
        for level in range(stage.rng.integers(1, 4)):
            at = (stage.uniform(-0.05, 0.05), 0, 0.2 + 0.4 * level)
            f.of("container").add("box", at, (0.5, stage.uniform(0.35, 0.7), 0.4), stage.material("carton"))


def _furnish(stage: Stage, w: float, d: float, h: float, count: int) -> None:
    """Put furniture along the walls and in the middle, clutter on tables and on the floor."""
    rng = stage.rng
    models = stage.library.models("indoor", "furniture") + stage.library.models("object", "furniture")
    for _ in range(count):
        if rng.random() < 0.65:
            x, y, yaw = _wall_spot(stage, w, d, 0.45)
        else:
            x, y, yaw = stage.uniform(0.1, 0.9) * w, stage.uniform(0.1, 0.9) * d, stage.uniform(0, 6.3)
        f = Frame(stage, x, y, 0.0, yaw)
        kind = str(rng.choice(list(FURNITURE_SHARES), p=list(FURNITURE_SHARES.values())))
        if kind == "model" and models:
            furniture.set_model(stage, models[rng.integers(len(models))], np.array([x, y, 0.0]), yaw + rng.integers(4) * np.pi / 2)
        else:
            _made_furniture(f, kind, h)
    for _ in range(rng.integers(0, 16)):
        furniture.clutter(stage, np.array([stage.uniform(0.1, 0.9) * w, stage.uniform(0.1, 0.9) * d, 0.0]), stage.uniform(0.1, 0.6))
    for _ in range(rng.integers(0, 3)):  # rugs
        size = (stage.uniform(0.6, 3.0), stage.uniform(0.6, 3.0), 0.02)
        at = (stage.uniform(0.2, 0.8) * w, stage.uniform(0.2, 0.8) * d, 0.0)
        stage.scene.add("box", at, size, yaw_rotation(stage.uniform(0, 6.3)), stage.material("fabric"), False, label="floor")
    people = stage.library.models("person", "furniture")
    for _ in range(rng.integers(1, 3) if people and rng.random() < 0.4 else 0):
        at = np.array([stage.uniform(0.2, 0.8) * w, stage.uniform(0.2, 0.8) * d, 0.0])
        furniture.set_model(stage, people[rng.integers(len(people))], at, stage.uniform(0, 6.3))


def _line_wall(stage: Stage, w: float, d: float, h: float) -> None:
    """Stand a row of furniture of one depth along a wall, as in kitchens, offices and before bookshelves; things on top, boards above."""
    depth, low = stage.uniform(0.3, 0.65), stage.rng.random() < 0.6
    height = stage.uniform(0.7, 1.0) if low else stage.uniform(1.6, min(2.3, h - 0.1))
    along_x, far = stage.rng.random() < 0.5, stage.rng.random() < 0.5
    length, across = (w, d) if along_x else (d, w)
    yaw = {(True, False): np.pi / 2, (True, True): -np.pi / 2, (False, False): 0.0, (False, True): np.pi}[along_x, bool(far)]
    at, end = stage.uniform(0, 0.4) * length, stage.uniform(0.6, 1.0) * length
    off = across - depth / 2 if far else depth / 2
    while at < end - 0.4:
        width = min(stage.uniform(0.4, 1.2), end - at)
        middle = at + width / 2
        f = Frame(stage, *((middle, off) if along_x else (off, middle)), 0.0, yaw)
        (furniture.cabinet if stage.rng.random() < 0.6 else furniture.shelf)(f, width, depth, height)
        for _ in range(stage.rng.integers(0, 4) if low else 0):
            furniture.clutter(
                stage, f.point((stage.uniform(-0.35, 0.35) * depth, stage.uniform(-0.4, 0.4) * width, height)), stage.uniform(0.08, 0.45)
            )
        if low and stage.rng.random() < 0.4:
            furniture.cabinet(Frame(stage, *f.point((-depth / 4, 0, 0))[:2], height + 0.5, yaw), width, 0.3, min(0.7, h - height - 0.6))
        at += width


def _laid_table(f: Frame, width: float, depth: float, height: float) -> None:
    stage = f.stage
    furniture.table(f, depth, width, height)
    for _ in range(stage.rng.integers(0, 9)):
        at = f.point((stage.uniform(-0.42, 0.42) * depth, stage.uniform(-0.42, 0.42) * width, height))
        furniture.clutter(stage, at, stage.uniform(0.06, 0.4))
    for _ in range(stage.rng.integers(0, 4)):
        side = stage.rng.choice([-1, 1])
        x, y, _z = f.point((side * (depth / 2 + 0.25), stage.uniform(-0.4, 0.4) * width, 0))
        furniture.chair(Frame(stage, float(x), float(y), 0.0, float(np.arctan2(f.rotation[1, 0], f.rotation[0, 0])) + (np.pi if side > 0 else 0)))


def _standing(w: float, d: float, low_m: float, high_m: float) -> PoseSampler:
    """Cameras inside the room, mostly at its rim looking inwards, sometimes low as on a small robot."""

    def sample(rng: np.random.Generator) -> Matrix:
        margin = rng.uniform(0.05, 0.45, 2)
        eye = np.array([w, d]) * np.where(rng.random(2) < 0.5, margin, 1 - margin)
        target = np.array([w, d]) * rng.uniform(0.2, 0.8, 2)
        yaw = np.arctan2(*(target - eye)[::-1]) + rng.normal(0, 0.3)
        height = rng.uniform(low_m, high_m) if rng.random() < 0.8 else rng.uniform(0.2, low_m)
        return camera_pose((*eye, height), yaw, rng.normal(-0.18, 0.2), rng.normal(0, 0.04))

    return sample


def build_room(library: Library, rng: np.random.Generator) -> tuple[Scene, PoseSampler]:
    """A furnished room of 2.4..9 m."""
    stage = Stage(Scene(sky=library.draw_sky(rng, "indoor")), library, rng)
    w, d, h = stage.uniform(2.4, 8), stage.uniform(2.4, 9), stage.uniform(2.3, 3.4)
    _shell(stage, w, d, h)
    _wall_decoration(stage, w, d, h)
    _light(stage, w, d, h, int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 4)):
        _line_wall(stage, w, d, h)
    _furnish(stage, w, d, h, int(np.clip(w * d * stage.uniform(0.15, 0.7), 3, 30)))
    return stage.scene, _standing(w, d, 0.6, 1.9)


def build_corridor(library: Library, rng: np.random.Generator) -> tuple[Scene, PoseSampler]:
    """A long narrow passage with doors and things along its walls; the camera looks mostly along it."""
    stage = Stage(Scene(sky=library.draw_sky(rng, "indoor")), library, rng)
    w, d, h = stage.uniform(8, 35), stage.uniform(1.3, 3.5), stage.uniform(2.2, 3.2)
    _shell(stage, w, d, h)
    for _ in range(4):
        _wall_decoration(stage, w, d, h)
    _light(stage, w, d, h, 4)
    models = library.models("indoor", "furniture")
    for _ in range(rng.integers(2, 10)):
        x, y = stage.uniform(0, 1) * w, float(rng.choice([0.25, d - 0.25]))
        if models and rng.random() < 0.4:
            furniture.set_model(stage, models[rng.integers(len(models))], np.array([x, y, 0.0]), rng.integers(4) * np.pi / 2)
        else:
            f = Frame(stage, x, y, 0.0, np.pi / 2 if y < d / 2 else -np.pi / 2)
            furniture.cabinet(f, stage.uniform(0.5, 1.5), stage.uniform(0.25, 0.45), stage.uniform(0.5, 2.0))

    def sample(chance: np.random.Generator) -> Matrix:
        eye = (chance.uniform(0.02, 0.6) * w, chance.uniform(0.25, 0.75) * d, chance.uniform(0.3, 1.8))
        return camera_pose(eye, chance.normal(0, 0.3), chance.normal(-0.06, 0.12), chance.normal(0, 0.03))

    return stage.scene, sample


def build_warehouse(library: Library, rng: np.random.Generator) -> tuple[Scene, PoseSampler]:
    """A hall with rows of racks, pallets, columns and loose cartons."""
    stage = Stage(Scene(sky=library.draw_sky(rng, "indoor")), library, rng)
    w, d, h = stage.uniform(10, 30), stage.uniform(8, 24), stage.uniform(4, 9)
    _shell(stage, w, d, h)
    _light(stage, w, d, h, 4)
    rack_h, aisle = stage.uniform(2, min(h - 0.5, 5)), stage.uniform(2.2, 4.5)
    for y in np.arange(stage.uniform(1, 3), d - 1, aisle):
        for x in np.arange(1.5, w - 2, 3.0):
            if rng.random() < 0.45:
                furniture.shelf(Frame(stage, float(x), float(y), 0, np.pi / 2), 2.7, 1.0, rack_h, 0.35)
    for _ in range(rng.integers(5, 30)):
        f = Frame(stage, stage.uniform(0, w), stage.uniform(0, d), 0, stage.uniform(0, 6.3), "container")
        f.add("box", (0, 0, 0.07), (1.2, 0.8, 0.14), stage.material("wood"))
        for level in range(rng.integers(0, 4)):
            f.add(
                "box",
                (0, 0, 0.34 + 0.4 * level),
                (stage.uniform(0.6, 1.1), stage.uniform(0.5, 0.8), 0.4),
                stage.material("carton"),
            )
    for x in np.arange(3, w, stage.uniform(4, 8)):
        stage.box("wall", (float(x), d * 0.5, h / 2), (0.35, 0.35, h), stage.material("metal", 0.5))
    return stage.scene, _standing(w, d, 0.4, 2.2)


def build_tabletop(library: Library, rng: np.random.Generator) -> tuple[Scene, PoseSampler]:
    """A table (or bench, shelf, bin) with objects seen from 0.4 to 2.2 m, from the height of the things to straight down."""
    stage = Stage(Scene(sky=library.draw_sky(rng, "indoor")), library, rng)
    w, d, h = stage.uniform(2.5, 6), stage.uniform(2.5, 6), stage.uniform(2.4, 3.2)
    _shell(stage, w, d, h)
    _wall_decoration(stage, w, d, h)
    _light(stage, w, d, h, int(rng.integers(1, 3)))
    _furnish(stage, w, d, h, int(rng.integers(0, 6)))
    x, y = stage.uniform(0.3, 0.7) * w, stage.uniform(0.3, 0.7) * d
    width, depth, height = stage.uniform(0.5, 2.0), stage.uniform(0.5, 1.3), stage.uniform(0.3, 1.0)
    f = Frame(stage, x, y, 0.0, stage.uniform(0, 6.3))
    furniture.table(f, depth, width, height)
    stage.scene.shadow_centre, stage.scene.shadow_radius_m = (x, y, height), 1.6
    if rng.random() < 0.2:
        rim, wall = stage.uniform(0.05, 0.2), stage.material("plain")
        for sx, sy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            size = (0.02, 0.6, rim) if sx else (0.6, 0.02, rim)
            f.of("container").add("box", (sx * 0.3, sy * 0.3, height + rim / 2), size, wall)
    spread, sizes = stage.uniform(0.12, 0.45), (stage.uniform(0.03, 0.1), stage.uniform(0.12, 0.4))
    for _ in range(rng.integers(1, 22)):
        offset = np.clip(rng.normal(0, spread, 2), -0.47, 0.47) * (depth, width)
        furniture.clutter(stage, f.point((*offset, height)), stage.uniform(*sizes))
    for _ in range(rng.integers(0, 4)):  # what stands close behind ends the view in a still life
        at, turn = (stage.uniform(0.3, 1.2) * depth, stage.uniform(-0.8, 0.8) * width, height + stage.uniform(0, 0.4)), stage.uniform(0, 6.3)
        size = (stage.uniform(0.02, 0.4), stage.uniform(0.3, 1.4), stage.uniform(0.4, 1.6))
        stage.scene.add("box", f.point(at), size, yaw_rotation(turn), stage.any_material(), label="structure")
    return stage.scene, _looking_at_table(f, width, depth, height)


def _looking_at_table(f: Frame, width: float, depth: float, height: float) -> PoseSampler:
    """Cameras around a table's top: level, oblique, or from above and then also rolled."""

    def sample(chance: np.random.Generator) -> Matrix:
        pitch = -chance.uniform(*LEVEL if (draw := chance.random()) < 0.3 else OBLIQUE if draw < 0.7 else STEEP)
        distance, yaw = chance.uniform(0.4, 2.2 if draw < 0.3 else 1.4), chance.uniform(0, 6.3)
        target = f.point((*(chance.normal(0, 0.12, 2) * (depth, width)), height))
        back = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)]) * distance
        roll = chance.normal(0, 0.06) if chance.random() < 0.8 else chance.uniform(0, 6.3)
        return camera_pose(target - back, yaw, pitch, roll if pitch < -STEEP[0] else chance.normal(0, 0.06))

    return sample
