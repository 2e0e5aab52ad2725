"""Does an engine compute what the model's maker saw? An image, three shifted crops of it, and the depth that belongs to them.

A miscompiled network runs without an error and gives plausible pictures of wrong scale. So a model file may hold a golden image and the raw
output that the ONNX graph has for it; every engine is measured against them before it serves.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .contract import ModelContract
from .errors import ContractError, EngineError
from .preprocess import Preprocessor
from .structs import RgbFrame

MAX_ABS_REL = 0.05
"""Mean relative difference to the reference. Precisions of healthy engines differ by a tenth of it; a broken one by many times."""
MAX_SCALE_JITTER = 0.02
"""Largest part by which the scale against the reference may differ between the four views: depth must not jump from frame to frame."""
SAMPLES_PER_SIDE = 48
"""The reference holds at most this many rows and columns of the output, evenly spaced."""
CROP_SIDE = 7 / 8
SMALLEST_PART = 0.05
"""What is nearer to 0 than this part of the largest value is compared as if it were that large: a disparity may be 0."""

Infer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Deviation:
    """How far an engine is from the reference: mean relative difference of the worst view, and jitter of the scale between views."""

    abs_rel: float
    scale_jitter: float

    @property
    def acceptable(self) -> bool:
        """Whether both are within their bounds; values that are not finite are not."""
        return self.abs_rel <= MAX_ABS_REL and self.scale_jitter <= MAX_SCALE_JITTER

    def __str__(self) -> str:
        return f"AbsRel {self.abs_rel:.4f} (bound {MAX_ABS_REL:g}), scale jitter {self.scale_jitter:.4f} (bound {MAX_SCALE_JITTER:g})"


def golden_text(rgb: npt.NDArray[np.uint8], contract: ModelContract, infer: Infer) -> str:
    """Make what `measure` needs, for the metadata of a model file.

    Args:
        rgb: (H, W, 3) uint8; a small image with structure.
        contract: the model's.
        infer: the reference: (1, 3, h, w) float32 -> (1, h, w) float32.
    """
    references = [[_packed(_samples(infer(tensor))) for tensor in _views(rgb, contract, size)] for size in contract.input_sizes_hw]
    return json.dumps({"image": _png(rgb[..., ::-1]), "references": references})


def measure(golden: str, contract: ModelContract, infer: Infer) -> Deviation:
    """Compare an engine with the golden data, at every input size of the contract.

    Raises:
        ContractError: the golden data cannot be read or belongs to another contract.
    """
    try:
        values = json.loads(golden)
        rgb = np.ascontiguousarray(_image(values["image"], cv2.IMREAD_COLOR)[..., ::-1])
        references = [[_unpacked(view) for view in views] for views in values["references"]]
        sizes = list(zip(contract.input_sizes_hw, references, strict=True))
    except (ValueError, TypeError, KeyError, AttributeError, cv2.error) as error:
        raise ContractError(f"model '{contract.name}': its golden data cannot be read ({error!r}); export the model again") from error
    deviations = []
    for size, expected in sizes:
        outputs = [_samples(infer(tensor)) for tensor in _views(rgb, contract, size)]
        if [o.shape for o in outputs] != [e.shape for e in expected]:
            raise ContractError(f"model '{contract.name}': its golden data is of another size than its output; export the model again")
        deviations.append(_deviation(outputs, expected))
    return Deviation(max(d.abs_rel for d in deviations), max(d.scale_jitter for d in deviations))


def _deviation(outputs: Sequence[npt.NDArray[np.float32]], references: Sequence[npt.NDArray[np.float32]]) -> Deviation:
    errors, scales = [], []
    for output, reference in zip(outputs, references):
        if not np.isfinite(output).all():
            return Deviation(float("inf"), float("inf"))
        smallest = SMALLEST_PART * np.abs(reference).max() + np.finfo(np.float32).tiny
        errors.append(float(np.mean(np.abs(output - reference) / np.maximum(np.abs(reference), smallest))))
        large = np.abs(reference) > smallest
        scales.append(float(np.median(output[large] / reference[large])) if large.any() else 1.0)
    lowest = min(scales)
    return Deviation(max(errors), max(scales) / lowest - 1 if lowest > 0 else float("inf"))


def _views(rgb: npt.NDArray[np.uint8], contract: ModelContract, size_hw: tuple[int, int]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the network's input for the image and for three crops of it; each is overwritten by the next."""
    preprocess = Preprocessor(replace(contract, resize="stretch", input_sizes_hw=(size_hw,)))
    height, width = round(CROP_SIDE * rgb.shape[0]), round(CROP_SIDE * rgb.shape[1])
    down, right = rgb.shape[0] - height, rgb.shape[1] - width
    yield preprocess(RgbFrame(rgb)).tensor
    for top, left in ((0, 0), (down // 2, right), (down, right // 2)):
        yield preprocess(RgbFrame(np.ascontiguousarray(rgb[top : top + height, left : left + width]))).tensor


def _samples(output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return rows and columns of (1, h, w) or (1, 1, h, w), evenly spaced; a copy."""
    height, width = output.shape[-2:]
    return output.reshape(height, width)[:: -(-height // SAMPLES_PER_SIDE), :: -(-width // SAMPLES_PER_SIDE)].copy()


def _packed(values: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Return a map as 16 bits between its least and greatest value."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise EngineError("the reference for the self-check is not finite; the model cannot be used")
    steps = np.round((values - low) * (65535 / ((high - low) or 1.0)))
    return {"low": low, "high": high, "values": _png(steps.astype(np.uint16))}


def _unpacked(packed: dict[str, Any]) -> npt.NDArray[np.float32]:
    low, high = float(packed["low"]), float(packed["high"])
    steps = _image(packed["values"], cv2.IMREAD_UNCHANGED)
    return (low + steps * ((high - low) / 65535)).astype(np.float32)


def _png(image: npt.NDArray[Any]) -> str:
    return base64.b64encode(cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes()).decode()


def _image(text: str, flags: int) -> npt.NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), flags)
    if image is None:
        raise ValueError("not an image")
    return image
