"""Models behind one call for evaluation: RGB in, DepthMap out, through the runtime's own preprocess and postprocess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from depth_anything_ros.contract import ModelContract, read_model_file
from depth_anything_ros.postprocess import enlarge, map_from_raw
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import DepthMap, RgbFrame

from .contracts import checkpoint_contract
from .networks import open_network

Predictor = Callable[[npt.NDArray[np.uint8], float | None], DepthMap]
"""(H, W, 3) uint8 RGB and the focal length in its pixels (None: unknown) -> map of the same size."""

RawModel = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def predictor_from_raw(raw_model: RawModel, contract: ModelContract) -> Predictor:
    """Wrap a network in the runtime's stages 2 and 4.

    Without a focal length metres have an arbitrary common factor (that of a camera whose focal length is the image's
    width): such a map may be aligned, not taken for metric, and nothing is beyond its range.
    """

    def predict(rgb: npt.NDArray[np.uint8], focal_px: float | None) -> DepthMap:
        size_hw = rgb.shape[0], rgb.shape[1]
        given = Preprocessor(contract)(RgbFrame(rgb))
        small = map_from_raw(raw_model(given.tensor), given.resize, contract, focal_px or float(size_hw[1]))
        return enlarge(small, size_hw, contract.max_depth_m) if focal_px and contract.max_depth_m else enlarge(small, size_hw)

    return predict


def open_predictor(path: Path, threads: int = 2) -> Predictor:
    """Open a checkpoint (`.safetensors`, averaged weights) or an ONNX file with a contract (ONNX Runtime, CPU)."""
    return _open_checkpoint(path, threads) if path.suffix == ".safetensors" else _open_onnx(path, threads)


def _open_checkpoint(path: Path, threads: int) -> Predictor:
    torch.set_num_threads(threads)
    network, config, _ = open_network(path)

    def raw(tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return network.serve(torch.from_numpy(tensor)).numpy()

    return predictor_from_raw(raw, checkpoint_contract(config, {}))


def _open_onnx(path: Path, threads: int) -> Predictor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return predictor_from_raw(lambda tensor: session.run(None, {name: tensor})[0], read_model_file(path).contract)


def vertical_ramp(rgb: npt.NDArray[np.uint8], focal_px: float | None) -> DepthMap:
    """Predict without looking: the bottom row is nearest, the top row farthest. What a model must beat."""
    rows = (np.arange(rgb.shape[0], dtype=np.float32) + 1)[:, None] / rgb.shape[0]
    return DepthMap(np.repeat(rows, rgb.shape[1], axis=1), "disparity_affine_invariant")
