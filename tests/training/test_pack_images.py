"""Folders, videos and rendered shards -> tar shards: nothing lost, nothing twice, broken files counted, keys that join."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.pseudo import read_images
from training.make_pseudo_labels import find_shards
from training.pack_images import main

from .made_up import write_images


def _names(folder: Path) -> list[list[str]]:
    return [tarfile.open(path).getnames() for path in sorted(folder.glob("*.tar"))]


def test_images_are_packed_in_order_and_broken_ones_are_counted(tmp_path: Path, capsys) -> None:
    images = write_images(tmp_path / "photos.d", 7)
    (images / "999.jpg").write_bytes(b"no image")
    assert main([str(images), "--output", str(tmp_path / "out"), "--images-per-shard", "3"]) == 0
    assert _names(tmp_path / "out") == [[f"0/{100 + i},jpg.jpg" for i in part] for part in ((0, 1, 2), (3, 4, 5), (6,))]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["images"], manifest["inputs"], sum(manifest["skipped"].values())) == (7, {"0: photos.d": 7}, 1)
    assert "7 images in 3 tar files" in capsys.readouterr().out


def test_what_is_packed_can_be_labelled(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 5)
    main([str(tmp_path / "photos"), "--output", str(tmp_path / "out"), "--images-per-shard", "2", "--max-side", "48"])
    pairs = [pair for shard in find_shards([tmp_path / "out"]) for pair in read_images(shard)]
    assert [key for key, _ in pairs] == [f"0/{number},jpg" for number in range(100, 105)]
    sizes = {cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape for _, content in pairs}
    assert sizes == {(32, 48, 3)}


@pytest.mark.parametrize("whole_folder", [True, False])
def test_every_nth_frame_of_videos_and_a_limit(whole_folder: bool, tmp_path: Path) -> None:
    for name in ("a", "b"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for shade in range(10):
            writer.write(np.full((48, 64, 3), 20 * shade, np.uint8))
        writer.release()
    given = tmp_path if whole_folder else tmp_path / "b.avi"
    assert main([str(given), "--output", str(tmp_path / "out"), "--every", "4", "--limit", "5"]) == 0
    expected = [f"0/{name},avi#{frame:06d}.jpg" for name in ("ab" if whole_folder else "b") for frame in (0, 4, 8)][:5]
    assert _names(tmp_path / "out") == [expected]


def test_rendered_shards_give_their_images_alone(tmp_path: Path) -> None:
    rgb = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    (tmp_path / "shards").mkdir()
    np.save(tmp_path / "shards" / "s.rgb.npy", rgb)
    np.save(tmp_path / "shards" / "s.depth.npy", np.ones((2, 8, 8), np.float16))
    row = {"kind": "room", "scene": 0, "focal_px": 5.0, "cx": 4, "cy": 4}
    (tmp_path / "shards" / "s.json").write_text(json.dumps({"size_hw": [8, 8], "images": [row, row]}))
    assert main([str(tmp_path / "shards"), "--output", str(tmp_path / "out")]) == 0
    assert _names(tmp_path / "out") == [["0/s#0000.jpg", "0/s#0001.jpg"]]


def test_nothing_to_pack_is_an_error(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), "--output", str(tmp_path / "out")]) == 2
    assert "no images, videos, tar files or rendered shards in" in capsys.readouterr().err
    assert main([str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert "neither a folder nor a video" in capsys.readouterr().err


def test_names_that_differ_in_dots_alone_stay_apart(tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 1) / "100.jpg"
    for name in ("x.1.jpg", "x_1.jpg", "x,1.jpg"):
        (tmp_path / "photos" / name).write_bytes(source.read_bytes())
    assert main([str(tmp_path / "photos"), "--output", str(tmp_path / "out")]) == 0
    assert len(set(_names(tmp_path / "out")[0])) == 4


def test_nothing_readable_leaves_no_manifest(tmp_path: Path, capsys) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no image")
    assert main([str(tmp_path / "photos"), "--output", str(tmp_path / "out")]) == 2
    assert "not one image could be read (1 broken files)" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()
