"""Stage of training: models + labelled photographs -> tables beside published numbers, JSON and a picture.

Run: python -m training.evaluate MODEL [MODEL ...] --data [NAME[@SPLIT]:]DIR. NAME is a data set of `protocols.PROTOCOLS` in its
published layout; without a name DIR holds `index.json`: a list of pairs with `id`, `domain`, `rgb` and `gt` (files), `gt_scale`,
`invalid`, `kind` (`depth`: gt / gt_scale metres; `disparity`: gt / gt_scale pixels) and `K` ([fx, fy, cx, cy] or null).
Errors are computed per image at the truth's size, then averaged over the images of a data set; depth limits, crops and
alignment come from `protocols` and `metrics`. Metres are compared without alignment where the focal length is known.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from depth_anything_ros.errors import ConfigError, DepthAnythingError, EngineError
from depth_anything_ros.structs import DepthMap

from .data.samples import BrokenFileError, DatasetError, SkipLog
from .evaluation_pairs import EvaluationSet, Pair, open_sets, read_pair
from .metrics import Preset, align, evaluate_aligned, evaluate_metric
from .predictors import Predictor, open_predictor, vertical_ramp
from .protocols import PROTOCOLS
from .reports import PanelRow, Row, draw_panel, report, summaries, summarise

__all__ = ["evaluate", "main", "predict_at_truth", "read_pair", "run", "summarise"]

PRESETS: tuple[Preset, ...] = ("midas", "marigold")
RAMP = "vertical ramp"
PANEL_IMAGES = 32


def predict_at_truth(predict: Predictor, pair: Pair) -> DepthMap:
    """Predict, and bring the map to the truth's size where that differs (nearest pixel, so that +Inf does not spread)."""
    prediction = predict(pair.rgb, pair.focal_px)
    height, width = pair.true_depth.shape
    if prediction.values.shape == (height, width):
        return prediction
    values = cv2.resize(prediction.values, (width, height), interpolation=cv2.INTER_NEAREST)
    return DepthMap(values, prediction.kind)


def evaluate(predict: Predictor, pairs: Iterable[Pair], presets: Sequence[Preset] = ("midas",), skipped: SkipLog | None = None) -> list[Row]:
    """Compute the metrics of every pair under every preset.

    Args:
        predict: the model.
        pairs: read one after the other.
        presets: one row per pair and preset.
        skipped: counts pairs that cannot be compared (too few valid pixels, a prediction that is not finite); None raises instead.

    Raises:
        ValueError, EngineError: a pair cannot be compared, and `skipped` is None.
    """
    rows = []
    for pair in pairs:
        try:
            rows += _rows(predict, pair, presets)
        except (ValueError, EngineError) as error:
            if skipped is None:
                raise
            skipped.add(BrokenFileError("cannot be compared", pair.name, str(error)))
    return rows


def _rows(predict: Predictor, pair: Pair, presets: Sequence[Preset]) -> list[Row]:
    rows, predictions = [], {}
    for preset in presets:
        protocol = PROTOCOLS[pair.dataset].presets[preset]
        view = pair.cropped(protocol.image_crop)
        if view.mask.shape not in predictions:  # presets that show the model the same image share the prediction
            predictions[view.mask.shape] = predict_at_truth(predict, view)
        prediction, mask, metric = predictions[view.mask.shape], protocol.mask(view.true_depth, view.mask), None
        if prediction.kind == "depth_m" and view.focal_px and view.is_metric:
            metric = asdict(evaluate_metric(prediction, view.true_depth, mask, protocol.metric_range_m))
        aligned = asdict(evaluate_aligned(prediction, view.true_depth, mask, preset, view.limits(protocol)))
        rows.append({"image": pair.name, "domain": pair.domain, "preset": preset, "aligned": aligned, "metric": metric})
    return rows


