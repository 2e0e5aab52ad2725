"""Meshes, textures and skies by key: from an asset folder where one is given, otherwise made up."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import trimesh

from .classes import CLASS_IDS, class_of_mesh
from .scene import Material
from .textures import procedural_sky, procedural_texture

T = TypeVar("T")

# surface -> (ambientCG categories, procedural kinds, usual tile edge in metres)
SURFACES: dict[str, tuple[tuple[str, ...], tuple[str, ...], float]] = {
    "wall": (
        ("Plaster", "Paint", "Wallpaper", "Concrete", "Bricks", "Planks", "Tiles", "WoodSiding", "Fabric"),
        ("plaster", "noise"),
        1.5,
    ),
    "floor": (
        ("WoodFloor", "Tiles", "Carpet", "Concrete", "Terrazzo", "Marble", "Planks", "Tatami", "Fabric"),
        ("blocks", "wood"),
        1.2,
    ),
    "ceiling": (("OfficeCeiling", "Plaster", "Paint", "Planks", "Concrete"), ("plaster",), 1.5),
    "road": (("Asphalt", "Road", "Concrete"), ("asphalt",), 3.0),
    "pavement": (("PavingStones", "Concrete", "Tiles", "Asphalt", "Bricks"), ("blocks", "asphalt"), 2.0),
    "ground": (("Grass", "Ground", "Gravel", "Moss", "ScatteredLeaves", "Rocks"), ("foliage", "noise"), 2.5),
    "facade": (("Bricks", "Concrete", "Plaster", "PavingStones", "WoodSiding"), ("facade", "facade", "facade"), 3.0),
    "roof": (("RoofingTiles", "CorrugatedSteel", "Metal"), ("blocks",), 1.5),
    "wood": (("Wood", "Planks", "WoodFloor", "Chipboard"), ("wood",), 0.8),
    "metal": (("Metal", "CorrugatedSteel", "DiamondPlate", "Rust"), ("noise",), 0.6),
    "fabric": (("Fabric", "Carpet", "Rubber"), ("stripes", "noise"), 0.5),
    "bark": (("Bark", "Wood"), ("wood",), 0.6),
    "leaves": (("Grass", "Moss"), ("foliage", "foliage"), 0.7),
    "carton": (("Cardboard", "Paper", "Cork"), ("poster", "noise"), 0.3),
    "print": ((), ("poster",), 0.2),
    "plain": ((), ("",), 1.0),
}
FAR_SKIES = ("sky", "sunrise", "sunset", "kiara", "immenstadter", "venice", "rooitou")
"""Panoramas whose content is far away; the others show near walls and trees, which must not be labelled as sky."""
ANY_SURFACE = ("wood", "metal", "fabric", "carton", "print", "plain", "wall", "floor", "pavement", "ground")


@dataclass(frozen=True)
class MeshPart:
    """Triangles of one material: (N, 3) positions and normals, (N, 2) UVs (v down), (M, 3) indices.

    `class_id` is set where a part is something else than the mesh as a whole; `closed`: triangles are only seen from outside,
    counterclockwise.
    """

    positions: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]
    uvs: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int32]
    texture: str = ""
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    alpha_cutoff: float = -1.0
    class_id: int | None = None
    closed: bool = False


@dataclass(frozen=True)
class Mesh:
    """Parts, and the bounding sphere (centre x, y, z, radius) and box (2, 3) in the mesh's own frame."""

    parts: tuple[MeshPart, ...]
    sphere: tuple[float, float, float, float]
    bounds: npt.NDArray[np.float32]


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draw one option, the same as `rng.choice`, which would make an array of all of them first."""
    return options[rng.integers(len(options))]


class Library:
    """Looks things up by key and draws random ones; the same seed draws the same things from the same folder."""

    def __init__(self, assets: Path | None = None) -> None:
        """Read the folder's index; None: primitives and procedural textures only."""
        self.assets = assets
        self._images: dict[str, npt.NDArray[np.uint8]] = {}
        self._textures: dict[str, list[str]] = defaultdict(list)
        self._models: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self._labels: dict[str, str] = {}
        self.worlds: list[str] = []
        self.left_out: set[str] = set()  # picture frames: some show photographs of people
        self.skies: dict[str, list[str]] = {"indoor": [], "outdoor": []}
        for entry in json.loads((assets / "index.json").read_text()) if assets else []:
            self._register(entry)
        self.mesh = lru_cache(maxsize=None)(self._load_mesh)

    def _register(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "texture":
            self._textures[entry.get("category") or "photo"].append(entry["file"])
        elif entry["kind"] == "environment":
            if entry["domain"] == "indoor" or any(name in entry["file"] for name in FAR_SKIES):
                self.skies[entry["domain"]].append(entry["file"])
        elif entry["kind"] == "layout":
            self.worlds.append(entry["file"])
        else:
            self._labels[entry["file"]] = class_of_mesh(entry)
            if "picture frame" in (entry.get("note") or ""):
                self.left_out.add(entry["file"])
            elif entry["placeable"]:
                self._models[entry["domain"], entry["size_class"]].append(entry)

    def models(self, domain: str, size_class: str) -> list[dict[str, Any]]:
        """Return the index entries of placeable meshes, empty without an asset folder."""
        return self._models[domain, size_class]

    def label(self, file: str) -> str:
        """Return the class name of a mesh of the asset folder."""
        return self._labels[file]

    def material(self, rng: np.random.Generator, surface: str, plain: float = 0.0) -> Material:
        """Draw a material for a surface (a key of `SURFACES`); with probability `plain` a single colour."""
        categories, procedural, tile_m = SURFACES[surface]
        categories = [category for category in categories if self._textures[category]]
        kind = pick(rng, procedural)
        gloss = pick(rng, (0.0, rng.uniform(0, 0.15), rng.uniform(0, 0.6)))
        if not kind or rng.random() < plain:
            colour = np.clip(rng.beta(2, 1.3) + rng.normal(0, 0.08, 3), 0.03, 0.95)
            return Material("", tuple(colour), 1.0, gloss)
        tint = tuple(np.clip(rng.uniform(0.55, 1.0) + rng.normal(0, 0.06, 3), 0.1, 1.0))
        tile = tile_m * float(np.exp(rng.normal(0, 0.35)))
        if categories and not (surface == "facade" and rng.random() < 0.7) and rng.random() < 0.85:
            # first the category, then the file: there are 157 tile maps and 7 plaster maps
            return Material(pick(rng, self._textures[pick(rng, categories)]), tint, tile, gloss)
        return Material(f"proc:{kind}:{rng.integers(400)}", tint, tile_m if kind == "facade" else tile, gloss)

    def texture(self, key: str) -> npt.NDArray[np.uint8]:
        """Return the image of a texture key: (H, W, 3) or (H, W, 4) uint8 sRGB; the empty key is one white pixel."""
        if not key:
            return np.full((1, 1, 3), 255, np.uint8)
        if key.startswith("proc:"):
            _, kind, seed = key.split(":")
            return procedural_texture(kind, int(seed))
        return self._images[key] if key in self._images else self._read_image(key)

    def sky(self, key: str) -> npt.NDArray[np.uint8]:
        """Return an equirectangular panorama, (H, W, 3) uint8; `proc:<seed>` makes one."""
        return procedural_sky(int(key.split(":")[1])) if key.startswith("proc:") else self._read_image(key)

    def draw_sky(self, rng: np.random.Generator, domain: str) -> str:
        """Draw a sky key: a panorama of the asset folder, or a made-up one."""
        files = self.skies[domain]
        return str(rng.choice(files)) if files and rng.random() < 0.6 else f"proc:{rng.integers(300)}"

    def _read_image(self, file: str) -> npt.NDArray[np.uint8]:
        assert self.assets is not None
        return cv2.cvtColor(cv2.imread(str(self.assets / file)), cv2.COLOR_BGR2RGB)

    def _load_mesh(self, key: str) -> Mesh:
        if key in PRIMITIVES:
            parts: tuple[MeshPart, ...] = (replace(_part(PRIMITIVES[key]()), closed=True),)
        else:
            assert self.assets is not None
            loaded = trimesh.load(self.assets / key, process=False, force="scene")
            parts = tuple(self._textured_part(f"{key}#{i}", g) for i, g in enumerate(loaded.dump()))
            if self._labels[key] == "wall":
                parts = _with_floor_and_ceiling(parts)
        points = np.concatenate([part.positions for part in parts])
        bounds = np.stack([points.min(0), points.max(0)])
        centre = bounds.mean(0)
        return Mesh(parts, (*centre.tolist(), float(np.linalg.norm(points - centre, axis=1).max())), bounds)

    def _textured_part(self, key: str, geometry: trimesh.Trimesh) -> MeshPart:
        material = getattr(geometry.visual, "material", None)
        factor = getattr(material, "baseColorFactor", None)
        tint = (1.0, 1.0, 1.0) if factor is None else tuple(np.clip(np.asarray(factor[:3], float) / 255, 0, 1))
        image = getattr(material, "baseColorTexture", None)
        if image is None:
            return _part(geometry, "", tint)
        masked = getattr(material, "alphaMode", None) == "MASK"
        self._images[key] = np.asarray(image.convert("RGBA" if masked else "RGB"))
        return _part(geometry, key, tint, 0.5 if masked else -1.0)


def _part(geometry: trimesh.Trimesh, texture: str = "", tint: tuple[float, ...] = (1.0, 1.0, 1.0), alpha_cutoff: float = -1.0) -> MeshPart:
    uv = getattr(geometry.visual, "uv", None)
    # trimesh turns glTF's v (down) up on loading; the textures here are uploaded top row first
    uvs = np.zeros((len(geometry.vertices), 2)) if uv is None else np.column_stack([uv[:, 0], 1 - uv[:, 1]])
    arrays = (np.asarray(a, np.float32) for a in (geometry.vertices, geometry.vertex_normals, uvs))
    return MeshPart(*arrays, np.asarray(geometry.faces, np.int32), texture, tuple(tint), alpha_cutoff)


def _with_floor_and_ceiling(parts: tuple[MeshPart, ...]) -> tuple[MeshPart, ...]:
    """Tell the flat, level parts of a room that is one mesh from its walls."""
    middle = np.concatenate([part.positions[:, 2] for part in parts]).mean()
    return tuple(
        replace(part, class_id=CLASS_IDS["floor" if part.positions[0, 2] < middle else "ceiling"]) if np.ptp(part.positions[:, 2]) < 0.02 else part
        for part in parts
    )


def _flat_shaded(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    mesh.unmerge_vertices()
    return mesh


PRIMITIVES = {
    # all fill the cube of edge 1 around the origin
    "box": lambda: _flat_shaded(trimesh.creation.box()),
    "cylinder": lambda: trimesh.creation.cylinder(0.5, 1.0, sections=20),
    "sphere": lambda: trimesh.creation.icosphere(2, 0.5),
    "cone": lambda: trimesh.creation.cone(0.5, 1.0, sections=16).apply_translation((0, 0, -0.5)),
    "sphere_far": lambda: trimesh.creation.icosphere(1, 0.5),
    "blob": lambda: _blob(3),
    "blob_far": lambda: _blob(2),
    "blob_tiny": lambda: _blob(1),
}
FAR_MESHES = {"blob": ((16.0, "blob_far"), (5.0, "blob_tiny")), "sphere": ((5.0, "sphere_far"),)}
"""Mesh -> (radius in pixels, mesh with fewer triangles that stands for it in a view where it is smaller)."""


BLOB_BUMPS_MAX = 1.1748194167199602  # of the finest blob, so that all have the same size


def _blob(subdivisions: int) -> trimesh.Trimesh:
    """Return a bumpy sphere (tree crowns, bushes, stones)."""
    mesh = trimesh.creation.icosphere(subdivisions, 0.5)
    bumps = 1 + 0.18 * np.sin(mesh.vertices * 17).sum(1) / 3 + 0.1 * np.cos(mesh.vertices[:, ::-1] * 31).sum(1) / 3
    mesh.vertices *= (bumps / BLOB_BUMPS_MAX)[:, None]
    return mesh
