"""The `synthetic` engine: a known depth for every image, after a set delay. For tests, and for measuring the node itself.

An image may carry a frame number as a bar code (`draw_frame_number`); the engine reads it from what it is given, after
resize and normalisation, and answers with that number's depth. Any other image gets 1 m (black) to 2 m (white) per pixel.
"""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..config import RuntimeConfig, SyntheticConfig
from ..contract import ModelContract
from .base import Engine, TensorSpec

CODE_BITS = 16
_CELLS = CODE_BITS + 4  # white, black, the bits (high first), parity, white


def depth_of_frame_number(number: int) -> float:
    """Return the depth in metres that the engine gives for a coded frame: 0.25 m and a millimetre per number."""
    return 0.25 + number * 0.001


def draw_frame_number(rgb: npt.NDArray[np.uint8], number: int) -> None:
    """Paint a frame number (0 .. 65535) into the upper quarter of an (H, W, 3) uint8 image, in place."""
    bits = [number >> shift & 1 for shift in range(CODE_BITS - 1, -1, -1)]
    edges = np.linspace(0, rgb.shape[1], _CELLS + 1).round().astype(int)
    for bit, left, right in zip([1, 0, *bits, sum(bits) & 1, 1], edges[:-1], edges[1:]):
        rgb[: rgb.shape[0] // 4, left:right] = 255 * bit


def read_frame_number(gray: npt.NDArray[np.float32]) -> int | None:
    """Read the bar code from an (h, w) image with values 0..1; None where there is none."""
    columns = ((np.arange(_CELLS) + 0.5) * gray.shape[1] / _CELLS).astype(int)
    cells = gray[gray.shape[0] // 8, columns]
    if not np.all((cells < 0.2) | (cells > 0.8)):
        return None
    white, black, *bits, parity, last = (cells > 0.5).astype(int).tolist()
    if (white, black, last) != (1, 0, 1) or parity != sum(bits) & 1:
        return None
    return int("".join(map(str, bits)), 2)


class SyntheticEngine(Engine):
    """Answers with a depth (or its inverse, as a relative model would) that the test knows beforehand."""

    name: ClassVar[str] = "synthetic"
    model_sha256 = "none"

    def __init__(self, options: SyntheticConfig) -> None:
        """Make the contract of a model that does not exist."""
        self._options = options
        self.contract = ModelContract(
            name="synthetic",
            input_sizes_hw=((288, 384),),
            resize="lower_bound",
            size_multiple=32,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            output_kind=options.output_kind,  # type: ignore[arg-type]  # one of the parameter's choices
            licence="Apache-2.0",
        )
        self.input_spec = TensorSpec("image", "float32", (None, 3, None, None))
        self.output_spec = TensorSpec("output", "float32", (None, None, None))

    def _open(self) -> None:
        pass

    def _infer(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._options.delay_ms:
            time.sleep(self._options.delay_ms / 1000)
        depth_m = 1.0 + tensor[:, 1]
        for image, depth in zip(tensor[:, 1], depth_m):
            number = read_frame_number(image)
            if number is not None:
                depth[:] = depth_of_frame_number(number)
        return depth_m if self.contract.is_metric else 1.0 / depth_m

    def _close(self) -> None:
        pass


def create(config: RuntimeConfig) -> SyntheticEngine:
    """Make the engine for a configuration."""
    return SyntheticEngine(config.synthetic)
