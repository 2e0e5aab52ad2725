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
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from depth_anything_ros.contract import read_model_file
from depth_anything_ros.errors import ContractError, DecodeError, DepthAnythingError, EngineError
from depth_anything_ros.postprocess import FARTHEST_M, enlarge, map_from_raw
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import DepthMap, RgbFrame

FORMAT = 1
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp")
LEVELS = 65534
"""Steps between the smallest and the largest disparity of an image; the value 0 is kept for 'unknown'."""
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
class LabelJob:
    """How shards are labelled; the same for all shards of an output folder.

    Attributes:
        output: folder for the label shards.
        teacher: ONNX file with a contract, weights inside.
        teacher_sha256: of that file, in hexadecimal.
        label_size: `image` (as many pixels as the image) or `network` (the teacher's own resolution).
        device: `cpu` or `cuda`.
        threads: of one teacher on the CPU.
        settings_id: SHA-256 of what the labels depend on.
    """

    output: str
    teacher: str
    teacher_sha256: str
    settings_id: str
    label_size: Literal["image", "network"] = "image"
    device: str = "cpu"
    threads: int = 1


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


class Teacher:
    """A model of any output kind, asked for affine-invariant disparity. Not thread-safe."""

    def __init__(self, job: LabelJob) -> None:
        """Open the model.

        Raises:
            ContractError: the file is not the one that the job was planned with, or no model.
            EngineError: the device is not available; nothing else is taken in its place.
        """
        import onnxruntime

        file = read_model_file(job.teacher)
        if file.sha256 != job.teacher_sha256:
            raise ContractError(f"teacher '{job.teacher}' has SHA-256 {file.sha256}, not {job.teacher_sha256}: it is another file on this machine")
        provider = PROVIDERS[job.device]
        if provider not in onnxruntime.get_available_providers():
            raise EngineError(f"onnxruntime has no {provider} here; pip install onnxruntime-gpu in its place, or use --device cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(job.teacher, options, providers=[provider])
        except Exception as error:  # onnxruntime's own classes have no common root
            raise EngineError(f"onnxruntime cannot open teacher '{job.teacher}': {error}") from error
        if provider not in self._session.get_providers():
            raise EngineError(f"onnxruntime cannot start {provider} (see its message above); check the driver, or use --device cpu")
        self._input, self._contract, self._label_size = self._session.get_inputs()[0].name, file.contract, job.label_size
        self._preprocess = Preprocessor(file.contract)

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict: (H, W, 3) uint8 -> (h, w) float32 disparity, unknown scale and shift, 0 beyond range, NaN = unknown.

        A model that needs a focal length is given the image's width in pixels: a common factor, to which the label is blind.
        """
        given = self._preprocess(RgbFrame(rgb))
        try:
            raw = self._session.run(None, {self._input: given.tensor})[0]
        except Exception as error:
            raise EngineError(f"the teacher failed: {error}") from error
        small = map_from_raw(raw, given.resize, self._contract, float(rgb.shape[1]))
        size_hw = (rgb.shape[0], rgb.shape[1]) if self._label_size == "image" else small.size_hw
        limit_m = self._contract.max_depth_m if self._contract.output_kind == "depth_m" else None
        return disparity_from_map(enlarge(small, size_hw, limit_m or FARTHEST_M))


def disparity_from_map(depth_map: DepthMap) -> npt.NDArray[np.float32]:
    """Return (H, W) float32 disparity: 1/depth of a `depth_m` map, so that sky and beyond range (+Inf) become 0; NaN stays."""
    return depth_map.values if depth_map.kind == "disparity_affine_invariant" else np.float32(1) / depth_map.values


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
    """Undo `encode_label`: (H, W) float32, NaN = unknown, right to half of (max - min) / 65534."""
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
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


def _images_of_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            folder, slash, name = member.name.rpartition("/")
            stem, _, field = name.partition(".")
            content = archive.extractfile(member) if stem and field.lower() in IMAGE_ENDINGS else None
            if content:
                yield folder + slash + stem, content.read()
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise UnreadableShard(f"'{path}': no end-of-archive mark after {archive.offset} bytes; it is cut short")


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
            counts = _write_labels(file, shard, _teacher(job))
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


@lru_cache(maxsize=1)
def _teacher(job: LabelJob) -> Teacher:
    """Open the teacher once per process, and keep OpenCV to as many threads."""
    cv2.setNumThreads(job.threads)
    return Teacher(job)
