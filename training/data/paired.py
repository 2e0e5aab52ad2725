"""Pseudo-labels and their images for training: any sample by its number, from the shards that make_pseudo_labels wrote.

What is held in memory at the start is a name and a count per shard. Where the members of a tar lie is found out when its
shard is first read, in one pass over the headers, and kept for the shards read last.
"""

from __future__ import annotations

import json
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarError
from typing import Any

import numpy as np
import numpy.typing as npt

from depth_anything_ros.errors import DecodeError
from depth_anything_ros.postprocess import enlarge
from depth_anything_ros.structs import DepthMap

from .pseudo import FORMAT, decode_label, key_of_file, key_of_member, rgb_from_bytes
from .samples import BrokenFileError, DatasetError, LabelledSample
from .tars import Place, places_in_tar

MANIFEST = "manifest.json"
KEPT_SHARDS = 20
"""Shards whose index and open files are kept by one process, a few more than are shuffled together; about 120 bytes per label."""
_PNG, _JSON = ".disparity.png", ".disparity.json"
_NOWHERE: Place = (-1, -1)


@dataclass(frozen=True)
class _Shard:
    """A label shard: its name relative to the folder, and whether its images lie in a tar file."""

    name: str
    of_tar: bool


class PairedShards:
    """Images with their pseudo-labels, a `Source`. Kind `disparity_affine_invariant`, NaN = unknown.

    Labels of another size than their image (made with `label_size` "network") are brought to the image's size bilinearly; what
    touches an unknown pixel is unknown. Names are keys, after the shard's name where images come from tar files.

    Attributes:
        labels: output folder of make_pseudo_labels.
        images: what the labels were made from.
        block_sizes: labels per shard, in the order of the shards' names; shards without labels are left out.
    """

    def __init__(self, labels: Path | str, images: Path | str, allow_incomplete: bool = False) -> None:
        """Read the manifest and the records, and compare the tar files' sizes with them; no tar file is opened.

        Args:
            labels: output folder of make_pseudo_labels.
            images: the input it was made from, possibly moved: a folder of tar files, a folder of images, or one tar file.
            allow_incomplete: take what is there of a run that is not finished.

        Raises:
            DatasetError: `labels` is no such folder or not finished, or `images` is not what it was made from.
        """
        self.labels, self.images = Path(labels), Path(images)
        if not self.images.exists():
            raise DatasetError(f"there is no '{images}'")
        self._images_are_one_tar = self.images.is_file()
        self._manifest = _manifest(self.labels)
        if not self._manifest["complete"] and not allow_incomplete:
            raise DatasetError(
                f"'{labels}' is not complete ({self._manifest['shards_done']} of {self._manifest['shards']} shards); "
                "start make_pseudo_labels again, or allow incomplete labels"
            )
        records = list(self._read_records())
        if self._manifest["complete"] and len(records) != self._manifest["shards"]:
            raise DatasetError(f"'{labels}' holds {len(records)} records, its manifest {self._manifest['shards']}; give each input its own --output")
        self._records, self._failures = len(records), sum(failures for _, _, failures in records)
        self._shards = [shard for shard, count, _ in records if count]
        self.block_sizes = tuple(count for _, count, _ in records if count)
        self._ends = np.cumsum(self.block_sizes)
        if not self._shards:
            raise DatasetError(f"'{labels}' holds no labels")
        self._opened: OrderedDict[int, _OpenShard | BrokenFileError] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of labels."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> LabelledSample:
        """Read one image with its label.

        Raises:
            BrokenFileError: image or label cannot be read, or they do not belong together.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there is no label {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._open(number)
        position = index - int(self._ends[number]) + self.block_sizes[number]
        rgb, disparity = shard.read(position)
        if rgb.shape[:2] != disparity.shape:
            if self._manifest["settings"]["label_size"] == "image":
                raise BrokenFileError("image and label differ in size", shard.place(position))
            disparity = enlarge(DepthMap(disparity, "disparity_affine_invariant"), (rgb.shape[0], rgb.shape[1])).values
        key, of_tar = shard.keys[position], self._shards[number].of_tar
        name = f"{self._shards[number].name.removesuffix('.tar')}/{key}" if of_tar else key
        return LabelledSample(rgb, disparity, "disparity_affine_invariant", np.isfinite(disparity), None, None, name, "pseudo")

    def manifest(self) -> dict[str, Any]:
        """Return the teacher (name, licence, SHA-256), settings and their id, and the numbers of shards, labels and failed images."""
        settings, teacher = self._manifest["settings"], self._manifest["teacher"]
        return {
            "dataset": "pseudo",
            "settings_id": self._manifest["settings_id"],
            "label_size": settings["label_size"],
            "teacher": {"name": teacher["name"], "licence": teacher["licence"], "sha256": settings["teacher_sha256"]},
            "complete": self._manifest["complete"],
            "shards": self._records,
            "labels": len(self),
            "failures": self._failures,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind."""
        return self.__dict__ | {"_opened": OrderedDict()}

    def _read_records(self) -> Iterator[tuple[_Shard, int, int]]:
        """Yield shard, labels and failures of every record."""
        for path in sorted(self.labels.rglob("[!.]*.json")):
            if path == self.labels / MANIFEST:
                continue
            record = _read_json(path)
            try:
                shard = _Shard(record["shard"], not record["files"])
                if record["settings_id"] != self._manifest["settings_id"]:
                    raise DatasetError(f"'{path}' is of other settings than '{self.labels / MANIFEST}'; labels are not mixed")
                _check_size(self.labels / shard.name, record["bytes"])
                if shard.of_tar:
                    _check_size(self._images_of(shard), int(record["source_id"].removesuffix(" bytes")))
                yield shard, record["labels"], len(record["failures"])
            except (KeyError, ValueError, TypeError) as error:
                raise DatasetError(f"'{path}' is no record of make_pseudo_labels ({error!r})") from error

    def _images_of(self, shard: _Shard) -> Path:
        """Return the tar file with the images of a shard, or the folder of images."""
        return self.images / shard.name if shard.of_tar and not self._images_are_one_tar else self.images

    def _open(self, number: int) -> _OpenShard:
        """Return a shard from those kept, or index it; a shard that cannot be used is remembered, too."""
        if number not in self._opened:
            shard = self._shards[number]
            labels = self.labels / shard.name
            try:
                self._opened[number] = _OpenShard(labels, self._images_of(shard), shard.of_tar, self.block_sizes[number])
            except BrokenFileError as error:
                self._opened[number] = error
            if len(self._opened) > KEPT_SHARDS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(number)
        opened = self._opened[number]
        if isinstance(opened, BrokenFileError):
            raise opened.with_traceback(None)
        return opened


