"""Pseudo-labels: shards of images -> shards of a teacher's disparity, one tar of labels for each input shard.

A label shard holds, for every image that could be read, `<key>.disparity.png` (uint16) and `<key>.disparity.json`; beside the
tar lies its record (JSON): counts, failures, hashes. Everything but the reading of images is a pure function of the input and
the teacher, so a shard that is made again has the same bytes. Needs neither torch nor more than one shard's worth of disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from depth_anything_ros.errors import DecodeError, DepthAnythingError, EngineError

from .tars import check_end
from .teacher import LabelJob, Teacher, open_teacher

FORMAT = 1
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp")
LEVELS = 65534
"""Steps between the smallest and the largest disparity of an image; the value 0 is kept for 'unknown'."""


class UnreadableShard(DepthAnythingError):
    """An input shard is missing, cut short or not a tar file; put it right and start again."""


@dataclass(frozen=True)
class ImageShard:
    """Images that are labelled together.

    Attributes:
        name: of the label shard, relative to the output folder; ends in `.tar`.
        path: the tar file, or the folder that holds `files`.
        files: image files relative to `path`; empty for a tar.
        source_id: changes when the input does: bytes of the tar, or SHA-256 of the list of files.
    """

    name: str
    path: str
    files: tuple[str, ...]
    source_id: str


@dataclass(frozen=True)
class PseudoLabelled:
    """An image with its label.

    Attributes:
        key: WebDataset key.
        rgb: (H, W, 3) uint8.
        disparity: (h, w) float32, affine-invariant, larger is nearer, NaN = unknown; (H, W) unless the labels were made with
            `label_size` "network".
    """

    key: str
    rgb: npt.NDArray[np.uint8]
    disparity: npt.NDArray[np.float32]


def encode_label(disparity: npt.NDArray[np.float32]) -> tuple[bytes, dict[str, float]]:
    """Store disparity in 16 bits: 0 = unknown, 1 .. 65535 = smallest .. largest value of the image.

    Args:
        disparity: (H, W) float32, not finite = unknown.

    Returns:
        A PNG, and {"min", "max"}: what 1 and 65535 stand for. A constant map has min = max and holds 1.

    Raises:
        DecodeError: nothing is known.
    """
    known = np.isfinite(disparity)
    if not known.any():
        raise DecodeError("the teacher gave no finite value")
    low, high = float(disparity[known].min()), float(disparity[known].max())
    scaled = (np.where(known, disparity, low).astype(np.float64) - low) / ((high - low) or 1.0)
    stored = np.where(known, 1 + np.rint(scaled * LEVELS), 0).astype(np.uint16)
    return cv2.imencode(".png", stored)[1].tobytes(), {"min": low, "max": high}


def decode_label(png: bytes, limits: dict[str, float]) -> npt.NDArray[np.float32]:
    """Undo `encode_label`: (H, W) float32, NaN = unknown, right to half of (max - min) / 65534.

    Raises:
        DecodeError: the PNG is damaged or is not one of `encode_label`.
    """
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if png else None
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
        raise DecodeError(f"{len(png)} bytes that are no label")
    values = limits["min"] + (stored.astype(np.float64) - 1) / LEVELS * (limits["max"] - limits["min"])
    return np.where(stored > 0, values, np.nan).astype(np.float32)


def rgb_from_bytes(content: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image file, turned upright as its orientation tag says: (H, W, 3) uint8.

    Raises:
        DecodeError: empty, cut short or not an image that OpenCV reads.
    """
    jpeg_is_cut = content[:2] == b"\xff\xd8" and b"\xff\xd9" not in content[-4096:]
    if jpeg_is_cut or (content[:4] == b"\x89PNG" and b"IEND" not in content[-4096:]):
        raise DecodeError(f"cut short after {len(content)} bytes")
    try:
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error as error:
        raise DecodeError(f"{len(content)} bytes that do not decode: {error.err}") from error
    if bgr is None:
        raise DecodeError(f"{len(content)} bytes that do not decode")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_images(shard: ImageShard) -> Iterator[tuple[str, bytes]]:
    """Yield (WebDataset key, content) of the images of a shard, in their order.

    Raises:
        UnreadableShard: the input cannot be read to its end.
    """
    try:
        if shard.files:
            yield from ((key_of_file(name), (Path(shard.path) / name).read_bytes()) for name in shard.files)
        else:
            yield from _images_of_tar(Path(shard.path))
    except (OSError, tarfile.TarError) as error:
        raise UnreadableShard(f"'{shard.path}': {error}") from error


