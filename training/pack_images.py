"""Stage of training: folders of images, videos and rendered shards -> tar shards of unlabelled images for make_pseudo_labels.

Run: python -m training.pack_images INPUT... --output DIR. INPUT is a folder of images, a folder of videos (or one video), a folder
of tar files, or a folder of rendered shards, of which the images alone are taken. Broken files are left out and counted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from depth_anything_ros.errors import DepthAnythingError

from .checkpoint import sha256_of, write_json
from .data.samples import DatasetError
from .data.shards import open_shard, shard_paths
from .data.unlabelled import VIDEO_SUFFIXES, ImageFolder, KeyedImage, TarShards, UnlabelledSource, VideoFrames

MANIFEST = "manifest.json"
JPEG_QUALITY = 95


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0: written, 2: nothing can go on."""
    parser = argparse.ArgumentParser(prog="python -m training.pack_images", description=__doc__)
    parser.add_argument("inputs", metavar="INPUT", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tar files")
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame of videos (default: 1)")
    parser.add_argument("--limit", type=int, help="take at most so many images of each input")
    parser.add_argument("--max-side", type=int, default=1024, help="larger images are made smaller (default: %(default)s pixels)")
    parser.add_argument("--images-per-shard", type=int, default=1000)
    args = parser.parse_args(argv)
    try:
        counts, skipped, written = Counter[str](), Counter[str](), list[Path]()
        args.output.mkdir(parents=True, exist_ok=True)
        images = iter(tqdm(_all_images(args, counts, skipped), unit="image", disable=None))
        _check(args)
        while written_now := _write_shard(args.output / f"images-{len(written):06d}.tar", islice(images, args.images_per_shard), args.max_side):
            written.append(written_now)
        if not written:
            raise DatasetError(f"not one image could be read ({skipped.total()} broken files)")
    except (DepthAnythingError, OSError) as error:
        print(f"pack_images: {error}", file=sys.stderr)
        return 2
    files = {path.name: sha256_of(path) for path in written}
    write_json(args.output / MANIFEST, {"images": counts.total(), "inputs": counts, "skipped": skipped, "files": files})
    print(f"{counts.total()} images in {len(written)} tar files in '{args.output}', {skipped.total()} broken files left out")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is read."""
    if min(args.every, args.images_per_shard, args.max_side, args.limit or 1) < 1:
        raise DatasetError("--every, --images-per-shard, --max-side and --limit must be at least 1")
    for path in args.inputs:
        _open(path, args.every)


def _all_images(args: argparse.Namespace, counts: Counter[str], skipped: Counter[str]) -> Iterator[KeyedImage]:
    """Yield the images of all inputs, their keys begun with the input's number, and count them."""
    for number, path in enumerate(args.inputs):
        for source in _open(path, args.every):
            for key, rgb in islice(source, args.limit):
                counts[f"{number}: {path.name}"] += 1
                yield f"{number}/{key}", rgb
            skipped.update(source.skipped.counts if isinstance(source, UnlabelledSource) else {})


def _open(path: Path, every: int) -> list[UnlabelledSource | _RenderedImages]:
    """Return what there is of each kind in an input."""
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return [_OneVideo(path, every)]
    if not path.is_dir():
        raise DatasetError(f"input '{path}' is neither a folder nor a video")
    if list(path.glob("*.rgb.npy")):
        return [_RenderedImages(path)]
    found: list[UnlabelledSource | _RenderedImages] = []
    for kind in (ImageFolder, TarShards, VideoFrames):
        try:
            found.append(VideoFrames(path, every) if kind is VideoFrames else kind(path))
        except DatasetError:  # holds none of this kind
            continue
    if not found:
        raise DatasetError(f"no images, videos, tar files or rendered shards in '{path}' or below it")
    return found


class _OneVideo(VideoFrames):
    """A single video of a folder."""

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(path.parent, every)
        self.files = [path]


class _RenderedImages:
    """The images of rendered shards, without their labels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[KeyedImage]:
        for path in shard_paths(self._folder):
            for number, rgb in enumerate(open_shard(path).rgb):
                yield f"{path.stem}#{number:04d}", np.asarray(rgb)


def _write_shard(path: Path, images: Iterator[KeyedImage], max_side: int) -> Path | None:
    """Write a tar file under a temporary name and rename it; None where there was nothing to write."""
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}.tmp"), 0
    try:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for key, rgb in images:
                count += 1
                content = _jpeg(rgb, max_side)
                member = tarfile.TarInfo(f"{_member(key)}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        if count:
            temporary.replace(path)
        return path if count else None
    finally:
        temporary.unlink(missing_ok=True)


def _member(key: str) -> str:
    """Return a WebDataset key: it ends at the first dot of the name, so a dot becomes ',' and what could be taken for one ',,'."""
    return key.replace(",", ",,").replace(".", ",")


def _jpeg(rgb: np.ndarray, max_side: int) -> bytes:
    scale = max_side / max(rgb.shape[:2])
    if scale < 1:
        size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()


if __name__ == "__main__":
    raise SystemExit(main())
