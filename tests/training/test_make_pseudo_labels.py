"""Making pseudo-labels: resume after SIGKILL, counting of what is broken, refusal to mix, workers and Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="builds its teacher with the onnx library")
pytest.importorskip("onnxruntime", reason="labels with onnxruntime")

from tests.models import write_tiny_model
from tests.training.label_fixtures import KILLED, files_of, image, make, manifest_of, members_of, write_shards, write_tar
from training import make_pseudo_labels
from training.data import pseudo
from training.data.pseudo import UnreadableShard, encode_label, read_pairs, rgb_from_bytes
from training.make_pseudo_labels import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "teacher.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "images")


def test_every_image_gets_the_label_that_the_teacher_gives_it(images: Path, teacher: Path, tmp_path: Path) -> None:
    assert make(images, teacher, tmp_path / "out") == 0
    members = members_of(tmp_path / "out" / "001.tar")
    assert list(members)[:4] == ["10.disparity.png", "10.disparity.json", "11.disparity.png", "11.disparity.json"]
    pairs = list(read_pairs(tmp_path / "out" / "001.tar", images / "001.tar"))
    assert [pair.key for pair in pairs] == [f"1{i}" for i in range(8)]
    assert np.array_equal(pairs[0].rgb, rgb_from_bytes(image(10)))
    small = cv2.resize(pairs[0].rgb, (32, 24), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    depth = cv2.resize(1 + small.mean(2), (64, 48), interpolation=cv2.INTER_LINEAR)  # what the tiny model does
    np.testing.assert_allclose(pairs[0].disparity, 1 / depth, atol=1e-5)
    assert manifest_of(tmp_path / "out")["labels"] == 24


def test_the_manifest_says_what_was_made_of_what(images: Path, teacher: Path, tmp_path: Path) -> None:
    make(images, teacher, tmp_path / "out")
    manifest, record = manifest_of(tmp_path / "out"), json.loads((tmp_path / "out" / "000.json").read_text())
    assert manifest["settings"] == {"format": 1, "teacher_sha256": pseudo._sha256(teacher), "label_size": "image"}
    assert manifest["teacher"] == {"name": "tiny", "file": "teacher.onnx", "licence": "Apache-2.0"}
    assert manifest["complete"]
    assert (manifest["shards"], manifest["shards_done"], manifest["pixels"]) == (3, 3, 24 * 48 * 64)
    assert (record["images"], record["labels"], record["failures"]) == (8, 8, [])
    assert record["sha256"] == pseudo._sha256(tmp_path / "out" / "000.tar")
    assert record["bytes"] == (tmp_path / "out" / "000.tar").stat().st_size


def test_labels_at_the_networks_size_are_smaller(images: Path, teacher: Path, tmp_path: Path) -> None:
    assert make(images, teacher, tmp_path / "out", "--label-size", "network") == 0
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
    assert make(images, write_tiny_model(tmp_path / "other.onnx", **contract), tmp_path / "out", "--label-size", "network") == 0
    pair = next(read_pairs(tmp_path / "out" / "000.tar", images / "000.tar"))
    brightness = cv2.resize(pair.rgb, (32, 24), interpolation=cv2.INTER_LINEAR).mean(2)
    assert np.corrcoef(brightness.ravel(), pair.disparity.ravel())[0, 1] * (1 if near_is == "bright" else -1) > 0.9


def test_beyond_the_range_of_a_metric_teacher_is_disparity_zero(images: Path, tmp_path: Path) -> None:
    assert make(images, write_tiny_model(tmp_path / "other.onnx", max_depth_m=1.5), tmp_path / "out") == 0
    disparity = next(read_pairs(tmp_path / "out" / "000.tar", images / "000.tar")).disparity
    assert disparity.min() == 0
    assert disparity[disparity > 0].min() >= 1 / 1.5 - 1e-4


def test_broken_images_are_counted_with_their_reason(teacher: Path, tmp_path: Path) -> None:
    thin = cv2.imencode(".png", np.zeros((4, 600, 3), np.uint8))[1].tobytes()
    members = {"a.jpg": image(1, "jpg"), "b.jpg": image(2, "jpg")[:300], "c.png": b"", "d.png": thin, "a.png": image(3), "e.png": image(4)}
    write_tar(tmp_path / "in" / "0.tar", members | {"e.json": b"{}", "e.depth.png": image(5), "._e.png": b"x"})
    assert make(tmp_path / "in", teacher, tmp_path / "out") == 0
    manifest = manifest_of(tmp_path / "out")
    assert (manifest["images"], manifest["labels"]) == (6, 2)
    reasons = {(failure["shard"], failure["key"]): failure["reason"] for failure in manifest["failures"]}
    assert list(reasons) == [("0.tar", key) for key in "bcda"]
    assert [text in reason for text, reason in zip(("cut short", "0 bytes", "too thin", "same key"), reasons.values())] == [True] * 4
    assert [pair.key for pair in read_pairs(tmp_path / "out" / "0.tar", tmp_path / "in" / "0.tar")] == ["a", "e"]


def test_a_folder_of_images_is_cut_into_shards(teacher: Path, tmp_path: Path) -> None:
    for index in range(5):
        path = tmp_path / "photos" / "day.1" / f"img.{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(index))
    assert make(tmp_path / "photos", teacher, tmp_path / "out", "--images-per-shard", "2") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == [f"photos-{i:06d}.tar" for i in range(3)]
    keys = [pair.key for i in range(3) for pair in read_pairs(tmp_path / "out" / f"photos-{i:06d}.tar", tmp_path / "photos")]
    assert keys == [f"day.1/img_{index}" for index in range(5)]


def test_a_shard_that_is_cut_short_is_left_for_the_next_start(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    whole = (images / "001.tar").read_bytes()
    end = whole.rindex(b"PNG") // 512 * 512
    for length in (len(whole) // 3, end, end + 100):  # inside a file, between two, inside a header
        (images / "001.tar").write_bytes(whole[:length])
        assert make(images, teacher, tmp_path / "out") == 1
        manifest = manifest_of(tmp_path / "out")
        assert [shard["shard"] for shard in manifest["unreadable_shards"]] == ["001.tar"]
        assert (manifest["complete"], manifest["shards_done"]) == (False, 2)
        assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["000.tar", "002.tar"]
    (images / "001.tar").write_bytes(whole)
    assert make(images, teacher, tmp_path / "out") == 0
    assert manifest_of(tmp_path / "out")["unreadable_shards"] == []


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
    make(images, teacher, tmp_path / "undisturbed")
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
    assert files_of(tmp_path / "out") == files_of(tmp_path / "undisturbed")


def test_two_workers_give_the_same_bytes_as_one(images: Path, teacher: Path, tmp_path: Path) -> None:
    assert make(images, teacher, tmp_path / "one") == 0
    assert make(images, teacher, tmp_path / "two", "--workers", "2") == 0
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_workers_end_with_a_killed_run_and_the_next_one_finishes(teacher: Path, tmp_path: Path) -> None:
    for shard in range(4):
        write_tar(tmp_path / "in" / f"{shard}.tar", {f"{i}.png": image(i % 20) for i in range(400)})
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
    assert files_of(tmp_path / "out") == files_of(tmp_path / "undisturbed")


def test_a_finished_run_does_nothing_when_started_again(images: Path, teacher: Path, tmp_path: Path, monkeypatch) -> None:
    make(images, teacher, tmp_path / "out")
    before = files_of(tmp_path / "out")
    monkeypatch.setattr(make_pseudo_labels, "label_shard", None)
    assert make(images, teacher, tmp_path / "out") == 0
    assert make(images, teacher, tmp_path / "out", "--workers", "2") == 0
    assert files_of(tmp_path / "out") == before


def test_another_teacher_or_other_settings_are_not_mixed_in(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    make(images, teacher, tmp_path / "out")
    before = files_of(tmp_path / "out")
    other = write_tiny_model(tmp_path / "other.onnx", name="other")
    assert make(images, other, tmp_path / "out") == 2
    assert f"teacher_sha256 {pseudo._sha256(teacher)}, not {pseudo._sha256(other)}" in capsys.readouterr().err
    assert make(images, teacher, tmp_path / "out", "--label-size", "network") == 2
    assert "label_size image, not network; labels are not mixed: choose another --output" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before
    assert make(images, other, tmp_path / "elsewhere") == 0
    (tmp_path / "out" / "manifest.json").unlink()
    assert make(images, other, tmp_path / "out") == 2
    assert "made by another teacher" in capsys.readouterr().err


def test_an_input_that_changed_after_it_was_labelled_is_refused(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    make(images, teacher, tmp_path / "out")
    write_tar(images / "001.tar", {"x.png": image(1)})
    assert make(images, teacher, tmp_path / "out") == 2
    assert "was made of another input" in capsys.readouterr().err


def test_labels_of_another_input_are_not_paired(images: Path, teacher: Path, tmp_path: Path) -> None:
    make(images, teacher, tmp_path / "out")
    with pytest.raises(UnreadableShard, match="label '00' has no image"):
        list(read_pairs(tmp_path / "out" / "000.tar", images / "001.tar"))


def test_two_runs_do_not_write_into_one_folder(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    with make_pseudo_labels._locked(tmp_path / "out"):
        assert make(images, teacher, tmp_path / "out") == 2
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
        assert make(inputs, file, tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    assert make(images, teacher, images / "labels") == 2
    assert "lies in the input" in capsys.readouterr().err
    assert main([str(images), str(images / "000.tar"), "--teacher", str(teacher), "--output", str(tmp_path / "out")]) == 2
    assert "would both write '000.tar'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_gpu_is_an_error_not_a_slow_run(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert make(images, teacher, tmp_path / "out", "--device", "cuda") == 2
    assert "onnxruntime has no CUDAExecutionProvider here" in capsys.readouterr().err


def test_options_that_cannot_work_are_refused(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    for options, message in [(("--workers", "0"), "at least 1"), (("--ray", "auto", "--device", "cuda"), "--gpus-per-task above 0")]:
        with pytest.raises(SystemExit):
            make(images, teacher, tmp_path / "out", *options)
        assert message in capsys.readouterr().err


def test_a_teacher_that_fails_ends_the_run_and_gives_no_image_up(images: Path, tmp_path: Path, capsys) -> None:
    misfit = write_tiny_model(tmp_path / "misfit.onnx", (24, 40), resize="stretch")
    assert make(images, misfit, tmp_path / "out") == 2
    assert "image '00' of" in capsys.readouterr().err
    assert manifest_of(tmp_path / "out")["shards_done"] == 0
    assert list((tmp_path / "out").glob("*.tar")) == []


def test_stopping_by_hand_leaves_a_manifest_of_what_is_done(images: Path, teacher: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def stopped_at_the_second(shard, job):
        if shard.name == "001.tar":
            raise KeyboardInterrupt
        return pseudo.label_shard(shard, job)

    monkeypatch.setattr(make_pseudo_labels, "label_shard", stopped_at_the_second)
    assert make(images, teacher, tmp_path / "out") == 130
    assert "goes on where it was" in capsys.readouterr().err
    assert (manifest_of(tmp_path / "out")["shards_done"], manifest_of(tmp_path / "out")["complete"]) == (1, False)


def test_a_damaged_record_is_named(images: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    make(images, teacher, tmp_path / "out")
    (tmp_path / "out" / "001.json").write_text("")
    assert make(images, teacher, tmp_path / "out") == 2
    assert "001.json' is damaged" in capsys.readouterr().err
    (tmp_path / "out" / "001.json").unlink()
    (tmp_path / "out" / "002.tar").write_bytes(b"")
    assert make(images, teacher, tmp_path / "out") == 2
    assert "002.tar' is not as its record says" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_gives_the_same_bytes_as_one_process(images: Path, teacher: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="runs a local Ray")
    make(images, teacher, tmp_path / "one")
    arguments = [str(images), "--teacher", str(teacher), "--output", str(tmp_path / "ray"), "--ray", "local"]
    subprocess.run([sys.executable, "-m", "training.make_pseudo_labels", *arguments], cwd=ROOT, check=True, timeout=240)
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "one")
