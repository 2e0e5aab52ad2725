"""Stage 4/6: raw network output -> DepthMap, first at the network's size, then at the published one.

Units, scale and validity are settled at the network's size, where there are few pixels; enlarging comes last. Bilinear
interpolation lets no unknown value leak into a known one: what touches NaN becomes NaN.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .contract import ModelContract
from .errors import EngineError
from .structs import DepthMap, MapKind, ResizeRecord

FARTHEST_M = 1e6
"""Metres; where a model states no limit, what is farther than this counts as beyond range."""


def map_from_raw(raw: npt.NDArray[np.float32], resize: ResizeRecord, contract: ModelContract, focal_px: float | None = None) -> DepthMap:
    """Give a network's raw output its unit, at the network's own size.

    Args:
        raw: (1, h, w) or (1, 1, h, w) float32.
        resize: how the image was brought to the network's size; padding is cut away.
        contract: what the raw numbers are.
        focal_px: focal length along x of the camera image in pixels; needed by `depth_canonical_focal` models only.

    Returns:
        (h, w) float32 of the image content. Metric kinds: metres, NaN where the network gave nothing above 0.
        Disparity: NaN where it is not finite.

    Raises:
        EngineError: the output's shape is not the network's size, or a focal length is needed and missing.
    """
    if raw.shape[-2:] != resize.network_size_hw or raw.size != resize.network_size_hw[0] * resize.network_size_hw[1]:
        raise EngineError(
            f"model '{contract.name}' returned shape {raw.shape} for an input of {resize.network_size_hw}; its contract does not fit it"
        )
    top, left, height, width = resize.content_tlhw
    values = raw.reshape(resize.network_size_hw)[top : top + height, left : left + width]
    if contract.output_kind == "depth_canonical_focal":
        values = values * np.float32(canonical_scale(resize, contract, focal_px))
    valid = values > 0 if contract.is_metric else np.isfinite(values)
    if not valid.all():
        values = np.where(valid, values, np.float32(np.nan))
    kind: MapKind = "depth_m" if contract.is_metric else "disparity_affine_invariant"
    return DepthMap(values, kind)


def canonical_scale(resize: ResizeRecord, contract: ModelContract, focal_px: float | None) -> float:
    """Return what turns canonical depth into metres: focal length in network pixels / canonical focal length.

    Source: the canonical camera transformation on labels of Metric3D (Yin et al. 2023, arXiv:2307.10984, section 3.1).
    """
    if not focal_px or contract.canonical_focal_px is None:
        raise EngineError(f"model '{contract.name}' needs the camera's focal length; publish a valid camera_info or set fallback_hfov_deg")
    return focal_px * resize.scale_xy[0] / contract.canonical_focal_px


def enlarge(depth_map: DepthMap, size_hw: tuple[int, int], max_depth_m: float = FARTHEST_M) -> DepthMap:
    """Bring a map to its published size and mark what is beyond range.

    Args:
        depth_map: any size; not changed.
        size_hw: height and width of the result in pixels.
        max_depth_m: metric maps: what is farther becomes +Inf (REP 117).

    Returns:
        (H, W) float32, C-contiguous, of the same kind. The caller owns it.
    """
    values = depth_map.values
    far = values > max_depth_m
    if depth_map.kind != "depth_m" or not far.any():
        return DepthMap(_resize(values, size_hw) if values.shape != size_hw else values.copy(), depth_map.kind)
    # Near pixels are averaged among themselves, so that no depth appears between an object and what is beyond range.
    near_sum, near_weight = _resize(np.where(far, np.float32(0), values), size_hw), _resize((~far).astype(np.float32), size_hw)
    beyond = near_weight < 0.5
    np.divide(near_sum, near_weight, out=near_sum, where=~beyond)
    near_sum[beyond] = np.inf
    return DepthMap(near_sum, depth_map.kind)


def _resize(values: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    return cv2.resize(values, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
