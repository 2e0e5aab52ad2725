"""The one loop for all stages: it learns, resumes bit for bit, records what it did, and stops on NaN with the batch saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")
pytest.importorskip("safetensors", reason="training needs safetensors")

from safetensors.torch import load_file  # noqa: E402

from depth_anything_ros.errors import ConfigError  # noqa: E402
from training import loop  # noqa: E402
from training.checkpoint import read_checkpoint  # noqa: E402
from training.config import load_config  # noqa: E402
from training.loop import NotANumber, Training  # noqa: E402

from .made_up import COMPACT, VIT, MadeUp  # noqa: E402

ROOT = Path(__file__).parents[2]
STAGES = ("encoder", "teacher", "student", "metric")


@pytest.fixture(autouse=True)
def made_up_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "open_labelled", lambda texts: MadeUp(12))
    monkeypatch.setattr(loop, "open_pseudo", lambda texts: MadeUp(20, "disparity_affine_invariant") if texts else None)


def _overrides(stage: str, out: Path, *overrides: str) -> list[str]:
    pseudo = ["data.pseudo=[made::up]"] if stage == "student" else []
    common = ["data.sizes_hw=[[64, 96]]", "data.labelled_per_batch=4", "data.pseudo_per_batch=4", "data.workers=0", "data.validation=[made-up]"]
    rates = ["optimiser.learning_rate=2e-3", "optimiser.decoder_factor=1", "run.threads=1", "run.tensorboard=false", "run.validate_every=0"]
    return [COMPACT, *common, *rates, *pseudo, f"run.out={out}", "run.steps=6", *overrides]


def _training(stage: str, out: Path, *overrides: str) -> Training:
    return Training(load_config(stage, None, _overrides(stage, out, *overrides)))


def _tensors(training: Training) -> dict[str, torch.Tensor]:
    return read_checkpoint(training.checkpoint)[0]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_learns_and_leaves_a_record(stage: str, tmp_path: Path) -> None:
    training = _training(stage, tmp_path, "run.steps=30", "run.log_every=5", "optimiser.average_decay=0.9")
    figures = training.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    totals = [line["total"] for line in lines if line["group"] == "train"]
    assert totals[-1] < 0.8 * totals[0]
    record = json.loads((tmp_path / "checkpoint.json").read_text())
    assert (record["step"], record["config"]["stage"], record["validation"]) == (30, stage, figures)
    assert record["data"]["labelled"] == {"dataset": "made_up", "samples": 12}
    assert record["data"]["pseudo"] == ({"dataset": "made_up", "samples": 20} if stage == "student" else None)
    assert len(record["sha256"]) == 64
    assert record["origin"]["git"]
    assert all(line["waiting_share"] < 1 and line["images_per_s"] > 0 for line in lines if line["group"] == "train")
    assert set(figures) >= {"encoder": {"accuracy"}, "metric": {"abs_rel", "metric_abs_rel"}}.get(stage, {"abs_rel", "delta1"})
    assert (tmp_path / "panel.png").exists() == (stage != "encoder")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("options", [[], ["optimiser.accumulate=2", "optimiser.average_decay=0.9", "data.workers=1"]], ids=["plain", "more"])
def test_a_killed_and_resumed_run_gives_the_same_weights_bit_for_bit(stage: str, options: list[str], tmp_path: Path, monkeypatch) -> None:
    whole = _training(stage, tmp_path / "whole", *options)
    whole.run()
    killed = _training(stage, tmp_path / "killed", "run.save_every=2", *options)
    step = killed.train_step

    def dies(given):
        if killed.step == 3:
            raise SystemExit("killed")
        return step(given)

    monkeypatch.setattr(killed, "train_step", dies)
    with pytest.raises(SystemExit):
        killed.run()
    resumed = _training(stage, tmp_path / "killed", *options)
    assert resumed.step == 2
    resumed.run()
    one, other = _tensors(whole), _tensors(resumed)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    _training("teacher", tmp_path, "run.log_every=1", "run.save_every=2").run()
    whole = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines() if "train" in line]
    assert whole == [1, 2, 3, 4, 5, 6]
    watch = loop.Watch(tmp_path, 4, tensorboard=False)
    watch.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_a_stopped_run_saves_and_goes_on(tmp_path: Path) -> None:
    training = _training("teacher", tmp_path)
    step = training.train_step
    training.train_step = lambda given: setattr(training, "stop", training.step >= 2) or step(given)
    training.run()
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 3
    resumed = _training("teacher", tmp_path)
    resumed.run()
    assert resumed.step == 6


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    _training("teacher", tmp_path).run()
    with pytest.raises(ConfigError, match="holds a run with other values of optimiser.weight_decay; choose another run.out"):
        _training("teacher", tmp_path, "optimiser.weight_decay=0.5")
    assert _training("teacher", tmp_path, "run.log_every=3", "data.workers=2").step == 6


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_batch(tmp_path: Path) -> None:
    training = _training("teacher", tmp_path, "run.save_every=1")
    good = training.train_step
    maker = loop.BatchMaker(training.config, MadeUp(12), None)
    good([maker.batch(0)])
    bad = maker.batch(1)
    bad.image[0, 0, 5, 5] = torch.nan
    before = {name: value.clone() for name, value in training._model.state_dict().items()}
    with pytest.raises(NotANumber, match="losses at step 1: .*total nan; the batch is in .*lower the learning rate"):
        good([bad])
    saved = load_file(tmp_path / "rank0_not_a_number.safetensors")
    np.testing.assert_array_equal(saved["image"].numpy(), bad.image.numpy())
    parameters = {name for name, _ in training._model.named_parameters()}
    assert all(torch.equal(value, before[name]) for name, value in training._model.state_dict().items() if name in parameters)


def test_a_gradient_that_is_not_a_number_reaches_neither_weights_nor_checkpoint(tmp_path: Path) -> None:
    training = _training("teacher", tmp_path)
    next(training._model.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NotANumber, match="losses at step 0: gradient_norm nan"):
        training.train_step([loop.BatchMaker(training.config, MadeUp(12), None).batch(0)])
    assert all(torch.isfinite(parameter).all() for parameter in training._model.parameters())


def test_a_finished_run_is_left_as_it_is_to_the_byte(tmp_path: Path, monkeypatch) -> None:
    _training("teacher", tmp_path).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("training.checkpoint.git_revision", lambda: "another")
    _training("teacher", tmp_path).run()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_a_run_started_from_is_kept_by_role_and_a_resumed_run_adds_to_it(tmp_path: Path, monkeypatch) -> None:
    for name in ("one", "two"):
        _training("teacher", tmp_path / name, f"run.seed={len(name) + ord(name[0])}").run()
    files = [f"network.{key}={tmp_path / name / 'checkpoint.safetensors'}" for key, name in (("initial", "one"), ("frozen_encoder", "two"))]
    started = _training("student", tmp_path / "s", *files)
    started.out.mkdir()
    started.save()  # a run of no steps yet
    assert len(set(started._origin["files"].values())) == 2
    (tmp_path / "one" / "checkpoint.safetensors").unlink()
    monkeypatch.setattr(loop, "git_revision", lambda: "later")
    resumed = _training("student", tmp_path / "s", *files)
    assert resumed._origin == {**started._origin, "resumed_by": ["later"]}
    (tmp_path / "two" / "checkpoint.safetensors").write_bytes((tmp_path / "s" / "checkpoint.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="network.frozen_encoder's content"):
        _training("student", tmp_path / "s", *files)


def test_other_data_or_processes_are_refused(tmp_path: Path, monkeypatch) -> None:
    tmp_path.joinpath("run").mkdir()
    _training("teacher", tmp_path / "run").save()
    monkeypatch.setattr(loop, "open_labelled", lambda texts: MadeUp(8))
    with pytest.raises(ConfigError, match="other values of data.labelled's content, data.validation's content"):
        _training("teacher", tmp_path / "run")
    monkeypatch.setattr(loop, "open_labelled", lambda texts: MadeUp(12))
    two = loop.Process(0, 2, torch.device("cpu"))
    monkeypatch.setattr(loop.Process, "wrap", lambda self, model: model)
    with pytest.raises(ConfigError, match=r"the number of processes \(1, now 2\)"):
        Training(load_config("teacher", None, _overrides("teacher", tmp_path / "run")), two)


def test_half_a_line_in_the_log_does_not_stop_a_resumed_run(tmp_path: Path) -> None:
    training = _training("teacher", tmp_path, "run.log_every=1")
    training.run()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "gro')
    loop.Watch(tmp_path, 6, tensorboard=False).close()
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6, 6]


def test_why_samples_were_skipped_is_in_the_log(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(loop, "open_labelled", lambda texts: MadeUp(12, broken=(1, 2)))
    _training("teacher", tmp_path, "run.log_every=6").run()
    line = next(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines() if "skipped" in line)
    assert line["skipped"]["made to fail"] >= 4, "two of twelve, seen twice, and replacements that are broken, too"
    assert caplog.text.count("made to fail; more with this reason") == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="run.out: cannot make the folder"):
        _training("teacher", tmp_path / "file" / "run").run()


def test_sizes_that_the_network_cannot_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data.sizes_hw has 50x96; this network needs multiples of 32"):
        _training("teacher", tmp_path, "data.sizes_hw=[[50, 96]]")


def _assert_same_gradients(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Compare after one step, when Adam's first moment is a tenth of the gradient (weights may differ where the gradient is noise)."""
    moments = [name for name in one if name.endswith("exp_avg")]
    largest = max(float(one[name].abs().max()) for name in moments)
    for name in moments:
        torch.testing.assert_close(other[name], one[name], rtol=1e-3, atol=1e-5 * largest, msg=name)


