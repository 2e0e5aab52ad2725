"""Made-up training images: a plane seen from above with objects, known exactly, as a source in memory and as shards on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.data.samples import BrokenFileError, LabelledSample

FOCAL_PX = 40.0
SIZE_HW = (64, 96)
COMPACT = "network.architecture={channels: [4, 8, 8, 8, 16], blocks: [1, 1, 1], context_layers: 1, decoder: 8}"
VIT = "network.architecture={encoder: {dim: 16, heads: 2, blocks: 4}, features: 4, out_channels: [4, 4, 4, 4], taps: [0, 1, 2, 3]}"


def scene(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return RGB, depth in metres (+Inf in the sky) and class ids of a scene: sky, ground, a box whose shade says its distance."""
    rng = np.random.default_rng(number)
    height, width = SIZE_HW
    rows = np.arange(height, dtype=np.float32)[:, None].repeat(width, 1)
    horizon = height * 0.3
    depth = np.where(rows > horizon, 1.5 * FOCAL_PX / np.maximum(rows - horizon, 0.5), np.inf).astype(np.float32)
    class_ids = np.where(np.isinf(depth), 0, 1).astype(np.uint8)
    top, left, near = int(rng.integers(10, 40)), int(rng.integers(5, 60)), float(rng.uniform(1, 4))
    depth[top : top + 20, left : left + 25], class_ids[top : top + 20, left : left + 25] = near, 2
    shade = 30 + 200 / np.maximum(np.minimum(depth, 20), 1)
    rgb = shade[..., None] * np.array([[1.0, 0.9, 0.8], [0.6, 1.0, 0.6], [1.0, 0.5, 0.4]])[class_ids]
    return (rgb + rng.uniform(0, 10, rgb.shape)).clip(0, 255).astype(np.uint8), depth, class_ids


class MadeUp:
    """A source of `count` scenes in blocks of 4; the numbers in `broken` cannot be read."""

    def __init__(self, count: int = 12, kind: str = "depth_m", broken: tuple[int, ...] = (), focal_px: float | None = FOCAL_PX) -> None:
        self.block_sizes = [4] * (count // 4) + [count % 4] * (count % 4 > 0)
        self.kind, self.broken, self.focal_px, self.read = kind, broken, focal_px, list[int]()

    def __len__(self) -> int:
        return sum(self.block_sizes)

    def __getitem__(self, index: int) -> LabelledSample:
        self.read.append(index)
        if index in self.broken:
            raise BrokenFileError("made to fail", f"scene {index}")
        rgb, depth, class_ids = scene(index)
        values = depth if self.kind == "depth_m" else 1 / depth
        sky = class_ids == 0
        return LabelledSample(rgb, values, self.kind, np.ones_like(sky), sky, self.focal_px, str(index), "made_up", class_ids)

    def manifest(self) -> dict[str, Any]:
        return {"dataset": "made_up", "samples": len(self)}


def write_images(folder: Path, count: int) -> Path:
    """Write scenes as JPEG files, for pseudo-labels."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(100, 100 + count):
        cv2.imwrite(str(folder / f"{number}.jpg"), scene(number)[0][..., ::-1])
    return folder
