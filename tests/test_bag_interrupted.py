"""Runs that were interrupted and bags that were cut short: nothing is lost that was there."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs the package rosbags")

from . import bags
from .bags import SYNTHETIC, check_depths, convert

ROOT = Path(__file__).parent.parent


def start(source, output, *options):
    command = [sys.executable, "-m", "depth_anything_ros.bag", str(source), str(output), *SYNTHETIC, *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(condition, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize(("storage", "killed_after"), [("mcap", (1, 3)), ("sqlite3", (3,))])
def test_killed_run_goes_on_and_ends_like_one_that_was_not_killed(tmp_path, storage, killed_after, capsys):
    options = ["--segment-images", "4", "--set", "synthetic.delay_ms=20", "--cloud"]
    source = bags.write_bag(tmp_path / "in", storage, frames=18)
    assert convert(source, tmp_path / "whole", *options) == 0
    (tmp_path / "killed").mkdir()
    output = tmp_path / "killed" / "whole"
    done, work = output.with_name("whole.partial") / "done", output.with_name("whole.partial") / "work"
    for segments in killed_after:
        process = start(source, output, *options)
        wait_for(lambda count=segments: done.exists() and len(list(done.iterdir())) >= count and any(work.iterdir()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists()
    assert convert(source, output, *options) == 0
    assert int(re.search(r"going on after (\d+) images", capsys.readouterr().err)[1]) in (12, 16)
    assert bags.read_bag(output) == bags.read_bag(tmp_path / "whole")
    assert bags.topics_of(output) == bags.topics_of(tmp_path / "whole")
    assert sorted(f.name for f in output.iterdir()) == sorted(f.name for f in (tmp_path / "whole").iterdir())
    if storage == "mcap":
        for file in output.iterdir():
            assert file.read_bytes() == (tmp_path / "whole" / file.name).read_bytes()
    assert not output.with_name("whole.partial").exists()


@pytest.mark.parametrize("failing_rename", [1, 2, 3, 4])
def test_run_that_ends_while_its_files_are_joined_goes_on(tmp_path, monkeypatch, failing_rename):
    source = bags.write_bag(tmp_path / "in")
    assert convert(source, tmp_path / "whole", "--segment-images", "3") == 0
    rename, count = Path.rename, 0

    def rename_or_fail(path, target):
        nonlocal count
        count += path.parent.name != "work"
        if count == failing_rename and path.parent.name != "work":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_or_fail)
    interrupted = convert(source, tmp_path / "out", "--segment-images", "3") == 130
    monkeypatch.undo()
    assert interrupted == (failing_rename <= 3)  # two files and the folder
    if interrupted:
        assert convert(source, tmp_path / "out", "--segment-images", "3") == 0
    assert bags.read_bag(tmp_path / "out") == bags.read_bag(tmp_path / "whole")


def interrupted(tmp_path, monkeypatch):
    """Leave a run that stopped after its first segment."""
    source = bags.write_bag(tmp_path / "in")
    with monkeypatch.context() as patched:
        patched.setattr("depth_anything_ros.bag.run.DepthRun._write_prediction", interrupt_after(4))
        assert convert(source, tmp_path / "out", "--segment-images", "3") == 130
    return source


def interrupt_after(count):
    from depth_anything_ros.bag.run import DepthRun

    original, calls = DepthRun._write_prediction, 0

    def write(*args):
        nonlocal calls
        calls += 1
        if calls > count:
            raise KeyboardInterrupt
        return original(*args)

    return write


def test_run_of_another_kind_does_not_go_on_with_the_files(tmp_path, monkeypatch, capsys):
    source = interrupted(tmp_path, monkeypatch)
    for options, what in ((["--cloud"], "cloud"), (["--set", "depth.encoding=16UC1"], "parameters")):
        assert convert(source, tmp_path / "out", "--segment-images", "3", *options) == 2
        assert f"is of a run with another {what}: use the same, or remove it" in capsys.readouterr().err
    os.utime(source / "in.mcap", (1, 1))
    assert convert(source, tmp_path / "out", "--segment-images", "3") == 2
    assert "is of a run with another input" in capsys.readouterr().err


def test_two_runs_never_write_the_same_bag(tmp_path, capsys):
    source = bags.write_bag(tmp_path / "in")
    process = start(source, tmp_path / "out", "--set", "synthetic.delay_ms=400")
    wait_for((tmp_path / "out.partial" / "run.json").exists)
    assert convert(source, tmp_path / "out", "--set", "synthetic.delay_ms=400") == 2
    assert "another process is writing" in capsys.readouterr().err
    process.kill()
    process.wait()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_full_disk_ends_with_the_reason_and_the_run_goes_on_later(tmp_path, storage, capsys):
    source = bags.write_bag(tmp_path / "in", storage, frames=6, size_hw=(240, 320))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert convert(source, tmp_path / "out") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search(r"cannot write .*(File too large|disk I/O error|full).*the same command goes on", capsys.readouterr().err)
    assert convert(source, tmp_path / "out") == 0
    check_depths(tmp_path / "out", "/camera/depth/image", 6)


# Truncated bags


@pytest.mark.parametrize("compress", ["", "storage"])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_cut_mcap_gives_what_is_left_and_says_so(tmp_path, compress, kept, capsys):
    source = bags.write_bag(tmp_path / "in", frames=30, size_hw=(240, 320), compress=compress)
    before, file = bags.read_bag(source), source / "in.mcap"
    os.truncate(file, int(file.stat().st_size * kept))
    assert convert(source, tmp_path / "out") == 1
    after = [message for message in bags.read_bag(tmp_path / "out") if "/depth/" not in message[0]]
    assert after == before[: len(after)]
    assert len(after) >= len(before) * kept - 26  # what one chunk of a megabyte holds
    check_depths(tmp_path / "out", "/camera/depth/image", sum(message[0] == "/camera/image_raw" for message in after))
    said = capsys.readouterr().err
    assert "the input could not be read as a whole: 'in.mcap' is cut short or damaged" in said


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_cut_database_gives_what_is_left_and_says_so(tmp_path, kept, capsys):
    source = bags.write_bag(tmp_path / "in", "sqlite3", frames=30, size_hw=(240, 320))
    before, file = bags.read_bag(source), source / "in.db3"
    os.truncate(file, int(file.stat().st_size * kept))
    assert convert(source, tmp_path / "out") == 1
    after = [message for message in bags.read_bag(tmp_path / "out") if "/depth/" not in message[0]]
    assert after == before[: len(after)]
    assert len(after) >= len(before) * kept - 5
    assert "'in.db3' is cut short or damaged" in capsys.readouterr().err


def test_killed_recorders_bag_without_metadata_is_read_file_by_file(tmp_path, capsys):
    source = bags.write_bag(tmp_path / "in", frames=9)
    assert convert(source, tmp_path / "split", "--segment-images", "4") == 0
    before = bags.read_bag(tmp_path / "split")
    (tmp_path / "split" / "metadata.yaml").unlink()
    assert convert(tmp_path / "split", tmp_path / "out", "--output-name", "again", "--topics", "/camera/image_raw") == 0
    assert [message for message in bags.read_bag(tmp_path / "out") if "/again/" not in message[0]] == before
    last = tmp_path / "split" / "split_2.mcap"
    os.truncate(last, 10)
    assert convert(tmp_path / "split", tmp_path / "cut", "--output-name", "again", "--topics", "/camera/image_raw") == 1
    check_depths(tmp_path / "cut", "/camera/again/image", 8)
    assert "split_2.mcap" in capsys.readouterr().err


def test_damage_in_the_middle_ends_the_file_there(tmp_path, capsys):
    source = bags.write_bag(tmp_path / "in", frames=30, size_hw=(240, 320), compress="storage")
    content = bytearray((source / "in.mcap").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    (source / "in.mcap").write_bytes(content)
    assert convert(source, tmp_path / "out") == 1
    assert "reading stopped after" in capsys.readouterr().err
