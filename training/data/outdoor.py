"""Outdoor scenes: streets as seen from a car or a robot, and open ground with trees, houses and people."""

from __future__ import annotations

import numpy as np

from . import furniture
from .furniture import Frame, Stage
from .indoor import PoseSampler
from .library import Library
from .scene import Material, Matrix, Scene, camera_pose


def _daylight(stage: Stage, radius_m: float) -> None:
    """Sun or overcast; the sky is a little brighter than what it lights."""
    scene, rng = stage.scene, stage.rng
    scene.sky_yaw, scene.sky_gain = stage.uniform(0, 6.3), stage.uniform(0.7, 2.5)
    overcast = rng.random() < 0.4
    scene.ambient_rgb = tuple(np.array([0.9, 0.97, 1.1]) * stage.uniform(0.5, 0.9) * (1.3 if overcast else 0.7))
    scene.sun_rgb = tuple(np.array([1.0, 0.95, 0.85]) * (stage.uniform(0.0, 0.3) if overcast else stage.uniform(0.6, 1.8)))
    azimuth, height = stage.uniform(0, 6.3), stage.uniform(0.3, 1.4)
    scene.sun_direction = (np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height))
    scene.shadow_centre, scene.shadow_radius_m = (radius_m * 0.6, 0.0, 0.0), radius_m


def building(f: Frame, width: float, depth: float, height: float) -> None:
    """A block with a facade, a ground floor, balconies or bays, and a flat or pitched roof. Front is +X."""
    f, stage, rng = f.of("building"), f.stage, f.stage.rng
    facade = stage.material("facade")
    f.add("box", (0, 0, height / 2), (depth, width, height), facade)
    if rng.random() < 0.5:
        f.add("box", (0.06, 0, 1.6), (depth, width + 0.1, 3.2), stage.material("wall", 0.4))
    for _ in range(rng.integers(0, 6)):
        at = (depth / 2, stage.uniform(-0.4, 0.4) * width, stage.uniform(0.2, 0.9) * height)
        f.add("box", at, (stage.uniform(0.3, 1.6), stage.uniform(1, 3), stage.uniform(0.2, 2.5)), stage.material("wall", 0.5))
    if rng.random() < 0.6 and height < 14:
        tilt = np.array([[0.7071, 0, -0.7071], [0, 1, 0], [0.7071, 0, 0.7071]])
        size = (depth * 0.74, width + 0.6, depth * 0.74)
        stage.scene.add("box", f.point((0, 0, height)), size, f.rotation @ tilt, stage.material("roof"), label="building")


def tree(f: Frame, height: float) -> None:
    """Trunk with a crown of blobs, or a conifer of cones."""
    f, stage, rng = f.of("vegetation"), f.stage, f.stage.rng
    trunk = height * stage.uniform(0.25, 0.5)
    f.add("cylinder", (0, 0, trunk / 2), (height * 0.045, height * 0.045, trunk * 1.3), stage.material("bark"))
    leaves = stage.material("leaves")
    if rng.random() < 0.25:
        for level in (0.3, 0.5, 0.7):
            width = height * 0.5 * (1.15 - level)
            f.add("cone", (0, 0, height * (level + 0.12)), (width, width, height * 0.4), leaves)
        return
    for _ in range(rng.integers(3, 9)):
        size = height * stage.uniform(0.25, 0.5)
        at = (*(rng.normal(0, 0.13, 2) * height), trunk + stage.uniform(0.1, 0.85) * (height - trunk))
        f.add("blob", at, (size, size, size * stage.uniform(0.6, 1.0)), leaves)


