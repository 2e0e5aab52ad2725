"""Unlabelled images: keys, broken files, tar shards, videos, and shares of workers that neither overlap nor lose files."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.samples import DatasetError
from training.data.unlabelled import ImageFolder, TarShards, UnlabelledSource, VideoFrames

RED = (200, 10, 20)


def _encoded(suffix: str, colour: tuple[int, int, int] = RED, size_hw: tuple[int, int] = (24, 32)) -> bytes:
    rgb = np.full((*size_hw, 3), colour, np.uint8)
    return cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MJPG videos")
    for number in range(frames):
        frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)  # noise below, so that frames are not tiny
        frame[:32] = 20 * number
        writer.write(frame)
    writer.release()


def _keys(source: UnlabelledSource) -> list[str]:
    return [key for key, _ in source]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write(tmp_path / "a.png", _encoded(".png"))
    _write(tmp_path / "deep" / "er" / "b.JPG", _encoded(".jpg"))
    _write(tmp_path / "deep" / "a.png", _encoded(".png", (0, 0, 255)))
    return tmp_path


def test_images_come_as_rgb_with_their_path_as_key(folder: Path) -> None:
    images = dict(ImageFolder(folder))
    assert list(images) == ["a.png", "deep/a.png", "deep/er/b.JPG"]
    assert images["a.png"].shape == (24, 32, 3)
    assert images["a.png"].dtype == np.uint8
    assert tuple(images["a.png"][0, 0]) == RED
    assert tuple(images["deep/a.png"][5, 5]) == (0, 0, 255)


def test_grey_transparent_and_16_bit_images_become_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 5), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 5, 3), 77 * 257, np.uint16))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((4, 5, 4), 77, np.uint8))
    for _, rgb in ImageFolder(tmp_path):
        assert rgb.shape == (4, 5, 3)
        assert (rgb == 77).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_an_image_that_ends_early_is_counted_not_returned(folder: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    _write(folder / f"short{suffix}", data[: len(data) * 2 // 3])
    _write(folder / f"empty{suffix}", b"")
    _write(folder / f"text{suffix}", b"not an image")
    source = ImageFolder(folder)
    assert _keys(source) == ["a.png", "deep/a.png", "deep/er/b.JPG"]
    assert source.skipped.counts == {"unreadable image": 3}
    assert source.skipped.summary() == "3 skipped: 3 x unreadable image"
    assert "empty file" in source.skipped.first["unreadable image"]


def test_a_jpeg_whose_thumbnail_is_whole_still_counts_as_ending_early(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    thumbnail = _encoded(".jpg", size_hw=(8, 8))
    app1 = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    _write(tmp_path / "whole.jpg", data[:2] + app1 + data[2:])
    _write(tmp_path / "short.jpg", data[:2] + app1 + data[2:-500])
    source = ImageFolder(tmp_path)
    assert _keys(source) == ["whole.jpg"]
    assert "short.jpg: unreadable image (JPEG ends early)" in source.skipped.first["unreadable image"]


def test_other_files_and_hidden_ones_are_passed_over(folder: Path) -> None:
    _write(folder / "notes.txt", b"text")
    _write(folder / "._a.png", b"rubbish")
    _write(folder / ".cache" / "c.png", _encoded(".png"))
    source = ImageFolder(folder)
    assert len(_keys(source)) == 3
    assert source.skipped.total == 0


def test_linked_folders_are_followed_and_loops_end(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _write(elsewhere / "c.png", _encoded(".png"))
    (folder / "link").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    assert _keys(ImageFolder(folder)) == ["a.png", "deep/a.png", "deep/er/b.JPG", "link/c.png"]


def test_a_wrong_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^'.*/nowhere' is not a folder$"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"^no files ending in \.tar, \.tar\.gz, \.tgz in '.*' or below it$"):
        TarShards(tmp_path)
    with pytest.raises(DatasetError, match=r"^there is no worker 2 of 2; they are counted from 0$"):
        ImageFolder(tmp_path, worker=2, workers=2)
    with pytest.raises(DatasetError, match=r"^every = 0"):
        VideoFrames(tmp_path, every=0)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_shares_of_the_workers_are_a_partition(tmp_path: Path, workers: int) -> None:
    for number in range(5):
        _write(tmp_path / f"{number}.png", _encoded(".png", size_hw=(2, 2)))
    shares = [_keys(ImageFolder(tmp_path, worker, workers)) for worker in range(workers)]
    together = [key for share in shares for key in share]
    assert sorted(together) == _keys(ImageFolder(tmp_path))
    assert len(set(together)) == 5


@pytest.mark.parametrize(("file", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz")])
def test_tar_shards_yield_their_images(tmp_path: Path, file: str, mode: str) -> None:
    members = {"0001.jpg": _encoded(".jpg"), "0001.json": json.dumps({"label": 3}).encode(), "./dir/0002.png": _encoded(".png")}
    (tmp_path / "part").mkdir()
    _tar(tmp_path / "part" / file, members, mode)
    source = TarShards(tmp_path)
    images = dict(source)
    assert list(images) == [f"part/{file}/0001.jpg", f"part/{file}/dir/0002.png"]
    assert tuple(images[f"part/{file}/dir/0002.png"][3, 4]) == RED
    assert source.skipped.total == 0


def test_a_broken_member_leaves_the_rest_of_the_shard(tmp_path: Path) -> None:
    _tar(tmp_path / "s.tar", {"a.jpg": b"rubbish", "b.png": _encoded(".png")})
    source = TarShards(tmp_path)
    assert _keys(source) == ["s.tar/b.png"]
    assert source.skipped.counts == {"unreadable image": 1}
    assert source.skipped.first["unreadable image"].startswith(f"{tmp_path}/s.tar/a.jpg: unreadable image")


def test_a_name_that_comes_twice_in_a_shard_is_counted(tmp_path: Path) -> None:
    _tar(tmp_path / "s.tar", {"a.png": _encoded(".png"), "./a.png": _encoded(".png")})
    source = TarShards(tmp_path)
    assert _keys(source) == ["s.tar/a.png"]
    assert source.skipped.counts == {"name twice in a tar file": 1}


@pytest.mark.parametrize("length", [100, 700, 1024, 1100, 1500])
def test_a_shard_that_ends_early_is_counted_wherever_it_ends(tmp_path: Path, length: int) -> None:
    """Header, 512 bytes of data, header, 512 bytes of data: within the first header, in data, at a boundary, in a header, in data."""
    image = _encoded(".png").ljust(512, b"\0")
    _tar(tmp_path / "good.tar", {"a.png": image, "b.png": image})
    (tmp_path / "short.tar").write_bytes((tmp_path / "good.tar").read_bytes()[:length])
    source = TarShards(tmp_path)
    assert _keys(source)[:2] == ["good.tar/a.png", "good.tar/b.png"]
    assert source.skipped.counts == {"tar file damaged or ends early": 1}


def test_a_damaged_header_and_a_short_gzip_are_counted(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    first, second = (cv2.imencode(".png", image)[1].tobytes() for image in images)
    _tar(tmp_path / "a.tar", {"a.png": first, "b.png": second})
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[content.index(b"b.png") + 100] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(bytes(content))
    _tar(tmp_path / "b.tgz", {"a.png": first, "b.png": second}, "w:gz")
    packed = (tmp_path / "b.tgz").read_bytes()
    (tmp_path / "b.tgz").write_bytes(packed[: len(packed) * 3 // 4])
    source = TarShards(tmp_path)
    assert _keys(source) == ["a.tar/a.png", "b.tgz/a.png"]
    assert source.skipped.counts == {"tar file damaged or ends early": 2}


def test_shards_that_webdataset_wrote_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="compares with the package webdataset")
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as writer:
        for number in range(3):
            writer.write({"__key__": f"sample{number}", "png": _encoded(".png"), "json": {"n": number}})
    source = TarShards(tmp_path)
    assert _keys(source) == [f"0.tar/sample{number}.png" for number in range(3)]
    assert source.skipped.total == 0


def test_every_third_frame_of_a_video_is_taken(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    _video(tmp_path / "clips" / "v.avi", 10)
    source = VideoFrames(tmp_path, every=3)
    frames = dict(source)
    assert list(frames) == [f"clips/v.avi#{number:06d}" for number in (0, 3, 6, 9)]
    for key, rgb in frames.items():
        assert rgb.shape == (48, 64, 3)
        assert abs(int(rgb[20, 30, 0]) - 20 * int(key[-1])) <= 3
    assert source.skipped.total == 0


def test_a_broken_video_and_one_that_ends_early_are_counted(tmp_path: Path) -> None:
    _video(tmp_path / "good.avi", 4)
    _video(tmp_path / "short.avi", 12)
    data = (tmp_path / "short.avi").read_bytes()
    (tmp_path / "short.avi").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.mp4").write_bytes(b"not a video")
    source = VideoFrames(tmp_path)
    keys = _keys(source)
    assert [key for key in keys if key.startswith("good")] == [f"good.avi#{number:06d}" for number in range(4)]
    assert len(keys) < 16
    assert source.skipped.counts == {"unreadable video": 1, "video ends early": 1}


def test_videos_and_shards_are_divided_between_workers_by_file(tmp_path: Path) -> None:
    for number in range(3):
        _tar(tmp_path / f"{number}.tar", {"a.png": _encoded(".png"), "b.png": _encoded(".png")})
    assert _keys(TarShards(tmp_path, 0, 2)) == ["0.tar/a.png", "0.tar/b.png", "2.tar/a.png", "2.tar/b.png"]
    assert _keys(TarShards(tmp_path, 1, 2)) == ["1.tar/a.png", "1.tar/b.png"]
