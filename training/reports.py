"""Numbers of single images -> means, Markdown tables beside published results, and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .data.samples import DatasetError
from .metrics import DepthMetrics
from .protocols import PROTOCOLS, Protocol, whole_image
from .published_results import NOTE, PUBLISHED

Row = dict[str, Any]
"""One image under one preset: `image`, `domain`, `preset`, `aligned` and `metric` (of `DepthMetrics`; None: no metres to compare);
in a run also `model`, `set` and `dataset`."""

SPARSE = 0.3
"""Share of valid pixels below which a truth is drawn with larger dots."""
METRICS = tuple(name for name in DepthMetrics.__dataclass_fields__ if name != "pixels")
_HEADINGS = {"abs_rel": "AbsRel", "rmse_m": "RMSE", "silog": "SILog"}
_TABLE_ORDER = ("abs_rel", "delta1", "delta2", "delta3", "rmse_m", "log10", "silog")


def summarise(rows: Iterable[Row], which: str) -> dict[str, dict[str, float]]:
    """Average over the images of each domain and over all of them; `which` is `aligned` or `metric`."""
    groups: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        if row[which]:
            groups.setdefault(row["domain"], []).append(row[which])
            groups.setdefault("all", []).append(row[which])
    return {
        domain: {"images": len(group)} | {name: float(np.mean([row[name] for row in group])) for name in METRICS}
        for domain, group in sorted(groups.items(), key=lambda item: (item[0] == "all", item[0]))
    }


def summaries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Average each model's rows of each set and preset: records with `model`, `set`, `dataset`, `preset`, `aligned` and `metric`."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["dataset"], row["preset"], row["model"]), []).append(row)
    return [
        {
            "model": model,
            "set": label,
            "dataset": dataset,
            "preset": preset,
            "aligned": summarise(group, "aligned"),
            "metric": summarise(group, "metric"),
        }
        for (label, dataset, preset, model), group in groups.items()
    ]


def report(rows: Sequence[Row], left_out: Sequence[dict[str, Any]]) -> str:
    """Format everything as Markdown: a table per set and preset, the overview beside published results, protocols, omissions."""
    records = summaries(rows)
    parts = []
    for label, preset in dict.fromkeys((record["set"], record["preset"]) for record in records):
        chosen = [record for record in records if (record["set"], record["preset"]) == (label, preset)]
        parts.append(_table(f"{label}, {preset}", chosen, "aligned"))
        if any(record["metric"] for record in chosen):
            parts.append(_table(f"{label}, {preset} limits and crops, metres without alignment", chosen, "metric"))
    datasets = list(dict.fromkeys(record["dataset"] for record in records))
    if datasets != ["index"]:
        parts += [_overview(records), NOTE]
    parts.append(protocol_table(datasets, list(dict.fromkeys(record["preset"] for record in records))))
    parts += [_omission(record) for record in left_out if record["count"]]
    return "\n\n".join(parts)


def _table(title: str, records: Sequence[dict[str, Any]], which: str) -> str:
    headings = [title, "domain", "images", *(_HEADINGS.get(name, name) for name in _TABLE_ORDER)]
    lines = []
    for record in records:
        domains = record[which]
        for domain in domains if len(domains) > 2 else list(domains)[-1:]:  # one domain and "all" are the same
            row = domains[domain]
            lines.append([record["model"], domain, str(row["images"]), *(f"{row[name]:.3f}" for name in _TABLE_ORDER)])
    return _markdown(headings, lines)


def _overview(records: Sequence[dict[str, Any]]) -> str:
    """AbsRel / delta1: one row per model and preset, one column per set, and the mean over the sets; then published rows."""
    sets = dict.fromkeys((record["set"], record["dataset"]) for record in records)
    with_mean = len(sets) > 1
    lines = []
    for model, preset in dict.fromkeys((record["model"], record["preset"]) for record in records):
        own = {r["set"]: r["aligned"]["all"] for r in records if (r["model"], r["preset"]) == (model, preset)}
        scores = [(own[label]["abs_rel"], own[label]["delta1"]) for label, _ in sets]
        means = [tuple(np.mean(scores, axis=0))] if with_mean else []
        lines.append([f"{model}, {preset}", *(_pair(score) for score in scores + means)])
    for row in PUBLISHED:
        cells = [_pair(row.scores[dataset]) if dataset in row.scores else "" for _, dataset in sets]
        if any(cells):
            lines.append([f"{row.model} ({row.source})", *cells, *[""] * with_mean])
    return _markdown(["AbsRel / delta1", *(label for label, _ in sets), *["mean of the sets"] * with_mean], lines)


def _pair(score: Sequence[float]) -> str:
    return f"{score[0]:.3f} / {score[1]:.3f}"


def protocol_table(datasets: Sequence[str], presets: Sequence[str]) -> str:
    """Format the protocols of some data sets."""
    lines = []
    for name in datasets:
        for preset in presets:
            protocol = PROTOCOLS[name].presets[preset]  # type: ignore[index]
            limits = (f"{low:g} .. {high:g}" for low, high in (protocol.truth_m, protocol.prediction_m))
            lines.append([name, preset, *limits, _crops(protocol), protocol.source, PROTOCOLS[name].open_question])
    return _markdown(["data set", "preset", "truth used, m", "prediction clamped to, m", "crop", "source", "not stated or not settled"], lines)


def _crops(protocol: Protocol) -> str:
    crops = [crop.__name__ for crop in (protocol.image_crop, protocol.crop) if crop is not whole_image]
    return ", then ".join(name.replace("_", " ") for name in crops) or "none"


def _omission(record: dict[str, Any]) -> str:
    reasons = "; ".join(f"{count} x {reason}, first: {record['first'][reason]}" for reason, count in sorted(record["reasons"].items()))
    return f"Left out for {record['model']} on {record['set']}: {record['count']} images. {reasons}"


def _markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = (headings, ["---"] * len(headings), *lines)
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in rows)


@dataclass(frozen=True)
class PanelRow:
    """One line of the picture.

    Attributes:
        rgb: (H, W, 3) uint8.
        disparities: per model (h, w), on the truth's scale.
        true_disparity: (h, w).
        mask: (h, w) bool, True = valid truth.
    """

    rgb: npt.NDArray[np.uint8]
    disparities: dict[str, npt.NDArray[np.floating]]
    true_disparity: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_]


def draw_panel(rows: Sequence[PanelRow], height: int = 160) -> npt.NDArray[np.uint8]:
    """Draw input | predictions | truth per row, disparity in colours on the truth's scale: (H, W, 3) BGR.

    Raises:
        DatasetError: there is no row.
    """
    if not rows:
        raise DatasetError("no picture: none of the images chosen for it could be compared with every model")
    drawn = [_panel_row(row, height) for row in rows]
    widest = max(row.shape[1] for row in drawn)
    return np.vstack([np.pad(row, ((0, 4), (0, widest - row.shape[1]), (0, 0))) for row in drawn])


def _panel_row(row: PanelRow, height: int) -> npt.NDArray[np.uint8]:
    low, high = np.percentile(row.true_disparity[row.mask], [1, 99])
    disparities = {**row.disparities, "truth": row.true_disparity}
    colours = {name: _coloured((disparity - low) / max(high - low, 1e-9)) for name, disparity in disparities.items()}
    colours["truth"][~row.mask] = 0
    if row.mask.mean() < SPARSE:
        colours["truth"] = cv2.dilate(colours["truth"], np.ones((5, 5), np.uint8))  # LiDAR would vanish when it is made small
    width = round(height * row.rgb.shape[1] / row.rgb.shape[0])
    tiles = []
    for name, tile in {"input": row.rgb[..., ::-1], **colours}.items():
        small = np.ascontiguousarray(cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA))
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(small, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)
        tiles.append(small)
    return np.hstack(tiles)


def _coloured(value: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return cv2.applyColorMap((np.clip(value, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
