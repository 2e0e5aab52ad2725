"""What can still be read of a bag file that was cut short: an MCAP file without its index and end, a database without its last pages.

Both classes look like the reader of `rosbags` where this package uses it. Messages come in the order of the file.
"""

from __future__ import annotations

import mmap
import sqlite3
import struct
import sys
from binascii import crc32
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lz4.frame import LZ4FrameDecompressor
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.metadata import parse_qos

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor
else:
    from backports.zstd import ZstdDecompressor

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x03, 0x04, 0x05, 0x06
_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
_DECOMPRESSORS = {b"zstd": ZstdDecompressor, b"lz4": LZ4FrameDecompressor}
_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")

RawMessage = tuple[Connection, int, bytes]
"""Connection, stamp in nanoseconds, serialised message."""


class CutMcap:
    """An MCAP file up to where it ends. The whole file is looked through when it is opened."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            ValueError: not an MCAP file.
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("not an MCAP file")
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._connections: dict[int, Connection] = {}
        self._schemas: dict[int, tuple[str, MessageDefinition]] = {}
        counts = Counter(connection.id for connection, _, _ in self.messages(None))
        self.connections = [connection._replace(msgcount=counts[connection.id]) for connection in self._connections.values()]
        self.message_count = counts.total()

    def close(self) -> None:
        """Close the file, or leave it to the garbage collector while a reader that was stopped still looks at it."""
        with suppress(BufferError):
            self._file.close()

    def messages(self, connections: Collection[Connection] | None) -> Iterator[RawMessage]:
        """Yield the messages of some connections (None: of all); those of one chunk in the order of their stamps."""
        wanted = None if connections is None else {connection.id for connection in connections}
        view = memoryview(self._file)
        for kind, body in _records(view[len(_MAGIC) :]):
            records = _records(_chunk_content(body)) if kind == _CHUNK else iter([(kind, body)])
            yield from sorted(self._messages(records, wanted), key=lambda message: message[1])

    def _messages(self, records: Iterator[tuple[int, memoryview]], wanted: set[int] | None) -> Iterator[RawMessage]:
        for kind, body in records:
            if kind == _SCHEMA:
                key, (name, encoding, text) = _uint(body, 0, 2), _strings(body, 2, 3)
                self._schemas[key] = name, MessageDefinition(_FORMATS[encoding], text) if encoding in _FORMATS else _NO_DEFINITION
            elif kind == _CHANNEL:
                self._add_connection(body)
            elif kind == _MESSAGE and (wanted is None or _uint(body, 0, 2) in wanted):
                yield self._connections[_uint(body, 0, 2)], _uint(body, 6, 8), bytes(body[22:])

    def _add_connection(self, body: memoryview) -> None:
        key, schema = _uint(body, 0, 2), _uint(body, 2, 2)
        topic, encoding = _strings(body, 4, 2)
        at = 4 + 4 + len(topic.encode()) + 4 + len(encoding.encode())
        metadata = body[at + 4 : at + 4 + _uint(body, at, 4)]
        pairs = _strings(metadata, 0, 2) if len(metadata) else ["", ""]
        qos = parse_qos(pairs[1]) if pairs[0] == "offered_qos_profiles" else []
        name, definition = self._schemas.get(schema, ("", _NO_DEFINITION))
        if key not in self._connections:
            self._connections[key] = Connection(key, topic, name, definition, "", 0, ConnectionExtRosbag2(encoding, qos), self)


def _uint(body: memoryview, at: int, size: int) -> int:
    return int.from_bytes(body[at : at + size], "little")


def _strings(body: memoryview, at: int, count: int) -> list[str]:
    found = []
    for _ in range(count):
        end = at + 4 + _uint(body, at, 4)
        found.append(str(body[at + 4 : end], "utf-8"))
        at = end
    return found


def _records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield kind and body of each record; of the last one what there is, where that is a chunk."""
    at = 0
    while at + 9 <= len(data):
        kind, size = data[at], _uint(data, at + 1, 8)
        body = data[at + 9 : at + 9 + size]
        if len(body) == size or kind == _CHUNK:
            yield kind, body
        at += 9 + size


def _chunk_content(body: memoryview) -> memoryview:
    """Return what can be decompressed of a chunk: nothing of a damaged one, the beginning of one that is cut short."""
    if len(body) < 32:
        return memoryview(b"")
    size, checksum = struct.unpack_from("<QI", body, 16)
    compression = bytes(body[32 : 32 + _uint(body, 28, 4)])
    at = 32 + len(compression)
    stored_size, stored = _uint(body, at, 8), body[at + 8 :]
    try:
        content = memoryview(_DECOMPRESSORS[compression]().decompress(stored)) if compression else stored
    except Exception:  # each decompressor has errors of its own
        return memoryview(b"")
    damaged = len(stored) == stored_size and (len(content) != size or (checksum and crc32(content) != checksum))
    return memoryview(b"") if damaged else content


class CutDatabase:
    """A db3 file up to its first unreadable page."""

    connections: list[Connection]
    message_count = 0

    def __init__(self, path: Path) -> None:
        """Open a file and read its topics.

        Raises:
            sqlite3.Error: not a bag, or its first pages are gone.
        """
        self._database = sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True, check_same_thread=False)
        self._database.execute("PRAGMA writable_schema=ON")  # otherwise a file that is shorter than its header says is refused as a whole
        definitions = {
            row["topic_type"]: MessageDefinition(_FORMATS[row["encoding"]], row["encoded_message_definition"])
            for row in self._rows("message_definitions")
            if row["encoding"] in _FORMATS
        }
        self.connections = [
            Connection(
                id=row["id"],
                topic=row["name"],
                msgtype=row["type"],
                msgdef=definitions.get(row["type"], _NO_DEFINITION),
                digest=row.get("type_description_hash", ""),
                msgcount=0,
                ext=ConnectionExtRosbag2(row["serialization_format"], parse_qos(row.get("offered_qos_profiles", ""))),
                owner=self,
            )
            for row in self._rows("topics")
        ]

    def _rows(self, table: str) -> list[dict[str, Any]]:
        if not self._database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return []
        cursor = self._database.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def messages(self, connections: Collection[Connection]) -> Iterator[RawMessage]:
        """Yield the messages of some connections up to the first page that is gone."""
        wanted = {connection.id: connection for connection in connections}
        rows = self._database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
        while True:
            try:
                row = next(rows, None)
            except sqlite3.DatabaseError:
                return
            if row is None:
                return
            if row[0] in wanted:
                yield wanted[row[0]], row[1], row[2]
