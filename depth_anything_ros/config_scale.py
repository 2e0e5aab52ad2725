"""The sections of `config` about the scale: how depth becomes metric, and stays so from frame to frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .config_parameter import param as _param
from .errors import ConfigError


@dataclass(frozen=True)
class ReferenceConfig:
    """The sensor that `scale.mode` reference measures against."""

    type: str = _param(
        "scan",
        "what arrives on the topic reference: LaserScan, PointCloud2, Range, or a depth image of the same view",
        choices=("scan", "cloud", "range", "depth_image"),
    )
    max_dt_s: float = _param(0.1, "seconds between an image and the sensor's message (also of the topic imu), at most", limits=(0.001, 10.0))
    max_error: float = _param(0.2, "a point agrees where its inverse depth is off by at most this share", limits=(0.01, 0.5))
    min_points: int = _param(20, "a frame with fewer usable points says nothing about the scale", limits=(2, 100000))
    min_inlier_ratio: float = _param(0.5, "share of the points that must agree", limits=(0.3, 1.0))
    min_depth_ratio: float = _param(1.5, "the farthest tenth of the agreeing points is this many times as far as the nearest", limits=(1.05, 100.0))
    translation_m: tuple[float, ...] = _param((), "x, y, z of the sensor in the camera's optical frame, metres; empty = from TF")
    quat_xyzw: tuple[float, ...] = _param((), "x, y, z, w of the sensor's rotation into the camera's optical frame; empty = from TF")

    def __post_init__(self) -> None:
        """Refuse half a transform; nothing stands for the identity."""
        given = len(self.translation_m), len(self.quat_xyzw)
        if given not in ((0, 0), (3, 4)):
            raise ConfigError(f"scale.reference.translation_m and quat_xyzw have {given[0]} and {given[1]} numbers: give 3 and 4, or none for TF")
        if self.quat_xyzw and not abs(math.hypot(*self.quat_xyzw) - 1) < 1e-3:
            raise ConfigError(f"scale.reference.quat_xyzw: {list(self.quat_xyzw)} is not a quaternion of length 1")


@dataclass(frozen=True)
class GroundConfig:
    """The floor that `scale.mode` ground_plane measures against."""

    source: str = _param(
        "parameters",
        "parameters: camera.height_m, pitch_deg and roll_deg; tf: the pose in scale.ground.frame; imu: camera.height_m, and down from the topic imu",
        choices=("parameters", "tf", "imu"),
    )
    frame: str = _param("base_footprint", "source tf: the frame whose z = 0 is the floor, z up")
    max_m: float = _param(10.0, "metres; floor that is farther away is not used", limits=(0.5, 100.0))
    max_error: float = _param(0.1, "see scale.reference.max_error", limits=(0.01, 0.5))
    min_points: int = _param(200, "see scale.reference.min_points", limits=(2, 100000))
    min_inlier_ratio: float = _param(0.4, "share of what should show the floor that must show it", limits=(0.2, 1.0))
    min_depth_ratio: float = _param(1.5, "see scale.reference.min_depth_ratio", limits=(1.05, 100.0))


@dataclass(frozen=True)
class ScaleConfig:
    """How depth becomes metric."""

    mode: str = _param(
        "model",
        "model: the model is metric; fixed: use scale.factor and scale.offset; reference: measure against a sensor; "
        "ground_plane: against the floor; none: a relative model stays relative",
        choices=("model", "fixed", "reference", "ground_plane", "none"),
    )
    factor: float = _param(1.0, "fixed mode: depth = factor * depth + offset, or 1/depth = factor * disparity + offset", limits=(1e-6, 1e6))
    offset: float = _param(0.0, "fixed mode: see scale.factor; metres, or 1/metres for a relative model", limits=(-1e6, 1e6))
    filter_s: float = _param(0.5, "reference, ground_plane: time constant in seconds; 0 = each frame for itself", limits=(0.0, 60.0))
    max_jump: float = _param(0.25, "a scale that changes depth by more than this share must be seen in three frames", limits=(0.01, 10.0))
    max_age_s: float = _param(10.0, "seconds for which the last good scale is held; then no metric depth goes out", limits=(0.1, 3600.0))
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    ground: GroundConfig = field(default_factory=GroundConfig)


@dataclass(frozen=True)
class TemporalConfig:
    """Stability from frame to frame."""

    mode: str = _param(
        "off",
        "off: each frame for itself; align: one scale for all frames; filter: pixels that do not change are averaged, too",
        choices=("off", "align", "filter"),
    )
    memory_s: float = _param(1.0, "time constant of the averages in seconds", limits=(0.05, 60.0))
    depth_change: float = _param(0.1, "filter: a depth that changes by this share is taken as it is", limits=(0.01, 0.5))


@dataclass(frozen=True)
class ConfidenceConfig:
    """How sure a pixel must be."""

    min: float = _param(0.0, "points whose confidence (see depth/confidence) is lower are left out of cloud and scan; 0 = none", limits=(0.0, 1.0))
