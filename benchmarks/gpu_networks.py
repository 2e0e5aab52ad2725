"""A ViT-S with random weights as the engine of the GPU benchmark: TensorRT where it is installed, otherwise PyTorch. For time, not for depth."""

from __future__ import annotations

from typing import Any

import torch

from training.depth_anything import DepthAnything, ExportForm, published_architecture

MAX_DEPTH_M = 20.0


class TorchNetwork:
    """The network in half precision, between two buffers of its own.

    Attributes:
        tensor: (1, 3, h, w) float16 on the GPU, the input.
        raw: (1, h, w) float16 on the GPU, the output.
    """

    name = "pytorch"

    def __init__(self, size_hw: tuple[int, int]) -> None:
        """Build for one input size."""
        torch.manual_seed(0)
        self._form = ExportForm(DepthAnything(published_architecture("vits", "v2", MAX_DEPTH_M)).eval(), size_hw).half().cuda()
        self.tensor = torch.zeros(1, 3, *size_hw, dtype=torch.float16, device="cuda")
        self.raw = torch.zeros(1, *size_hw, dtype=torch.float16, device="cuda")

    @torch.inference_mode()
    def enqueue(self) -> None:
        """Enqueue one inference on PyTorch's current stream."""
        self.raw.copy_(self._form(self.tensor))


class TensorRtNetwork(TorchNetwork):
    """The same network, parsed and built by TensorRT, between the same buffers."""

    name = "tensorrt"

    def __init__(self, size_hw: tuple[int, int]) -> None:
        """Export and build for one input size: minutes."""
        import tensorrt as trt

        super().__init__(size_hw)
        program = torch.onnx.export(
            self._form, (self.tensor,), opset_version=18, input_names=["image"], output_names=["depth"], dynamo=True, verbose=False
        )
        self._logger = trt.Logger(trt.Logger.WARNING)
        builder = trt.Builder(self._logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(program.model_proto.SerializeToString()):
            raise RuntimeError("; ".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
        plan = builder.build_serialized_network(network, builder.create_builder_config())
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        self._context: Any = self._engine.create_execution_context()
        self._context.set_tensor_address("image", self.tensor.data_ptr())
        self._context.set_tensor_address("depth", self.raw.data_ptr())

    def enqueue(self) -> None:
        """Enqueue one inference on PyTorch's current stream."""
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT failed to run the engine")


def network_for(size_hw: tuple[int, int]) -> TorchNetwork:
    """Return the network for an input size, by TensorRT where it is installed."""
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        return TorchNetwork(size_hw)
    return TensorRtNetwork(size_hw)
