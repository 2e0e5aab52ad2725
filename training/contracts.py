"""What exported models say about themselves: trained ones by their run's configuration, published ones by their architecture."""

from __future__ import annotations

from typing import Any

from depth_anything_ros.contract import ModelContract

from .config import TrainingConfig
from .data.batches import MEAN, STD, canonical_focal_px
from .depth_anything import DepthAnythingArchitecture
from .encoder import PATCH
from .model import SIZE_MULTIPLE


def checkpoint_contract(config: TrainingConfig, training: dict[str, Any]) -> ModelContract:
    """Return the contract of a network that was trained with `config`, for free input sizes from the first training size on.

    Args:
        config: the run's configuration; its first size fixes the least input height and, with it, the canonical camera.
        training: free-form record of how the model was made.
    """
    metric, compact = config.stage == "metric", config.network.name == "compact"
    canonical = metric and config.metric.kind == "depth_canonical_focal"
    return ModelContract(
        name=f"{config.stage}_{config.network.name}",
        input_sizes_hw=(config.data.sizes_hw[0],),
        resize="lower_bound",
        output_kind=config.metric.kind if metric else "disparity_affine_invariant",
        mean=MEAN,
        std=STD,
        size_multiple=SIZE_MULTIPLE if compact else PATCH,
        interpolation="linear" if compact else "cubic",
        canonical_focal_px=canonical_focal_px(config) if canonical else None,
        max_depth_m=config.metric.max_depth_m if metric else None,
        licence="Apache-2.0",
        training=training,
    )


def published_licence(encoder: str, version: str) -> str:
    """Return the licence (SPDX) of published weights: V1 and the small V2 networks may be used commercially, larger V2 ones not.

    Args:
        encoder: `vits`, `vitb`, `vitl` or `vitg`.
        version: `v1` or `v2`.

    Source: the READMEs of LiheYoung/Depth-Anything and DepthAnything/Depth-Anything-V2.
    """
    return "Apache-2.0" if version == "v1" or encoder == "vits" else "CC-BY-NC-4.0"


def pretrained_contract(
    name: str, architecture: DepthAnythingArchitecture, size_hw: tuple[int, int], resize: str, licence: str, training: dict[str, Any]
) -> ModelContract:
    """Return the contract of a Depth Anything network that was exported for one input size.

    Args:
        name: short name for logs.
        architecture: says whether the output is relative or metric.
        size_hw: height and width of the input in pixels, multiples of 14.
        resize: `stretch` or `letterbox`; `lower_bound` needs free sizes.
        licence: SPDX name of the weights' licence, or `unknown`.
        training: record of where the weights come from.
    """
    metric = architecture.max_depth_m is not None
    return ModelContract(
        name=name,
        input_sizes_hw=(size_hw,),
        resize=resize,
        output_kind="depth_m" if metric else "disparity_affine_invariant",
        mean=MEAN,
        std=STD,
        size_multiple=PATCH,
        interpolation="cubic",
        max_depth_m=architecture.max_depth_m,
        licence=licence,
        training=training,
    )
