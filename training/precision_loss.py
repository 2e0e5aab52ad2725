"""Two ONNX files of one network + pictures -> how far their depth differs, behind the runtime's own stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime

from depth_anything_ros.contract import METADATA_KEY, ModelContract
from depth_anything_ros.structs import DepthMap

from .calibration import PrecisionError, Rgb
from .metrics import align_disparity, compare_depth
from .predictors import RawModel, predictor_from_raw

NEAR_TO_FAR = 100.0
"""Relative models: what is farther than this many times the nearest counts as that far when two disparities are compared."""


def contract_of(content: bytes) -> ModelContract:
    """Return the contract inside an ONNX file; the last one counts."""
    entries = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
    return ModelContract.from_json(entries[METADATA_KEY])


def measure_loss(reference: bytes, converted: bytes, images: Iterable[Rgb]) -> dict[str, Any]:
    """Compare two files of one network behind the runtime's stages 2 and 4, picture by picture, with ONNX Runtime on the CPU.

    Args:
        reference: the float32 file with its contract.
        converted: the other one.
        images: (H, W, 3) uint8 RGB.

    Returns:
        `images`, `abs_rel_mean`, `abs_rel_max`, `delta1_min`: over pictures, the reference counts as truth; disparities are compared
        as depths. `aligned_abs_rel_mean`, `_max`: the same after scale and shift of the disparity were fitted to the reference.

    Raises:
        PrecisionError: the converted network gives no depth where the reference does.
    """
    contract = contract_of(reference)
    expect, predict = (predictor_from_raw(_raw_model(content), contract) for content in (reference, converted))
    try:
        rows = np.array([_loss_of_image(expect(rgb, None), predict(rgb, None)) for rgb in images])
    except ValueError as error:
        raise PrecisionError(f"the converted network cannot be used ({error}); keep more in float32, or export with --precision fp32") from error
    abs_rel, delta1, aligned = rows.T
    values = {
        "abs_rel_mean": abs_rel.mean(),
        "abs_rel_max": abs_rel.max(),
        "delta1_min": delta1.min(),
        "aligned_abs_rel_mean": aligned.mean(),
        "aligned_abs_rel_max": aligned.max(),
    }
    return {"images": len(rows), **{name: float(f"{value:.3g}") for name, value in values.items()}}


def _raw_model(content: bytes) -> RawModel:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def _loss_of_image(expected: DepthMap, got: DepthMap) -> tuple[float, float, float]:
    """Return AbsRel, delta1, and AbsRel after alignment."""
    depth, other = expected.values.astype(np.float64), got.values.astype(np.float64)
    if expected.kind != "depth_m":
        least = np.nanmax(depth) / NEAR_TO_FAR
        depth, other = 1 / np.maximum(depth, least), 1 / np.maximum(other, least)
    mask = np.isfinite(depth) & (depth > 0)
    plain = compare_depth(other, depth, mask)
    aligned = align_disparity(1 / other, depth, mask, float(depth[mask].max()))
    return plain.abs_rel, plain.delta1, compare_depth(aligned, depth, mask).abs_rel
