"""The stages' command line: keys, refusals with a reason and exit code 2, and figures at the end."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")

from training import loop  # noqa: E402

from .made_up import COMPACT, MadeUp  # noqa: E402

STAGES = {"train_encoder": "encoder", "train_teacher": "teacher", "train_student": "student", "finetune_metric": "metric"}
ROOT = Path(__file__).parents[2]


def _main(module: str, *overrides: str, config: str = "") -> int:
    arguments = [item for override in overrides for item in ("--set", override)]
    return importlib.import_module(f"training.{module}").main([*(["--config", config] if config else []), *arguments])


@pytest.mark.parametrize(("module", "stage"), STAGES.items())
def test_keys_lists_what_can_be_set(module: str, stage: str, capsys) -> None:
    assert importlib.import_module(f"training.{module}").main(["--keys", "--set", "run.seed=5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"run.seed=5", "optimiser.decoder_factor=10.0"} <= set(lines)
    assert all("=" in line and "." in line.split("=")[0] for line in lines)


def test_a_run_prints_its_checkpoint_and_figures(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(loop, "open_labelled", lambda texts: MadeUp(8))
    options = ["data.sizes_hw=[[64, 96]]", "data.workers=0", "data.validation=[x]", "data.labelled_per_batch=2"]
    assert _main("train_teacher", COMPACT, *options, "run.tensorboard=false", "run.steps=2", f"run.out={tmp_path}") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["checkpoint"], result["step"]) == (str(tmp_path / "checkpoint.safetensors"), 2)
    assert {"abs_rel", "delta1"} <= set(result)


@pytest.mark.parametrize(
    ("module", "overrides", "message"),
    [
        ("train_student", ["data.labelled=[shards:x]"], "student: a student learns from pseudo-labels: give data.pseudo"),
        ("train_teacher", ["data.pseudo=[a::b]"], "teacher: data.pseudo belongs to train_student and finetune_metric"),
        ("finetune_metric", ["network.frozen_encoder=x.pth"], "metric: network.frozen_encoder belongs to train_student"),
        ("train_teacher", [], "teacher: data.labelled .* names no source"),
        ("finetune_metric", ["run.device=cuda", "data.labelled=[shards:x]"], "metric: run.device is cuda, but torch .* sees 0 CUDA devices"),
        ("train_encoder", ["run.stepps=1"], "encoder: training configuration: run.stepps: unexpected"),
    ],
)
def test_what_cannot_go_on_says_why(module: str, overrides: list[str], message: str, capsys, tmp_path: Path) -> None:
    if "cuda" in str(overrides) and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert _main(module, f"run.out={tmp_path}", *overrides) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    for module in STAGES:
        assert importlib.import_module(f"training.{module}").main(["--keys", "--config", str(path)]) == 0
