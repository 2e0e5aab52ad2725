"""The cache of built engines, with a builder that takes no GPU: what is built when, and what becomes of bad files."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from depth_anything_ros.engines.build_watch import BuildWatch
from depth_anything_ros.engines.engine_cache import EngineCache, default_folder
from depth_anything_ros.errors import EngineError

ROOT = Path(__file__).parent.parent
KEY = {"onnx_sha256": "ab", "tensorrt": "10.16.1", "compute_capability": [8, 7]}


class Builder:
    """Counts what it is asked for."""

    def __init__(self, size=1000):
        self.size, self.built = size, 0

    def __call__(self):
        self.built += 1
        return bytes([self.built]) * self.size


@pytest.fixture
def lines():
    return []


@pytest.fixture
def cache(tmp_path, lines):
    return EngineCache(tmp_path / "cache", 100, BuildWatch(lines.append))


def test_engine_is_built_once_and_says_for_what(cache, lines):
    builder = Builder()
    assert cache.get_or_build(KEY, builder) == cache.get_or_build(KEY, builder) == b"\1" * 1000
    assert builder.built == 1
    record = json.loads(cache.path(KEY).with_suffix(".json").read_text())
    assert record["key"] == KEY
    assert record["bytes"] == 1000
    assert len(lines) == 1
    assert "it was not built yet" in lines[0]


@pytest.mark.parametrize("part", KEY)
def test_every_part_of_the_key_counts(cache, part):
    builder = Builder()
    cache.get_or_build(KEY, builder)
    cache.get_or_build(KEY | {part: "other"}, builder)
    assert builder.built == 2


def truncate(path, record):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path, record):
    path.write_bytes(b"\7" + path.read_bytes()[1:])


def damage_record(path, record):
    record.write_text("{")


def other_record(path, record):
    record.write_text("[]")


def foreign(path, record):
    record.write_text(json.dumps(json.loads(record.read_text()) | {"key": KEY | {"tensorrt": "10.3.0"}}))


def remove_engine(path, record):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "its 999 bytes are not those that were written"),
        (flip, "its 1000 bytes are not those"),
        (damage_record, "its entry is damaged"),
        (other_record, "made for something else"),
        (foreign, "made for something else"),
        (remove_engine, "not built yet"),
    ],
)
def test_bad_entry_is_built_again_with_the_reason(cache, lines, damage, reason):
    builder = Builder()
    cache.get_or_build(KEY, builder)
    damage(cache.path(KEY), cache.path(KEY).with_suffix(".json"))
    assert cache.get_or_build(KEY, builder) == b"\2" * 1000
    assert reason in lines[-1]
    assert cache.get_or_build(KEY, builder) == b"\2" * 1000
    assert builder.built == 2


def test_discarded_entry_is_gone(cache, lines):
    builder = Builder()
    cache.get_or_build(KEY, builder)
    cache.discard(KEY, "it cannot be loaded")
    assert "it cannot be loaded" in lines[-1]
    assert cache.get_or_build(KEY, builder) == b"\2" * 1000


def test_failed_build_leaves_nothing_behind_and_frees_the_lock(cache):
    def fail():
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        cache.get_or_build(KEY, fail)
    assert sorted(path.name for path in cache.folder.iterdir()) == ["build.lock"]
    assert cache.get_or_build(KEY, Builder())


def test_least_recently_used_goes_first_and_the_one_in_use_never(tmp_path, lines):
    cache, builder = EngineCache(tmp_path, 1, BuildWatch(lines.append)), Builder(400_000)
    keys = [KEY | {"n": n} for n in range(3)]
    for age_s, key in ((200, keys[0]), (100, keys[1])):
        cache.get_or_build(key, builder)
        os.utime(cache.path(key).with_suffix(".json"), (time.time() - age_s,) * 2)
    cache.get_or_build(keys[0], builder)  # used: now the youngest
    (tmp_path / ".x.engine.1.tmp").write_bytes(b"left by a process that died")
    os.utime(tmp_path / ".x.engine.1.tmp", (0, 0))
    cache.get_or_build(keys[2], builder)
    assert [cache.path(key).exists() for key in keys] == [True, False, True]
    assert any("tensorrt.cache_max_mib" in line and cache.path(keys[1]).name in line for line in lines)
    assert not list(tmp_path.glob("*.tmp"))
    big = KEY | {"n": "big"}
    cache.get_or_build(big, Builder(2_000_000))
    assert [path.name for path in tmp_path.glob("*.engine")] == [cache.path(big).name]


def test_two_processes_build_once(tmp_path):
    code = f"""
import pathlib, sys, time
from depth_anything_ros.engines.build_watch import BuildWatch
from depth_anything_ros.engines.engine_cache import EngineCache
folder = pathlib.Path({str(tmp_path)!r})
def build():
    with (folder / "builds").open("a") as file:
        file.write("one\\n")
    (folder / "building").touch()
    time.sleep(1.0)
    return b"engine"
if sys.argv[1] == "second":
    while not (folder / "building").exists():
        time.sleep(0.01)
print(EngineCache(folder / "cache", 100, BuildWatch(print)).get_or_build({KEY!r}, build))
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, name], cwd=ROOT, stdout=subprocess.PIPE, text=True) for name in ("first", "second")]
    out = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert (tmp_path / "builds").read_text() == "one\n"
    assert all("b'engine'" in text for text in out)
    assert "another process is building" in out[1]


def test_wait_for_another_build_can_be_cancelled(tmp_path):
    watch, release, started = BuildWatch(lambda line: None), threading.Event(), threading.Event()

    def slow():
        started.set()
        release.wait(20)
        return b"engine"

    first = threading.Thread(target=lambda: EngineCache(tmp_path, 100, BuildWatch(lambda line: None)).get_or_build(KEY, slow))
    first.start()
    started.wait(20)
    threading.Timer(0.3, watch.cancel).start()
    with pytest.raises(EngineError, match="was cancelled"):
        EngineCache(tmp_path, 100, watch).get_or_build(KEY, Builder())
    release.set()
    first.join()


def test_folder_that_cannot_be_written_names_the_parameter(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"cannot write the engine cache .*set tensorrt.cache_dir"):
        EngineCache(tmp_path / "file" / "cache", 100, BuildWatch())


def test_full_disk_is_an_error(cache, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EngineError, match="No space left on device.*make room"):
        cache.get_or_build(KEY, Builder())


def test_default_folder_is_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/depth_anything_ros/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/robot")
    assert default_folder() == Path("/home/robot/.cache/depth_anything_ros/engines")


def test_progress_goes_to_the_log_in_tenths():
    lines = []
    watch = BuildWatch(lines.append)
    for percent in range(101):
        watch.note("building", percent)
    assert len(lines) == 11
    assert watch.text == "building 100 %"
    watch.done()
    assert watch.text == ""
