"""The contract of the compact student: how a run's configuration becomes what its ONNX file says about itself."""

from __future__ import annotations

from typing import Any

from depth_anything_ros.contract import ModelContract

from .config import StudentConfig
from .data.labelled import MEAN, STD
from .model import SIZE_MULTIPLE

MAX_TRUE_DEPTH_M = 80.0
"""Larger depths are published as beyond range: the data holds little beyond, and the sky is only 'far'."""


def student_contract(config: StudentConfig, training: dict[str, Any]) -> ModelContract:
    """Return the contract of a student trained with `config`; it is served at the height at which it was last trained.

    Args:
        config: the run's configuration; fixes the least input height and, with it, the canonical camera.
        training: free-form record of how the model was made.
    """
    height = config.height
    width = round(height * 4 / 3 / SIZE_MULTIPLE) * SIZE_MULTIPLE
    return ModelContract(
        name="student_metric",
        input_sizes_hw=((height, width),),
        resize="lower_bound",
        output_kind="depth_canonical_focal",
        mean=MEAN,
        std=STD,
        size_multiple=SIZE_MULTIPLE,
        interpolation="linear",
        canonical_focal_px=config.canonical_focal_px * height / config.canonical_height,
        max_depth_m=MAX_TRUE_DEPTH_M,
        licence="Apache-2.0",
        training=training,
    )
