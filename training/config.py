"""Configuration of a training run: frozen dataclasses in sections, overridden by a YAML file and by --set section.key=value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from depth_anything_ros.errors import ConfigError

from .data.perturb import PerturbConfig

Stage = Literal["encoder", "teacher", "student", "metric"]
NetworkName = Literal["compact", "vits", "vitb", "vitl", "vitg"]
AtLeast0 = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
_STRICT_KEYS = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is trained, and where its weights come from.

    Attributes:
        name: `compact` (convolutional, for CPUs) or a Depth Anything network by its DINOv2 encoder.
        version: which encoder blocks a Depth Anything network reads: `v1` or `v2`.
        architecture: values of `DepthAnythingArchitecture.to_dict()`, or of `CompactStudent`, in place of the published ones.
        initial: checkpoint of this package, DINOv2's .pth, or Depth Anything weights (.pth, .safetensors); empty: random weights.
        initial_parts: `encoder` alone, which re-initialises the decoder, or `all`.
        frozen_encoder: what the student's features are anchored to: a file as for `initial`; empty: no alignment.
    """

    name: NetworkName = "compact"
    version: Literal["v1", "v2"] = "v2"
    architecture: dict[str, Any] = field(default_factory=dict)
    initial: str = ""
    initial_parts: Literal["encoder", "all"] = "encoder"
    frozen_encoder: str = ""
    __pydantic_config__ = _STRICT_KEYS


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how it is cut.

    Attributes:
        labelled: sources, such as `shards:DIR` or `hypersim:DIR`; see `data/open_sources.py`. They are concatenated, not re-weighted.
        pseudo: pseudo-labels, as `LABELS::IMAGES`: an output folder of make_pseudo_labels and what it was made of. For the student,
            and, if wanted, for the metric stage.
        validation: sources of scenes that are not trained on.
        validation_images: how many of them are used, evenly spread.
        sizes_hw: (height, width) of the training images in pixels; one is drawn per batch. The first is what is exported.
        labelled_per_batch, pseudo_per_batch: images per process and batch. The paper's ratio is 1 to 2.
        min_zoom: smallest window that is cut out, as a fraction of the largest that fits; 1: the largest, anywhere (the paper's).
        camera_effects: colours, blur, noise and JPEG artefacts on labelled images. Off: flips alone, as in the paper.
        workers: processes that prepare batches; 0: none, the loop does it.
    """

    labelled: tuple[str, ...] = ()
    pseudo: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validation_images: Count = 256
    sizes_hw: Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=1)] = ((192, 256),)
    labelled_per_batch: Positive = 16
    pseudo_per_batch: Positive = 32
    min_zoom: Annotated[float, Field(gt=0, le=1)] = 1.0
    camera_effects: bool = False
    workers: Count = 1
    __pydantic_config__ = _STRICT_KEYS


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; 0 leaves a loss out. docs/training.md has the table of choices and sources.

    Attributes:
        gradient: of gradient matching beside the affine-invariant loss on labelled images; 0 in V1, 2 in V2.
        trim: share of the worst pixels of a pseudo-labelled image that is ignored; 0.1 in V2.
        margin: tokens whose cosine with the frozen encoder's is larger are left out of the alignment.
        silog, metric_affine, metric_gradient, beyond: of the metric stage; `beyond` acts in the sky and beyond range.
        stability: of the metric stage: every fourth image comes twice, the second time as a camera takes it a moment later, and the
            two depths should agree.
    """

    gradient: AtLeast0 = 0.0
    trim: Annotated[float, Field(ge=0, lt=1)] = 0.0
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.85
    silog: AtLeast0 = 1.0
    metric_affine: AtLeast0 = 0.0
    metric_gradient: AtLeast0 = 0.0
    beyond: AtLeast0 = 0.0
    stability: AtLeast0 = 0.0
    __pydantic_config__ = _STRICT_KEYS


@dataclass(frozen=True)
class MetricConfig:
    """What the metric stage's numbers mean.

    Attributes:
        kind: `depth_m` (metres of the camera as it is) or `depth_canonical_focal` (metres as seen by a camera of a fixed focal
            length; needs images whose focal length is known).
        max_depth_m: true metres; labels beyond it count as beyond range, and what is predicted beyond it is published as such.
        canonical_focal_px: focal length of the canonical camera at an image height of `canonical_height` pixels.
    """

    kind: Literal["depth_m", "depth_canonical_focal"] = "depth_canonical_focal"
    max_depth_m: Above0 = 80.0
    canonical_focal_px: Above0 = 300.0
    canonical_height: Positive = 288
    __pydantic_config__ = _STRICT_KEYS


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser and its schedule.

    Attributes:
        name: `adamw` (the paper's), or `muon`, with which small networks need far fewer steps; see `muon.py`.
        learning_rate: of the encoder.
        decoder_factor: the decoder's learning rate is this many times the encoder's.
        schedule: `linear` (to 0) or `cosine` (to 0.002 of the learning rate), over all steps.
        warmup_steps: linear rise at the start.
        weight_decay: of everything with more than one dimension.
        clip_norm: of the gradient.
        accumulate: batches per step.
        average_decay: of the averaged weights, which are the ones that are used; 0: none.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: Above0 = 5e-6
    decoder_factor: Above0 = 10.0
    schedule: Literal["linear", "cosine"] = "linear"
    warmup_steps: Count = 0
    weight_decay: AtLeast0 = 0.01
    clip_norm: Above0 = 1.0
    accumulate: Positive = 1
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    __pydantic_config__ = _STRICT_KEYS


@dataclass(frozen=True)
class RunConfig:
    """Where and how long.

    Attributes:
        out: folder for checkpoints, logs and records.
        seed: of weights, order of the images, crops and perturbations.
        steps: of the optimiser.
        device: `cpu` or `cuda`; under torchrun every process takes the CUDA device of its local rank.
        precision: `fp32`, or `bf16` for autocast.
        compile: let torch compile the network.
        threads: of torch on the CPU, per process.
        log_every, validate_every, save_every: steps; 0: never, but at the end.
        tensorboard: write scalars and panels for TensorBoard beside the JSON log.
    """

    out: str = "runs/run"
    seed: Count = 0
    steps: Positive = 10_000
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    threads: Positive = 2
    log_every: Count = 50
    validate_every: Count = 1000
    save_every: Count = 500
    tensorboard: bool = True
    __pydantic_config__ = _STRICT_KEYS


MAY_CHANGE = ("data.workers", *[f"run.{key}" for key in ("out", "device", "threads", "log_every", "validate_every", "save_every", "tensorboard")])
"""What a resumed run may have otherwise than the run that it continues."""


@dataclass(frozen=True)
class TrainingConfig:
    """One run. `perturb` is what happens to pseudo-labelled images; its table of choices is in `data/perturb.py`."""

    stage: Stage
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    metric: MetricConfig = field(default_factory=MetricConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)
    __pydantic_config__ = _STRICT_KEYS

    @property
    def retaken_per_batch(self) -> int:
        """How many of a batch's labelled images come a second time, after all others."""
        return -(-self.data.labelled_per_batch // 4) if self.stage == "metric" and self.loss.stability else 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """Return the keys, as section.key, in which a recorded configuration differs so that it cannot be continued with this one."""
        own, other = _flat(self.to_dict()), _flat(config_from_dict(recorded).to_dict())
        return sorted(key for key in own if key not in MAY_CHANGE and own[key] != other.get(key))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return {'section.key': value} of a configuration in plain values."""
    sections = {name: section for name, section in values.items() if isinstance(section, dict)}
    plain = {name: value for name, value in values.items() if name not in sections}
    return plain | {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


_ADAPTER = TypeAdapter(TrainingConfig)


def config_from_dict(values: dict[str, Any]) -> TrainingConfig:
    """Check plain values and build the configuration.

    Raises:
        ConfigError: an unknown key, or a value of a wrong type or out of its range; all of them are named.
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg'].lower()} (got {item['input']!r})" for item in error.errors()]
        raise ConfigError("training configuration: " + "; ".join(problems)) from error


def load_config(stage: Stage, path: Path | None = None, overrides: list[str] | None = None) -> TrainingConfig:
    """Read a YAML file with sections of `TrainingConfig`, then apply overrides.

    Args:
        stage: fixed by the command; a file of another stage is refused.
        path: YAML file.
        overrides: `section.key=value` each, value in YAML.

    Raises:
        ConfigError: the file cannot be read, or its content or an override is wrong.
    """
    values = _read_yaml(path) if path else {}
    if values.setdefault("stage", stage) != stage:
        raise ConfigError(f"'{path}' is for the stage '{values['stage']}', not '{stage}'")
    for override in overrides or []:
        name, equals, text = override.partition("=")
        section, _, key = name.partition(".")
        if not equals or not key or not isinstance(values.setdefault(section, {}), dict):
            raise ConfigError(f"'{override}' is not section.key=value, such as optimiser.learning_rate=1e-4")
        try:
            values[section][key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"'{override}': the value is no YAML ({error})") from error
    return config_from_dict(values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read configuration '{path}': {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"configuration '{path}' holds no sections")
    return {section: content for section, content in values.items() if content is not None}
