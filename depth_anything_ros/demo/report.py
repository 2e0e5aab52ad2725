"""What the demonstration leaves behind: a contact sheet, a point cloud file and a summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import PointCloud2

from ..color import rgb_from_map
from ..meter import Percentiles
from ..structs import DepthMap
from .recorder import OUTCOMES, Recorder

ROWS = 4
TILE_WIDTH_PX = 420
Rgb = npt.NDArray[np.uint8]


def contact_sheet(recorder: Recorder) -> Rgb:
    """Return input | known depth, where there is one | depth, one row a frame, with a colour bar in metres.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    stamps = [stamp for stamp in recorder.samples if stamp in recorder.truths] or list(recorder.samples)
    chosen = [stamps[i] for i in np.linspace(0, len(stamps) - 1, min(ROWS, len(stamps))).astype(int)]
    shown = [recorder.samples[stamp][1] for stamp in chosen] + [recorder.truths[stamp] for stamp in chosen if stamp in recorder.truths]
    depths = np.concatenate([depth[::4, ::4].ravel() for depth in shown])
    near_m, far_m = np.percentile(depths[np.isfinite(depths)], (1, 99)) if np.isfinite(depths).any() else (0.5, 10.0)
    near_m, far_m = float(near_m), float(max(far_m, near_m * 1.1))
    rows = []
    for stamp in chosen:
        rgb, depth = recorder.samples[stamp]
        maps = [depth] if stamp not in recorder.truths else [recorder.truths[stamp], depth]
        tiles = [rgb] + [rgb_from_map(DepthMap(m, "depth_m"), "turbo", near_m, far_m) for m in maps]
        rows.append(np.hstack([_tile(tile) for tile in tiles]))
    width = max(row.shape[1] for row in rows)
    body = np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    titles = ["input", "known depth", "depth (published)"] if width > 2 * TILE_WIDTH_PX else ["input", "depth (published)"]
    head = np.full((26, width, 3), 255, np.uint8)
    for i, title in enumerate(titles):
        _write(head, title, (i * TILE_WIDTH_PX + 8, 18))
    picture = np.vstack([head, body])
    return np.hstack([picture, _colour_bar(picture.shape[0], near_m, far_m)])


def _tile(rgb: Rgb) -> Rgb:
    height = round(rgb.shape[0] * TILE_WIDTH_PX / rgb.shape[1])
    return cv2.resize(rgb, (TILE_WIDTH_PX, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _colour_bar(height: int, near_m: float, far_m: float) -> Rgb:
    """Return a bar, near below and far above, with distances in metres beside it."""
    metres = np.geomspace(far_m, near_m, height).astype(np.float32)
    bar = rgb_from_map(DepthMap(np.repeat(metres[:, None], 24, axis=1), "depth_m"), "turbo", near_m, far_m)
    strip = np.full((height, 110, 3), 255, np.uint8)
    strip[:, 10:34] = bar
    for fraction in np.linspace(0, 1, 9):
        row = int(fraction * (height - 1))
        _write(strip, f"{metres[row]:.2f} m", (40, min(max(row + 5, 12), height - 4)))
    return strip


def _write(picture: Rgb, text: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def write_ply(path: Path, cloud: PointCloud2) -> int:
    """Write the points of an xyzrgb cloud as a binary PLY file; returns how many there are."""
    points = np.frombuffer(cloud.data, np.dtype([("xyz", "<f4", 3), ("bgra", "u1", 4)]))
    points = points[np.isfinite(points["xyz"]).all(axis=1)]
    out = np.empty(len(points), np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    out["xyz"], out["rgb"] = points["xyz"], points["bgra"][:, 2::-1]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres, camera optical frame: x right, y down, z forward",
        f"element vertex {len(out)}",
    ]
    lines += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    path.write_bytes("\n".join([*lines, "end_header", ""]).encode() + out.tobytes())
    return len(out)


def summary(recorder: Recorder, seconds: float) -> dict[str, Any]:
    """Return what was measured, ready for JSON."""
    node = recorder.node_status
    stages: dict[str, dict[str, float]] = {}
    for key, value in node.items():
        stage, _, percentile = key.partition(".")
        if percentile in Percentiles.__dataclass_fields__:
            stages.setdefault(stage, {})[percentile] = float(value)
    span_s = recorder.last_s - recorder.first_s
    result: dict[str, Any] = {
        "seconds": round(seconds, 2),
        "frames": {key: int(node.get(key, 0)) for key in ("received", *OUTCOMES)},
        "depth_images_recorded": recorder.depth_count,
        "rate_hz": {
            "camera": float(node.get("input_hz", 0)),
            "depth": round((recorder.depth_count - 1) / span_s, 2) if span_s > 0 else 0.0,
        },
        "model": {key: node.get(key, "") for key in ("model", "model_kind", "model_sha256", "engine")},
        "stamp_to_depth_published": stages.pop("age", {}),
        "stamp_to_depth_received": _percentiles_ms(recorder.latency_s),
        "stages": stages,
    }
    if recorder.errors:
        abs_rel, delta1, ratio = np.mean(list(recorder.errors.values()), axis=0)
        result["error_against_known_depth"] = {
            "frames": len(recorder.errors),
            "abs_rel": round(float(abs_rel), 4),
            "delta1": round(float(delta1), 4),
            "median_ratio": round(float(ratio), 4),
        }
    return result


def _percentiles_ms(seconds: list[float]) -> dict[str, float]:
    values = (np.percentile(seconds, (50, 95, 99)) * 1000).round(2).tolist()
    return dict(zip(Percentiles.__dataclass_fields__, values))


def write_report(recorder: Recorder, output_dir: Path, seconds: float) -> dict[str, Any]:
    """Write depth.png, cloud.ply and summary.json; returns the summary."""
    output_dir.mkdir(parents=True, exist_ok=True)
    result = summary(recorder, seconds)
    cv2.imwrite(str(output_dir / "depth.png"), contact_sheet(recorder)[..., ::-1])
    result["cloud_points"] = write_ply(output_dir / "cloud.ply", recorder.cloud) if recorder.cloud is not None else 0
    (output_dir / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    return result
