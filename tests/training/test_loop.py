"""The training loop on a handful of made-up images: it learns, resumes exactly, and stops on NaN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")
pytest.importorskip("yaml", reason="training needs yaml")
pytest.importorskip("trimesh", reason="training needs trimesh")
pytest.importorskip("moderngl", reason="shards are written by the renderer's module")

from depth_anything_ros.errors import ConfigError  # noqa: E402
from training.config import load_config  # noqa: E402
from training.data.labelled import Batch, BatchSource  # noqa: E402
from training.data.renderer import RenderedView  # noqa: E402
from training.data.scene import Camera  # noqa: E402
from training.data.shards import ShardWriter  # noqa: E402
from training.loop import NotANumber, StudentTraining  # noqa: E402
from training.train_student import main  # noqa: E402


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(folder, "made-up")
    rng = np.random.default_rng(0)
    for number in range(12):
        depth = np.linspace(6, 1, 32, dtype=np.float32)[:, None].repeat(64, 1) * rng.uniform(0.8, 1.2)
        depth[:4] = np.inf
        rgb = np.repeat((200 / np.minimum(depth, 10))[..., None], 3, 2) + rng.uniform(0, 20, (32, 64, 3))
        camera = Camera(np.eye(4), 40.0, 32.0, 16.0, (32, 64))
        writer.add(RenderedView(rgb.astype(np.uint8), depth.astype(np.float32), np.isinf(depth), camera), "made-up", number)
    writer.close()
    return folder


def _overrides(shards: Path, out: Path, **more: object) -> list[str]:
    values = {"data": shards, "validation": shards, "out": out, "height": 32, "batch_pixels": 4 * 32 * 64, "steps": 20}
    values |= {"learning_rate": 0.001, "warmup_steps": 2, "log_every": 5, "validate_every": 100, "threads": 1} | more
    return [f"{key}={value}" for key, value in values.items()]


def test_twenty_steps_lower_the_loss_and_leave_a_record(shards: Path, tmp_path: Path) -> None:
    arguments = [item for override in _overrides(shards, tmp_path) for item in ("--set", override)]
    assert main(arguments) == 0
    totals = [row["total"] for row in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()) if "total" in row]
    assert totals[-1] < 0.7 * totals[0]
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["step"], record["config"]["seed"]) == (20, 0)
    assert record["data"]["kinds"] == {"made-up": 12}
    assert set(record["validation"]) == {"abs_rel", "delta1", "metric_abs_rel", "metric_delta1"}


def test_a_resumed_run_ends_with_the_same_weights(shards: Path, tmp_path: Path) -> None:
    whole = StudentTraining(load_config(None, _overrides(shards, tmp_path / "whole", steps=6)))
    whole.run()
    half = StudentTraining(load_config(None, _overrides(shards, tmp_path / "half", steps=6)))
    source = BatchSource(shards, 0, 32, 4 * 32 * 64, half.focal)
    for step in range(3):
        half.train_step(source.batch(step))
    half.save()
    resumed = StudentTraining(load_config(None, _overrides(shards, tmp_path / "half", steps=6)))
    assert resumed.step == 3
    resumed.run()
    for one, two in zip(whole.average.state_dict().values(), resumed.average.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_a_number_stops_the_run(shards: Path, tmp_path: Path) -> None:
    training = StudentTraining(load_config(None, _overrides(shards, tmp_path)))
    image = torch.full((1, 3, 32, 64), torch.nan)
    with pytest.raises(NotANumber, match="at step 0"):
        training.train_step(Batch(image, torch.ones(1, 32, 64)))


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown training keys: learning_rte"):
        load_config(None, ["learning_rte=0.1"])
