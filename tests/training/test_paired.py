"""Pseudo-labels for training: samples by number, what is read when, moved inputs, and every way in which files do not fit."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="builds its teacher with the onnx library")
pytest.importorskip("onnxruntime", reason="labels with onnxruntime")

from tests.models import write_tiny_model
from tests.training.label_fixtures import image, make, members_of, write_shards, write_tar
from training.data import paired
from training.data.paired import KEPT_SHARDS, PairedShards
from training.data.pseudo import read_pairs
from training.data.samples import BrokenFileError, DatasetError


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "teacher.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "images")


@pytest.fixture
def labels(images: Path, teacher: Path, tmp_path: Path) -> Path:
    make(images, teacher, tmp_path / "labels")
    return tmp_path / "labels"


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tar files whose headers were read, in that order."""
    names, original = [], paired.places_in_tar
    monkeypatch.setattr(paired, "places_in_tar", lambda path: names.append(path.name) or original(path))
    return names


def _rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_sample_is_the_image_and_the_label_that_were_stored(labels: Path, images: Path) -> None:
    source = PairedShards(labels, images)
    pairs = [(shard, pair) for shard in ("000", "001", "002") for pair in read_pairs(labels / f"{shard}.tar", images / f"{shard}.tar")]
    assert (len(source), source.block_sizes) == (24, (8, 8, 8))
    for sample, (shard, pair) in zip(source, pairs, strict=True):
        assert (sample.name, sample.kind, sample.dataset) == (f"{shard}/{pair.key}", "disparity_affine_invariant", "pseudo")
        assert np.array_equal(sample.rgb, pair.rgb)
        assert np.array_equal(sample.values, pair.disparity)
        assert sample.values.dtype == np.float32
        assert sample.valid_mask.all()
        assert (sample.sky_mask, sample.focal_px) == (None, None)
    for index in (-1, 24):
        with pytest.raises(IndexError, match="of 24"):
            source[index]


