"""A bag that is written in finished segments, so that a run that was killed goes on after the last one.

`OUT.partial/` holds the run's description, the finished segments (each a bag of its own, with the progress up to its end) and the
one in work. At the end the segments' files become the files of one bag, without copying, and that bag gets the name OUT.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from ruamel.yaml import YAML

from .input import BagError, Topic
from .messages import STORE

SEGMENT_BYTES = 2**30
_VERSION = 8  # of the metadata: the highest that every supported ROS 2 release reads
_KEY = "depth_anything_ros"
_INFORMATION = "rosbag2_bagfile_information"
_NO_HASH = "INVALID"  # what ROS 2 shows for a type without a hash; the library insists on one
_ENDINGS = {"mcap": "mcap", "sqlite3": "db3"}


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        messages: of the input that are done; the run goes on after them.
        images: of the cameras among them.
        refused: images that could not be decoded.
        depths: depth images, or relative ones where the model is relative, that were written.
        clouds: clouds that were written.
    """

    messages: int = 0
    images: int = 0
    refused: int = 0
    depths: int = 0
    clouds: int = 0

    def plus(self, **more: int) -> Progress:
        """Return the sum."""
        return replace(self, **{name: getattr(self, name) + count for name, count in more.items()})


class SegmentedBag:
    """The bag in the making. Use it as a context manager; `finish` gives it its name."""

    def __init__(self, path: Path, storage: str, topics: list[Topic], run: dict[str, Any], segment_images: int) -> None:
        """Start, or go on with what an earlier run of the same description has left.

        Args:
            path: of the finished bag; must not exist.
            storage: mcap or sqlite3.
            topics: that every segment has, with or without messages.
            run: what the result depends on, as JSON values.
            segment_images: images in a segment.

        Raises:
            BagError: another process writes it, or what is there belongs to another run.
        """
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        self._storage, self._topics, self._segment_images = storage, topics, segment_images
        self._writer: Writer | None = None
        self._connections: dict[tuple[str, str], Connection] = {}
        self._segment_bytes = self._segment_end = 0
        self._done, self._work, self._whole = self.partial / "done", self.partial / "work", self.partial / "whole"
        self._done.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        self._check_run(run)
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        self.progress, self._segment_count = Progress(), len(self._segments())
        self._sealing: Future[None] | None = None
        if self._segments():
            self.progress = Progress(**json.loads(self._information(self._segments()[-1])["custom_data"][_KEY]))

    def _locked(self) -> IO[str]:
        lock = (self.partial / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise BagError(f"another process is writing '{self.partial}'") from None
        return lock

    def _check_run(self, run: dict[str, Any]) -> None:
        description = self.partial / "run.json"
        if not self._segments():  # nothing is lost by starting anew
            temporary = description.with_suffix(".tmp")
            temporary.write_text(json.dumps(run, indent=1))
            temporary.replace(description)
        before = json.loads(description.read_text())
        different = sorted(key for key in before.keys() | run.keys() if before.get(key) != run.get(key))
        if different:
            self._lock.close()
            raise BagError(f"'{self.partial}' is of a run with another {', '.join(different)}: use the same, or remove it to start anew")

    def __enter__(self) -> SegmentedBag:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @contextmanager
    def segments(self) -> Iterator[None]:
        """Bracket all writing, on one thread: a database belongs to one. Finishes the last segment, or drops it after an error."""
        with ThreadPoolExecutor(1) as self._sealer:
            try:
                yield
                if self._writer is not None:
                    self._close_segment()
                if self._sealing is not None:
                    self._sealing.result()
            finally:
                if self._writer is not None:
                    self._writer.abort()
                    self._writer = None

    def write(self, topic: Topic, stamp_ns: int, data: bytes | memoryview) -> None:
        """Write one message, within `segments`."""
        if self._writer is None:
            self._open_segment()
        assert self._writer is not None
        self._writer.write(self._connection(topic), stamp_ns, data)
        self._segment_bytes += len(data)

    def advance(self, progress: Progress) -> None:
        """Say that everything up to here is written; finishes the segment where it is large enough."""
        self.progress = progress
        if self._writer is not None and (self._segment_bytes >= SEGMENT_BYTES or progress.images >= self._segment_end):
            self._close_segment()

    def finish(self, custom_data: dict[str, str]) -> None:
        """Make one bag of all segments and give it its name. May be done again where it was interrupted.

        Args:
            custom_data: of the input's metadata.

        Raises:
            BagError: nothing was written.
        """
        if not self._segments():
            raise BagError("the bag has no messages; nothing was written")
        self._whole.mkdir(exist_ok=True)
        metadata = _joined([self._information(segment) for segment in self._segments()], custom_data)
        _dump(self._whole / "metadata.yaml", {_INFORMATION: metadata})
        for segment in self._segments():
            for file in segment.glob(f"*.{_ENDINGS[self._storage]}"):
                file.rename(self._whole / file.name)
        self._whole.rename(self.path)
        shutil.rmtree(self.partial)

    def _open_segment(self) -> None:
        name = f"{self.path.name}_{self._segment_count}"
        self._segment_count += 1
        self._segment_end = self.progress.images + self._segment_images
        self._writer = Writer(self._work / name, version=_VERSION, storage_plugin=StoragePlugin[self._storage.upper()])
        self._writer.open()
        self._connections, self._segment_bytes = {}, 0
        for topic in self._topics:
            self._connection(topic)

    def _close_segment(self) -> None:
        """Finish the segment; bringing it to the disk takes long, so that goes on while the next one is written."""
        writer = self._writer
        assert writer is not None
        writer.set_custom_data(_KEY, json.dumps(asdict(self.progress)))
        writer.close()
        self._writer = None
        if self._sealing is not None:
            self._sealing.result()
        self._sealing = self._sealer.submit(self._seal, writer.path)

    def _seal(self, segment: Path) -> None:
        """Count a segment as finished: that is, put its folder under `done` once it is on the disk."""
        for file in segment.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        segment.rename(self._done / segment.name)

    def _segments(self) -> list[Path]:
        """Return the finished segments by their numbers."""
        return sorted(self._done.iterdir(), key=lambda segment: int(segment.name.rpartition("_")[2]))

    def _information(self, segment: Path) -> dict[str, Any]:
        return YAML(typ="safe").load((segment / "metadata.yaml").read_text())[_INFORMATION]

    def _connection(self, topic: Topic) -> Connection:
        assert self._writer is not None
        key = topic.name, topic.msgtype
        if key not in self._connections:
            definition, type_hash = _described(topic)
            self._connections[key] = self._writer.add_connection(
                topic.name,
                topic.msgtype,
                msgdef=definition,
                rihs01=type_hash,
                serialization_format=topic.serialization,
                offered_qos_profiles=topic.qos,
            )
        return self._connections[key]


def _described(topic: Topic) -> tuple[str, str]:
    """Return definition and hash of a topic's type: the bag's own, otherwise those of the type's name where it is a common one."""
    text, type_hash = topic.definition, topic.type_hash
    if not text and topic.msgtype in STORE.fielddefs:
        text = STORE.generate_msgdef(topic.msgtype, ros_version=2)[0]
    if text and not type_hash:
        store = get_typestore(Stores.EMPTY)
        try:
            store.register(get_types_from_idl(text) if text.startswith("=") else get_types_from_msg(text, topic.msgtype))
            type_hash = store.hash_rihs01(topic.msgtype)
        except Exception:  # the definition is the recorder's and may be anything; messages are copied without it
            type_hash = ""
    return text, type_hash or _NO_HASH


def _joined(segments: list[dict[str, Any]], custom_data: dict[str, str]) -> dict[str, Any]:
    """Return the metadata of one bag that has the files of all segments."""
    files = [file for segment in segments for file in segment["files"]]
    start_ns = min(file["starting_time"]["nanoseconds_since_epoch"] for file in files)
    end_ns = max(file["starting_time"]["nanoseconds_since_epoch"] + file["duration"]["nanoseconds"] for file in files)
    topics: dict[tuple[str, str], dict[str, Any]] = {}
    for counted in (counted for segment in segments for counted in segment["topics_with_message_count"]):
        described = counted["topic_metadata"]
        known = topics.setdefault((described["name"], described["type"]), {"topic_metadata": described, "message_count": 0})
        known["message_count"] += counted["message_count"]
    return segments[0] | {
        "files": files,
        "relative_file_paths": [file["path"] for file in files],
        "starting_time": {"nanoseconds_since_epoch": start_ns},
        "duration": {"nanoseconds": end_ns - start_ns},
        "message_count": sum(segment["message_count"] for segment in segments),
        "topics_with_message_count": list(topics.values()),
        "custom_data": custom_data or None,
    }


def _dump(path: Path, document: dict[str, Any]) -> None:
    yaml, temporary = YAML(typ="safe"), path.with_name(path.name + ".tmp")
    yaml.default_flow_style = False
    with temporary.open("w") as file:
        yaml.dump(document, file)
    temporary.replace(path)
