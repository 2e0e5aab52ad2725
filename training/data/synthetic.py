"""Stage of training: seed -> shards of rendered, labelled images (RGB, exact z-depth, sky, intrinsics).

Run: python -m training.data.synthetic --out DIR --images 16000 [--assets DIR]. The same seed, assets and driver give the
same images; scene `i` draws from the seed (seed, i) alone, so several processes can share the work by --part.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .indoor import build_corridor, build_room, build_tabletop, build_warehouse
from .library import Library
from .outdoor import build_open, build_street
from .placed import PlacedScene
from .renderer import RenderedView, Renderer
from .scene import Camera, Matrix
from .shards import ShardWriter
from .worlds import build_world

BUILDERS = {
    "room": build_room,
    "corridor": build_corridor,
    "warehouse": build_warehouse,
    "tabletop": build_tabletop,
    "street": build_street,
    "open": build_open,
    "world": build_world,
}
SHARES = {"room": 0.3, "corridor": 0.05, "warehouse": 0.05, "tabletop": 0.22, "street": 0.2, "open": 0.06, "world": 0.12}
SIZE_HW = (288, 384)
WIDE_HW = (192, 576)
"""Street views come in this shape half of the time: driving cameras are wide, and it has as many pixels as SIZE_HW."""
VIEWS_PER_SCENE = 4
TRIES_PER_VIEW = 5
CLOSE_UP_M, CLOSE_UPS = 1.2, 0.15
"""Elsewhere than at tables, views with a median depth of less than this are kept with this probability: a robot sees a wall from close by, too."""
PREVIEW_STEP = 4
"""Whether a view is useful is decided on every n-th pixel in both directions."""


def choose_kind(rng: np.random.Generator, has_worlds: bool) -> str:
    """Draw a scene kind by its share."""
    kinds = [kind for kind in SHARES if has_worlds or kind != "world"]
    shares = np.array([SHARES[kind] for kind in kinds])
    return str(rng.choice(kinds, p=shares / shares.sum()))


def draw_camera(rng: np.random.Generator, pose: Matrix, size_hw: tuple[int, int]) -> Camera:
    """Give a pose random intrinsics: horizontal field of view 40..100 degrees, mostly 50..75; centre off by up to 2 %."""
    height, width = size_hw
    middle, spread = (62.0, 12.0) if size_hw == SIZE_HW else (78.0, 12.0)
    fov = np.radians(np.clip(rng.normal(middle, spread), 40, 100))
    offset = rng.uniform(-0.02, 0.02, 2)
    return Camera(pose, width / 2 / np.tan(fov / 2), width * (0.5 + offset[0]), height * (0.5 + offset[1]), size_hw)


def has_useful_depth(depth_m: npt.NDArray[np.float32], outdoor: bool) -> bool:
    """Refuse views from inside or close before a surface, of sky alone, and of a single bare wall; `depth_m` is a preview."""
    sky = np.isinf(depth_m)
    # an indoor shell with a hole shows panorama behind a wall; under the open sky only the upper part may be sky
    if sky.mean() > 0.6 or (sky.any() and sky[-sky.shape[0] // 3 :].mean() > 0.05):
        return False
    if not outdoor and sky.mean() > 0.02:
        return False
    solid = depth_m[~sky]
    near, middle = np.percentile(solid, [2, 50])
    return bool(near > 0.22 and middle > 0.35 and np.log(solid).std() > (0.04 if middle < 1.5 else 0.15))


def has_contrast(rgb: npt.NDArray[np.uint8]) -> bool:
    """Refuse black, white and plain images."""
    grey = rgb[::PREVIEW_STEP, ::PREVIEW_STEP].mean(2)
    return bool(12 < grey.mean() < 243 and grey.std() > 12)


def render_scene(renderer: Renderer, library: Library, seed: int, index: int, kind: str | None = None) -> tuple[str, list[RenderedView]]:
    """Build scene `index` of a seed and render up to VIEWS_PER_SCENE useful views of it.

    Args:
        renderer: the process's renderer.
        library: what to build from.
        seed: seed of the whole data set.
        index: number of the scene.
        kind: a key of `BUILDERS`; None draws one.

    Returns:
        The kind, and the views (possibly none).
    """
    rng = np.random.default_rng([seed, index])
    kind = kind or choose_kind(rng, bool(library.worlds))
    scene, sample = BUILDERS[kind](library, rng)
    size_hw = WIDE_HW if kind == "street" and rng.random() < 0.5 else SIZE_HW
    views: list[RenderedView] = []
    placed = PlacedScene(scene, library)
    for _ in range(VIEWS_PER_SCENE * TRIES_PER_VIEW):
        camera = draw_camera(rng, sample(rng), size_hw)
        exposure = float(np.exp(rng.normal(0.0, 0.35)))
        preview = renderer.preview_depth(placed, camera.subsampled(PREVIEW_STEP))
        close_up = kind != "tabletop" and np.median(preview) < CLOSE_UP_M and rng.random() > CLOSE_UPS
        if close_up or not has_useful_depth(preview, scene.outdoor):
            continue
        view = renderer.view(placed, camera, exposure, occlusion=rng.uniform(0.4, 1.6))
        if has_contrast(view.rgb):
            views.append(view)
        if len(views) == VIEWS_PER_SCENE:
            break
    return kind, views


def render_views(library: Library, seed: int, indices: range) -> Iterator[tuple[str, int, RenderedView]]:
    """Yield (kind, scene index, view) of the scenes `indices`."""
    renderer = Renderer(library)
    for index in indices:
        kind, views = render_scene(renderer, library, seed, index)
        for view in views:
            yield kind, index, view


def main(argv: list[str] | None = None) -> int:
    """Command line: render shards until a number of images is reached."""
    parser = argparse.ArgumentParser(prog="python -m training.data.synthetic", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--images", type=int, required=True, help="number of images that this process renders")
    parser.add_argument("--assets", type=Path, help="asset folder with index.json; without it: primitives only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", help="i/n: render every n-th scene, starting with the i-th")
    args = parser.parse_args(argv)
    # one thread per process: more wait for each other than they win, and --part shares the work better
    os.environ.setdefault("LP_NUM_THREADS", "0")  # of the software OpenGL
    cv2.setNumThreads(1)
    part, parts = (int(number) for number in args.part.split("/"))
    writer = ShardWriter(args.out, name=f"seed{args.seed}-part{part}of{parts}")
    scenes = range(part, 1_000_000_000, parts)
    views = render_views(Library(args.assets), args.seed, scenes)
    for _, (kind, index, view) in zip(tqdm(range(args.images), unit="image"), views, strict=False):
        writer.add(view, kind, index)
    writer.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
