"""Stage 5/6: depth + camera + parameters -> the points and the scan that navigation takes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .config import CameraConfig, RuntimeConfig
from .edges import with_far_policy
from .errors import ConfigError
from .geometry import CloudBuilder, Level, scaled
from .laser_scan import Scan, ScanBuilder
from .rays import ImageCamera

Array = npt.NDArray[np.float32]


def level_of(camera: CameraConfig) -> Level:
    """Return how the camera stands.

    Raises:
        ConfigError: its height is not given.
    """
    if camera.height_m == 0:
        raise ConfigError("heights above the floor need camera.height_m: set it, with camera.roll_deg and camera.pitch_deg")
    return Level.from_roll_pitch(math.radians(camera.roll_deg), math.radians(camera.pitch_deg), camera.height_m)


def points_from_depth(
    build: CloudBuilder,
    depth_m: Array,
    camera: ImageCamera,
    rgb: npt.NDArray[np.uint8] | None,
    config: RuntimeConfig,
    range_limit_m: float | None,
) -> Array:
    """Return the points of a depth image as the parameters `cloud` and `camera` want them.

    Args:
        build: keeps what the next frame needs again; it owns the result.
        depth_m: (H, W) float32 metres along +Z, NaN = unknown, +Inf = beyond range; not changed.
        camera: of the image, whose size may be another one.
        rgb: (H', W', 3) uint8 of the same view, any size; used where the points have a colour.
        config: all parameters.
        range_limit_m: of the depth, see `pipeline.Prediction`: no point is clamped farther away than this.

    Returns:
        See `geometry.CloudBuilder`.
    """
    cloud, size_hw = config.cloud, (depth_m.shape[0], depth_m.shape[1])
    view = scaled(camera.intrinsics, size_hw) if camera.lens == "pinhole" else camera.ray_table(size_hw, cloud.stride).xy
    if cloud.far_policy == "clamp":
        depth_m = with_far_policy(depth_m, "clamp", cloud.max_m if range_limit_m is None else min(cloud.max_m, range_limit_m))
    level, height_m = level_of(config.camera) if cloud.has_heights else None, (cloud.min_height_m, cloud.max_height_m)
    return build(depth_m, view, rgb if cloud.fields == "xyzrgb" else None, cloud.stride, (cloud.min_m, cloud.max_m or math.inf), level, height_m)


def scan_from_depth(build: ScanBuilder, depth_m: Array, camera: ImageCamera, config: RuntimeConfig, range_limit_m: float | None) -> Scan:
    """Return the scan of a depth image as the parameters `scan` and `camera` want it.

    Args:
        build: keeps what the next frame needs again.
        depth_m: (H, W) float32 metres along +Z, NaN = unknown, +Inf = beyond range.
        camera: of the image, whose size may be another one.
        config: all parameters.
        range_limit_m: of the depth, see `pipeline.Prediction`: what is +Inf proves no more than this to be free.

    Raises:
        ConfigError: the camera's height is not given, or `laser_scan.ScanBuilder` cannot make a scan with it.
    """
    scan, rays = config.scan, camera.ray_table((depth_m.shape[0], depth_m.shape[1])).xy
    heights_m, range_m = (scan.min_height_m, scan.max_height_m), (scan.min_m, scan.max_m)
    return build(depth_m, rays, level_of(config.camera), heights_m, range_m, math.inf if range_limit_m is None else range_limit_m)
