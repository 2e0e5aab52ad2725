"""Furniture and clutter out of primitives, and meshes set down on a surface. Everything stands on z = `base`."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np

from .library import ANY_SURFACE, Library, pick
from .scene import Material, Matrix, Scene, random_rotation, yaw_rotation


@dataclass
class Stage:
    """A scene being built, the asset library, and the source of chance that both draw from."""

    scene: Scene
    library: Library
    rng: np.random.Generator

    def material(self, surface: str, plain: float = 0.0) -> Material:
        """Draw a material for a surface."""
        return self.library.material(self.rng, surface, plain)

    def any_material(self) -> Material:
        """Draw a material of any kind, with a small tile as on objects."""
        material = self.material(pick(self.rng, ANY_SURFACE), plain=0.25)
        return Material(material.texture, material.tint, min(material.tile_m, float(self.rng.uniform(0.1, 0.6))), material.gloss)

    def box(self, label: str, centre: tuple[float, float, float], size: tuple[float, float, float], material: Material, **options: object) -> None:
        """Add a box of a class by its centre and edges in metres."""
        self.scene.add("box", centre, size, material=material, label=label, **options)

    def uniform(self, low: float, high: float) -> float:
        """Draw a float."""
        return float(self.rng.uniform(low, high))


class Frame:
    """A local frame standing at (x, y, base) and turned by `yaw`: adds parts given in local metres, of the class `label`."""

    def __init__(self, stage: Stage, x: float, y: float, base: float, yaw: float, label: str = "other") -> None:
        """Place the frame."""
        self.stage, self.origin, self.rotation, self.label = stage, np.array([x, y, base]), yaw_rotation(yaw), label

    def of(self, label: str) -> Frame:
        """Return the same frame for parts of another class."""
        frame = copy(self)
        frame.label = label
        return frame

    def add(self, mesh: str, at: tuple[float, float, float], size: tuple[float, float, float], material: Material) -> None:
        """Add a primitive by its centre and size."""
        self.stage.scene.add(mesh, self.origin + self.rotation @ np.asarray(at), size, self.rotation, material, label=self.label)

    def point(self, at: tuple[float, float, float]) -> Matrix:
        """Return a local point in the world."""
        return self.origin + self.rotation @ np.asarray(at)


def table(f: Frame, width: float, depth: float, height: float) -> None:
    """Top and legs (or a central foot)."""
    f, stage = f.of("table"), f.stage
    top, thick = (
        stage.material(str(stage.rng.choice(["wood", "wood", "metal", "plain", "floor", "fabric"]))),
        stage.uniform(0.02, 0.06),
    )
    legs = top if stage.rng.random() < 0.4 else stage.material("metal", plain=0.5)
    f.add("box", (0, 0, height - thick / 2), (width, depth, thick), top)
    if stage.rng.random() < 0.2:
        f.add("cylinder", (0, 0, height / 2), (0.1, 0.1, height - thick), legs)
        f.add("cylinder", (0, 0, 0.02), (0.5 * depth, 0.5 * depth, 0.04), legs)
        return
    leg = stage.uniform(0.03, 0.08)
    for sx in (-1, 1):
        for sy in (-1, 1):
            at = (sx * (width / 2 - leg), sy * (depth / 2 - leg), (height - thick) / 2)
            f.add("box", at, (leg, leg, height - thick), legs)


def chair(f: Frame) -> None:
    """Seat, back, four legs."""
    f, stage = f.of("chair"), f.stage
    seat, frame = stage.material("fabric", 0.3), stage.material("wood", 0.3)
    w, h = stage.uniform(0.4, 0.5), stage.uniform(0.42, 0.48)
    f.add("box", (0, 0, h), (w, w, 0.05), seat)
    f.add("box", (-w / 2, 0, h + stage.uniform(0.2, 0.35)), (0.04, w, stage.uniform(0.3, 0.5)), seat)
    for sx in (-1, 1):
        for sy in (-1, 1):
            f.add("box", (sx * (w / 2 - 0.03), sy * (w / 2 - 0.03), h / 2), (0.035, 0.035, h), frame)


def sofa(f: Frame) -> None:
    """Seat block, back, two arms, cushions."""
    f, stage = f.of("sofa"), f.stage
    w, d, h = stage.uniform(1.2, 2.4), stage.uniform(0.8, 1.0), stage.uniform(0.38, 0.46)
    cloth = stage.material("fabric", 0.4)
    f.add("box", (0, 0, h / 2), (d, w, h), cloth)
    f.add("box", (-d / 2 + 0.1, 0, h + 0.2), (0.2, w, 0.45), cloth)
    for sy in (-1, 1):
        f.add("box", (0, sy * (w / 2 + 0.08), h * 0.7), (d, 0.16, h * 1.4), cloth)
    for _ in range(stage.rng.integers(0, 4)):
        f.add("box", (-d / 2 + 0.28, stage.uniform(-w / 2, w / 2) * 0.8, h + 0.2), (0.14, 0.4, 0.4), stage.material("fabric"))


def bed(f: Frame) -> None:
    """Frame, mattress, headboard, pillows."""
    f, stage = f.of("bed"), f.stage
    w = stage.uniform(0.9, 1.9)
    f.add("box", (0, 0, 0.15), (2.05, w, 0.3), stage.material("wood"))
    f.add("box", (0.02, 0, 0.4), (2.0, w - 0.04, 0.24), stage.material("fabric", 0.5))
    f.add("box", (-1.05, 0, 0.5), (0.06, w, 1.0), stage.material("wood"))
    for sy in (-0.25, 0.25):
        f.add("box", (-0.75, sy * w, 0.56), (0.4, 0.35 * w, 0.12), stage.material("fabric", 0.6))


def shelf(f: Frame, width: float, depth: float, height: float, filled: float = 0.8) -> None:
    """Uprights, boards, and on the boards rows of books or loose things."""
    f, stage = f.of("shelf"), f.stage
    wood = stage.material(str(stage.rng.choice(["wood", "metal", "plain"])))
    for sy in (-1, 1):
        f.add("box", (0, sy * width / 2, height / 2), (depth, 0.03, height), wood)
    if stage.rng.random() < 0.7:
        f.add("box", (-depth / 2, 0, height / 2), (0.015, width, height), wood)
    pitch = stage.uniform(0.28, 0.5) * max(1.0, height / 2)
    for z in np.arange(0.05, height, pitch):
        f.add("box", (0, 0, z), (depth, width, 0.025), wood)
        if z + pitch < height + 0.2 and stage.rng.random() < filled:
            _fill_board(f, width - 0.1, depth, float(z) + 0.013, pitch - 0.05)


def _fill_board(f: Frame, width: float, depth: float, z: float, room: float) -> None:
    stage, y = f.stage, -width / 2
    books = stage.rng.random() < 0.5
    f = f.of("book" if books else "object")
    while y < width / 2 - 0.05:
        w = stage.uniform(0.03, 0.09) if books else stage.uniform(0.08, 0.3)
        h = stage.uniform(0.55, 0.95) * room if books else stage.uniform(0.2, 0.9) * room
        d = depth * stage.uniform(0.5, 0.95)
        if stage.rng.random() < 0.85 and y + w < width / 2:
            mesh = "box" if books or stage.rng.random() < 0.6 else str(stage.rng.choice(["cylinder", "sphere", "blob"]))
            d = d if mesh == "box" else w
            f.add(mesh, (depth / 2 - d / 2, y + w / 2, z + h / 2), (d, w, h), stage.any_material())
        y += w + (0.0 if books else stage.uniform(0.0, 0.15))


def cabinet(f: Frame, width: float, depth: float, height: float) -> None:
    """Closed box with doors or drawers and handles."""
    f, stage = f.of("cabinet"), f.stage
    body, front = stage.material("wood", 0.4), stage.material("wood", 0.5)
    f.add("box", (0, 0, height / 2), (depth, width, height), body)
    columns, rows = int(stage.rng.integers(1, 4)), int(stage.rng.integers(1, 4))
    for i in range(columns):
        for j in range(rows):
            y, z = (i + 0.5) / columns * width - width / 2, (j + 0.5) / rows * height
            f.add("box", (depth / 2, y, z), (0.03, width / columns - 0.02, height / rows - 0.02), front)
            f.add("box", (depth / 2 + 0.03, y + 0.3 * width / columns, z), (0.03, 0.02, 0.1), Material("", (0.3, 0.3, 0.3), 1, 0.5))


def plant(f: Frame, height: float) -> None:
    """Pot, stem, leafy blobs."""
    f, stage, r = f.of("vegetation"), f.stage, height * 0.18
    leaves = stage.material("leaves")
    f.add("cylinder", (0, 0, r), (2 * r, 2 * r, 2 * r), stage.material("plain"))
    f.add("cylinder", (0, 0, height * 0.5), (0.03, 0.03, height * 0.6), stage.material("bark"))
    for _ in range(stage.rng.integers(2, 6)):
        size = stage.uniform(0.25, 0.5) * height
        at = (stage.uniform(-r, r), stage.uniform(-r, r), stage.uniform(0.55, 0.95) * height)
        f.add("blob", at, (size, size, size * stage.uniform(0.5, 1.1)), leaves)


def clutter(stage: Stage, at: Matrix, size: float) -> None:
    """Set one small thing down at a world point: box, can, ball, bowl, heap, or a mesh of the library.

    Args:
        stage: what is being built.
        at: (3,) metres; where the thing touches its surface.
        size: its rough largest extent in metres.
    """
    rng = stage.rng
    kind = rng.choice(["mesh", "box", "can", "flat", "ball", "lying", "any"], p=[0.36, 0.2, 0.16, 0.1, 0.08, 0.05, 0.05])
    models = stage.library.models("object", "tabletop") + stage.library.models("indoor", "tabletop")
    if kind == "mesh" and models:
        set_model(stage, models[rng.integers(len(models))], at, stage.uniform(0, 6.3), largest_m=size)
        return
    material, a = stage.any_material(), rng.uniform(0.4, 1.0, 3) * size
    mesh, rotation = "box", yaw_rotation(stage.uniform(0, 6.3))
    if kind == "can":
        mesh, a = "cylinder", np.array([a[0] * 0.6, a[0] * 0.6, a[2]])
    elif kind == "flat":
        a = np.array([a[0], a[1], size * stage.uniform(0.03, 0.15)])
    elif kind == "ball":
        mesh, a = str(rng.choice(["sphere", "blob"])), np.full(3, a[0])
    elif kind == "lying":
        mesh, a = "cylinder", np.array([a[0] * 0.4, a[0] * 0.4, a[2]])
        rotation = rotation @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    elif kind == "any":
        rotation = random_rotation(rng)
    lift = np.abs(rotation[2] * a).sum() / 2 if mesh in ("box", "cylinder") else a[2] / 2
    stage.scene.add(mesh, np.add(at, (0, 0, lift)), tuple(a), rotation, material, label="object")


def set_model(stage: Stage, entry: dict, at: Matrix, yaw: float, largest_m: float | None = None) -> None:
    """Stand a mesh of the library on a point; `largest_m` scales it to at most twice or half its own size."""
    extent = np.asarray(entry["size_m"])
    scale = 1.0 if largest_m is None else float(np.clip(largest_m / extent.max(), 0.5, 2.0))
    low, high = np.asarray(entry["min"]), np.asarray(entry["max"])
    foot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]) * scale
    rotation = yaw_rotation(yaw)
    material = stage.any_material() if not entry["textured"] and stage.rng.random() < 0.4 else None
    label = stage.library.label(entry["file"])
    stage.scene.add(entry["file"], np.asarray(at) - rotation @ foot, scale, rotation, material, label=label)
