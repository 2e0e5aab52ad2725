"""One frame and everything that made it, in a folder: what a bug report needs."""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticStatus

from depth_anything_ros import __version__

from .config import PARAMETERS, RuntimeConfig
from .engines import Engine
from .errors import ConfigError
from .outputs import FrameResult
from .rays import ImageCamera
from .structs import DepthMap, RgbFrame


class Snapshots:
    """Keeps a camera's newest result and saves it when asked. The worker's thread owns it."""

    def __init__(self, camera: str = "") -> None:
        """Start without a frame. A camera with a name has a folder of its own."""
        self._camera = camera
        self.newest: FrameResult | None = None

    def save(self, engine: Engine | None, diagnostics: DiagnosticStatus) -> str:
        """Write the newest frame into a new folder under `snapshot.dir`, or the camera's folder there, named by the image's stamp.

        Args:
            engine: that made it, None while the node is not configured.
            diagnostics: the camera's.

        Returns:
            The folder's path: image.png, depth.npy (metres) or relative.npy (no unit), cloud.ply, parameters.yaml, versions.json. What the
            frame did not have is named in versions.json.

        Raises:
            ConfigError: no frame came through since the node was configured.
            OSError: the folder cannot be written.
        """
        result = self.newest
        if engine is None or result is None:
            raise ConfigError("there is no frame to save: none came through since the node was configured")
        parent = Path(result.config.snapshot.dir or ".").resolve() / self._camera
        seconds, nanoseconds = divmod(result.frame.stamp_ns, 1_000_000_000)
        parent.mkdir(parents=True, exist_ok=True)
        folder = _free_name(parent / f"{seconds}.{nanoseconds:09d}")
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        partial.mkdir()
        try:
            left_out = _write(partial, result)
            (partial / "parameters.yaml").write_text(parameters_yaml(result.config))
            told = {"left_out": left_out, "diagnostics": {pair.key: pair.value for pair in diagnostics.values}}
            (partial / "versions.json").write_text(json.dumps(_versions(engine) | told, indent=2))
            partial.rename(folder)  # a folder under its own name is complete
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return str(folder)


def parameters_yaml(config: RuntimeConfig) -> str:
    """Return all parameters as a file for `--params-file` that starts a node with this camera alone.

    Empty lists, which ROS cannot read from a file, are their own default.
    """
    values = {name: config.value(name) for name in PARAMETERS if name != "cameras"}
    lines = [f"    {name}: {json.dumps(value)}" for name, value in values.items() if value != ()]  # JSON is YAML
    return "\n".join(["/**:", "  ros__parameters:", *lines]) + "\n"


def ply_from_points(points: npt.NDArray[np.float32], rgb: npt.NDArray[np.uint8]) -> bytes:
    """Return a binary PLY file of (N, 3) points in metres with (N, 3) uint8 colours."""
    vertices = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"], vertices["rgb"] = points, rgb
    properties = [*(f"property float {axis}" for axis in "xyz"), *(f"property uchar {color}" for color in ("red", "green", "blue"))]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes()


def _write(folder: Path, result: FrameResult) -> dict[str, str]:
    """Write image, map and cloud; returns why a file is missing, by its name."""
    left_out = {}
    _, png = cv2.imencode(".png", cv2.cvtColor(result.frame.rgb, cv2.COLOR_RGB2BGR))
    (folder / "image.png").write_bytes(png.tobytes())
    prediction, camera = result.prediction, result.calibration.camera
    if prediction.relative is not None:
        np.save(folder / "relative.npy", prediction.relative.values)
    if prediction.depth is None:
        left_out["depth.npy"] = left_out["cloud.ply"] = prediction.no_depth_reason or "nobody subscribed to what is made of it"
        return left_out
    np.save(folder / "depth.npy", prediction.depth.values)
    if camera is None:
        left_out["cloud.ply"] = result.calibration.problem
    else:
        (folder / "cloud.ply").write_bytes(_ply(prediction.depth, camera, result.frame))
    return left_out


def _ply(depth: DepthMap, camera: ImageCamera, frame: RgbFrame) -> bytes:
    rays = camera.ray_table(depth.size_hw).xy
    points = np.dstack([rays * depth.values[..., None], depth.values])
    rgb = cv2.resize(frame.rgb, depth.size_hw[::-1], interpolation=cv2.INTER_AREA)
    known = np.isfinite(points).all(axis=-1)
    return ply_from_points(points[known], rgb[known].astype(np.uint8))


def _versions(engine: Engine) -> dict[str, Any]:
    return {
        "depth_anything_ros": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "ros_distro": os.environ.get("ROS_DISTRO", ""),
        "machine": platform.platform(),
        "engine": engine.name,
        "engine_platform": engine.platform,
        "model": {"name": engine.contract.name, "kind": engine.contract.output_kind, "sha256": engine.model_sha256},
    }


def _free_name(folder: Path) -> Path:
    """Return a path that does not exist: the one given, or with a number behind it."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}_{number}")
    return free
