"""Labelled images on disk: pairs of .npy files (RGB, depth) that can be memory-mapped, with one JSON per shard.

float16 depth is exact to 0.05 %; sky is +Inf.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # reading shards needs no OpenGL
    from .renderer import RenderedView

IMAGES_PER_SHARD = 256


class ShardWriter:
    """Collects views by image size and writes a shard whenever one is full."""

    def __init__(self, folder: Path, name: str) -> None:
        """Write into `folder`; the files' names begin with `name`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._count = folder, name, 0
        self._waiting: dict[tuple[int, int], list[tuple[RenderedView, str, int]]] = {}

    def add(self, view: RenderedView, kind: str, scene: int) -> None:
        """Take one view of a scene."""
        waiting = self._waiting.setdefault(view.camera.size_hw, [])
        waiting.append((view, kind, scene))
        if len(waiting) == IMAGES_PER_SHARD:
            self._write(view.camera.size_hw)

    def close(self) -> None:
        """Write what is left."""
        for size_hw in list(self._waiting):
            if self._waiting[size_hw]:
                self._write(size_hw)

    def _write(self, size_hw: tuple[int, int]) -> None:
        views = self._waiting.pop(size_hw)
        stem = self._folder / f"{self._name}-{self._count:04d}"
        self._count += 1
        np.save(stem.with_suffix(".rgb.npy"), np.stack([view.rgb for view, _, _ in views]))
        np.save(stem.with_suffix(".depth.npy"), np.stack([view.depth_m for view, _, _ in views]).astype(np.float16))
        rows = [
            {"kind": kind, "scene": scene, "focal_px": view.camera.focal_px, "cx": view.camera.cx, "cy": view.camera.cy}
            for view, kind, scene in views
        ]
        temporary = stem.with_suffix(".tmp")
        temporary.write_text(json.dumps({"size_hw": size_hw, "images": rows}))
        temporary.replace(stem.with_suffix(".json"))


@dataclass(frozen=True)
class Shard:
    """A shard opened for reading.

    Attributes:
        rgb: (N, H, W, 3) uint8.
        depth_m: (N, H, W) float16 z-depth in metres, +Inf in the sky.
        focal_px: (N,) float32.
        rows: per image its kind, scene number and intrinsics.
    """

    rgb: npt.NDArray[np.uint8]
    depth_m: npt.NDArray[np.float16]
    focal_px: npt.NDArray[np.float32]
    rows: list[dict[str, Any]]


def shard_paths(folder: Path) -> list[Path]:
    """Return the JSON files of the complete shards of a folder, in the order of the names."""
    return sorted(folder.glob("*.json"))


def open_shard(path: Path, in_memory: bool = False) -> Shard:
    """Open one shard by its JSON file, memory-mapped or read whole."""
    rows = json.loads(path.read_text())["images"]
    mode = None if in_memory else "r"
    rgb, depth_m = (np.load(path.with_suffix(suffix), mmap_mode=mode) for suffix in (".rgb.npy", ".depth.npy"))
    return Shard(rgb, depth_m, np.array([row["focal_px"] for row in rows], np.float32), rows)


def manifest(folder: Path) -> dict[str, Any]:
    """Describe a folder of shards: counts per kind and the SHA-256 over the shards' JSON files."""
    digest, kinds = hashlib.sha256(), {}
    paths = shard_paths(folder)
    for path in paths:
        digest.update(path.read_bytes())
        for row in json.loads(path.read_text())["images"]:
            kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
    return {
        "folder": folder.name,
        "shards": len(paths),
        "images": sum(kinds.values()),
        "kinds": kinds,
        "sha256": digest.hexdigest(),
    }
