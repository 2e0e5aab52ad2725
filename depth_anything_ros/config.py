"""The only place where a parameter's default, range, unit and text are written.

ROS parameters, YAML keys, live updates and the README's table all come from `RuntimeConfig`: a nested key is the dotted
path of its field (`cloud.stride` is `RuntimeConfig.cloud.stride`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_type_hints

from .errors import ConfigError

When = Literal["live", "configure", "start"]
"""When a parameter may change: at any time, only while the node is unconfigured, or only at start (read-only)."""


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list of texts"}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its dotted name, type, default and what users may give it."""

    name: str
    type: type
    default: Any
    text: str
    when: When
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: Any) -> Any:  # noqa: ANN401 - any ROS parameter value
        """Return the value in the parameter's type.

        Raises:
            ConfigError: wrong type, not finite, out of range or not one of the choices.
        """
        if self.type is float and type(value) is int:
            value = float(value)
        if self.type is tuple and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            value = tuple(value)
        if type(value) is not self.type:
            raise ConfigError(f"{self.name}: {value!r} is not {_TYPE_NAMES[self.type]}")
        self._check_range(value)
        return value

    def _check_range(self, value: Any) -> None:  # noqa: ANN401
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.name}: {value} is not finite")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise ConfigError(f"{self.name}: {value} is outside {self.low:g} .. {self.high:g}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: '{value}' is not one of {', '.join(self.choices)}")


def _param(
    default: Any,  # noqa: ANN401
    text: str,
    when: When = "live",
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
) -> Any:  # noqa: ANN401 - a dataclass field stands for its value
    return field(default=default, metadata={"text": text, "when": when, "limits": limits, "choices": choices})


@dataclass(frozen=True)
class OnnxRuntimeConfig:
    """The `onnxruntime` engine."""

    providers: tuple[str, ...] = _param(
        ("CPUExecutionProvider",), "onnxruntime execution providers, most wanted first; one that cannot be used is an error", "configure"
    )
    threads: int = _param(0, "threads of one inference; 0 = one per core", "configure", (0, 256))


@dataclass(frozen=True)
class SyntheticConfig:
    """The `synthetic` engine, for tests and for measuring the node itself."""

    delay_ms: float = _param(0.0, "time that one inference takes, in milliseconds", "configure", (0.0, 60000.0))
    output_kind: str = _param("depth_m", "what the engine says its output is", "configure", choices=("depth_m", "disparity_affine_invariant"))


@dataclass(frozen=True)
class ScaleConfig:
    """How depth becomes metric."""

    mode: str = _param(
        "model",
        "model: the model is metric; fixed: use scale.factor and scale.offset; none: a relative model stays relative",
        choices=("model", "fixed", "none"),
    )
    factor: float = _param(1.0, "fixed mode: depth = factor * depth + offset, or 1/depth = factor * disparity + offset", limits=(1e-6, 1e6))
    offset: float = _param(0.0, "fixed mode: see scale.factor; metres, or 1/metres for a relative model", limits=(-1e6, 1e6))


@dataclass(frozen=True)
class DepthConfig:
    """The depth image."""

    encoding: str = _param("32FC1", "32FC1: metres, NaN unknown, +Inf beyond range; 16UC1: millimetres, 0 unknown", choices=("32FC1", "16UC1"))
    max_m: float = _param(0.0, "metres; farther is +Inf (beyond range); 0 = the model's own limit", limits=(0.0, 10000.0))
    downsample: int = _param(1, "the depth image has 1/n of the input's width and height; camera_info is scaled with it", limits=(1, 8))


@dataclass(frozen=True)
class CloudConfig:
    """The point cloud."""

    fields: str = _param("xyzrgb", "fields of a point", choices=("xyz", "xyzrgb"))
    stride: int = _param(1, "one point for every n-th pixel of the depth image, in both directions", limits=(1, 64))
    min_m: float = _param(0.0, "metres along Z; nearer points are NaN", limits=(0.0, 10000.0))
    max_m: float = _param(0.0, "metres along Z; farther points are NaN; 0 = no limit", limits=(0.0, 10000.0))


@dataclass(frozen=True)
class ColorConfig:
    """The picture to look at."""

    colormap: str = _param("turbo", "colours from far to near", choices=("turbo", "inferno", "viridis", "gray"))
    near_m: float = _param(0.3, "metres shown in the nearest colour (metric depth)", limits=(0.01, 1000.0))
    far_m: float = _param(10.0, "metres shown in the farthest colour (metric depth)", limits=(0.02, 10000.0))


