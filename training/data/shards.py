"""Labelled images on disk: .npy files (RGB, depth, classes) that can be memory-mapped, with one JSON per shard.

float16 depth is exact to 0.05 %; sky is +Inf.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .classes import CLASSES

if TYPE_CHECKING:  # reading shards needs no OpenGL
    from .renderer import RenderedView

IMAGES_PER_SHARD = 256


class _Image(NamedTuple):
    """One image as it will be stored."""

    rgb: npt.NDArray[np.uint8]
    depth_m: npt.NDArray[np.float16]
    class_ids: npt.NDArray[np.uint8] | None
    row: dict[str, Any]


class ShardWriter:
    """Collects views by image size and writes a shard whenever one is full."""

    def __init__(self, folder: Path, name: str) -> None:
        """Write into `folder`; the files' names begin with `name`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._count = folder, name, 0
        self._waiting: dict[tuple[int, int], list[_Image]] = {}

    def add(self, view: RenderedView, kind: str, scene: int) -> None:
        """Take one view of a scene."""
        camera = view.camera
        row = {"kind": kind, "scene": scene, "focal_px": camera.focal_px, "cx": camera.cx, "cy": camera.cy}
        waiting = self._waiting.setdefault(camera.size_hw, [])
        waiting.append(_Image(view.rgb, view.depth_m.astype(np.float16), view.class_ids, row))
        if len(waiting) == IMAGES_PER_SHARD:
            self._write(camera.size_hw)

    def close(self) -> None:
        """Write what is left."""
        for size_hw in list(self._waiting):
            if self._waiting[size_hw]:
                self._write(size_hw)

    def _write(self, size_hw: tuple[int, int]) -> None:
        images = self._waiting.pop(size_hw)
        stem = self._folder / f"{self._name}-{self._count:04d}"
        self._count += 1
        arrays = {".rgb.npy": np.stack([image.rgb for image in images]), ".depth.npy": np.stack([image.depth_m for image in images])}
        has_classes = all(image.class_ids is not None for image in images)
        if has_classes:
            arrays[".class.npy"] = np.stack([image.class_ids for image in images])
        for suffix, array in arrays.items():
            np.save(stem.with_suffix(suffix), array)
        record = {
            "size_hw": size_hw,
            "classes": CLASSES if has_classes else None,
            "sha256": {suffix: hashlib.sha256(array).hexdigest() for suffix, array in arrays.items()},
            "images": [image.row for image in images],
        }
        temporary = stem.with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(stem.with_suffix(".json"))


@dataclass(frozen=True)
class Shard:
    """A shard opened for reading.

    Attributes:
        rgb: (N, H, W, 3) uint8.
        depth_m: (N, H, W) float16 z-depth in metres, +Inf in the sky.
        focal_px: (N,) float32.
        rows: per image its kind, scene number and intrinsics.
        class_ids: (N, H, W) uint8, positions in `classes`; None for a shard without them.
        classes: the names of the classes, empty for a shard without them.
    """

    rgb: npt.NDArray[np.uint8]
    depth_m: npt.NDArray[np.float16]
    focal_px: npt.NDArray[np.float32]
    rows: list[dict[str, Any]]
    class_ids: npt.NDArray[np.uint8] | None = None
    classes: tuple[str, ...] = ()


def shard_paths(folder: Path) -> list[Path]:
    """Return the JSON files of the complete shards of a folder, in the order of the names."""
    return sorted(folder.glob("*.json"))


def open_shard(path: Path, in_memory: bool = False) -> Shard:
    """Open one shard by its JSON file, memory-mapped or read whole."""
    record = json.loads(path.read_text())
    rows, classes = record["images"], tuple(record.get("classes") or ())
    suffixes = (".rgb.npy", ".depth.npy", ".class.npy") if classes else (".rgb.npy", ".depth.npy")
    arrays = [np.load(path.with_suffix(suffix), mmap_mode=None if in_memory else "r") for suffix in suffixes]
    focal_px = np.array([row["focal_px"] for row in rows], np.float32)
    return Shard(arrays[0], arrays[1], focal_px, rows, arrays[2] if classes else None, classes)


def manifest(folder: Path) -> dict[str, Any]:
    """Describe a folder of shards: counts per kind, the class names (None without), and the SHA-256 over the shards' JSON files.

    The JSON files hold the hashes of their arrays' data.
    """
    digest, kinds, classes = hashlib.sha256(), {}, set()
    paths = shard_paths(folder)
    for path in paths:
        digest.update(path.read_bytes())
        record = json.loads(path.read_text())
        classes.add(tuple(record.get("classes") or ()))
        for row in record["images"]:
            kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
    return {
        "folder": folder.name,
        "shards": len(paths),
        "images": sum(kinds.values()),
        "kinds": kinds,
        "classes": list(classes.pop()) or None if len(classes) == 1 else None,
        "sha256": digest.hexdigest(),
    }
