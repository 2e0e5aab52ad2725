"""A bag to read from: whole, or what can be read of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import Reader

from ..errors import DepthAnythingError
from .recovery import CutDatabase, CutMcap

_ENDINGS = {".mcap": CutMcap, ".db3": CutDatabase}


class BagError(DepthAnythingError):
    """A bag cannot be read or written as asked; the message says why and what to do."""


class BagMessage(NamedTuple):
    """One message as it lies in the bag."""

    topic: str
    msgtype: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: one type under one name, whoever published it.

    Attributes:
        name: of the topic.
        msgtype: such as sensor_msgs/msg/Image.
        definition: text of the message definition; empty where the bag has none.
        type_hash: as in the bag; empty where it has none.
        serialization: format of the messages, such as cdr.
        qos: offered by its publishers.
        message_count: as far as it is known before reading, otherwise 0.
    """

    name: str
    msgtype: str
    definition: str = ""
    type_hash: str = ""
    serialization: str = "cdr"
    qos: tuple[Qos, ...] = ()
    message_count: int = 0


class BagInput:
    """An open bag. `problem` says what could not be read; it may grow until the last message was read."""

    def __init__(self, path: Path) -> None:
        """Open a bag.

        Args:
            path: a bag's folder, or one .mcap or .db3 file.

        Raises:
            BagError: nothing can be read.
        """
        self.problem = ""
        self.custom_data: dict[str, str] = {}
        self._parts: list[Any] = []
        if not path.exists():
            raise BagError(f"there is no bag '{path}'")
        try:
            self._parts.append(_opened(path))
            self.custom_data = dict(getattr(self._parts[0].storage.metadata, "custom", None) or {})
        except Exception as error:  # a broken bag makes the library fail in many ways
            self._open_files(path, _reason(error))
        self.files = storage_files(path)
        self.storage = "sqlite3" if self.files[0].name.endswith((".db3", ".db3.zstd")) else "mcap"
        self.topics = _merged([connection for part in self._parts for connection in part.connections])

    def __enter__(self) -> BagInput:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for part in self._parts:
            part.close()

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Yield the messages of some topics (None: of all) by their stamps, those of a cut file in its order."""
        for part in self._parts:
            connections = [connection for connection in part.connections if topics is None or connection.topic in topics]
            if not connections:
                continue
            count = 0
            try:
                for connection, stamp_ns, data in part.messages(connections):
                    count += 1
                    yield BagMessage(connection.topic, connection.msgtype, stamp_ns, bytes(data))
            except Exception as error:  # see __init__
                self._note(f"reading stopped after {count} messages: {_reason(error)}")
            else:
                if topics is None and count < part.message_count:
                    self._note(f"only {count} of {part.message_count} messages are there")

    def _open_files(self, path: Path, reason: str) -> None:
        """Open every storage file of a bag that cannot be opened as a whole."""
        metadata = path / "metadata.yaml"
        if metadata.exists() and re.search(r"compression_mode: *['\"]?(file|message)", metadata.read_text(errors="replace"), re.IGNORECASE):
            raise BagError(f"cannot read bag '{path}': {reason} (of a bag with compressed files or messages nothing can be recovered)")
        for file in storage_files(path):
            try:
                self._parts.append(_opened(file))
                continue
            except Exception as error:  # see __init__
                reason = _reason(error)
            try:
                self._parts.append(_ENDINGS[file.suffix](file))
                self._note(f"'{file.name}' is cut short or damaged ({reason}); what can be read of it is used")
            except Exception as error:  # see __init__
                self._note(f"'{file.name}' cannot be read: {_reason(error)}")
        if not self._parts:
            raise BagError(f"cannot read bag '{path}': {self.problem or reason}")

    def _note(self, problem: str) -> None:
        if problem not in self.problem:
            self.problem = "; ".join(filter(None, (self.problem, problem)))


def storage_files(path: Path) -> list[Path]:
    """Return the storage files of a bag in the order of their numbers."""
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.name.endswith((".mcap", ".db3", ".mcap.zstd", ".db3.zstd"))]
    return sorted(files, key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)])


def _opened(path: Path) -> Reader:
    reader = Reader(path)
    reader.open()
    return reader


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _merged(connections: list[Connection]) -> list[Topic]:
    """Return one topic for all connections of the same name and type: several publishers, or several files."""
    topics: dict[tuple[str, str], Topic] = {}
    for found in connections:
        fresh = Topic(found.topic, found.msgtype, found.msgdef.data, found.digest, found.ext.serialization_format)
        known = topics.get((found.topic, found.msgtype), fresh)
        qos = known.qos + tuple(offered for offered in found.ext.offered_qos_profiles if offered not in known.qos)
        topics[found.topic, found.msgtype] = replace(known, qos=qos, message_count=known.message_count + found.msgcount)
    return list(topics.values())
