"""A ViT-S with random weights as the engine of the GPU benchmark: TensorRT where it is installed, otherwise PyTorch. For time, not for depth."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.contract import ModelContract, with_contract
from depth_anything_ros.cuda.frames import GpuFrames
from depth_anything_ros.cuda.sources import compiled_kernels
from depth_anything_ros.engines import Engine, TensorSpec, open_engine
from depth_anything_ros.engines.cuda_runtime import CudaSession
from training.depth_anything import DepthAnything, ExportForm, published_architecture

MAX_DEPTH_M = 20.0


def contract_for(size_hw: tuple[int, int]) -> ModelContract:
    """Return the contract of a metric Depth Anything V2 for one input size."""
    return ModelContract("vits", (size_hw,), "stretch", "depth_m", interpolation="cubic", max_depth_m=MAX_DEPTH_M)


class HalfInside(nn.Module):
    """The network in half precision between float32 tensors, as exports in half precision are."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        """Build for one input size."""
        super().__init__()
        torch.manual_seed(0)
        self._form = ExportForm(DepthAnything(published_architecture("vits", "v2", MAX_DEPTH_M)).eval(), size_hw).half()

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, h, w) float32 -> (1, h, w) float32."""
        return self._form(image.half()).float()


class TorchNetwork:
    """The network between two buffers of PyTorch's; see `cuda.frames.Network`."""

    def __init__(self, session: CudaSession, size_hw: tuple[int, int]) -> None:
        """Build for one input size, and run once: PyTorch takes its memory then."""
        self._module = HalfInside(size_hw).cuda()
        self.tensor = torch.zeros(1, 3, *size_hw, device="cuda")
        self.raw = torch.zeros(1, *size_hw, device="cuda")
        self.input_address, self.output_address = self.tensor.data_ptr(), self.raw.data_ptr()
        self._stream = torch.cuda.ExternalStream(session.stream_handle)
        self.enqueue()
        session.synchronize()

    @torch.inference_mode()
    def enqueue(self) -> None:
        """Enqueue one inference on the session's stream."""
        with torch.cuda.stream(self._stream):
            self.raw.copy_(self._module(self.tensor))


class TorchEngine(Engine):
    """PyTorch in the place of TensorRT, for machines that have no TensorRT."""

    name: ClassVar[str] = "pytorch"
    model_sha256 = "none"

    def __init__(self, contract: ModelContract) -> None:
        """Remember the contract; nothing is made before `open`."""
        self.contract = contract
        self.platform = f"PyTorch {torch.__version__}"
        shape = contract.input_sizes_hw[0]
        self.input_spec, self.output_spec = TensorSpec("image", "float32", (1, 3, *shape)), TensorSpec("depth", "float32", (1, *shape))

    def _open(self) -> None:
        self._session = CudaSession()
        with self._session.active():
            self._network = TorchNetwork(self._session, self.contract.input_sizes_hw[0])
            cubin = compiled_kernels(self._session.device.compute_capability)
            self.gpu = GpuFrames(self._session, cubin, self.contract, ("float32", "float32"), lambda _: self._network)

    def _infer(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with self._session.active():
            self._network.tensor.copy_(torch.from_numpy(tensor))
            torch.cuda.synchronize()
            self._network.enqueue()
            self._session.synchronize()
            return self._network.raw.cpu().numpy()

    def _close(self) -> None:
        if self.gpu is not None:
            with self._session.active():
                self.gpu.close()
            self.gpu = None
            self._session.close()


def engine_for(size_hw: tuple[int, int], folder: Path) -> Engine:
    """Return an open engine for an input size; TensorRT builds it (minutes) into `folder` unless it is there."""
    contract = contract_for(size_hw)
    if importlib.util.find_spec("tensorrt") is None:
        engine = TorchEngine(contract)
        engine.open()
        return engine
    path = folder / f"vits_{size_hw[0]}x{size_hw[1]}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        image, names = torch.zeros(1, 3, *size_hw), {"input_names": ["image"], "output_names": ["depth"]}
        program = torch.onnx.export(HalfInside(size_hw), (image,), opset_version=18, dynamo=True, verbose=False, **names)
        path.write_bytes(with_contract(program.model_proto.SerializeToString(), contract))
    values = {"engine": "tensorrt", "model": str(path), "tensorrt.cache_dir": str(folder), "tensorrt.gpu_stages": "on"}
    return open_engine(RuntimeConfig().updated(values))
