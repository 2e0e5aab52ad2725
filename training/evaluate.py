"""Stage of training: checkpoint or ONNX file + folder of labelled photographs -> table, JSON and a picture.

Run: python -m training.evaluate MODEL --data DIR. The folder holds `index.json`: a list of pairs with `id`, `domain`, `rgb`
and `gt` (files), `gt_scale`, `invalid`, `kind` (`depth`: gt / gt_scale metres; `disparity`: gt / gt_scale pixels) and `K`
([fx, fy, cx, cy] or null). Protocol: the whole image at the truth's size, per-image least squares in disparity over valid
pixels, no crop, mean over images; metric errors only where the camera matrix is known.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from depth_anything_ros.structs import DepthMap

from .metrics import DepthMetrics, align_disparity, evaluate_aligned, evaluate_metric
from .predictors import Predictor, open_predictor, vertical_ramp

CAP_M = 1000.0
"""Aligned disparity is clamped at 1e-3 per metre, as the evaluations of Marigold and Video Depth Anything do."""
METRIC_CAP_M = 80.0
"""Metric predictions beyond range count as this many metres."""
DISPARITY_CAP = 2.0
"""For truth in pixels: cap as a multiple of the image's largest true depth (no unit is known)."""


@dataclass(frozen=True)
class Pair:
    """One photograph with truth.

    Attributes:
        name, domain: from the index.
        rgb: (H, W, 3) uint8.
        true_depth: (h, w) float64; metres, or 1/pixels where `is_metric` is False; anything where the mask is False.
        mask: (h, w) bool, True = valid truth.
        focal_px: along x, in pixels of `rgb`; None = unknown.
        cap: largest depth, in the unit of `true_depth`.
        is_metric: whether `true_depth` is metres.
    """

    name: str
    domain: str
    rgb: npt.NDArray[np.uint8]
    true_depth: npt.NDArray[np.float64]
    mask: npt.NDArray[np.bool_]
    focal_px: float | None
    cap: float
    is_metric: bool


def read_pair(folder: Path, entry: dict[str, Any]) -> Pair:
    """Read one entry of the index."""
    rgb = cv2.cvtColor(cv2.imread(str(folder / entry["rgb"])), cv2.COLOR_BGR2RGB)
    stored = cv2.imread(str(folder / entry["gt"]), cv2.IMREAD_UNCHANGED)
    mask = stored != entry["invalid"]
    value = np.where(mask, stored, 1).astype(np.float64) / entry["gt_scale"]
    is_metric = entry["kind"] == "depth"
    true_depth = value if is_metric else 1 / value
    cap = CAP_M if is_metric else DISPARITY_CAP * float(true_depth[mask].max())
    focal_px = float(entry["K"][0]) if entry.get("K") else None
    return Pair(entry["id"], entry["domain"], rgb, true_depth, mask, focal_px, cap, is_metric)


def predict_at_truth(predict: Predictor, pair: Pair) -> DepthMap:
    """Predict, and bring the map to the truth's size where that differs (nearest pixel, so that +Inf does not spread)."""
    prediction = predict(pair.rgb, pair.focal_px)
    height, width = pair.true_depth.shape
    if prediction.values.shape == (height, width):
        return prediction
    values = cv2.resize(prediction.values, (width, height), interpolation=cv2.INTER_NEAREST)
    return DepthMap(values, prediction.kind)


def evaluate(predict: Predictor, pairs: list[Pair]) -> dict[str, dict[str, Any]]:
    """Compute the metrics of every pair: name -> {domain, aligned, metric or None}."""
    rows = {}
    for pair in pairs:
        prediction = predict_at_truth(predict, pair)
        metric = None
        if prediction.kind == "depth_m" and pair.focal_px and pair.is_metric:
            metric = asdict(evaluate_metric(prediction, pair.true_depth, pair.mask, METRIC_CAP_M))
        aligned = asdict(evaluate_aligned(prediction, pair.true_depth, pair.mask, pair.cap))
        rows[pair.name] = {"domain": pair.domain, "aligned": aligned, "metric": metric}
    return rows


def summarise(rows: dict[str, dict[str, Any]], which: str) -> dict[str, dict[str, float]]:
    """Average over the images of each domain and over all of them; `which` is `aligned` or `metric`."""
    names = [name for name in DepthMetrics.__dataclass_fields__ if name != "pixels"]
    groups: dict[str, list[dict[str, float]]] = {}
    for row in rows.values():
        if row[which]:
            groups.setdefault(row["domain"], []).append(row[which])
            groups.setdefault("all", []).append(row[which])
    return {
        domain: {"images": len(group)} | {name: float(np.mean([row[name] for row in group])) for name in names}
        for domain, group in sorted(groups.items(), key=lambda item: (item[0] == "all", item[0]))
    }


def markdown_table(title: str, summary: dict[str, dict[str, float]]) -> str:
    """Format a summary."""
    lines = [f"| {title} | images | AbsRel | delta1 | delta2 | delta3 | RMSE |", "|---|---|---|---|---|---|---|"]
    for domain, row in summary.items():
        numbers = " | ".join(f"{row[name]:.3f}" for name in ("abs_rel", "delta1", "delta2", "delta3", "rmse_m"))
        lines.append(f"| {domain} | {row['images']} | {numbers} |")
    return "\n".join(lines)


def panel(predict: Predictor, pairs: list[Pair], height: int = 160) -> npt.NDArray[np.uint8]:
    """Draw input | prediction | truth per pair, disparity in colours, aligned, both on the truth's scale: (H, W, 3) BGR."""
    rows = []
    for pair in pairs:
        values = predict_at_truth(predict, pair)
        disparity = 1 / values.values if values.kind == "depth_m" else values.values
        aligned = 1 / align_disparity(disparity, pair.true_depth, pair.mask, pair.cap)
        truth = np.where(pair.mask, 1 / pair.true_depth, 0)
        low, high = np.percentile(truth[pair.mask], [1, 99])
        colours = [_coloured((d - low) / max(high - low, 1e-9)) for d in (aligned, truth)]
        colours[1][~pair.mask] = 0
        width = round(height * pair.rgb.shape[1] / pair.rgb.shape[0])
        tiles = [cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA) for tile in (pair.rgb[..., ::-1], *colours)]
        rows.append(np.hstack(tiles))
    widest = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 4), (0, widest - row.shape[1]), (0, 0))) for row in rows])


def _coloured(value: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return cv2.applyColorMap((np.clip(value, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("model", help="checkpoint (.safetensors), ONNX file with a contract, or 'ramp' for the baseline alone")
    parser.add_argument("--data", type=Path, required=True, help="folder with index.json")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--panel", type=Path, help="write a PNG with input | prediction | truth")
    args = parser.parse_args(argv)
    pairs = [read_pair(args.data, entry) for entry in json.loads((args.data / "index.json").read_text())]
    ramp = summarise(evaluate(vertical_ramp, pairs), "aligned")
    result: dict[str, Any] = {"ramp": ramp}
    tables = [markdown_table("vertical ramp, aligned", ramp)]
    if args.model != "ramp":
        predict = open_predictor(Path(args.model))
        rows = evaluate(predict, pairs)
        result |= {"images": rows, "aligned": summarise(rows, "aligned"), "metric": summarise(rows, "metric")}
        tables = [markdown_table("aligned", result["aligned"]), markdown_table("metric, not aligned", result["metric"]), *tables]
        if args.panel:
            cv2.imwrite(str(args.panel), panel(predict, pairs))
    print("\n\n".join(tables))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
