"""Pictures of what a model does: rows of frames of videos and of rendered images, each beside its disparity in colours (red is near).

Run: python -m training.contact_sheet MODEL... --videos FOLDER --renders SHARDS --output sheet.jpg. Rendered images are those with the
least and the largest error among many, and show the truth, too. For a model card, and to look at before a model is shipped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from depth_anything_ros.errors import DepthAnythingError
from depth_anything_ros.structs import DepthMap

from .data.rendered_shards import RenderedShards
from .data.unlabelled import VIDEO_SUFFIXES
from .metrics import align_disparity, compare_depth
from .predictors import Predictor, open_predictor

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""
JPEG_QUALITY = 85
CANDIDATES = 120
"""Rendered images among which the best and the worst are sought."""
CAP_OF_MEDIAN = 100.0
"""Aligned depth is clamped at so many times the truth's median."""


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0: written, 2: nothing can go on."""
    parser = argparse.ArgumentParser(prog="python -m training.contact_sheet", description=__doc__)
    parser.add_argument("models", metavar="MODEL", type=Path, nargs="+", help="checkpoints or ONNX files, a column each")
    parser.add_argument("--videos", type=Path, help="folder of videos")
    parser.add_argument("--frames", type=int, default=2, help="evenly spread frames of each video (default: %(default)s)")
    parser.add_argument("--renders", type=Path, help="folder of rendered shards")
    parser.add_argument("--cases", type=int, default=4, help="best, and as many worst, rendered images for the first model (default: %(default)s)")
    parser.add_argument("--height", type=int, default=120, help="of a row in pixels (default: %(default)s)")
    parser.add_argument("--columns", type=int, default=1, help="rows of pictures beside each other (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="image file to write")
    args = parser.parse_args(argv)
    try:
        missing = [str(path) for path in args.models if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"there is no model '{missing[0]}'")
        models = [open_predictor(path) for path in args.models]
        rows = list(_video_rows(models, args.videos, args.frames)) if args.videos else []
        rows += _render_rows(models, RenderedShards(args.renders), args.cases) if args.renders else []
        if not rows:
            parser.error("nothing to show: give --videos with videos in it, or --renders")
        sheet = arrange([np.hstack([_to_height(picture, args.height) for picture in row]) for row in rows], args.columns)
        quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY) if args.output.suffix.lower() in (".jpg", ".jpeg") else ()
        if not cv2.imwrite(str(args.output), np.ascontiguousarray(sheet[..., ::-1]), quality):
            raise OSError(f"cannot write '{args.output}'")
    except (DepthAnythingError, OSError, cv2.error) as error:
        print(f"contact_sheet: {error}", file=sys.stderr)
        return 2
    print(f"{args.output}: {len(rows)} images, {sheet.shape[1]}x{sheet.shape[0]} pixels")
    return 0


def arrange(rows: list[Picture], columns: int) -> Picture:
    """Put pictures of one height into `columns` columns, from top to bottom; what is missing is white."""
    lines = -(-len(rows) // columns)
    stacks = [_stack(rows[first : first + lines]) for first in range(0, len(rows), lines)]
    height = max(len(stack) for stack in stacks)
    return np.hstack([_widened(stack, height - len(stack), 0) for stack in stacks])


def _stack(rows: list[Picture]) -> Picture:
    width = max(row.shape[1] for row in rows)
    return np.vstack([_widened(row, 2, width - row.shape[1] + 2) for row in rows])


def _widened(picture: Picture, below: int, right: int) -> Picture:
    return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(255, 255, 255))  # type: ignore[return-value]


def disparity_of(depth_map: DepthMap) -> npt.NDArray[np.float64]:
    """Return (H, W) disparity, in the map's own unit; 0 is beyond range."""
    values = depth_map.values.astype(np.float64)
    return values if depth_map.kind == "disparity_affine_invariant" else 1 / values


def coloured(disparity: npt.NDArray[np.float64]) -> Picture:
    """Colour (H, W) disparity from its 1st to its 99th percentile, red is near; not finite is black."""
    known = np.isfinite(disparity)
    low, high = np.percentile(disparity[known], (1, 99)) if known.any() else (0.0, 1.0)
    levels = (np.nan_to_num((disparity - low) / max(high - low, 1e-9)).clip(0, 1) * 255).astype(np.uint8)
    return np.where(known[..., None], cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1], 0).astype(np.uint8)


def _video_rows(models: list[Predictor], folder: Path, frames: int) -> Iterator[list[Picture]]:
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES):
        capture = cv2.VideoCapture(str(path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        for number in ((np.arange(frames) + 0.5) / frames * count).astype(int):
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(number))
            good, bgr = capture.read()
            if not good:
                raise OSError(f"cannot read frame {number} of '{path}'")
            rgb = np.ascontiguousarray(bgr[..., ::-1])
            yield [rgb, *[coloured(disparity_of(model(rgb, None))) for model in models]]
        capture.release()


def _render_rows(models: list[Predictor], source: RenderedShards, cases: int) -> list[list[Picture]]:
    """Return the `cases` best rows and the `cases` worst, by the first model's aligned AbsRel, the truth last."""
    found = []
    for index in np.unique(np.linspace(0, len(source) - 1, CANDIDATES).astype(int)):
        sample = source[int(index)]
        known = np.isfinite(sample.values) & (sample.values > 0)
        if known.any():
            depth = np.where(known, sample.values, 1.0).astype(np.float64)
            maps = [disparity_of(model(sample.rgb, sample.focal_px)) for model in models]
            aligned = align_disparity(maps[0], depth, known, CAP_OF_MEDIAN * float(np.median(depth[known])))
            row = [sample.rgb, *[coloured(one) for one in maps], coloured(np.where(sample.values > 0, 1 / sample.values, np.nan))]
            found.append((compare_depth(aligned, depth, known).abs_rel, row))
    found.sort(key=lambda case: case[0])
    return [row for _, row in [*found[:cases], *found[max(cases, len(found) - cases) :]]]


def _to_height(picture: Picture, height: int) -> Picture:
    width = round(picture.shape[1] * height / picture.shape[0])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


if __name__ == "__main__":
    raise SystemExit(main())
