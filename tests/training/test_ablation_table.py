"""The ablation's table: means and spreads over seeds that a reader can work out."""

from __future__ import annotations

import pytest

from training import evaluate
from training.ablation_table import RAMP, VARIANTS, ablation_table, mean_and_spread


def _row(model: str, abs_rel: float) -> dict:
    return {
        "model": model,
        "preset": "midas",
        "aligned": {d: {"abs_rel": abs_rel, "delta1": 1 - abs_rel} for d in ("driving", "indoor", "tabletop", "all")},
    }


def test_mean_and_sample_deviation() -> None:
    assert mean_and_spread([0.1, 0.2, 0.3]) == "0.200 +- 0.100"
    assert mean_and_spread([0.25]) == "0.250"


def test_rows_are_variants_and_the_references_follow() -> None:
    rows = [_row(f"/x/{variant}{seed}/checkpoint.safetensors", 0.1 * i + 0.02 * seed) for i, variant in enumerate(VARIANTS, 1) for seed in (0, 1)]
    rows += [_row("/x/teacher/checkpoint.safetensors", 0.5), _row(RAMP, 0.9)]
    validation = {f"{variant}{seed}": {"abs_rel": 0.3, "delta1": 0.6} for variant in VARIANTS for seed in (0, 1)}
    lines = ablation_table({"means": rows}, validation).splitlines()
    assert lines[2].startswith("| A: labelled only (2 seeds) | 0.110 +- 0.014 / 0.890 +- 0.014 |")
    assert lines[2].endswith("| 0.300 +- 0.000 / 0.600 +- 0.000 |")
    assert [line.split(" |")[0][2:] for line in lines[6:]] == ["teacher", RAMP]


def test_the_baseline_is_called_what_evaluate_calls_it() -> None:
    assert RAMP == evaluate.RAMP


def test_a_variant_without_runs_is_named() -> None:
    with pytest.raises(ValueError, match="no finished run of variant B"):
        ablation_table({"means": [_row("/x/A0/c", 0.1)]}, {"A0": {"abs_rel": 1, "delta1": 0}})