def test_accumulated_batches_are_one_large_one(tmp_path: Path) -> None:
    vit = ["network.name=vits", VIT, "data.sizes_hw=[[56, 56]]", "run.steps=1"]
    one = _training("teacher", tmp_path / "one", *vit, "data.labelled_per_batch=8")
    two = _training("teacher", tmp_path / "two", *vit, "data.labelled_per_batch=4", "optimiser.accumulate=2")
    one.run()
    two.run()
    _assert_same_gradients(_tensors(one), _tensors(two))


def test_bf16_autocast_trains(tmp_path: Path) -> None:
    vit = ["network.name=vits", VIT, "data.sizes_hw=[[56, 56]]", "run.precision=bf16"]
    assert _training("teacher", tmp_path, *vit).run()["abs_rel"] > 0


def test_tensorboard_holds_scalars_and_a_panel(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="reads what was written for TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _training("teacher", tmp_path, "run.tensorboard=true", "run.log_every=2").run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/total")] == [2, 4, 6]
    assert events.Images("validation/panel")[0].width == 4 * 96


TORCHRUN = """
import sys
from training import loop, stage
from tests.training.made_up import MadeUp
loop.open_labelled = lambda texts: MadeUp(12)
raise SystemExit(stage.run_stage("teacher", "", sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    vit = ["network.name=vits", VIT, "data.sizes_hw=[[56, 56]]", "run.steps=1"]
    alone = _training("teacher", tmp_path / "alone", *vit, "data.labelled_per_batch=4")
    alone.run()
    (tmp_path / "run.py").write_text(TORCHRUN)
    values = alone.config.to_dict()
    values["data"]["labelled_per_batch"], values["run"]["out"] = 2, str(tmp_path / "two")
    (tmp_path / "c.yaml").write_text(json.dumps(values))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += [str(tmp_path / "run.py"), "--config", str(tmp_path / "c.yaml")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    _assert_same_gradients(_tensors(alone), read_checkpoint(tmp_path / "two" / "checkpoint.safetensors")[0])


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_run_that_gets_sigterm_saves_and_the_same_command_goes_on(whole_group: bool, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(TORCHRUN)
    arguments = [COMPACT, "data.sizes_hw=[[64, 96]]", "data.labelled_per_batch=4", "run.tensorboard=false", "run.log_every=1", "run.steps=400"]
    command = [sys.executable, str(tmp_path / "run.py"), *[item for text in [*arguments, f"run.out={tmp_path / 'out'}"] for item in ("--set", text)]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    log = tmp_path / "out" / "log.jsonl"
    try:
        for _ in range(600):
            if process.poll() is not None or (log.exists() and len(log.read_text().splitlines()) > 3):
                break
            signal.sigtimedwait([], 0.1)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
        assert process.wait(60) == 130, process.stderr.read()[-2000:]
    finally:
        process.kill()
    step = json.loads((tmp_path / "out" / "checkpoint.json").read_text())["step"]
    assert 3 < step < 400
