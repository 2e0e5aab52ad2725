"""A teacher of any output kind, opened with onnxruntime from an ONNX file: image -> affine-invariant disparity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from depth_anything_ros.contract import read_model_file
from depth_anything_ros.errors import ContractError, EngineError
from depth_anything_ros.postprocess import FARTHEST_M, enlarge, map_from_raw
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import DepthMap, RgbFrame

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class LabelJob:
    """How shards are labelled; the same for all shards of an output folder.

    Attributes:
        output: folder for the label shards.
        teacher: ONNX file with a contract, weights inside.
        teacher_sha256: of that file, in hexadecimal.
        label_size: `image` (as many pixels as the image) or `network` (the teacher's own resolution).
        device: `cpu` or `cuda`.
        threads: of one teacher on the CPU.
        settings_id: SHA-256 of what the labels depend on.
    """

    output: str
    teacher: str
    teacher_sha256: str
    settings_id: str
    label_size: Literal["image", "network"] = "image"
    device: str = "cpu"
    threads: int = 1


class Teacher:
    """A model of any output kind, asked for affine-invariant disparity. Not thread-safe."""

    def __init__(self, job: LabelJob) -> None:
        """Open the model.

        Raises:
            ContractError: the file is not the one that the job was planned with, or no model.
            EngineError: the device is not available; nothing else is taken in its place.
        """
        import onnxruntime

        file = read_model_file(job.teacher)
        if file.sha256 != job.teacher_sha256:
            raise ContractError(f"teacher '{job.teacher}' has SHA-256 {file.sha256}, not {job.teacher_sha256}: it is another file on this machine")
        provider = PROVIDERS[job.device]
        if provider not in onnxruntime.get_available_providers():
            raise EngineError(f"onnxruntime has no {provider} here; pip install onnxruntime-gpu in its place, or use --device cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(job.teacher, options, providers=[provider])
        except Exception as error:  # onnxruntime's own classes have no common root
            raise EngineError(f"onnxruntime cannot open teacher '{job.teacher}': {error}") from error
        if provider not in self._session.get_providers():
            raise EngineError(f"onnxruntime cannot start {provider} (see its message above); check the driver, or use --device cpu")
        self._input, self._contract, self._label_size = self._session.get_inputs()[0].name, file.contract, job.label_size
        self._preprocess = Preprocessor(file.contract)

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict: (H, W, 3) uint8 -> (h, w) float32 disparity, unknown scale and shift, 0 beyond range, NaN = unknown.

        A model that needs a focal length is given the image's width in pixels: a common factor, to which the label is blind.
        """
        given = self._preprocess(RgbFrame(rgb))
        try:
            raw = self._session.run(None, {self._input: given.tensor})[0]
        except Exception as error:
            raise EngineError(f"the teacher failed: {error}") from error
        small = map_from_raw(raw, given.resize, self._contract, float(rgb.shape[1]))
        size_hw = (rgb.shape[0], rgb.shape[1]) if self._label_size == "image" else small.size_hw
        limit_m = self._contract.max_depth_m if self._contract.output_kind == "depth_m" else None
        return disparity_from_map(enlarge(small, size_hw, limit_m or FARTHEST_M))


def disparity_from_map(depth_map: DepthMap) -> npt.NDArray[np.float32]:
    """Return (H, W) float32 disparity: 1/depth of a `depth_m` map, so that sky and beyond range (+Inf) become 0; NaN stays."""
    return depth_map.values if depth_map.kind == "disparity_affine_invariant" else np.float32(1) / depth_map.values


@lru_cache(maxsize=1)
def open_teacher(job: LabelJob) -> Teacher:
    """Open the teacher once per process, and keep OpenCV to as many threads; for errors see `Teacher`."""
    cv2.setNumThreads(job.threads)
    return Teacher(job)
