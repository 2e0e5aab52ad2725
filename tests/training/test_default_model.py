"""The shipped models against photographs with measured depth: better than not looking, and as good as their card says."""

import json
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnxruntime")

from depth_anything_ros.contract import DEFAULT_MODEL
from training.evaluate import evaluate, read_pair, summarise
from training.predictors import open_predictor, vertical_ramp

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("DEPTH_ANYTHING_DATA", ROOT.parent / "shared" / "data")) / "evaluation"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "index.json").is_file(), reason=f"no photographs in '{DATA}'; set DEPTH_ANYTHING_DATA")
@pytest.mark.parametrize("name", ["student_metric", "student_relative"])
def test_shipped_models_beat_the_ramp_and_their_card_is_true(name):
    pairs = [read_pair(DATA, entry) for entry in json.loads((DATA / "index.json").read_text())]
    model = summarise(evaluate(open_predictor(DEFAULT_MODEL.with_name(f"{name}.onnx")), pairs), "aligned")
    ramp = summarise(evaluate(vertical_ramp, pairs), "aligned")
    assert model["all"]["abs_rel"] < ramp["all"]["abs_rel"]
    assert model["all"]["delta1"] > ramp["all"]["delta1"]
    table = (ROOT / "docs" / "models" / "student.md").read_text().split(f"\n{name}, aligned:\n")[1].split("\n\n")[0]
    rows = dict(re.findall(r"\| (\w+) \| \d+ \| (.+) \|", table))
    assert rows.keys() == model.keys()
    for domain, stated in rows.items():
        measured = [model[domain]["abs_rel"], model[domain]["delta1"], ramp[domain]["abs_rel"], ramp[domain]["delta1"]]
        assert [float(value) for value in stated.split(" | ")] == pytest.approx(measured, abs=2e-3)


def test_shipped_models_fit_into_eight_megabytes():
    assert sum(path.stat().st_size for path in DEFAULT_MODEL.parent.glob("*.onnx")) <= 8_000_000
