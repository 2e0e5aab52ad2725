"""Stage of training: panoramas -> views of a pinhole camera, as JPEG files that pack_images takes.

Run: python -m training.panorama_views PANORAMAS --output DIR. A panorama has every direction, so many unlabelled images come of one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from depth_anything_ros.errors import DepthAnythingError

from .data.scene import camera_pose
from .data.unlabelled import ImageFolder

JPEG_QUALITY = 95
FOV_DEG = (45.0, 95.0)
PITCH_RAD, ROLL_RAD = (-0.1, 0.2), (0.0, 0.04)
"""Mean and deviation; upwards is positive."""


@dataclass(frozen=True)
class View:
    """Where a pinhole camera in a panorama's centre looks; radians, except the horizontal field of view."""

    yaw: float
    pitch: float
    roll: float
    fov_deg: float


def draw_view(rng: np.random.Generator) -> View:
    """Draw a view as a robot's or a hand-held camera has: any yaw, near the horizon, hardly rolled."""
    return View(rng.uniform(0, 2 * np.pi), rng.normal(*PITCH_RAD), rng.normal(*ROLL_RAD), rng.uniform(*FOV_DEG))


def pinhole_view(panorama: npt.NDArray[np.uint8], view: View, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Look into a panorama with a pinhole camera.

    Args:
        panorama: (H, 2 H, 3) uint8, equirectangular; its middle column is yaw 0, columns to the right are yaws below 0.
        view: direction and field of view.
        size_hw: of the result in pixels.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = size_hw
    focal_px = width / 2 / np.tan(np.radians(view.fov_deg) / 2)
    x, y = (np.arange(width) + 0.5 - width / 2) / focal_px, (np.arange(height) + 0.5 - height / 2) / focal_px
    rays = np.stack(np.broadcast_arrays(x, y[:, None], 1.0), -1) @ camera_pose((0, 0, 0), view.yaw, view.pitch, view.roll)[:3, :3].T
    azimuth, elevation = np.arctan2(rays[..., 1], rays[..., 0]), np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1]))
    rows, columns = panorama.shape[:2]
    padded = cv2.copyMakeBorder(panorama, 1, 1, 1, 1, cv2.BORDER_WRAP)
    padded[0], padded[-1] = padded[1], padded[-2]
    map_x = (0.5 - azimuth / (2 * np.pi)) % 1 * columns + 0.5
    map_y = (0.5 - elevation / np.pi) * rows + 0.5
    return cv2.remap(padded, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR)  # type: ignore[return-value]


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0: written, 2: nothing can go on."""
    parser = argparse.ArgumentParser(prog="python -m training.panorama_views", description=__doc__)
    parser.add_argument("panoramas", type=Path, help="folder of equirectangular images, twice as wide as high")
    parser.add_argument("--output", type=Path, required=True, help="folder for the views")
    parser.add_argument("--views", type=int, default=100, help="of each panorama (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"), help="of a view in pixels (default: 192 256)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if min(args.views, *args.size) < 1:
        parser.error("--views and --size must be at least 1")
    try:
        count = _write_views(args)
    except (DepthAnythingError, OSError) as error:
        print(f"panorama_views: {error}", file=sys.stderr)
        return 2
    print(f"{count} views in '{args.output}'")
    return 0 if count else 2


def _write_views(args: argparse.Namespace) -> int:
    """Write the views of all panoramas, name those that are none, and return the number of views."""
    count, source = 0, ImageFolder(args.panoramas)
    args.output.mkdir(parents=True, exist_ok=True)
    for number, (key, panorama) in enumerate(source):
        if panorama.shape[1] != 2 * panorama.shape[0]:
            print(f"panorama_views: left out '{key}': {panorama.shape[1]}x{panorama.shape[0]} is not twice as wide as high", file=sys.stderr)
            continue
        rng = np.random.default_rng([args.seed, number])
        for index in range(args.views):
            rgb = pinhole_view(panorama, draw_view(rng), tuple(args.size))
            content = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
            (args.output / f"{key.replace('/', '_')}-{index:04d}.jpg").write_bytes(content)
            count += 1
    return count


if __name__ == "__main__":
    raise SystemExit(main())
