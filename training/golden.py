"""Add to an ONNX file what the runtime's self-check needs: a small picture, and what ONNX Runtime makes of it.

`training.export` does it for every file. For others, or with a photograph: python -m training.golden MODEL.onnx --out OUT.onnx [--image FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from depth_anything_ros.contract import GOLDEN_KEY, read_model_file, with_metadata
from depth_anything_ros.errors import DepthAnythingError
from depth_anything_ros.self_check import Deviation, golden_text, measure

from .precision import contract_of

PICTURE_HW = (168, 224)
_FINER = 3
_BOXES = (((-1.3, 0.5, 2.2), (-0.5, 1.4, 3.0), (200, 60, 40)), ((0.4, -0.1, 3.6), (1.2, 1.4, 4.6), (50, 90, 200)))  # least, greatest corner, colour
_ROOM = ((-2.0, -1.3, -1.0), (2.0, 1.4, 7.0))
_WALLS = ((170, 150, 120), (140, 110, 80), (190, 190, 180))  # of surfaces across x, y, z


def golden_picture() -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB of `PICTURE_HW`: a tiled room with two boxes, seen with 65 degrees, so that depth has structure."""
    height, width = (_FINER * side for side in PICTURE_HW)
    focal_px = width / 2 / np.tan(np.radians(65 / 2))
    y, x = np.mgrid[:height, :width]
    rays = np.stack([(x - width / 2 + 0.5) / focal_px, (y - height / 2 + 0.5) / focal_px, np.ones(x.shape)], -1)
    rays[rays == 0] = 1e-9
    distance, axis = _leaving(rays, *_ROOM)
    colour = np.asarray(_WALLS, float)[axis]
    for low, high, rgb in _BOXES:
        near, near_axis = _entering(rays, low, high)
        closer = near < distance
        distance[closer], axis[closer], colour[closer] = near[closer], near_axis[closer], rgb
    points = rays * distance[..., None]
    tiles = (np.floor(points * 2.5 + 1e-6).sum(-1) % 2)[..., None]
    shade = np.array([0.8, 1.0, 0.65])[axis][..., None] * (0.75 + 0.25 * tiles) / (1 + 0.04 * distance[..., None] ** 2)
    fine = np.clip(colour * shade * 1.2, 0, 255).astype(np.uint8)
    return cv2.resize(fine, PICTURE_HW[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _slabs(rays: npt.NDArray[np.float64], low: tuple[float, ...], high: tuple[float, ...]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where rays from the origin enter and leave each pair of planes. Source: the slab method (Kay and Kajiya 1986)."""
    hits = np.stack([np.asarray(low) / rays, np.asarray(high) / rays])
    return hits.min(0), hits.max(0)


def _leaving(rays: npt.NDArray[np.float64], low: tuple[float, ...], high: tuple[float, ...]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    leave = _slabs(rays, low, high)[1]
    return leave.min(-1), leave.argmin(-1)


def _entering(
    rays: npt.NDArray[np.float64], low: tuple[float, ...], high: tuple[float, ...]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    enter, leave = _slabs(rays, low, high)
    return np.where((enter.max(-1) < leave.min(-1)) & (enter.max(-1) > 0), enter.max(-1), np.inf), enter.argmax(-1)


def with_golden(content: bytes, rgb: npt.NDArray[np.uint8] | None = None) -> bytes:
    """Return an ONNX file with a picture and the output that its own graph has for it, as ONNX Runtime computes it on the CPU.

    Args:
        content: an ONNX file with its contract, in its final precision.
        rgb: (H, W, 3) uint8; None: `golden_picture`.

    Raises:
        EngineError: the network's output is not finite.
    """
    contract, infer = contract_of(content), _Reference(content)
    return with_metadata(content, GOLDEN_KEY, golden_text(golden_picture() if rgb is None else rgb, contract, infer))


class _Reference:
    """The network on ONNX Runtime's CPU provider."""

    def __init__(self, content: bytes) -> None:
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def __call__(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        output: npt.NDArray[np.float32] = self._session.run(None, {self._name: tensor})[0]
        return output


def deviation_of(content: bytes, golden: str) -> Deviation:
    """Return how far another conversion of a network is from golden data: what the self-check would say of it."""
    return measure(golden, contract_of(content), _Reference(content))


def main(argv: list[str] | None = None) -> int:
    """Add golden data to one file; returns 0, or 2 where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m training.golden", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ONNX file with its contract")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--image", type=Path, help="a small picture (default: a rendered room)")
    args = parser.parse_args(argv)
    try:
        bgr = None if args.image is None else cv2.imread(str(args.image), cv2.IMREAD_COLOR)
        if args.image is not None and bgr is None:
            parser.error(f"'{args.image}' is missing or not an image that OpenCV reads")
        content = with_golden(read_model_file(args.model).path.read_bytes(), None if bgr is None else np.ascontiguousarray(bgr[..., ::-1]))
        args.out.write_bytes(content)
    except (DepthAnythingError, OSError) as error:
        print(f"golden: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(content) - args.model.stat().st_size} bytes of golden data")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
