"""The only place where a parameter's default, range, unit and text are written.

ROS parameters, YAML keys, live updates and the README's table all come from `RuntimeConfig`: a nested key is the dotted
path of its field (`cloud.stride` is `RuntimeConfig.cloud.stride`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

from .config_parameter import Parameter
from .config_parameter import param as _param
from .config_scale import ConfidenceConfig, ScaleConfig, TemporalConfig
from .errors import ConfigError

LOWEST_M, HIGHEST_M = -100.0, 100.0
"""Metres above the floor: limits of heights, which leave nothing out."""


@dataclass(frozen=True)
class OnnxRuntimeConfig:
    """The `onnxruntime` engine."""

    providers: tuple[str, ...] = _param(
        ("CPUExecutionProvider",), "onnxruntime execution providers, most wanted first; one that cannot be used is an error", "configure"
    )
    threads: int = _param(0, "threads of one inference; 0 = one per core", "configure", (0, 256))


@dataclass(frozen=True)
class TensorRtConfig:
    """The `tensorrt` engine."""

    workspace_mib: int = _param(1024, "MiB of GPU memory that a layer may use as scratch space", "configure", (16, 65536))
    optimisation_level: int = _param(3, "how long the builder searches: 0 builds fastest, 5 runs fastest", "configure", (0, 5))
    build_timeout_s: float = _param(3600.0, "seconds after which the build of an engine gives up", "configure", (1.0, 86400.0))
    cache_dir: str = _param("", "folder of the built engines; empty = depth_anything_ros/engines in the user's cache directory", "configure")
    cache_max_mib: int = _param(4096, "MiB that the folder may hold; beyond it, the least recently used engines go", "configure", (16, 1048576))
    gpu_stages: str = _param(
        "auto",
        "the stages around the network: auto: on the GPU where NVRTC is installed and fits the driver, otherwise in numpy; "
        "on: on the GPU or not at all; off: in numpy",
        "configure",
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True)
class SyntheticConfig:
    """The `synthetic` engine, for tests and for measuring the node itself."""

    delay_ms: float = _param(0.0, "time that one inference takes, in milliseconds", "configure", (0.0, 60000.0))
    output_kind: str = _param("depth_m", "what the engine says its output is", "configure", choices=("depth_m", "disparity_affine_invariant"))


@dataclass(frozen=True)
class SnapshotConfig:
    """The service save_snapshot."""

    dir: str = _param("", "folder in which save_snapshot makes its folders; empty = the node's current directory")


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
    max_m: float = _param(0.0, "metres along Z; farther points are NaN (see cloud.far_policy); 0 = no limit", limits=(0.0, 10000.0))
    far_policy: str = _param(
        "nan",
        "farther than cloud.max_m: nan: no point; clamp: a point there, or where the depth's own limit is if that is nearer, which Nav2 clears up to",
        choices=("nan", "clamp"),
    )
    min_height_m: float = _param(LOWEST_M, "metres above the floor; lower points are NaN; needs camera.height_m", limits=(LOWEST_M, HIGHEST_M))
    max_height_m: float = _param(HIGHEST_M, "metres above the floor; higher points are NaN; needs camera.height_m", limits=(LOWEST_M, HIGHEST_M))
    max_hz: float = _param(0.0, "most clouds a second; 0 = one for every depth image", limits=(0.0, 1000.0))

    @property
    def has_heights(self) -> bool:
        """Whether some heights make no points."""
        return (self.min_height_m, self.max_height_m) != (LOWEST_M, HIGHEST_M)


@dataclass(frozen=True)
class CameraConfig:
    """What camera_info does not say: what was done to the image, and how the camera is mounted."""

    image: str = _param(
        "auto",
        "raw: K and distortion of camera_info count; rectified: P; auto: rectified where the topic's last part begins with image_rect",
        choices=("auto", "raw", "rectified"),
    )
    height_m: float = _param(
        0.0, "metres of the camera above the floor; 0 = unknown: no scan, no cloud heights, no scale from the ground", limits=(0.0, HIGHEST_M)
    )
    roll_deg: float = _param(0.0, "degrees; positive: the camera is tipped to its right (REP 103)", limits=(-180.0, 180.0))
    pitch_deg: float = _param(0.0, "degrees; positive: the camera looks down (REP 103)", limits=(-89.0, 89.0))


@dataclass(frozen=True)
class EdgesConfig:
    """Depth between two surfaces, which enlarging makes ("flying pixels")."""

    mode: str = _param(
        "off", "depth between two surfaces: off: stays; snap: gets the nearer pixel's surface; cut: is unknown", choices=("off", "snap", "cut")
    )
    jump: float = _param(0.1, "neighbouring depths of the network that differ by more than this share are two surfaces", limits=(0.001, 1.0))


@dataclass(frozen=True)
class ScanConfig:
    """The laser scan."""

    frame_id: str = _param("", "frame of the scan: at the camera, level, x where it looks; empty = <camera frame>_level")
    min_height_m: float = _param(0.1, "metres above the floor; what is lower is no obstacle", limits=(LOWEST_M, HIGHEST_M))
    max_height_m: float = _param(1.0, "metres above the floor; what is higher is no obstacle", limits=(LOWEST_M, HIGHEST_M))
    min_m: float = _param(0.2, "metres on the level; what is nearer is left out", limits=(0.0, 1000.0))
    max_m: float = _param(8.0, "metres on the level; a bearing that is free as far is +Inf", limits=(0.01, 1000.0))


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
    engine: str = _param("onnxruntime", "inference engine: onnxruntime, tensorrt or synthetic", "configure")
    self_check: str = _param(
        "fail",
        "an engine whose numbers differ from those that the model file promises: fail: is not used; warn: is used; off: is not looked for",
        "configure",
        choices=("fail", "warn", "off"),
    )
    autostart: bool = _param(True, "configure and activate at start; false: wait for lifecycle transitions", "start")
    cameras: tuple[str, ...] = _param(
        (), "names of several cameras; the camera front has the topics front/image, front/depth/image and so on; empty = one camera", "start"
    )
    batch_max: int = _param(
        0,
        "several cameras: most frames that go through the network at once where so many wait; 0 = one of each, but 1 with onnxruntime on the CPU, "
        "where a batch brings few more frames and makes all wait for the last",
        "configure",
        (0, 8),
    )
    image_transport: str = _param(
        "raw", "raw: subscribe to image; compressed: to image/compressed", "configure", choices=("raw", "compressed"), per_camera=True
    )
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
    tensorrt: TensorRtConfig = field(default_factory=TensorRtConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    edges: EdgesConfig = field(default_factory=EdgesConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    color: ColorConfig = field(default_factory=ColorConfig)
    snapshot: SnapshotConfig = field(default_factory=SnapshotConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)

    def __post_init__(self) -> None:
        """Check what one value alone cannot show."""
        if self.color.far_m <= self.color.near_m:
            raise ConfigError(f"color.far_m ({self.color.far_m:g}) must be above color.near_m ({self.color.near_m:g})")
        if 0 < self.cloud.max_m <= self.cloud.min_m:
            raise ConfigError(f"cloud.max_m ({self.cloud.max_m:g}) must be 0 or above cloud.min_m ({self.cloud.min_m:g})")
        if self.cloud.far_policy == "clamp" and self.cloud.max_m == 0:
            raise ConfigError("cloud.far_policy clamp needs cloud.max_m: where far points are put")
        if self.scale.mode == "ground_plane" and self.scale.ground.source != "tf" and self.camera.height_m == 0:
            raise ConfigError("scale.mode ground_plane needs camera.height_m above 0: measure the camera's height above the floor")
        if self.cloud.has_heights and self.camera.height_m == 0:
            raise ConfigError("cloud.min_height_m and cloud.max_height_m need camera.height_m")
        for name, low, high in (
            ("cloud.{}_height_m", self.cloud.min_height_m, self.cloud.max_height_m),
            ("scan.{}_height_m", self.scan.min_height_m, self.scan.max_height_m),
            ("scan.{}_m", self.scan.min_m, self.scan.max_m),
        ):
            if high <= low:
                raise ConfigError(f"{name.format('max')} ({high:g}) must be above {name.format('min')} ({low:g})")

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
        kind, of_numbers = tuple if isinstance(f.default, tuple) else hints[f.name], float in get_args(hints[f.name])
        about = f.metadata
        low, high = about["limits"] or (None, None)
        yield Parameter(
            *(prefix + f.name, kind, f.default, about["text"], about["when"], low, high, about["choices"], of_numbers, about["per_camera"])
        )


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
