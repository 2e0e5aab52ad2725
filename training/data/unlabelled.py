"""Images without labels -> (key, rgb), from folders of images, from videos and from WebDataset tar files.

A key is the path below the root (and the member of a tar file, or the frame of a video): stable from run to run and unique,
so that pseudo-labels can be stored under it. Broken files are left out and counted with their reason. Every worker reads its
own files (worker, worker + workers, ... of the sorted list), so no file is read twice and none is lost.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .published.formats import decode_rgb, read_rgb
from .samples import BrokenFileError, DatasetError, SkipLog
from .tars import check_end

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
STATED_LENGTH_TOLERANCE = 0.95
"""Containers may count a few frames that cannot be decoded; fewer than this part of them means that the file ends early."""

KeyedImage = tuple[str, npt.NDArray[np.uint8]]
"""Key, and (H, W, 3) uint8 in the order R, G, B."""


class UnlabelledSource(ABC):
    """Files of one kind below a folder, links followed, names beginning with a dot left out.

    Attributes:
        root: the folder.
        files: this worker's share, sorted by path.
        skipped: what iterating left out so far, in this process.
    """

    suffixes: tuple[str, ...]

    def __init__(self, root: Path | str, worker: int = 0, workers: int = 1) -> None:
        """List the files.

        Args:
            root: searched with all folders below it.
            worker: whose share to take, counted from 0; it may be empty.
            workers: number of shares.

        Raises:
            DatasetError: `root` is no folder or holds no such file, or the share does not exist.
        """
        self.root = Path(root)
        if not 0 <= worker < workers:
            raise DatasetError(f"there is no worker {worker} of {workers}; they are counted from 0")
        if not self.root.is_dir():
            raise DatasetError(f"'{root}' is not a folder")
        files = _files(self.root, self.suffixes)
        if not files:
            raise DatasetError(f"no files ending in {', '.join(self.suffixes)} in '{root}' or below it")
        self.files = files[worker::workers]
        self.skipped = SkipLog()

    def __iter__(self) -> Iterator[KeyedImage]:
        """Yield all images of this worker's share, in an order that does not change."""
        for path in self.files:
            try:
                yield from self._read(path, path.relative_to(self.root).as_posix())
            except BrokenFileError as error:
                self.skipped.add(error)

    @abstractmethod
    def _read(self, path: Path, key: str) -> Iterator[KeyedImage]:
        """Yield the images of one file; `key` is its path below the root."""


class ImageFolder(UnlabelledSource):
    """Image files; the key is the path below the root, suffix included."""

    suffixes = IMAGE_SUFFIXES

    def _read(self, path: Path, key: str) -> Iterator[KeyedImage]:
        yield key, read_rgb(path)


class VideoFrames(UnlabelledSource):
    """Every n-th frame of videos; the key is the path below the root, `#` and the frame's number."""

    suffixes = VIDEO_SUFFIXES

    def __init__(self, root: Path | str, every: int = 1, worker: int = 0, workers: int = 1) -> None:
        """Take the frames 0, every, 2 * every, ...; for the rest see `UnlabelledSource`."""
        if every < 1:
            raise DatasetError(f"every = {every}, but at least every frame (1) can be taken")
        super().__init__(root, worker, workers)
        self.every = every

    def _read(self, path: Path, key: str) -> Iterator[KeyedImage]:
        capture = cv2.VideoCapture(str(path))
        try:
            stated, number = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
            while capture.grab():
                if number % self.every == 0:
                    good, image = capture.retrieve()
                    if good:
                        yield f"{key}#{number:06d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    else:
                        self.skipped.add(BrokenFileError("undecodable video frame", path, f"frame {number}"))
                number += 1
        finally:
            capture.release()
        if number == 0:
            raise BrokenFileError("unreadable video", path)
        if number < STATED_LENGTH_TOLERANCE * stated:
            raise BrokenFileError("video ends early", path, f"{number} of {stated:.0f} frames")


class TarShards(UnlabelledSource):
    """Images in tar files as WebDataset writes them; the key is the tar file's path below the root, `/` and the member's name.

    Members that are no images (labels, JSON) are passed over. Tar files are read from front to back, never unpacked.

    Source: WebDataset's format is plain tar; members of one sample share the name up to the first dot of the file name.
    """

    suffixes = TAR_SUFFIXES

    def _read(self, path: Path, key: str) -> Iterator[KeyedImage]:
        names = set()
        try:
            with tarfile.open(path, "r:*") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if not member.isfile() or not name.lower().endswith(IMAGE_SUFFIXES):
                        continue
                    content = tar.extractfile(member)
                    data = content.read() if content is not None else b""
                    if name in names:
                        self.skipped.add(BrokenFileError("name twice in a tar file", f"{path}/{name}"))
                        continue
                    names.add(name)
                    yield from self._image(f"{path}/{name}", f"{key}/{name}", data)
                check_end(tar)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise BrokenFileError("tar file damaged or ends early", path, str(error)) from error

    def _image(self, place: str, key: str, data: bytes) -> Iterator[KeyedImage]:
        try:
            rgb = decode_rgb(data)
        except ValueError as error:
            self.skipped.add(BrokenFileError("unreadable image", place, str(error)))
        else:
            yield key, rgb


def _files(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder by path; folders that are reached twice through links are read once."""
    found, seen = [], set()
    for folder, names, files in os.walk(root, followlinks=True):
        names.sort()
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = [name for name in names if not name.startswith(".")]
        found += [Path(folder) / file for file in files if file.lower().endswith(suffixes) and not file.startswith(".")]
    return sorted(found)