class _OpenShard:
    """A label shard and its images: keys, the places of image, PNG and JSON of each, and the open files."""

    def __init__(self, labels: Path, images: Path, of_tar: bool, count: int) -> None:
        """Index both.

        Raises:
            BrokenFileError: either cannot be read to its end, or the label shard does not hold `count` labels.
        """
        self._labels, self._images, self._of_tar = labels, images, of_tar
        self._labels_file, members = self._opened(labels)
        self.keys = [name.removesuffix(_PNG) for name in members if name.endswith(_PNG) and name.removesuffix(_PNG) + _JSON in members]
        if len(self.keys) != count:
            raise BrokenFileError("label shard differs from its record", labels, f"{len(self.keys)} labels, not {count}")
        self._png, self._json = (np.array([members[key + field] for key in self.keys], np.int64) for field in (_PNG, _JSON))
        if of_tar:
            self._images_file, members = self._opened(images)
            self._image = _places_of_images(members, self.keys)
        else:
            self._files = _files_of_images(labels.with_suffix(".json"), self.keys)

    def read(self, position: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Read one image, (H, W, 3) uint8, and its label, (h, w) float32 disparity with NaN = unknown."""
        try:
            rgb = rgb_from_bytes(self._image_bytes(position))
        except (DecodeError, OSError) as error:
            raise BrokenFileError("unreadable image", self.place(position), str(error)) from error
        try:
            png, limits = (_read_at(self._labels_file, places[position]) for places in (self._png, self._json))
            return rgb, decode_label(png, json.loads(limits))
        except (DecodeError, OSError, ValueError, KeyError, TypeError) as error:
            raise BrokenFileError("unreadable label", f"{self._labels}/{self.keys[position]}", str(error)) from error

    def place(self, position: int) -> str:
        """Return where an image lies, for messages."""
        return f"{self._images}/{self.keys[position]}"

    def _image_bytes(self, position: int) -> bytes:
        if self._of_tar:
            if self._image[position, 0] >= 0:
                return _read_at(self._images_file, self._image[position])
        elif self._files[position] and (path := self._images / self._files[position]).is_file():
            return path.read_bytes()
        raise BrokenFileError("label without its image", self.place(position), f"'{self._labels}' and these images do not belong together")

    def _opened(self, path: Path) -> tuple[int, dict[str, Place]]:
        """Index a tar file, and open it for as long as this object lives."""
        try:
            members, file = places_in_tar(path), os.open(path, os.O_RDONLY)
        except (OSError, TarError) as error:
            raise BrokenFileError("unreadable shard", path, str(error)) from error
        weakref.finalize(self, os.close, file)
        return file, members


def _places_of_images(members: dict[str, Place], keys: list[str]) -> npt.NDArray[np.int64]:
    """Return offset and size of each key's image in a tar file, (N, 2), -1 where it is missing; the first of a key counts."""
    places: dict[str | None, Place] = {}
    for name, place in members.items():
        places.setdefault(key_of_member(name), place)
    return np.array([places.get(key, _NOWHERE) for key in keys], np.int64)


def _files_of_images(record: Path, keys: list[str]) -> list[str]:
    """Return each key's file from the record of a label shard, '' where it is missing; the first of a key counts."""
    of_key = {key_of_file(file): file for file in reversed(_read_json(record)["files"])}
    return [of_key.get(key, "") for key in keys]


def _read_at(file: int, place: npt.NDArray[np.int64]) -> bytes:
    offset, size = map(int, place)
    content = os.pread(file, size, offset)
    if len(content) != size:
        raise OSError(f"{len(content)} of {size} bytes are there")
    return content


def _manifest(labels: Path) -> dict[str, Any]:
    path = labels / MANIFEST
    if not path.is_file():
        raise DatasetError(f"no '{path}': '{labels}' is not an output folder of make_pseudo_labels")
    manifest = _read_json(path)
    if manifest.get("settings", {}).get("format") != FORMAT:
        raise DatasetError(f"'{path}' is not of format {FORMAT} of make_pseudo_labels")
    return manifest


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"'{path}' cannot be read ({error})") from error


def _check_size(path: Path, size: int) -> None:
    """Compare a tar file with its record."""
    there = path.stat().st_size if path.is_file() else "no"
    if there != size:
        raise DatasetError(f"'{path}' has {there} bytes, not the {size} of its record; give the images that were labelled, and all of them")
