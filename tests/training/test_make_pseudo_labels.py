"""Pseudo-labels: format, resume after SIGKILL, counting of what is broken, refusal to mix, workers and Ray."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="builds its teacher with the onnx library")
pytest.importorskip("onnxruntime", reason="labels with onnxruntime")

from depth_anything_ros.errors import DecodeError
from depth_anything_ros.structs import DepthMap
from tests.models import write_tiny_model
from training import make_pseudo_labels
from training.data import pseudo
from training.data.pseudo import UnreadableShard, decode_label, disparity_from_map, encode_label, read_pairs, rgb_from_bytes
from training.make_pseudo_labels import main

ROOT = Path(__file__).parents[2]


def _image(seed: int, ending: str = "png") -> bytes:
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(f".{ending}", pixels)[1].tobytes()


def _write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "teacher.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three shards of eight images."""
    for shard in range(3):
        members = {f"{shard}{i}.{ending}": _image(10 * shard + i, ending) for i, ending in enumerate(["png", "jpg"] * 4)}
        _write_tar(tmp_path / "images" / f"{shard:03d}.tar", members)
    return tmp_path / "images"


def _make(images: Path, teacher: Path, output: Path, *options: str) -> int:
    return main([str(images), "--teacher", str(teacher), "--output", str(output), *options])


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _manifest(output: Path) -> dict:
    return json.loads((output / "manifest.json").read_text())


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_a_label_comes_back_to_half_a_step() -> None:
    disparity = np.random.default_rng(0).normal(3, 40, (30, 40)).astype(np.float32)
    disparity[0, :3] = np.nan, np.inf, -np.inf
    png, limits = encode_label(disparity)
    decoded = decode_label(png, json.loads(json.dumps(limits)))
    known = np.isfinite(disparity)
    assert np.array_equal(np.isfinite(decoded), known)
    step = (limits["max"] - limits["min"]) / 65534
    assert np.abs(decoded - disparity)[known].max() <= 0.51 * step
    assert (decoded[known].min(), decoded[known].max()) == (disparity[known].min(), disparity[known].max())


def test_codes_of_unknown_smallest_middle_and_largest() -> None:
    png, limits = encode_label(np.array([[np.nan, 2.0, 3.0, 4.0]], np.float32))
    assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED).tolist() == [[0, 1, 32768, 65535]]
    assert limits == {"min": 2.0, "max": 4.0}


def test_a_constant_map_comes_back_and_an_unknown_one_is_refused() -> None:
    png, limits = encode_label(np.full((4, 5), 7.5, np.float32))
    assert limits == {"min": 7.5, "max": 7.5}
    assert np.array_equal(decode_label(png, limits), np.full((4, 5), 7.5, np.float32))
    with pytest.raises(DecodeError, match="no finite value"):
        encode_label(np.full((4, 5), np.nan, np.float32))