def car(f: Frame) -> None:
    """Body, cabin with dark panes, wheels, lights. Length along +X."""
    f, stage, rng = f.of("vehicle"), f.stage, f.stage.rng
    paint = Material("", tuple(np.clip(rng.beta(1, 1) + rng.normal(0, 0.15, 3), 0.02, 0.95)), 1, stage.uniform(0.1, 0.8))
    dark = Material("", (0.03, 0.035, 0.04), 1, 0.7)
    length, width, height = stage.uniform(3.6, 5.0), stage.uniform(1.65, 1.95), stage.uniform(1.4, 2.0)
    waist = height * 0.58
    f.add("box", (0, 0, waist / 2 + 0.14), (length, width, waist - 0.1), paint)
    back = stage.uniform(-0.12, 0.02) * length
    f.add("box", (back, 0, (waist + height) / 2), (length * 0.55, width * 0.88, height - waist), dark)
    f.add("box", (back, 0, height), (length * 0.5, width * 0.86, 0.06), paint)
    for sx in (-1, 1):
        for sy in (-1, 1):
            f.add("sphere", (sx * length * 0.31, sy * width * 0.46, 0.32), (0.64, 0.24, 0.64), dark)
            lamp = Material("", (0.8, 0.1, 0.08) if sx < 0 else (0.9, 0.9, 0.85), 1, 0.5, stage.uniform(0, 1.5))
            f.add("box", (sx * length / 2, sy * width * 0.38, waist * 0.8), (0.06, 0.3, 0.16), lamp)


def _vehicle(stage: Stage, x: float, y: float, yaw: float) -> None:
    models = [m for m in stage.library.models("outdoor", "large") if any(n in m["file"] for n in CAR_NAMES)]
    if models and stage.rng.random() < 0.5:
        entry = models[stage.rng.integers(len(models))]
        lengthwise = 0.0 if entry["size_m"][0] > entry["size_m"][1] else np.pi / 2
        furniture.set_model(stage, entry, np.array([x, y, 0.0]), yaw + lengthwise + stage.rng.integers(2) * np.pi)
    elif stage.rng.random() < 0.12:
        f = Frame(stage, x, y, 0.0, yaw, "vehicle")
        f.add("box", (0, 0, 1.9), (stage.uniform(5, 10), 2.4, 3.0), stage.material("plain"))
        for sx in (-2, 0, 2):
            f.add("box", (sx, 0, 0.4), (0.9, 2.3, 0.8), Material("", (0.03, 0.03, 0.03)))
    else:
        car(Frame(stage, x, y, 0.0, yaw))


CAR_NAMES = (
    "suv",
    "hatchback",
    "pickup",
    "prius",
    "car",
    "van",
    "taxi",
    "sedan",
    "bus",
    "ambulance",
    "truck",
    "police",
    "delivery",
)


def _road(stage: Stage, half_m: float, walk_m: float) -> None:
    """Road along X with kerbs, pavements, verge and lane marks."""
    rng, length = stage.rng, 400.0
    stage.box("ground", (100, 0, -0.55), (900, 900, 1.0), stage.material("ground"), casts_shadow=False)
    stage.box("road", (100, 0, -0.525), (length, 2 * half_m, 1.05), stage.material("road"), casts_shadow=False)
    for side in (-1, 1):
        stage.box("pavement", (100, side * (half_m + walk_m / 2), -0.46), (length, walk_m, 1.1), stage.material("pavement"), casts_shadow=False)
        if rng.random() < 0.6:
            stage.box("road", (100, side * (half_m - 0.25), 0.001), (length, 0.13, 0.06), Material("", (0.8, 0.8, 0.75)), casts_shadow=False)
    if rng.random() < 0.75:
        gap = stage.uniform(4, 10)
        for x in np.arange(-10, 110, gap):
            stage.box("road", (float(x), 0.0, 0.001), (gap * 0.45, 0.13, 0.06), Material("", (0.85, 0.85, 0.8)), casts_shadow=False)
    if rng.random() < 0.2:
        for y in np.arange(-half_m + 0.5, half_m, 1.0):
            stage.box("road", (stage.uniform(8, 9), float(y), 0.001), (3.0, 0.5, 0.06), Material("", (0.85, 0.85, 0.85)), casts_shadow=False)