@dataclass(frozen=True)
class DiagnosticsConfig:
    """The /diagnostics topic."""

    period_s: float = _param(1.0, "seconds between two diagnostics messages", "start", (0.1, 60.0))
    stale_after_s: float = _param(1.5, "seconds without an image before the node reports STALE", limits=(0.2, 3600.0))


@dataclass(frozen=True)
class RuntimeConfig:
    """All parameters of the node."""

    model: str = _param("", "path of the ONNX model; empty = the model inside the package", "configure")
    engine: str = _param("onnxruntime", "inference engine: onnxruntime or synthetic", "configure")
    autostart: bool = _param(True, "configure and activate at start; false: wait for lifecycle transitions", "start")
    image_transport: str = _param("raw", "raw: subscribe to image; compressed: to image/compressed", "configure", choices=("raw", "compressed"))
    frame_policy: str = _param("latest", "latest: newest frame, drop the rest; all: every frame in order", "start", choices=("latest", "all"))
    frame_queue_max: int = _param(
        100, "frame_policy all: frames that may wait (in memory, as the camera sent them); more are dropped and counted", "configure", (1, 1000000)
    )
    fallback_hfov_deg: float = _param(
        60.0,
        "degrees; field of view for a model that needs the focal length while camera_info is missing or unusable; 0 = publish no metric depth then",
        limits=(0.0, 170.0),
    )
    onnxruntime: OnnxRuntimeConfig = field(default_factory=OnnxRuntimeConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    color: ColorConfig = field(default_factory=ColorConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)

    def __post_init__(self) -> None:
        """Check what one value alone cannot show."""
        if self.color.far_m <= self.color.near_m:
            raise ConfigError(f"color.far_m ({self.color.far_m:g}) must be above color.near_m ({self.color.near_m:g})")
        if 0 < self.cloud.max_m <= self.cloud.min_m:
            raise ConfigError(f"cloud.max_m ({self.cloud.max_m:g}) must be 0 or above cloud.min_m ({self.cloud.min_m:g})")

    def updated(self, values: Mapping[str, Any]) -> RuntimeConfig:
        """Return a configuration with some parameters changed, all checked together.

        Args:
            values: new values by dotted name.

        Raises:
            ConfigError: unknown name, a bad value, or values that contradict each other.
        """
        checked = {}
        for name, value in values.items():
            if name not in PARAMETERS:
                raise ConfigError(f"{name}: no such parameter")
            checked[name] = PARAMETERS[name].check(value)
        return _replaced(self, checked)

    def value(self, name: str) -> Any:  # noqa: ANN401
        """Return the value of a parameter by its dotted name."""
        found: Any = self
        for part in name.split("."):
            found = getattr(found, part)
        return found


def _replaced(node: Any, values: Mapping[str, Any], prefix: str = "") -> Any:  # noqa: ANN401
    changes: dict[str, Any] = {}
    for f in fields(node):
        name = prefix + f.name
        if is_dataclass(getattr(node, f.name)):
            changes[f.name] = _replaced(getattr(node, f.name), values, name + ".")
        elif name in values:
            changes[f.name] = values[name]
    return replace(node, **changes)


def _parameters(cls: type, prefix: str = "") -> Iterator[Parameter]:
    hints = get_type_hints(cls)
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            yield from _parameters(hints[f.name], f"{prefix}{f.name}.")
            continue
        kind = tuple if isinstance(f.default, tuple) else hints[f.name]
        low, high = f.metadata["limits"] or (None, None)
        yield Parameter(prefix + f.name, kind, f.default, f.metadata["text"], f.metadata["when"], low, high, f.metadata["choices"])


PARAMETERS: dict[str, Parameter] = {parameter.name: parameter for parameter in _parameters(RuntimeConfig)}
"""Every parameter by its dotted name, in the order of the table in the README."""


def markdown_table() -> str:
    """Return the README's table of parameters."""
    lines = ["| parameter | default | range | changes | meaning |", "|---|---|---|---|---|"]
    changes = {"live": "any time", "configure": "while unconfigured", "start": "at start"}
    for p in PARAMETERS.values():
        limits = ", ".join(p.choices) if p.choices else "" if p.low is None else f"{p.low:g} .. {p.high:g}"
        default = list(p.default) if p.type is tuple else p.default
        lines.append(f"| `{p.name}` | `{default!r}` | {limits} | {changes[p.when]} | {p.text} |".replace("`''`", "(empty)"))
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
