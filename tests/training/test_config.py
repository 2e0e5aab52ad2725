"""Configuration: sections, overrides, refusals, and what a resumed run may change."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")

from depth_anything_ros.errors import ConfigError
from training.config import config_from_dict, load_config


def test_overrides_go_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("optimiser: {learning_rate: 1.0e-3, warmup_steps: 7}\nperturb: {hue: 0.1}\n")
    config = load_config("student", path, ["optimiser.learning_rate=2e-4", "data.sizes_hw=[[64, 96]]"])
    assert (config.optimiser.learning_rate, config.optimiser.warmup_steps, config.perturb.hue) == (2e-4, 7, 0.1)
    assert config.data.sizes_hw == ((64, 96),)
    assert config.optimiser.decoder_factor == 10.0


def test_plain_values_make_the_same_configuration_again() -> None:
    config = load_config("metric", None, ["data.labelled=[shards:a, shards:b]", "metric.kind=depth_m"])
    assert config_from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.learning_rte=1", "optimiser.learning_rte: unexpected keyword argument"),
        ("optimiser.learning_rate=-1", "optimiser.learning_rate: input should be greater than 0 \\(got -1\\)"),
        ("optimiser.learning_rate=fast", "optimiser.learning_rate: input should be a valid number"),
        ("network.name=vitx", "network.name: input should be 'compact', 'vits'"),
        ("perturb.hoe=1", "perturb.hoe: unexpected"),
        ("perturb.jitter_probability=7", "perturb.jitter_probability: input should be less than or equal to 1"),
        ("perturb.cutmix_area=[0.9, 5]", "perturb.cutmix_area.1: input should be less than 1"),
        ("perturb.blur_sigma_px=[0, 0]", "perturb.blur_sigma_px.0: input should be greater than 0"),
        ("data.sizes_hw=[]", "data.sizes_hw: tuple should have at least 1 item"),
        ("data.pseudo_per_batch=0", "data.pseudo_per_batch: input should be greater than or equal to 1"),
        ("data.labelled=['a", "the value is no YAML"),
        ("optimizer.learning_rate=1", "optimizer: unexpected"),
        ("steps", "'steps' is not section.key=value"),
        ("stage.x=1", "'stage.x=1' is not section.key=value"),
    ],
)
def test_wrong_overrides_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("teacher", None, [override])


def test_a_file_of_another_stage_or_of_no_sections_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("stage: teacher\n")
    with pytest.raises(ConfigError, match="for the stage 'teacher', not 'student'"):
        load_config("student", path)
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds no sections"):
        load_config("student", path)
    with pytest.raises(ConfigError, match="cannot read configuration"):
        load_config("student", tmp_path / "none.yaml")


def test_differences_name_what_decides_the_result_and_nothing_else() -> None:
    config = load_config("teacher", None, ["run.out=a", "data.workers=4", "run.threads=1"])
    other = load_config("teacher", None, ["optimiser.accumulate=2", "run.seed=1"])
    assert config.differences(other.to_dict()) == ["optimiser.accumulate", "run.seed"]
    assert config.differences(load_config("teacher").to_dict()) == []