def _forget(labels: Path, row: int, column: int) -> None:
    """Make one pixel of the first label unknown."""
    members = members_of(labels / "000.tar")
    stored = cv2.imdecode(np.frombuffer(members["00.disparity.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    stored[row, column] = 0
    members["00.disparity.png"] = cv2.imencode(".png", stored)[1].tobytes()
    _rewrite(labels / "000.json", bytes=write_tar(labels / "000.tar", members).stat().st_size)


def test_unknown_pixels_are_nan_and_not_valid(labels: Path, images: Path) -> None:
    _forget(labels, 5, 7)
    sample = PairedShards(labels, images)[0]
    unknown = np.zeros((48, 64), bool)
    unknown[5, 7] = True
    assert np.array_equal(np.isnan(sample.values), unknown)
    assert np.array_equal(sample.valid_mask, ~unknown)


def test_labels_of_the_networks_size_are_enlarged_and_what_touches_unknown_is_unknown(images: Path, teacher: Path, tmp_path: Path) -> None:
    make(images, teacher, tmp_path / "labels", "--label-size", "network")
    small = next(read_pairs(tmp_path / "labels" / "000.tar", images / "000.tar")).disparity
    _forget(tmp_path / "labels", 5, 7)
    sample = PairedShards(tmp_path / "labels", images)[0]
    assert small.shape == (24, 32)
    assert sample.values.shape == sample.rgb.shape[:2] == (48, 64)
    assert np.array_equal(np.argwhere(~sample.valid_mask), [(row, column) for row in range(9, 13) for column in range(13, 17)])
    assert np.array_equal(np.isnan(sample.values), ~sample.valid_mask)
    weights = np.array([0.75, 0.25])  # the centre of pixel 21 lies at 10.25 in the small map, that of 31 at 15.25
    np.testing.assert_allclose(sample.values[21, 31], weights @ small[10:12, 15:17] @ weights, rtol=1e-4)


def test_no_tar_is_read_at_the_start_and_each_one_once(labels: Path, images: Path, indexed: list[str]) -> None:
    source = PairedShards(labels, images)
    assert indexed == []
    for index in (8, 15, 0, 9, 7):
        assert source[index].name.startswith(("001/", "000/"))
    assert indexed == ["001.tar", "001.tar", "000.tar", "000.tar"]  # labels and images


def test_the_shards_read_last_are_kept(teacher: Path, tmp_path: Path, indexed: list[str]) -> None:
    for shard in range(KEPT_SHARDS + 1):
        write_tar(tmp_path / "in" / f"{shard:02d}.tar", {"a.png": image(shard)})
    make(tmp_path / "in", teacher, tmp_path / "labels")
    source = PairedShards(tmp_path / "labels", tmp_path / "in")
    for index in [*range(KEPT_SHARDS), 0, KEPT_SHARDS]:  # the last one drives out shard 1, not 0, which was read after it
        source[index]
    indexed.clear()
    source[0]
    assert indexed == []
    source[1]
    assert indexed == ["01.tar", "01.tar"]
    assert len(source._opened) == KEPT_SHARDS


def test_a_source_is_pickled_without_its_files(labels: Path, images: Path) -> None:
    source = PairedShards(labels, images)
    first = source[3]
    copy = pickle.loads(pickle.dumps(source))
    assert copy._opened == {}
    assert np.array_equal(copy[3].rgb, first.rgb)
    assert np.array_equal(source[4].rgb, copy[4].rgb)


def test_moved_inputs_of_every_kind_are_found(teacher: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "a" / "b" / "0.tar", {"x/1.png": image(1), "y/1.png": image(2)})
    (tmp_path / "photos" / "day.1").mkdir(parents=True)
    for index in range(3):
        (tmp_path / "photos" / "day.1" / f"img.{index}.png").write_bytes(image(index))
    single = write_tar(tmp_path / "single.tar", {"1.png": image(1)})
    for name, images, moved, names in [
        ("t", tmp_path / "tars", tmp_path / "tars2", ["a/b/0/x/1", "a/b/0/y/1"]),
        ("p", tmp_path / "photos", tmp_path / "photos2", ["day.1/img_0", "day.1/img_1", "day.1/img_2"]),
        ("s", single, tmp_path / "other.tar", ["single/1"]),
    ]:
        make(images, teacher, tmp_path / name, "--images-per-shard", "2")
        images.rename(moved)
        source = PairedShards(tmp_path / name, moved)
        assert [sample.name for sample in source] == names
        assert all(sample.values.shape == (48, 64) for sample in source)


def test_images_that_were_not_labelled_are_no_samples_but_counted(teacher: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "0.tar", {"a.png": b"", "b.png": b"rubbish"})
    write_tar(tmp_path / "in" / "1.tar", {"a.png": image(1), "a.jpg": image(2, "jpg"), "b.png": image(3)[:60], "c.json": b"{}", "c.png": image(4)})
    make(tmp_path / "in", teacher, tmp_path / "labels")
    source = PairedShards(tmp_path / "labels", tmp_path / "in")
    assert [sample.name for sample in source] == ["1/a", "1/c"]
    assert np.array_equal(source[0].rgb, cv2.cvtColor(cv2.imdecode(np.frombuffer(image(1), np.uint8), 1), cv2.COLOR_BGR2RGB))
    assert source.block_sizes == (2,)
    manifest = source.manifest()
    assert {key: manifest[key] for key in ("shards", "labels", "failures")} == {"shards": 2, "labels": 2, "failures": 4}


def test_hard_links_and_members_that_are_no_images_are_as_they_were_when_labelled(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "0.tar", "w") as archive:
        for name, content in {"./a/b.c.png": b"x", "./a/b.png": image(1), "./a/b.json": b"{}"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("linked.png")
        link.type, link.linkname = tarfile.LNKTYPE, "./a/b.png"
        archive.addfile(link)
    make(tmp_path / "in", teacher, tmp_path / "labels")
    source = PairedShards(tmp_path / "labels", tmp_path / "in")
    assert [sample.name for sample in source] == ["0/./a/b", "0/linked"]
    assert np.array_equal(source[0].rgb, source[1].rgb)


def test_the_manifest_names_the_teacher_and_no_folders(labels: Path, images: Path, teacher: Path, tmp_path: Path) -> None:
    manifest = PairedShards(labels, images).manifest()
    stored = json.loads((labels / "manifest.json").read_text())
    assert manifest["settings_id"] == stored["settings_id"]
    assert manifest["teacher"] == {"name": "tiny", "licence": "Apache-2.0", "sha256": stored["settings"]["teacher_sha256"]}
    assert (manifest["shards"], manifest["labels"], manifest["failures"], manifest["complete"]) == (3, 24, 0, True)
    assert str(tmp_path) not in json.dumps(manifest)


def test_labels_that_are_not_complete_must_be_allowed(images: Path, teacher: Path, tmp_path: Path) -> None:
    whole = (images / "001.tar").read_bytes()
    (images / "001.tar").write_bytes(whole[:3000])
    make(images, teacher, tmp_path / "labels")
    with pytest.raises(DatasetError, match=r"is not complete \(2 of 3 shards\); start make_pseudo_labels again, or allow"):
        PairedShards(tmp_path / "labels", images)
    source = PairedShards(tmp_path / "labels", images, allow_incomplete=True)
    assert (source.block_sizes, source.manifest()["complete"], source.manifest()["shards"]) == ((8, 8), False, 2)


def test_images_of_another_set_are_refused_at_the_start(labels: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for folder, message in [
        (tmp_path / "missing", r"^there is no '.*missing'$"),
        (tmp_path / "elsewhere", r"000\.tar' has no bytes, not the \d+ of"),
    ]:
        with pytest.raises(DatasetError, match=message):
            PairedShards(labels, folder)
    write_tar(images / "001.tar", {"x.png": image(1)})
    with pytest.raises(DatasetError, match=r"001\.tar' has 10240 bytes, not the \d+ of its record; give the images that were labelled"):
        PairedShards(labels, images)


def test_other_folders_damaged_records_and_mixed_labels_are_refused(labels: Path, images: Path) -> None:
    with pytest.raises(DatasetError, match=r"no '.*manifest\.json': '.*images' is not an output folder of make_pseudo_labels"):
        PairedShards(images, images)
    good = (labels / "001.json").read_text()
    for content, message in [
        ("", "001.json' cannot be read"),
        ("{}", "001.json' is no record"),
        (good.replace('"settings_id": "', '"settings_id": "x'), "001.json' is of other settings than .*labels are not mixed"),
    ]:
        (labels / "001.json").write_text(content)
        with pytest.raises(DatasetError, match=message):
            PairedShards(labels, images)
    (labels / "001.json").unlink()
    with pytest.raises(DatasetError, match="holds 2 records, its manifest 3"):
        PairedShards(labels, images)
    _rewrite(labels / "manifest.json", settings={"format": 0})
    with pytest.raises(DatasetError, match="is not of format 1 of make_pseudo_labels"):
        PairedShards(labels, images)


def test_an_image_that_went_missing_or_bad_breaks_one_sample(labels: Path, images: Path) -> None:
    whole = (images / "000.tar").read_bytes()
    source = PairedShards(labels, images)
    start = whole.index(b"\x89PNG")
    for spoilt, reason in [
        (whole[:start] + bytes(30) + whole[start + 30 :], r"000\.tar/00: unreadable image"),
        (whole.replace(b"01.jpg\0", b"0x.jpg\0"), r"images/000\.tar: unreadable shard \(no end-of-archive mark after \d+ bytes"),
    ]:
        (images / "000.tar").write_bytes(spoilt)
        source._opened.clear()
        with pytest.raises(BrokenFileError, match=reason):
            source[0]
    members = members_of(images / "001.tar")
    write_tar(images / "001.tar", {name.replace("12.png", "xx.png"): content for name, content in members.items()})
    with pytest.raises(BrokenFileError, match=r"label without its image \('.*001\.tar' and these images do not belong together\)"):
        source[10]
    assert source[11].name == "001/13"


def test_an_image_of_another_size_than_its_label_is_refused(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / f"{name}.png").write_bytes(image(1))
    make(tmp_path / "photos", teacher, tmp_path / "labels")
    (tmp_path / "photos" / "a.png").write_bytes(cv2.imencode(".png", np.zeros((64, 48, 3), np.uint8))[1].tobytes())
    (tmp_path / "photos" / "b.png").unlink()
    source = PairedShards(tmp_path / "labels", tmp_path / "photos")
    with pytest.raises(BrokenFileError, match="image and label differ in size"):
        source[0]
    with pytest.raises(BrokenFileError, match="label without its image"):
        source[1]


def test_a_label_that_does_not_decode_breaks_one_sample(labels: Path, images: Path) -> None:
    content = (labels / "000.tar").read_bytes()
    (labels / "000.tar").write_bytes(content.replace(b'{"min"', b'["min"', 1).replace(b"\x89PNG", b"\x89xxx", 2).replace(b"\x89xxx", b"\x89PNG", 1))
    source = PairedShards(labels, images)
    for index, text in [(0, "Expecting"), (1, "no label")]:
        with pytest.raises(BrokenFileError, match=rf"000\.tar/0{index}: unreadable label \(.*{text}"):
            source[index]
    assert source[2].name == "000/02"


def test_a_shard_that_cannot_be_read_is_tried_once(labels: Path, images: Path, indexed: list[str]) -> None:
    content = (labels / "000.tar").read_bytes()
    (labels / "000.tar").write_bytes(content.replace(b"07.disparity.json", b"0x.disparity.json"))  # the header's checksum is wrong
    source = PairedShards(labels, images)
    for index in range(3):
        with pytest.raises(BrokenFileError, match=r"labels/000\.tar: unreadable shard \(no end-of-archive mark"):
            source[index]
    assert indexed == ["000.tar"]
    members = members_of(labels / "001.tar")
    write_tar(labels / "001.tar", {name: members[name] for name in list(members)[2:]})
    with pytest.raises(BrokenFileError, match=r"label shard differs from its record \(7 labels, not 8\)"):
        source[8]