def _roadside(stage: Stage, edge_m: float) -> None:
    """Buildings, hedges and fences on both sides, with gaps, then trees, poles, signs and people before them."""
    rng = stage.rng
    built, houses = (
        stage.uniform(0.0, 1.0),
        [m for m in stage.library.models("outdoor", "large") if m["size_m"][2] > 4.5 and m["textured"]],
    )
    for side in (-1, 1):
        x, setback = -20.0, stage.uniform(0.3, 9)
        while x < 160:
            width, depth = stage.uniform(6, 22), stage.uniform(6, 14)
            y = side * (edge_m + setback + stage.uniform(0, 2) + depth / 2)
            draw = rng.random()
            if draw < built * 0.8:
                building(Frame(stage, x + width / 2, y, 0, -side * np.pi / 2), width, depth, stage.uniform(3.5, 20))
            elif draw < built and houses:
                furniture.set_model(stage, houses[rng.integers(len(houses))], np.array([x + width / 2, y, 0.0]), rng.integers(4) * np.pi / 2)
            elif draw < built + 0.25:
                surface = str(rng.choice(["leaves", "wall", "wood"]))
                hedge = stage.material(surface)
                stage.box(
                    "vegetation" if surface == "leaves" else "structure",
                    (x + width / 2, side * (edge_m + setback), 0.6),
                    (width, stage.uniform(0.2, 1.0), stage.uniform(1.0, 2.6)),
                    hedge,
                )
            else:
                for _ in range(rng.integers(1, 6)):
                    _any_tree(stage, x + stage.uniform(0, width), y + stage.uniform(-4, 4))
            x += width + float(rng.choice([0.0, stage.uniform(0, 6)]))
        for _ in range(rng.integers(0, 24)):
            _street_thing(stage, stage.uniform(2, 80), side * (edge_m - stage.uniform(-1.5, 1.6)))


def _any_tree(stage: Stage, x: float, y: float) -> None:
    models = [m for m in stage.library.models("outdoor", "large") if "tree" in m["file"] or "palm" in m["file"]]
    if models and stage.rng.random() < 0.4:
        furniture.set_model(stage, models[stage.rng.integers(len(models))], np.array([x, y, 0.0]), stage.uniform(0, 6.3))
    else:
        tree(Frame(stage, x, y, 0.0, 0.0), stage.uniform(3, 13))


def _street_thing(stage: Stage, x: float, y: float) -> None:
    rng = stage.rng
    f = Frame(stage, x, y, 0.05, stage.uniform(0, 6.3), "pole")
    kind = rng.choice(["tree", "pole", "sign", "person", "model", "bush", "bin"], p=[0.25, 0.2, 0.12, 0.13, 0.15, 0.1, 0.05])
    people, models = stage.library.models("person", "furniture"), stage.library.models("outdoor", "furniture")
    if kind == "person" and people:
        furniture.set_model(stage, people[rng.integers(len(people))], np.array([x, y, 0.1]), stage.uniform(0, 6.3))
    elif kind == "model" and models:
        furniture.set_model(stage, models[rng.integers(len(models))], np.array([x, y, 0.1]), stage.uniform(0, 6.3))
    elif kind == "tree":
        _any_tree(stage, x, y)
    elif kind in ("pole", "sign"):
        height, steel = (stage.uniform(4, 9), 0.14) if kind == "pole" else (stage.uniform(2.0, 3.0), 0.07)
        f.add("cylinder", (0, 0, height / 2), (steel, steel, height), stage.material("metal", 0.5))
        if kind == "sign":
            f.add(str(rng.choice(["box", "cylinder"])), (0, 0, height), (0.05, 0.6, 0.6), stage.material("print"))
        else:
            f.add("box", (0.6, 0, height), (1.4, 0.15, 0.1), Material("", (0.4, 0.4, 0.4)))
    elif kind == "bush":
        size = stage.uniform(0.5, 2.0)
        f.of("vegetation").add("blob", (0, 0, size * 0.35), (size, size, size * 0.8), stage.material("leaves"))
    else:
        f.of("container").add("box", (0, 0, 0.5), (0.6, 0.6, 1.0), stage.material("plain"))


