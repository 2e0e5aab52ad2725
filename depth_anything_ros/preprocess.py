"""Stage 2/6: RgbFrame -> EngineInput.

Written once for the node, the command line and training's evaluation, so that what is deployed is what was evaluated.
The image is resized as uint8 (a third of the bytes of float32) and normalised plane by plane into a reused buffer.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .contract import ModelContract
from .errors import DecodeError
from .structs import EngineInput, ResizeRecord, RgbFrame

MAX_STRETCH = 8
"""An image may be this many times thinner than the network's lower bound."""

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


def plan_resize(image_size_hw: tuple[int, int], contract: ModelContract) -> ResizeRecord:
    """Choose the network's input size for an image, and where in it the image goes.

    Args:
        image_size_hw: height and width of the camera image in pixels.
        contract: the model's resize rule and sizes.

    Returns:
        The record of the resize. `lower_bound`: the aspect ratio is kept, both sides are at least the first allowed
        size and the nearest multiple of `size_multiple` (never below the bound). `stretch`, `letterbox`: the allowed size of the nearest aspect.

    Raises:
        DecodeError: the image is so thin that `lower_bound` would make an enormous input of it.

    Source: `lower_bound` is the rule of the official Depth Anything inference (`Resize(..., resize_method="lower_bound")`).
    """
    height, width = image_size_hw
    if contract.resize == "lower_bound":
        bound_h, bound_w = contract.input_sizes_hw[0]
        if max(height / width * bound_w / bound_h, width / height * bound_h / bound_w) > MAX_STRETCH:
            raise DecodeError(f"image of {width}x{height} pixels is too thin: the network would need {MAX_STRETCH} times its usual area")
        scale = max(bound_h / height, bound_w / width)
        size = (
            _nearest_multiple(scale * height, contract.size_multiple, bound_h),
            _nearest_multiple(scale * width, contract.size_multiple, bound_w),
        )
        return ResizeRecord(image_size_hw, size, (0, 0, *size))
    size = min(contract.input_sizes_hw, key=lambda s: abs(np.log(s[1] / s[0] * height / width)))
    if contract.resize == "stretch":
        return ResizeRecord(image_size_hw, size, (0, 0, *size))
    scale = min(size[0] / height, size[1] / width)
    content_h, content_w = max(1, round(scale * height)), max(1, round(scale * width))
    return ResizeRecord(image_size_hw, size, ((size[0] - content_h) // 2, (size[1] - content_w) // 2, content_h, content_w))


def _nearest_multiple(length_px: float, multiple: int, at_least_px: int) -> int:
    rounded = round(length_px / multiple) * multiple
    return rounded if rounded >= at_least_px else -(-at_least_px // multiple) * multiple


def gain_and_bias(contract: ModelContract) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return what normalises a uint8 value: value * gain + bias, (3,) float32 each, in the contract's channel order."""
    mean, std = np.asarray(contract.mean), np.asarray(contract.std)
    return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)


class Preprocessor:
    """Resizes and normalises one image at a time for one model. Not thread-safe: it reuses its buffers."""

    def __init__(self, contract: ModelContract) -> None:
        """Prepare for a model; buffers are made at the first frame and again when the image size changes."""
        self._contract = contract
        self._gain, self._bias = gain_and_bias(contract)
        self._resize: ResizeRecord | None = None
        self._resized = np.empty((0, 0, 3), np.uint8)
        self._tensor = np.empty((0, 3, 0, 0), np.float32)

    def __call__(self, frame: RgbFrame) -> EngineInput:
        """Bring a frame into the network's form.

        Args:
            frame: any size.

        Returns:
            (1, 3, h, w) float32 in the contract's channel order; letterbox padding is 0 (the mean colour). The tensor is
            overwritten by the next call.
        """
        if self._resize is None or self._resize.image_size_hw != frame.size_hw:
            self._allocate(plan_resize(frame.size_hw, self._contract))
        assert self._resize is not None
        top, left, height, width = self._resize.content_tlhw
        small: npt.NDArray[np.uint8] = frame.rgb
        if frame.size_hw != (height, width):
            small = cv2.resize(frame.rgb, (width, height), dst=self._resized, interpolation=_INTERPOLATION[self._contract.interpolation])
        planes = cv2.split(small)
        if self._contract.channel_order == "bgr":
            planes = planes[::-1]
        for plane, gain, bias, target in zip(planes, self._gain, self._bias, self._tensor[0]):
            content = target[top : top + height, left : left + width]
            np.multiply(plane, gain, out=content)
            content += bias
        return EngineInput(self._tensor, self._resize)

    def _allocate(self, resize: ResizeRecord) -> None:
        self._resized = np.empty((resize.content_tlhw[2], resize.content_tlhw[3], 3), np.uint8)
        self._tensor = np.zeros((1, 3, *resize.network_size_hw), np.float32)
        self._resize = resize  # last: buffers that could not be made must not look made
