"""The stages on this very GPU against the numpy stages, when an engine is opened: the tests of the kernels ran on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..contract import ModelContract
from ..decode import ImageLayout
from ..postprocess import enlarge, map_from_raw
from ..preprocess import Preprocessor, plan_resize
from ..structs import RgbFrame
from .frames import GpuFrames
from .plan import FrameNumbers, FramePlan

IMAGE_SCALE = 1.3
"""Pixels of the image for one of the network's first input size, whose aspect ratio every model takes."""
TENSOR_BOUND = 0.01
"""Mean absolute difference of the network's normalised input; a wrong channel, a shift or a wrong weight makes more."""
MAP_BOUND = 0.001
"""Mean relative difference of the published map, made of the same network output."""


def stage_problem(gpu: GpuFrames, contract: ModelContract) -> str:
    """Run two images through the GPU, plainly and as a graph, and say how far it is from what the numpy stages make of them; empty where it is not.

    Raises:
        EngineError: the GPU, the network or the memory failed.
    """
    name = "depth" if contract.is_metric else "relative"
    height, width = (round(IMAGE_SCALE * side) for side in contract.input_sizes_hw[0])
    resize = plan_resize((height, width), contract)
    plan = FramePlan(ImageLayout("rgb8", height, width, 3 * width), resize, (height, width), frozenset({name}))
    preprocess, tensor_off, map_off = Preprocessor(contract), 0.0, 0.0
    canonical_px = contract.canonical_focal_px and contract.canonical_focal_px / resize.scale_xy[0]  # at which canonical depth is in metres
    stages = gpu.stages_for(stage_problem, plan, None, lambda: None)
    for rgb in _pictures(height, width):
        stages.image_bytes[:] = rgb.reshape(-1)
        stages.set_numbers(FrameNumbers())
        found = gpu.run([stages])[0][name]
        tensor, raw = gpu.network_values(resize.network_size_hw)
        tensor_off = max(tensor_off, float(np.abs(tensor - preprocess(RgbFrame(rgb)).tensor).mean()))
        map_off = max(map_off, _relative_difference(found, enlarge(map_from_raw(raw, resize, contract, canonical_px), (height, width)).values))
        del found  # it goes back
    gpu.forget(stage_problem)
    if tensor_off <= TENSOR_BOUND and map_off <= MAP_BOUND:
        return ""
    return (
        f"the GPU stages differ from the numpy stages: network input by {tensor_off:.4f} (bound {TENSOR_BOUND}), "
        f"map by {map_off:.4f} of it (bound {MAP_BOUND})"
    )


def _pictures(height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield two images of (height, width, 3) uint8: smooth colours, different from left to right, top to bottom and channel to channel."""
    for seed in range(2):
        coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8)
        yield cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[misc]


def _relative_difference(values: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the mean difference as a share of the mean, and the share of pixels that only one side knows on top of it."""
    known = np.isfinite(expected) & np.isfinite(values)
    one_sided = float(np.mean(np.isfinite(expected) != np.isfinite(values)))
    if not known.any():
        return one_sided
    return one_sided + float(np.abs(values[known] - expected[known]).mean() / max(np.abs(expected[known]).mean(), 1e-9))