def build_street(library: Library, rng: np.random.Generator) -> tuple[Scene, PoseSampler]:
    """A street along X with traffic; the camera is a car's (1.2..1.8 m) or a pavement robot's (0.3..1.2 m)."""
    stage = Stage(Scene(outdoor=True, sky=library.draw_sky(rng, "outdoor")), library, rng)
    half, walk = stage.uniform(2.6, 7.5), stage.uniform(0.8, 3.5)
    _daylight(stage, 30.0)
    _road(stage, half, walk)
    _roadside(stage, half + walk)
    for side in (-1, 1):
        if rng.random() < 0.6:
            for x in np.arange(stage.uniform(2, 9), 90, stage.uniform(5.5, 9)):
                if rng.random() < 0.6:
                    _vehicle(stage, float(x), side * (half - 1.0), 0.0)
        for x in np.arange(stage.uniform(6, 40), 100, stage.uniform(8, 40)):
            if rng.random() < 0.5:
                _vehicle(stage, float(x), side * half * 0.45, rng.normal(0, 0.05))
    if rng.random() < 0.3:
        _vehicle(stage, stage.uniform(12, 50), 0.0, stage.uniform(0, 6.3))

    def sample(chance: np.random.Generator) -> Matrix:
        driving = chance.random() < 0.75
        lane = chance.uniform(-0.6, 0.6) * half if driving else chance.choice([-1, 1]) * (half + walk * chance.uniform(0.2, 0.9))
        eye = (chance.uniform(-4, 3), lane, chance.uniform(1.2, 1.8) if driving else chance.uniform(0.3, 1.7))
        yaw = chance.normal(0, 0.12) if driving else chance.normal(0, 0.5)
        return camera_pose(eye, yaw, chance.normal(-0.03, 0.05), chance.normal(0, 0.02))

    return stage.scene, sample


def build_open(library: Library, rng: np.random.Generator) -> tuple[Scene, PoseSampler]:
    """Park, yard or field: ground, paths, trees, houses, benches, people, parked cars, anywhere."""
    stage = Stage(Scene(outdoor=True, sky=library.draw_sky(rng, "outdoor")), library, rng)
    _daylight(stage, 22.0)
    surface = str(rng.choice(["ground", "ground", "pavement", "road"]))
    stage.box(surface, (0, 0, -0.5), (900, 900, 1.0), stage.material(surface), casts_shadow=False)
    for _ in range(rng.integers(0, 4)):
        size = (stage.uniform(2, 40), stage.uniform(1, 8), 0.1)
        stage.scene.add("box", (stage.uniform(0, 25), stage.uniform(-10, 10), -0.02), size, None, stage.material("pavement"), False, label="pavement")
    for _ in range(rng.integers(0, 5)):
        f = Frame(stage, stage.uniform(15, 60), stage.uniform(-35, 35), 0, stage.uniform(0, 6.3))
        building(f, stage.uniform(5, 20), stage.uniform(5, 14), stage.uniform(3, 16))
    for _ in range(rng.integers(2, 35)):
        distance = stage.uniform(3, 60)
        x, y = distance, stage.uniform(-0.7, 0.7) * distance
        kind = rng.random()
        if kind < 0.4:
            _any_tree(stage, x, y)
        elif kind < 0.5:
            _vehicle(stage, x, y, stage.uniform(0, 6.3))
        elif kind < 0.9:
            _street_thing(stage, x, y)
        else:
            furniture.clutter(stage, np.array([x, y, 0.0]), stage.uniform(0.2, 1.0))

    def sample(chance: np.random.Generator) -> Matrix:
        eye = (chance.uniform(-3, 2), chance.uniform(-3, 3), chance.uniform(0.3, 2.0))
        return camera_pose(eye, chance.normal(0, 0.25), chance.normal(-0.1, 0.1), chance.normal(0, 0.03))

    return stage.scene, sample