def key_of_file(name: str) -> str:
    """Return the key of an image file: its path without ending; a key ends at the first dot, so dots in its name become '_'."""
    path = Path(name)
    return (path.parent / path.stem.replace(".", "_")).as_posix()


def key_of_member(name: str) -> str | None:
    """Return the key of a tar member, its path up to the first dot of the file name; None where it is not an image."""
    folder, slash, file = name.rpartition("/")
    stem, _, field = file.partition(".")
    return folder + slash + stem if stem and field.lower() in IMAGE_ENDINGS else None


def _images_of_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            key = key_of_member(member.name)
            content = archive.extractfile(member) if key else None
            if key and content:
                yield key, content.read()
        check_end(archive)


def read_pairs(labels: Path, images: Path) -> Iterator[PseudoLabelled]:
    """Yield the images that have a label, with it, in their order.

    Args:
        labels: a label shard, its record beside it.
        images: the tar file, or the folder, of which it was made; may have been moved.

    Raises:
        UnreadableShard: either cannot be read, or they do not belong together.
    """
    waiting = _read_labels(labels)
    label = next(waiting, None)
    files = json.loads(labels.with_suffix(".json").read_text())["files"]
    for key, content in read_images(ImageShard(labels.name, str(images), tuple(files), "")):
        if label and key == label[0]:
            yield PseudoLabelled(key, rgb_from_bytes(content), label[1])
            label = next(waiting, None)
    if label:
        raise UnreadableShard(f"'{labels}': label '{label[0]}' has no image in '{images}'; they do not belong together")


def _read_labels(path: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    try:
        with tarfile.open(path, "r:") as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    except (OSError, tarfile.TarError) as error:
        raise UnreadableShard(f"'{path}': {error}") from error
    for name, png in members.items():
        if name.endswith(".png"):
            yield name.removesuffix(".disparity.png"), decode_label(png, json.loads(members[name.removesuffix(".png") + ".json"]))


def label_shard(shard: ImageShard, job: LabelJob) -> dict[str, Any]:
    """Label one shard: the tar is written under a temporary name and renamed when it is complete.

    Images that cannot be used are counted as failures. What is wrong with the teacher, the device or the disk ends the call
    with an exception, so that no image is given up for it.

    Returns:
        The record, which the caller writes beside the tar: only then the shard is done. {"shard", "unreadable"} and no tar
        where the input cannot be read to its end.
    """
    target = Path(job.output) / shard.name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            counts = _write_labels(file, shard, open_teacher(job))
            file.flush()
            os.fsync(file.fileno())
        content = {"bytes": temporary.stat().st_size, "sha256": _sha256(temporary)}
        record = {"format": FORMAT, "shard": shard.name, "settings_id": job.settings_id, "source_id": shard.source_id}
        record |= {**counts, **content, "files": shard.files}
        temporary.replace(target)
        return record
    except UnreadableShard as error:
        return {"shard": shard.name, "unreadable": str(error)}
    finally:
        temporary.unlink(missing_ok=True)


def _write_labels(file: io.BufferedWriter, shard: ImageShard, teacher: Teacher) -> dict[str, Any]:
    seen, failures, labels, pixels = set[str](), list[dict[str, str]](), 0, 0
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for key, content in read_images(shard):
            try:
                if key in seen:
                    raise DecodeError("an image of the same key came before")
                seen.add(key)
                disparity = teacher(rgb_from_bytes(content))
                png, limits = encode_label(disparity)
            except DecodeError as error:
                failures.append({"key": key, "reason": str(error)})
                continue
            except EngineError as error:
                raise EngineError(f"image '{key}' of '{shard.path}': {error}") from error
            _add(archive, f"{key}.disparity.png", png)
            _add(archive, f"{key}.disparity.json", json.dumps(limits).encode())
            labels, pixels = labels + 1, pixels + disparity.size
    return {"images": labels + len(failures), "labels": labels, "failures": failures, "pixels": pixels}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file with nothing in its header that differs from run to run."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
