"""The evaluation stage: what is averaged, what is left out, which protocols apply, and the command with its files."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from depth_anything_ros.contract import DEFAULT_MODEL
from depth_anything_ros.structs import DepthMap
from training.checkpoint import TrainingRecord, save_checkpoint
from training.config import load_config
from training.data.samples import BrokenFileError, DatasetError, SkipLog
from training.evaluate import evaluate, main, panel_rows, run
from training.evaluation_pairs import EvaluationSet, Pair, open_set, open_sets, read_pair
from training.networks import build_network
from training.protocols import PROTOCOLS
from training.reports import draw_panel, report, summaries, summarise

TRUE_M = np.linspace(1, 4, 48).reshape(6, 8)


def pair(name="a", domain="indoor", true_m=TRUE_M, dataset="index", focal_px=8.0):
    rgb = np.zeros((*true_m.shape, 3), np.uint8)
    return Pair(name, domain, rgb, true_m, np.ones(true_m.shape, bool), focal_px, True, dataset)


def knows(true_m, factor=1.0):
    """A metric model that is right up to a factor."""
    return lambda rgb, focal_px: DepthMap((factor * true_m).astype(np.float32), "depth_m")


def of_relative_kind(rgb, focal_px):
    return DepthMap((3 / TRUE_M + 1).astype(np.float32), "disparity_affine_invariant")


def write_index(folder, count=3, **changes):
    folder.mkdir(exist_ok=True)
    entries = []
    for number in range(count):
        rgb = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), rgb)
        depth_mm = np.linspace(1000, 4000, 48 * 64).reshape(48, 64).astype(np.uint16)
        depth_mm[:, :4] = 0
        assert cv2.imwrite(str(folder / f"{number}_gt.png"), depth_mm)
        entry = {"id": f"image{number}", "domain": "indoor" if number else "driving", "rgb": f"{number}.png", "gt": f"{number}_gt.png"}
        entries.append(entry | {"kind": "depth", "gt_scale": 1000.0, "invalid": 0, "K": [60.0, 60.0, 32.0, 24.0]} | changes)
    (folder / "index.json").write_text(json.dumps(entries))
    return folder


def test_alignment_forgives_the_factor_and_metres_do_not():
    [row] = evaluate(knows(TRUE_M, 1.2), [pair()])
    assert row["aligned"]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert row["metric"]["abs_rel"] == pytest.approx(0.2)


def test_metres_are_compared_only_with_metres_and_a_known_focal_length():
    assert evaluate(of_relative_kind, [pair()])[0]["metric"] is None
    assert evaluate(knows(TRUE_M), [pair(focal_px=None)])[0]["metric"] is None
    in_pixels = Pair("a", "indoor", np.zeros((6, 8, 3), np.uint8), 1 / TRUE_M, np.ones((6, 8), bool), 8.0, False)
    assert evaluate(knows(1 / TRUE_M), [in_pixels])[0]["metric"] is None


def test_means_are_taken_over_images_of_each_domain_and_of_all():
    rows = evaluate(knows(TRUE_M, 1.0), [pair("a", "near")]) + evaluate(knows(TRUE_M, 1.2), [pair("b", "far"), pair("c", "far")])
    means = summarise(rows, "metric")
    assert list(means) == ["far", "near", "all"]
    assert [means[domain]["images"] for domain in means] == [2, 1, 3]
    assert [means[domain]["abs_rel"] for domain in means] == pytest.approx([0.2, 0, 0.4 / 3], abs=1e-6)


def test_each_preset_uses_its_limits_and_crops():
    """NYUv2: 10 m and more are no truth; the crop leaves out the frame, where this model is wrong."""
    true_m = np.linspace(1, 5, 480 * 640).reshape(480, 640)
    true_m[200, 300] = 10.5
    predicted = true_m.copy()
    predicted[:, :41] *= 3
    rows = evaluate(knows(predicted), [pair(true_m=true_m, dataset="nyuv2")], ("midas", "marigold"))
    assert [row["metric"]["pixels"] for row in rows] == [480 * 640 - 1, 426 * 560 - 1]
    assert rows[0]["metric"]["abs_rel"] > 0.1
    assert rows[1]["metric"]["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_the_benchmark_crop_is_what_the_model_sees():
    true_m = np.linspace(1, 70, 375 * 1242).reshape(375, 1242)
    seen = []

    def model(rgb, focal_px):
        seen.append(rgb.shape[:2])
        return DepthMap(np.full(rgb.shape[:2], 9, np.float32), "depth_m")

    rows = evaluate(model, [pair(true_m=true_m, dataset="kitti")], ("midas", "marigold"))
    assert seen == [(375, 1242), (352, 1216)]
    assert rows[1]["metric"]["pixels"] == (321 - 117) * (1172 - 43)
    seen.clear()
    evaluate(model, [pair(true_m=true_m, dataset="eth3d")], ("midas", "marigold"))
    assert seen == [(375, 1242)]  # one inference where both presets show the same image


def test_truth_in_pixels_is_clamped_at_a_multiple_of_its_own_range():
    entry = pair(true_m=1 / TRUE_M)
    in_pixels = Pair(entry.name, entry.domain, entry.rgb, entry.true_depth, entry.mask, None, False)
    assert in_pixels.limits(PROTOCOLS["index"].presets["midas"]) == pytest.approx((0, 2.0))
    assert in_pixels.limits(PROTOCOLS["index"].presets["marigold"]) == pytest.approx((0.125, 2.0))


def test_images_that_cannot_be_compared_are_counted_with_the_reason():
    unknown = np.full_like(TRUE_M, np.nan)
    skipped = SkipLog()
    assert evaluate(knows(unknown), [pair("bad")], skipped=skipped) == []
    assert skipped.counts == {"cannot be compared": 1}
    assert skipped.first["cannot be compared"].startswith("bad: cannot be compared (the prediction is not a finite depth above 0")
    with pytest.raises(ValueError, match="not a finite depth"):
        evaluate(knows(unknown), [pair("bad")])


def fake_set(pairs, dataset="index", label="fake"):
    def read(number):
        if pairs[number] is None:
            raise BrokenFileError("unreadable image", f"{number}.png")
        return pairs[number]

    return EvaluationSet(label, dataset, range(len(pairs)), read)


def test_a_run_goes_on_after_a_broken_file_and_reports_it():
    rows, left_out = run({"right": knows(TRUE_M), "wrong": knows(TRUE_M, 2)}, [fake_set([pair(), None])], ("midas",))
    assert [(row["model"], row["set"], row["image"]) for row in rows] == [("right", "fake", "a"), ("wrong", "fake", "a")]
    assert [(record["model"], record["count"], record["reasons"]) for record in left_out] == [
        ("right", 1, {"unreadable image": 1}),
        ("wrong", 1, {"unreadable image": 1}),
    ]
    assert "Left out for right on fake: 1 images. 1 x unreadable image, first: 1.png: unreadable image" in report(rows, left_out)


def test_a_set_of_which_nothing_is_left_is_an_error_that_says_what_to_do():
    with pytest.raises(DatasetError, match=r"right: none of the 2 images of fake could be evaluated \(2 skipped: 2 x unreadable image\): 0\.png"):
        run({"right": knows(TRUE_M)}, [fake_set([None, None])], ("midas",))


def test_the_overview_stands_beside_published_numbers_of_the_same_data_sets():
    sizes = {"nyuv2": (480, 640), "diode_outdoor": (6, 8)}
    truth = {size_hw: np.linspace(1, 4, size_hw[0] * size_hw[1]).reshape(size_hw) for size_hw in sizes.values()}
    sets = [fake_set([pair(true_m=truth[size_hw], dataset=name)], name, f"{name}@test") for name, size_hw in sizes.items()]
    models = {"mine": lambda rgb, focal_px: knows(truth[rgb.shape[:2]])(rgb, focal_px)}
    text = report(*run(models, sets, ("midas",)))
    assert "| AbsRel / delta1 | nyuv2@test | diode_outdoor@test | mean of the sets |" in text
    assert "| mine, midas | 0.000 / 1.000 | 0.000 / 1.000 | 0.000 / 1.000 |" in text
    assert "| Depth Anything V2 L (V2 Table 2) | 0.045 / 0.979 | | |" in text
    assert "their splits, depth limits and crops are not stated" in text
    assert "| nyuv2 | midas | 0 .. 10 | 0 .. 10 | none |" in text
    assert "V2 Table 2) |" not in report(*run(models, sets[1:], ("midas",)))  # nobody published DIODE outdoors


def test_a_limit_takes_images_evenly():
    limited = fake_set([pair(str(number)) for number in range(10)]).limited(3)
    assert [entry.name for entry in limited.pairs(SkipLog())] == ["0", "3", "6"]
    assert len(limited.limited(None)) == 3


def test_the_picture_has_a_column_per_model_and_black_where_there_is_no_truth():
    entry = pair(true_m=np.linspace(1, 4, 160 * 160).reshape(160, 160))
    entry.mask[:, :80] = False
    picture = draw_panel(panel_rows({"one": knows(entry.true_depth), "two": knows(entry.true_depth, 2)}, [entry], "midas"))
    assert picture.shape == (164, 4 * 160, 3)
    columns = [picture[20:160, 160 * i : 160 * (i + 1)].astype(int) for i in range(4)]
    assert np.abs(columns[1] - columns[2]).max() <= 8  # the same after alignment
    assert (columns[3][:, :79] == 0).all()
    assert np.abs(columns[3][:, 81:] - columns[1][:, 81:]).max() <= 8
    with pytest.raises(DatasetError, match="no picture"):
        draw_panel([])


def test_an_index_is_read_with_its_units(tmp_path):
    folder = write_index(tmp_path / "photos", count=1)
    [found] = open_set(str(folder)).pairs(SkipLog())
    assert (found.name, found.domain, found.focal_px, found.is_metric) == ("image0", "driving", 60.0, True)
    assert found.true_depth[47, 63] == 4.0
    np.testing.assert_array_equal(found.mask.sum(axis=1), 60)
    entry = json.loads((folder / "index.json").read_text())[0]
    assert read_pair(folder, entry | {"kind": "disparity"}).true_depth[47, 63] == 0.25
    with pytest.raises(DatasetError, match=r"index\.json': an entry lacks 'gt_scale'"):
        read_pair(folder, {key: value for key, value in entry.items() if key != "gt_scale"})
    with pytest.raises(DatasetError, match=r"index\.json': kind 'metres' of 'image0' is unknown; known are depth, disparity"):
        read_pair(folder, entry | {"kind": "metres"})
    with pytest.raises(BrokenFileError, match="unreadable image"):
        read_pair(folder, entry | {"rgb": "missing.png"})


def test_data_arguments(tmp_path):
    folder = write_index(tmp_path / "photos")
    assert [(chosen.label, len(chosen)) for chosen in (open_set(str(folder)), open_set(f"index:{folder}"))] == [("photos", 3)] * 2
    scan = tmp_path / "diode" / "val" / "indoors" / "scene_1" / "scan_1"
    scan.mkdir(parents=True)
    assert cv2.imwrite(str(scan / "a.png"), np.zeros((6, 8, 3), np.uint8))
    np.save(scan / "a_depth.npy", TRUE_M[..., None])
    np.save(scan / "a_depth_mask.npy", np.ones((6, 8)))
    diode = open_set(f"diode_indoor:{tmp_path / 'diode'}")
    assert (diode.label, diode.dataset) == ("diode_indoor@val", "diode_indoor")
    [found] = diode.pairs(SkipLog())
    np.testing.assert_allclose(found.true_depth, TRUE_M, rtol=1e-6)
    assert (found.focal_px, found.dataset) == (886.81, "diode_indoor")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{root}/missing", r"there is no '.*missing.index\.json'; for a published data set give --data NAME:DIR with NAME of index, kitti"),
        ("kity:{root}", r"unknown data set 'kity' in 'kity:.*'; known are index, kitti, nyuv2, .*diode_outdoor"),
        ("index@test:{root}", r"a folder with index\.json has no splits"),
        ("kitti@eigen:{root}", r"kitti has no split 'eigen' in '.*'; it has: train, val, val_selection"),
        ("sintel:{root}", r"sintel: no labels of split 'final' in '.*'\. Expected there: "),
    ],
)
def test_wrong_data_arguments_are_explained(argument, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        open_set(argument.format(root=tmp_path))


def test_a_broken_index_is_named(tmp_path):
    (tmp_path / "index.json").write_text("[")
    with pytest.raises(DatasetError, match=r"index\.json' is not JSON"):
        open_set(str(tmp_path))
    for content in ("[]", '{"a": 1}'):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(DatasetError, match=r"index\.json' lists no pairs; expected a list of objects"):
            open_set(str(tmp_path))


def test_two_data_sets_of_one_name_would_be_averaged_together(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_index(tmp_path / place / "photos", count=1)
    with pytest.raises(DatasetError, match="two data sets are called 'photos'"):
        open_sets([str(tmp_path / place / "photos") for place in ("a", "b")])


def test_the_command_evaluates_a_model_and_the_ramp_and_writes_all_files(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    folder = write_index(tmp_path / "photos")
    files = {name: tmp_path / f"out.{name}" for name in ("json", "table", "panel")}
    files["panel"] = tmp_path / "out.png"
    options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    assert main([str(DEFAULT_MODEL), "--data", str(folder), "--preset", "both", "--limit", "2", *options]) == 0
    text = capsys.readouterr().out
    assert files["table"].read_text() == text
    for start in ("| photos, midas | domain |", f"| {DEFAULT_MODEL.name} | all | 2 |", "| vertical ramp | driving | 1 |", "| photos, marigold |"):
        assert start in text
    written = json.loads(files["json"].read_text())
    assert [(row["model"], row["preset"], row["image"]) for row in written["images"]][:3] == [
        (DEFAULT_MODEL.name, "midas", "image0"),
        (DEFAULT_MODEL.name, "marigold", "image0"),
        (DEFAULT_MODEL.name, "midas", "image1"),
    ]
    assert len(written["images"]) == 2 * 2 * 2
    assert written["means"] == summaries(written["images"])
    assert cv2.imread(str(files["panel"])).shape[1] == 3 * round(160 * 64 / 48)


def test_checkpoints_of_relative_and_metric_networks_are_evaluated_as_what_they_are(tmp_path):
    pytest.importorskip("safetensors")
    compact = "network.architecture={channels: [4, 8, 8, 8, 16], blocks: [1, 1, 1], context_layers: 1, decoder: 8}"
    tiny = "network.architecture={encoder: {dim: 16, heads: 2, blocks: 4}, features: 4, out_channels: [4, 4, 4, 4], taps: [0, 1, 2, 3]}"
    for stage, overrides in (("student", ["network.name=vits", tiny]), ("metric", [compact])):
        config = load_config(stage, None, overrides)
        record = TrainingRecord(1, 0.0, config.to_dict(), {}, {}, {})
        save_checkpoint(tmp_path / f"{stage}.safetensors", build_network(config), None, None, record)
    models = [str(tmp_path / f"{stage}.safetensors") for stage in ("student", "metric")]
    assert main([*models, "--data", str(write_index(tmp_path / "photos", count=1)), "--json", str(tmp_path / "out.json")]) == 0
    means = {record["model"]: record for record in json.loads((tmp_path / "out.json").read_text())["means"]}
    assert means["student.safetensors"]["metric"] == {}
    assert means["metric.safetensors"]["metric"]["all"]["images"] == 1
    assert [means[f"{stage}.safetensors"]["aligned"]["all"]["images"] for stage in ("student", "metric")] == [1, 1]


def test_the_command_explains_what_is_wrong_before_it_works(tmp_path, capsys):
    folder = write_index(tmp_path / "photos", count=1)
    assert main([str(tmp_path / "none.onnx"), "--data", str(folder)]) == 1
    assert f"there is no model '{tmp_path / 'none.onnx'}'" in capsys.readouterr().err
    assert main(["ramp", "--data", str(tmp_path)]) == 1
    assert "index.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ramp", "--data", str(folder), "--json", str(tmp_path / "no" / "out.json")])
    assert "there is no folder" in capsys.readouterr().err


def test_the_ramp_alone(tmp_path, capsys):
    assert main(["ramp", "--data", str(write_index(tmp_path / "photos"))]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| vertical ramp")]
    assert [row.split(" | ")[1:3] for row in rows] == [["driving", "1"], ["indoor", "2"], ["all", "3"]]


def test_data_folders_may_be_relative(tmp_path, monkeypatch):
    write_index(tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "photos")
    assert open_set(".").label == "photos"
