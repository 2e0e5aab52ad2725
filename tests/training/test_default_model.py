"""The shipped model against photographs with measured depth: better than not looking, and as good as its card says."""

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
def test_default_model_beats_the_ramp_and_its_card_is_true():
    pairs = [read_pair(DATA, entry) for entry in json.loads((DATA / "index.json").read_text())]
    model = summarise(evaluate(open_predictor(DEFAULT_MODEL), pairs), "aligned")["all"]
    ramp = summarise(evaluate(vertical_ramp, pairs), "aligned")["all"]
    assert model["abs_rel"] < ramp["abs_rel"]
    assert model["delta1"] > ramp["delta1"]
    card = (ROOT / "docs" / "models" / "student_metric.md").read_text()
    row = re.search(r"\| all \| 26 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", card)
    stated = [float(value) for value in row.groups()]
    assert stated == pytest.approx([model["abs_rel"], model["delta1"], ramp["abs_rel"], ramp["delta1"]], abs=2e-3)
