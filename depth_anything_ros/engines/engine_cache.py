"""Engines that were built on this machine, kept in the user's cache directory: built once, whoever asks.

An entry is a file `<hash>.engine` and a `<hash>.json` that says what it was built from and for. The hash is of that key, so that a
change of anything in it is another entry. A file under its own name is complete: it is written under another one and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import EngineError
from .build_watch import BuildWatch

LOCK_POLL_S = 0.2
ABANDONED_S = 3600.0
"""Temporary files that are older belong to a process that died."""

Key = Mapping[str, Any]
"""What an engine is valid for: values that JSON keeps as they are."""


def default_folder() -> Path:
    """Return where engines go where nobody said otherwise (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "depth_anything_ros" / "engines"


class EngineCache:
    """A folder of engines, shared by the processes of a user."""

    def __init__(self, folder: Path, max_mib: int, watch: BuildWatch) -> None:
        """Make the folder.

        Args:
            folder: where the entries are.
            max_mib: when entries take more than this, the least recently used ones go; the one in use never does.
            watch: gets the reasons of builds, and may end the wait for another process.

        Raises:
            EngineError: the folder cannot be made or written.
        """
        self.folder, self._max_bytes, self._watch = folder, max_mib * 2**20, watch
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "build.lock").touch()
        except OSError as error:
            raise EngineError(f"cannot write the engine cache '{folder}' ({error.strerror}); set tensorrt.cache_dir") from error

    def get_or_build(self, key: Key, build: Callable[[], bytes]) -> bytes:
        """Return the engine for a key from the folder, or build and keep it; two processes at once build it once.

        Raises:
            EngineError: what `build` raises; the wait for another process was stopped; the engine cannot be written.
        """
        content, _ = self._read(key)
        if content is not None:
            return content
        with self._locked():
            content, reason = self._read(key)  # another process may have built it meanwhile
            if content is not None:
                return content
            self._watch.log(f"engine: building '{self.path(key)}': {reason}; this may take minutes")
            started_s = time.monotonic()
            content = build()
            self._write(key, content, time.monotonic() - started_s)
            self._prune(keep=self.path(key))
        return content

    def discard(self, key: Key, reason: str) -> None:
        """Take an entry out that turned out to be unusable."""
        self._watch.log(f"engine: '{self.path(key)}' is discarded: {reason}")
        with self._locked():
            self._remove(self.path(key))

    def path(self, key: Key) -> Path:
        """Return where the engine for a key is, or would be."""
        return self.folder / f"{hashlib.sha256(_canonical(key).encode()).hexdigest()[:32]}.engine"

    def _read(self, key: Key) -> tuple[bytes | None, str]:
        """Return the engine and an empty text, or None and why there is none that can be used."""
        path = self.path(key)
        try:
            record = json.loads(path.with_suffix(".json").read_text())
            content = path.read_bytes()
        except FileNotFoundError:
            return None, "it was not built yet"
        except (OSError, ValueError) as error:
            return None, f"its entry is damaged ({error})"
        if not isinstance(record, dict) or record.get("key") != json.loads(_canonical(key)):
            return None, "its entry was made for something else"
        if record.get("sha256") != hashlib.sha256(content).hexdigest():
            return None, f"its {len(content)} bytes are not those that were written"
        with suppress(OSError):  # another process may be removing it
            os.utime(path.with_suffix(".json"))
        return content, ""

    def _write(self, key: Key, content: bytes, build_s: float) -> None:
        path = self.path(key)
        record = {"key": key, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "build_s": round(build_s, 1)}
        write_atomically(path, content)
        write_atomically(path.with_suffix(".json"), json.dumps(record, indent=1, sort_keys=True).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock: one build at a time, also because two would disturb each other's timing of kernels."""
        with (self.folder / "build.lock").open("w") as file:
            waiting = False
            while not _try_lock(file.fileno()):
                if not waiting:
                    self._watch.log("engine: another process is building; waiting for it")
                waiting = True
                self._watch.raise_if_stopped()
                time.sleep(LOCK_POLL_S)
            yield  # closing the file frees the lock

    def _prune(self, keep: Path) -> None:
        """Remove the least recently used entries while there is too much, and what dead processes left."""
        now_s = time.time()
        for path in self.folder.glob(".*.tmp"):
            with suppress(OSError):
                if now_s - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()
        sizes = {path: path.stat().st_size for path in self.folder.glob("*.engine")}
        for path in sorted(sizes, key=_last_use_s):
            if sum(sizes.values()) <= self._max_bytes:
                return
            if path != keep:
                self._watch.log(f"engine: '{path}' is removed: the cache holds more than tensorrt.cache_max_mib")
                self._remove(path)
                del sizes[path]

    @staticmethod
    def _remove(path: Path) -> None:
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename.

    Raises:
        EngineError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise EngineError(f"cannot write '{path}' ({error.strerror}); make room, or set tensorrt.cache_dir") from error
    finally:
        temporary.unlink(missing_ok=True)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_use_s(path: Path) -> float:
    record = path.with_suffix(".json")
    return record.stat().st_mtime if record.exists() else 0.0


def _canonical(key: Key) -> str:
    return json.dumps(key, sort_keys=True)
