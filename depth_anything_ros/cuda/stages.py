"""Stages 2, 4 and 5 on a GPU: raw image bytes in host memory -> network input; network output -> depth, cloud and picture in host memory.

One object serves one engine. `plan` fixes sizes and addresses and allocates; what is enqueued after that neither allocates nor waits,
so it can be captured in a CUDA graph together with the engine's own work. Numbers that change from frame to frame are read
by the kernels from a block of device memory that every frame refreshes, so a captured graph stays valid.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..color import rgb_from_map
from ..contract import ModelContract
from ..errors import EngineError
from ..structs import DepthMap
from . import launch
from .buffers import Buffers
from .plan import OUTPUTS, FrameNumbers, FramePlan
from .taps import depth_taps, nearest_taps, pixel_taps


class CudaStages:
    """Everything but the network, for one model. Not thread-safe: all calls on the thread that has the CUDA context.

    A frame is `image_bytes` and `set_numbers`, then on one stream `enqueue_upload`, `enqueue_preprocess`, the network, `enqueue_postprocess`
    and `enqueue_download`; `results` are there when the stream is done.

    Attributes:
        image_bytes: page-locked (nbytes,) uint8; fill it with the raw image before a frame.
        results: page-locked arrays by output: `depth` and `relative` (H, W) float32, `points` (h, w, 3 or 4) float32, `color` (H, W, 3)
            uint8, with the meaning that the numpy stages give them. The next frame writes over them. `depth` is copied first.
    """

    _plan: FramePlan | None

    def __init__(self, driver: Any, cubin: bytes, contract: ModelContract, tensor_dtype: str = "float32", raw_dtype: str = "float32") -> None:  # noqa: ANN401
        """Load the kernels; nothing is allocated before `plan`.

        Args:
            driver: the module `pycuda.driver`, initialised, with a current context.
            cubin: `sources.compiled_kernels` for the device.
            contract: of the model.
            tensor_dtype: of the network's input, float32 or float16.
            raw_dtype: of its output, float32 or float16.
        """
        self._driver, self._contract = driver, contract
        self._tensor_dtype, self._raw_dtype = tensor_dtype, raw_dtype
        self._module = driver.module_from_buffer(cubin)
        self._buffers = Buffers(driver)
        self._forget()

    def plan(self, plan: FramePlan, tensor_address: int, raw_address: int, rays: npt.NDArray[np.float32] | None = None) -> None:
        """Allocate for frames of another kind; whatever was captured before must not be launched again.

        Args:
            plan: the kind of frames.
            tensor_address: device memory of the network's input, (1, 3, h, w) of `tensor_dtype`.
            raw_address: device memory of its output, one value of `raw_dtype` for every pixel of the input.
            rays: of the cloud of a distorted camera, (h, w, 2) as `geometry.CloudBuilder` takes them; None: pinhole.

        Raises:
            EngineError: this model cannot give one of the outputs, or the memory does not suffice.
        """
        unknown = plan.outputs - set(OUTPUTS)
        if unknown or ("relative" in plan.outputs and self._contract.is_metric):
            raise EngineError(f"model '{self._contract.name}' cannot give {', '.join(sorted(unknown)) or 'a relative map'}")
        self.close()
        try:
            self._allocate(plan)
            self._plan_preprocess(plan, tensor_address)
            self._plan_postprocess(plan, raw_address, rays)
            self._plan = plan
        except BaseException:
            self.close()
            raise

    def set_numbers(self, numbers: FrameNumbers) -> None:
        """Set the numbers of the next frame; the frame before must be done.

        Raises:
            EngineError: there is no plan yet, or points lack the intrinsics of the published size.
        """
        if self._plan is None:
            raise EngineError("the numbers of a frame need a plan")
        values = numbers.packed()
        if self._rays_in_block:
            values = np.concatenate([values, numbers.packed_rays(self._plan)])
        self._block[: values.size] = values

    def enqueue_upload(self, stream: Any) -> None:  # noqa: ANN401
        """Enqueue the copy of `image_bytes` and of the numbers to the device, on a pycuda stream as all of these."""
        self._driver.memcpy_htod_async(self._image_address, self.image_bytes, stream)
        self._driver.memcpy_htod_async(self._block_address, self._block, stream)

    def enqueue_preprocess(self, stream: Any) -> None:  # noqa: ANN401
        """Enqueue the kernel from the raw image to the network's input."""
        self._launch(self._before, stream)

    def enqueue_postprocess(self, stream: Any) -> None:  # noqa: ANN401
        """Enqueue the kernels from the network's output to all wanted outputs in device memory."""
        self._launch(self._after, stream)

    def enqueue_download(self, stream: Any) -> None:  # noqa: ANN401
        """Enqueue the copies of all wanted outputs to `results`."""
        for name, array in self.results.items():
            self._driver.memcpy_dtoh_async(array, self._result_addresses[name], stream)

    def close(self) -> None:
        """Free the memory; the stream must be done. Does nothing when it is freed already."""
        self._buffers.free()
        self._forget()

    def _forget(self) -> None:
        self._plan = None
        self._rays_in_block = False
        self._image_address = self._block_address = 0
        self.image_bytes, self._block = np.empty(0, np.uint8), np.empty(0, np.float32)
        self.results: MappingProxyType[str, npt.NDArray[Any]] = MappingProxyType({})
        self._result_addresses: dict[str, int] = {}
        self._before: list[tuple[Any, np.void]] = []
        self._after: list[tuple[Any, np.void]] = []

    def _launch(self, kernels: list[tuple[Any, np.void]], stream: Any) -> None:  # noqa: ANN401
        for function, args in kernels:
            function(args, block=launch.BLOCK, grid=launch.grid_for(args), stream=stream)

    def _allocate(self, plan: FramePlan) -> None:
        make = self._buffers
        self._image_address, self.image_bytes = make.device(plan.layout.nbytes), make.pinned((plan.layout.nbytes,), np.uint8)
        self._block = make.pinned((launch.NUMBERS.itemsize // 4 + sum(plan.cloud_size_hw),), np.float32)
        self._block[:] = 0
        self._block_address = make.device(self._block.nbytes)
        self.results = MappingProxyType({name: make.pinned(*plan.result(name)) for name in OUTPUTS if name in plan.outputs})
        for name in plan.outputs | ({"depth"} if plan.outputs & {"points", "color"} else set()):
            shape, dtype = plan.result(name)
            self._result_addresses[name] = make.device(math.prod(shape) * np.dtype(dtype).itemsize)

    def _plan_preprocess(self, plan: FramePlan, tensor_address: int) -> None:
        contract, (top, left, height, width) = self._contract, plan.resize.content_tlhw
        mean, std = np.asarray(contract.mean), np.asarray(contract.std)
        args = launch.arguments(
            launch.PREPROCESS_ARGS,
            plan.resize.network_size_hw,
            image=launch.image(plan.layout, self._image_address),
            column_taps=self._buffers.constant(pixel_taps(plan.layout.width, width, contract.interpolation, is_row=False)),
            row_taps=self._buffers.constant(pixel_taps(plan.layout.height, height, contract.interpolation, is_row=True)),
            tensor=tensor_address,
            content_top=top,
            content_left=left,
            content_height=height,
            content_width=width,
            channel=(0, 1, 2) if contract.channel_order == "rgb" else (2, 1, 0),
            gain=1.0 / (255.0 * std),
            bias=-mean / std,
        )
        name = f"preprocess_{plan.layout.source}_{contract.interpolation}_{self._tensor_dtype}"
        self._before.append((self._module.get_function(name), args))

    def _plan_postprocess(self, plan: FramePlan, raw_address: int, rays: npt.NDArray[np.float32] | None) -> None:
        if "depth" in self._result_addresses:
            self._plan_map(plan, raw_address, "depth", "metric_depth" if self._contract.is_metric else "depth_of_disparity")
        if "relative" in plan.outputs:
            self._plan_map(plan, raw_address, "relative", "disparity")
        if "points" in plan.outputs:
            self._plan_cloud(plan, rays)
        if "color" in plan.outputs:
            self._plan_picture(plan)

    def _plan_map(self, plan: FramePlan, raw_address: int, name: str, network_map: str) -> None:
        (top, left, height, width), size_hw = plan.resize.content_tlhw, plan.published_size_hw
        content = self._buffers.device(4 * height * width)
        args = launch.arguments(
            launch.NETWORK_MAP_ARGS,
            (height, width),
            raw=raw_address,
            map=content,
            numbers=self._block_address,
            raw_width=plan.resize.network_size_hw[1],
            content_top=top,
            content_left=left,
        )
        self._after.append((self._module.get_function(f"network_map_{network_map}_{self._raw_dtype}"), args))
        copies = (height, width) == size_hw
        args = launch.arguments(
            launch.ENLARGE_ARGS,
            size_hw,
            map=content,
            published=self._result_addresses[name],
            numbers=self._block_address,
            column_taps=self._buffers.constant(depth_taps(width, size_hw[1], is_row=False, copies=copies)),
            row_taps=self._buffers.constant(depth_taps(height, size_hw[0], is_row=True, copies=copies)),
            map_width=width,
        )
        self._after.append((self._module.get_function("enlarge_depth" if name == "depth" else "enlarge_disparity"), args))

    def _plan_cloud(self, plan: FramePlan, rays: npt.NDArray[np.float32] | None) -> None:
        (height, width), (cloud_h, cloud_w), stride = plan.published_size_hw, plan.cloud_size_hw, plan.cloud_stride
        if rays is None:
            self._rays_in_block = True
            ray_x = self._block_address + launch.NUMBERS.itemsize
            where = {"ray_x": ray_x, "ray_y": ray_x + 4 * cloud_w, "ray_x_step": (0, 1), "ray_y_step": (1, 0)}
        elif rays.shape != (cloud_h, cloud_w, 2):
            raise EngineError(f"rays have shape {rays.shape}, the points need {(cloud_h, cloud_w, 2)}")
        else:
            ray_x = self._buffers.constant(rays)
            where = {"ray_x": ray_x, "ray_y": ray_x + 4, "ray_x_step": (2 * cloud_w, 2), "ray_y_step": (2 * cloud_w, 2)}
        args = launch.arguments(
            launch.CLOUD_ARGS,
            plan.cloud_size_hw,
            depth=self._result_addresses["depth"],
            points=self._result_addresses["points"],
            numbers=self._block_address,
            **where,
            color_column=self._buffers.constant(nearest_taps(plan.layout.width, width)[::stride]),
            color_row=self._buffers.constant(nearest_taps(plan.layout.height, height)[::stride]),
            image=launch.image(plan.layout, self._image_address),
            depth_width=width,
            stride=stride,
        )
        name = "cloud_xyz" if plan.cloud_fields == "xyz" else f"cloud_{plan.layout.source}"
        self._after.append((self._module.get_function(name), args))

    def _plan_picture(self, plan: FramePlan) -> None:
        # A ramp that meets every colour once, drawn by the numpy stage itself.
        ramp = DepthMap(np.exp(-(np.arange(256, dtype=np.float32)[None] + 0.5) / 255), "depth_m")
        args = launch.arguments(
            launch.PICTURE_ARGS,
            plan.published_size_hw,
            map=self._result_addresses["depth"],
            rgb=self._result_addresses["color"],
            palette=self._buffers.constant(rgb_from_map(ramp, plan.colormap, math.exp(-1), 1.0)),
            numbers=self._block_address,
        )
        self._after.append((self._module.get_function("picture"), args))