def test_depth_becomes_disparity_and_the_sky_zero() -> None:
    depth = DepthMap(np.array([[0.5, 4.0, np.inf, np.nan]], np.float32), "depth_m")
    assert disparity_from_map(depth).tolist()[0][:3] == [2.0, 0.25, 0.0]
    assert np.isnan(disparity_from_map(depth)[0, 3])
    relative = DepthMap(np.array([[0.5, -1.0]], np.float32), "disparity_affine_invariant")
    assert np.array_equal(disparity_from_map(relative), relative.values)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_that_is_cut_short_is_refused(ending: str) -> None:
    content = _image(1, ending)
    assert rgb_from_bytes(content).shape == (48, 64, 3)
    with pytest.raises(DecodeError, match="cut short after"):
        rgb_from_bytes(content[: len(content) // 2])
    for other in (b"", b"not an image at all"):
        with pytest.raises(DecodeError, match="do not decode"):
            rgb_from_bytes(other)


def test_images_are_turned_upright() -> None:
    plain = _image(1, "jpg")
    orientation_6 = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    tagged = plain[:2] + b"\xff\xe1" + (len(orientation_6) + 2).to_bytes(2, "big") + orientation_6 + plain[2:]
    assert np.array_equal(rgb_from_bytes(tagged), np.rot90(rgb_from_bytes(plain), -1))


def test_every_image_gets_the_label_that_the_teacher_gives_it(images: Path, teacher: Path, tmp_path: Path) -> None:
    assert _make(images, teacher, tmp_path / "out") == 0
    members = _members(tmp_path / "out" / "001.tar")
    assert list(members)[:4] == ["10.disparity.png", "10.disparity.json", "11.disparity.png", "11.disparity.json"]
    pairs = list(read_pairs(tmp_path / "out" / "001.tar", images / "001.tar"))
    assert [pair.key for pair in pairs] == [f"1{i}" for i in range(8)]
    assert np.array_equal(pairs[0].rgb, rgb_from_bytes(_image(10)))
    small = cv2.resize(pairs[0].rgb, (32, 24), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    depth = cv2.resize(1 + small.mean(2), (64, 48), interpolation=cv2.INTER_LINEAR)  # what the tiny model does
    np.testing.assert_allclose(pairs[0].disparity, 1 / depth, atol=1e-5)
    assert _manifest(tmp_path / "out")["labels"] == 24


def test_the_manifest_says_what_was_made_of_what(images: Path, teacher: Path, tmp_path: Path) -> None:
    _make(images, teacher, tmp_path / "out")
    manifest, record = _manifest(tmp_path / "out"), json.loads((tmp_path / "out" / "000.json").read_text())
    assert manifest["settings"] == {"format": 1, "teacher_sha256": pseudo._sha256(teacher), "label_size": "image"}
    assert manifest["teacher"] == {"name": "tiny", "file": "teacher.onnx", "licence": "Apache-2.0"}
    assert manifest["complete"]
    assert (manifest["shards"], manifest["shards_done"], manifest["pixels"]) == (3, 3, 24 * 48 * 64)
    assert (record["images"], record["labels"], record["failures"]) == (8, 8, [])
    assert record["sha256"] == pseudo._sha256(tmp_path / "out" / "000.tar")
    assert record["bytes"] == (tmp_path / "out" / "000.tar").stat().st_size


def test_labels_at_the_networks_size_are_smaller(images: Path, teacher: Path, tmp_path: Path) -> None:
    assert _make(images, teacher, tmp_path / "out", "--label-size", "network") == 0
    assert next(read_pairs(tmp_path / "out" / "000.tar", images / "000.tar")).disparity.shape == (24, 32)


@pytest.mark.parametrize(
    ("contract", "near_is"),
    [
        ({"output_kind": "depth_m"}, "dark"),
        ({"output_kind": "depth_canonical_focal", "canonical_focal_px": 100.0}, "dark"),
        ({"output_kind": "disparity_affine_invariant"}, "bright"),
    ],
)
def test_larger_is_nearer_whatever_the_teacher_gives(contract: dict, near_is: str, images: Path, tmp_path: Path) -> None:
    assert _make(images, write_tiny_model(tmp_path / "other.onnx", **contract), tmp_path / "out", "--label-size", "network") == 0
    pair = next(read_pairs(tmp_path / "out" / "000.tar", images / "000.tar"))
    brightness = cv2.resize(pair.rgb, (32, 24), interpolation=cv2.INTER_LINEAR).mean(2)
    assert np.corrcoef(brightness.ravel(), pair.disparity.ravel())[0, 1] * (1 if near_is == "bright" else -1) > 0.9


def test_beyond_the_range_of_a_metric_teacher_is_disparity_zero(images: Path, tmp_path: Path) -> None:
    assert _make(images, write_tiny_model(tmp_path / "other.onnx", max_depth_m=1.5), tmp_path / "out") == 0
    disparity = next(read_pairs(tmp_path / "out" / "000.tar", images / "000.tar")).disparity
    assert disparity.min() == 0
    assert disparity[disparity > 0].min() >= 1 / 1.5 - 1e-4


def test_broken_images_are_counted_with_their_reason(teacher: Path, tmp_path: Path) -> None:
    thin = cv2.imencode(".png", np.zeros((4, 600, 3), np.uint8))[1].tobytes()
    members = {"a.jpg": _image(1, "jpg"), "b.jpg": _image(2, "jpg")[:300], "c.png": b"", "d.png": thin, "a.png": _image(3), "e.png": _image(4)}
    _write_tar(tmp_path / "in" / "0.tar", members | {"e.json": b"{}", "e.depth.png": _image(5), "._e.png": b"x"})
    assert _make(tmp_path / "in", teacher, tmp_path / "out") == 0
    manifest = _manifest(tmp_path / "out")
    assert (manifest["images"], manifest["labels"]) == (6, 2)
    reasons = {(failure["shard"], failure["key"]): failure["reason"] for failure in manifest["failures"]}
    assert list(reasons) == [("0.tar", key) for key in "bcda"]
    assert [text in reason for text, reason in zip(("cut short", "0 bytes", "too thin", "same key"), reasons.values())] == [True] * 4
    assert [pair.key for pair in read_pairs(tmp_path / "out" / "0.tar", tmp_path / "in" / "0.tar")] == ["a", "e"]


def test_a_folder_of_images_is_cut_into_shards(teacher: Path, tmp_path: Path) -> None:
    for index in range(5):
        path = tmp_path / "photos" / "day.1" / f"img.{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_image(index))
    assert _make(tmp_path / "photos", teacher, tmp_path / "out", "--images-per-shard", "2") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == [f"photos-{i:06d}.tar" for i in range(3)]
    keys = [pair.key for i in range(3) for pair in read_pairs(tmp_path / "out" / f"photos-{i:06d}.tar", tmp_path / "photos")]
    assert keys == [f"day.1/img_{index}" for index in range(5)]


def test_a_shard_that_is_cut_short_is_left_for_the_next_start(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    whole = (images / "001.tar").read_bytes()
    end = whole.rindex(b"PNG") // 512 * 512
    for length in (len(whole) // 3, end, end + 100):  # inside a file, between two, inside a header
        (images / "001.tar").write_bytes(whole[:length])
        assert _make(images, teacher, tmp_path / "out") == 1
        manifest = _manifest(tmp_path / "out")
        assert [shard["shard"] for shard in manifest["unreadable_shards"]] == ["001.tar"]
        assert (manifest["complete"], manifest["shards_done"]) == (False, 2)
        assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["000.tar", "002.tar"]
    (images / "001.tar").write_bytes(whole)
    assert _make(images, teacher, tmp_path / "out") == 0
    assert _manifest(tmp_path / "out")["unreadable_shards"] == []


KILLED = """
import os, signal, sys
from training import make_pseudo_labels
from training.data import pseudo
calls, original = [], getattr({module}, {function!r})
def dying(*args):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
setattr({module}, {function!r}, dying)
make_pseudo_labels.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("module", "function", "call", "done"),
    [
        ("pseudo", "encode_label", 1, 0),
        ("pseudo", "encode_label", 13, 1),  # in the middle of the second shard
        ("pseudo", "_sha256", 3, 2),  # the third tar is complete and has no name yet
        ("make_pseudo_labels", "_write_json", 3, 1),  # the second tar has its name and no record (the first call is the manifest's)
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    module: str, function: str, call: int, done: int, images: Path, teacher: Path, tmp_path: Path, monkeypatch
) -> None:
    _make(images, teacher, tmp_path / "undisturbed")
    arguments = [str(images), "--teacher", str(teacher), "--output", str(tmp_path / "out")]
    code = KILLED.format(module=module, function=function, call=call)
    killed = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, timeout=60, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*.json")}
    finished |= {path.with_suffix(".tar"): path.with_suffix(".tar").stat().st_mtime_ns for path in finished}
    assert len(finished) == 2 * done
    labelled = []
    monkeypatch.setattr(pseudo, "encode_label", lambda disparity: labelled.append(1) or encode_label(disparity))
    assert main(arguments) == 0
    assert len(labelled) == 8 * (3 - done)  # what was done is not done again
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert _files(tmp_path / "out") == _files(tmp_path / "undisturbed")


def test_two_workers_give_the_same_bytes_as_one(images: Path, teacher: Path, tmp_path: Path) -> None:
    assert _make(images, teacher, tmp_path / "one") == 0
    assert _make(images, teacher, tmp_path / "two", "--workers", "2") == 0
    assert _files(tmp_path / "two") == _files(tmp_path / "one")


def test_workers_end_with_a_killed_run_and_the_next_one_finishes(teacher: Path, tmp_path: Path) -> None:
    for shard in range(4):
        _write_tar(tmp_path / "in" / f"{shard}.tar", {f"{i}.png": _image(i % 20) for i in range(400)})
    arguments = [str(tmp_path / "in"), "--teacher", str(teacher), "--output", str(tmp_path / "out"), "--workers", "2"]
    run = subprocess.Popen([sys.executable, "-m", "training.make_pseudo_labels", *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    until = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".*.tar.*.tmp")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate(timeout=20)  # its workers hold the other end of the pipe: it closes when the last of them is gone
    assert not (tmp_path / "out" / "3.json").exists()
    assert main(arguments) == 0
    assert main([*arguments[:4], str(tmp_path / "undisturbed")]) == 0
    assert _files(tmp_path / "out") == _files(tmp_path / "undisturbed")


def test_a_finished_run_does_nothing_when_started_again(images: Path, teacher: Path, tmp_path: Path, monkeypatch) -> None:
    _make(images, teacher, tmp_path / "out")
    before = _files(tmp_path / "out")
    monkeypatch.setattr(make_pseudo_labels, "label_shard", None)
    assert _make(images, teacher, tmp_path / "out") == 0
    assert _make(images, teacher, tmp_path / "out", "--workers", "2") == 0
    assert _files(tmp_path / "out") == before


def test_another_teacher_or_other_settings_are_not_mixed_in(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    _make(images, teacher, tmp_path / "out")
    before = _files(tmp_path / "out")
    other = write_tiny_model(tmp_path / "other.onnx", name="other")
    assert _make(images, other, tmp_path / "out") == 2
    assert f"teacher_sha256 {pseudo._sha256(teacher)}, not {pseudo._sha256(other)}" in capsys.readouterr().err
    assert _make(images, teacher, tmp_path / "out", "--label-size", "network") == 2
    assert "label_size image, not network; labels are not mixed: choose another --output" in capsys.readouterr().err
    assert _files(tmp_path / "out") == before
    assert _make(images, other, tmp_path / "elsewhere") == 0
    (tmp_path / "out" / "manifest.json").unlink()
    assert _make(images, other, tmp_path / "out") == 2
    assert "made by another teacher" in capsys.readouterr().err


def test_an_input_that_changed_after_it_was_labelled_is_refused(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    _make(images, teacher, tmp_path / "out")
    _write_tar(images / "001.tar", {"x.png": _image(1)})
    assert _make(images, teacher, tmp_path / "out") == 2
    assert "was made of another input" in capsys.readouterr().err


def test_labels_of_another_input_are_not_paired(images: Path, teacher: Path, tmp_path: Path) -> None:
    _make(images, teacher, tmp_path / "out")
    with pytest.raises(UnreadableShard, match="label '00' has no image"):
        list(read_pairs(tmp_path / "out" / "000.tar", images / "001.tar"))


def test_two_runs_do_not_write_into_one_folder(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    with make_pseudo_labels._locked(tmp_path / "out"):
        assert _make(images, teacher, tmp_path / "out") == 2
    assert "another run writes into" in capsys.readouterr().err


def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain.onnx").write_bytes(b"nothing")
    for inputs, file, message in [
        (tmp_path / "empty", teacher, "holds neither tar files nor images"),
        (tmp_path / "missing.tar", teacher, "is not a folder and not a .tar file"),
        (images, tmp_path / "plain.onnx", "plain.onnx"),
        (images, tmp_path / "missing.onnx", "cannot read model file"),
    ]:
        assert _make(inputs, file, tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    assert _make(images, teacher, images / "labels") == 2
    assert "lies in the input" in capsys.readouterr().err
    assert main([str(images), str(images / "000.tar"), "--teacher", str(teacher), "--output", str(tmp_path / "out")]) == 2
    assert "would both write '000.tar'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_gpu_is_an_error_not_a_slow_run(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert _make(images, teacher, tmp_path / "out", "--device", "cuda") == 2
    assert "onnxruntime has no CUDAExecutionProvider here" in capsys.readouterr().err


def test_options_that_cannot_work_are_refused(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    for options, message in [(("--workers", "0"), "at least 1"), (("--ray", "auto", "--device", "cuda"), "--gpus-per-task above 0")]:
        with pytest.raises(SystemExit):
            _make(images, teacher, tmp_path / "out", *options)
        assert message in capsys.readouterr().err


def test_a_teacher_that_fails_ends_the_run_and_gives_no_image_up(images: Path, tmp_path: Path, capsys) -> None:
    misfit = write_tiny_model(tmp_path / "misfit.onnx", (24, 40), resize="stretch")
    assert _make(images, misfit, tmp_path / "out") == 2
    assert "image '00' of" in capsys.readouterr().err
    assert _manifest(tmp_path / "out")["shards_done"] == 0
    assert list((tmp_path / "out").glob("*.tar")) == []


def test_stopping_by_hand_leaves_a_manifest_of_what_is_done(images: Path, teacher: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def stopped_at_the_second(shard, job):
        if shard.name == "001.tar":
            raise KeyboardInterrupt
        return pseudo.label_shard(shard, job)

    monkeypatch.setattr(make_pseudo_labels, "label_shard", stopped_at_the_second)
    assert _make(images, teacher, tmp_path / "out") == 130
    assert "goes on where it was" in capsys.readouterr().err
    assert (_manifest(tmp_path / "out")["shards_done"], _manifest(tmp_path / "out")["complete"]) == (1, False)


def test_a_damaged_record_is_named(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    _make(images, teacher, tmp_path / "out")
    (tmp_path / "out" / "001.json").write_text("")
    assert _make(images, teacher, tmp_path / "out") == 2
    assert "001.json' is damaged" in capsys.readouterr().err
    (tmp_path / "out" / "001.json").unlink()
    (tmp_path / "out" / "002.tar").write_bytes(b"")
    assert _make(images, teacher, tmp_path / "out") == 2
    assert "002.tar' is not as its record says" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_gives_the_same_bytes_as_one_process(images: Path, teacher: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="runs a local Ray")
    _make(images, teacher, tmp_path / "one")
    arguments = [str(images), "--teacher", str(teacher), "--output", str(tmp_path / "ray"), "--ray", "local"]
    subprocess.run([sys.executable, "-m", "training.make_pseudo_labels", *arguments], cwd=ROOT, check=True, timeout=240)
    assert _files(tmp_path / "ray") == _files(tmp_path / "one")