def run(models: dict[str, Predictor], data: Sequence[EvaluationSet], presets: Sequence[Preset]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Evaluate every model on every set.

    Returns:
        rows, each with its `model`, `set` and `dataset`; and what was left out: one record per model and set.

    Raises:
        DatasetError: not one image of a set could be evaluated.
    """
    rows: list[Row] = []
    left_out = []
    for chosen in data:
        for model, predict in models.items():
            skipped = SkipLog()
            pairs = tqdm(chosen.pairs(skipped), total=len(chosen), unit="image", desc=f"{model}, {chosen.label}", disable=None)
            found = evaluate(predict, pairs, presets, skipped)
            if not found:
                reasons = "; ".join(skipped.first.values())
                raise DatasetError(
                    f"{model}: none of the {len(chosen)} images of {chosen.label} could be evaluated ({skipped.summary()}): {reasons}. "
                    "Check the folder, the split, and the model's output kind and size."
                )
            rows += [{"model": model, "set": chosen.label, "dataset": chosen.dataset, **row} for row in found]
            left_out.append({"model": model, "set": chosen.label, "count": skipped.total, "reasons": dict(skipped.counts), "first": skipped.first})
    return rows, left_out


def panel_rows(models: dict[str, Predictor], pairs: Iterable[Pair], preset: Preset) -> list[PanelRow]:
    """Predict and align again for the picture; pairs that cannot be compared are left out (the tables count them)."""
    rows = []
    for pair in pairs:
        protocol = PROTOCOLS[pair.dataset].presets[preset]
        try:
            view = pair.cropped(protocol.image_crop)
            mask, limits = protocol.mask(view.true_depth, view.mask), view.limits(protocol)
            aligned = {name: align(predict_at_truth(predict, view), view.true_depth, mask, preset, limits) for name, predict in models.items()}
        except (ValueError, EngineError):
            continue
        rows.append(PanelRow(view.rgb, {name: 1 / depth for name, depth in aligned.items()}, 1 / np.where(mask, view.true_depth, 1), mask))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    args = _parse(argv)
    presets = PRESETS if args.preset == "both" else (args.preset,)
    try:
        data = [chosen.limited(args.limit) for chosen in open_sets(args.data)]
        models = open_models(args.models)
        rows, left_out = run(models | {RAMP: vertical_ramp}, data, presets)
        text = report(rows, left_out)
        print(text)
        if args.table:
            args.table.write_text(text + "\n")
        if args.json:
            args.json.write_text(json.dumps({"images": rows, "means": summaries(rows), "left_out": left_out}, indent=1) + "\n")
        if args.panel:
            pairs = (pair for chosen in data for pair in chosen.limited(PANEL_IMAGES).pairs(SkipLog()))
            cv2.imwrite(str(args.panel), draw_panel(panel_rows(models or {RAMP: vertical_ramp}, pairs, presets[0])))
    except DepthAnythingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="checkpoint (.safetensors), ONNX file with a contract, or 'ramp': the baseline alone"
    )
    parser.add_argument("--data", action="append", required=True, help=f"[NAME[@SPLIT]:]DIR, repeatable; NAME: {', '.join(PROTOCOLS)}")
    parser.add_argument("--preset", choices=(*PRESETS, "both"), default="midas", help="alignment, depth limits and crops (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="evaluate this many images of each data set, evenly spread")
    parser.add_argument("--json", type=Path, help="write every image's numbers, the means and what was left out here")
    parser.add_argument("--table", type=Path, help="write the Markdown tables here, too")
    parser.add_argument("--panel", type=Path, help=f"write a PNG with input | predictions | truth, at most {PANEL_IMAGES} images of each data set")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error("--limit must be at least 1")
    for path in filter(None, (args.json, args.table, args.panel)):
        if not path.parent.is_dir():
            parser.error(f"there is no folder '{path.parent}' to write '{path.name}' into")
    return args


def open_models(arguments: Sequence[str]) -> dict[str, Predictor]:
    """Open models under their files' names, or under their paths where two names are equal; 'ramp' is left out.

    Raises:
        ConfigError: there is no such file.
    """
    paths = [Path(argument) for argument in dict.fromkeys(arguments) if argument != "ramp"]
    names = [path.name for path in paths]
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"there is no model '{path}'")
    return {path.name if names.count(path.name) == 1 else str(path): open_predictor(path) for path in paths}


if __name__ == "__main__":
    raise SystemExit(main())
