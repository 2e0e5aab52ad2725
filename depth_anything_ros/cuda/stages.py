"""Stages 2, 4 and 5 on a GPU: raw image bytes in host memory -> network input; network output -> depth, cloud and picture in host memory.

All that is allocated is allocated at the beginning; what is enqueued after that neither allocates nor waits, so it can be captured
in a CUDA graph together with the engine's own work. Numbers that change from frame to frame are read
by the kernels from a block of device memory that every frame refreshes, so a captured graph stays valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..color import rgb_from_map
from ..contract import ModelContract
from ..errors import EngineError
from ..preprocess import gain_and_bias
from ..structs import DepthMap
from . import launch
from .buffers import Buffers
from .formats import FORMATS
from .plan import OUTPUTS, FrameNumbers, FramePlan
from .taps import depth_taps, nearest_taps, pixel_taps


class CudaStages:
    """Everything but the network, for one camera's frames of one kind. Not thread-safe: all calls on the thread that has the CUDA context.

    A frame is `image_bytes` and `set_numbers`, then on one stream `enqueue_upload`, `enqueue_preprocess`, the network, `enqueue_postprocess`
    and `enqueue_download`.

    Attributes:
        plan: the kind of frames.
        image_bytes: page-locked (nbytes,) uint8; fill it with the raw image when the frame before is done.
    """

    def __init__(
        self,
        driver: Any,  # noqa: ANN401
        kernels: Any,  # noqa: ANN401
        contract: ModelContract,
        plan: FramePlan,
        rays: npt.NDArray[np.float32] | None = None,
        dtypes: tuple[str, str] = ("float32", "float32"),
    ) -> None:
        """Allocate for frames of one kind.

        Args:
            driver: the module `pycuda.driver`, with a current context.
            kernels: pycuda's module of `sources.compiled_kernels` for the device.
            contract: of the model.
            plan: the kind of frames.
            rays: of the cloud of a distorted camera, (h, w, 2) as `geometry.CloudBuilder` takes them; None: pinhole.
            dtypes: of the network's input and output, float32 or float16 each.

        Raises:
            EngineError: this model cannot give one of the outputs, or the memory does not suffice.
        """
        unknown = plan.outputs - set(OUTPUTS)
        if unknown or ("relative" in plan.outputs and contract.is_metric):
            raise EngineError(f"model '{contract.name}' cannot give {', '.join(sorted(unknown)) or 'a relative map'}")
        self.plan, self._driver, self._kernels, self._contract = plan, driver, kernels, contract
        self._tensor_dtype, self._raw_dtype = dtypes
        self._rays_in_block = "points" in plan.outputs and rays is None
        self._buffers = Buffers(driver)
        try:
            self._allocate()
            self._before = [self._planned_preprocess()]
            self._network_maps: list[tuple[Any, np.void]] = []
            self._after: list[tuple[Any, np.void]] = []
            self._plan_postprocess(rays)
        except BaseException:
            self.close()
            raise

    def set_numbers(self, numbers: FrameNumbers) -> None:
        """Set the numbers of the next frame; the frame before must be done.

        Raises:
            EngineError: points lack the intrinsics of the published size.
        """
        values = numbers.packed()
        if self._rays_in_block:
            values = np.concatenate([values, numbers.packed_rays(self.plan)])
        self._block[: values.size] = values

    def enqueue_upload(self, stream: Any) -> None:  # noqa: ANN401
        """Enqueue the copy of `image_bytes` and of the numbers to the device, on a pycuda stream as all of these."""
        self._driver.memcpy_htod_async(self._image_address, self.image_bytes, stream)
        self._driver.memcpy_htod_async(self._block_address, self._block, stream)

    def enqueue_preprocess(self, stream: Any, tensor_address: int) -> None:  # noqa: ANN401
        """Enqueue the kernel from the raw image to the network's input: device memory of (3, h, w)."""
        self._launch(self._before, stream, tensor=tensor_address)

    def enqueue_postprocess(self, stream: Any, raw_address: int) -> None:  # noqa: ANN401
        """Enqueue the kernels from the network's output, device memory of (h, w), to all wanted outputs in device memory."""
        self._launch(self._network_maps, stream, raw=raw_address)
        self._launch(self._after, stream)

    def enqueue_download(self, stream: Any, results: Mapping[str, npt.NDArray[Any]]) -> None:  # noqa: ANN401
        """Enqueue the copies of all wanted outputs to page-locked arrays, one for each of `plan.outputs`, as `plan.result` says.

        They have the meaning that the numpy stages give them. `depth` is copied first.
        """
        for name in OUTPUTS:
            if name in self.plan.outputs:
                self._driver.memcpy_dtoh_async(results[name], self._result_addresses[name], stream)

    def close(self) -> None:
        """Free the memory; the stream must be done."""
        self._buffers.free()

    def _launch(self, kernels: list[tuple[Any, np.void]], stream: Any, **addresses: int) -> None:  # noqa: ANN401
        for function, args in kernels:
            for name, address in addresses.items():
                args[name] = address
            function(args, block=launch.BLOCK, grid=launch.grid_for(args), stream=stream)

    def _kernel(self, name: str) -> Any:  # noqa: ANN401
        return self._kernels.get_function(name)

    def _allocate(self) -> None:
        make, plan = self._buffers, self.plan
        self._image_address, self.image_bytes = make.device(plan.layout.nbytes), make.pinned((plan.layout.nbytes,), np.uint8)
        self._block = make.pinned((launch.NUMBERS.itemsize // 4 + sum(plan.cloud_size_hw),), np.float32)
        self._block[:] = 0
        self._block_address = make.device(self._block.nbytes)
        self._result_addresses: dict[str, int] = {}
        for name in plan.outputs | ({"depth"} if plan.outputs & {"points", "color"} else set()):
            shape, dtype = plan.result(name)
            self._result_addresses[name] = make.device(math.prod(shape) * np.dtype(dtype).itemsize)

    def _planned_preprocess(self) -> tuple[Any, np.void]:
        plan, contract, (top, left, height, width) = self.plan, self._contract, self.plan.resize.content_tlhw
        gain, bias = gain_and_bias(contract)
        args = launch.arguments(
            launch.PREPROCESS_ARGS,
            plan.resize.network_size_hw,
            image=launch.image(plan.layout, self._image_address),
            column_taps=self._buffers.constant(pixel_taps(plan.layout.width, width, contract.interpolation, is_row=False)),
            row_taps=self._buffers.constant(pixel_taps(plan.layout.height, height, contract.interpolation, is_row=True)),
            tensor=0,  # of each launch
            content_top=top,
            content_left=left,
            content_height=height,
            content_width=width,
            channel=(0, 1, 2) if contract.channel_order == "rgb" else (2, 1, 0),
            gain=gain,
            bias=bias,
        )
        return self._kernel(f"preprocess_{FORMATS[plan.layout.encoding].source}_{contract.interpolation}_{self._tensor_dtype}"), args

    def _plan_postprocess(self, rays: npt.NDArray[np.float32] | None) -> None:
        if "depth" in self._result_addresses:
            self._plan_map("depth", "metric_depth" if self._contract.is_metric else "depth_of_disparity")
        if "relative" in self.plan.outputs:
            self._plan_map("relative", "disparity")
        if "points" in self.plan.outputs:
            self._plan_cloud(rays)
        if "color" in self.plan.outputs:
            self._plan_picture()

    def _plan_map(self, name: str, network_map: str) -> None:
        plan, (top, left, height, width), size_hw = self.plan, self.plan.resize.content_tlhw, self.plan.published_size_hw
        content = self._buffers.device(4 * height * width)
        args = launch.arguments(
            launch.NETWORK_MAP_ARGS,
            (height, width),
            raw=0,  # of each launch
            map=content,
            numbers=self._block_address,
            raw_width=plan.resize.network_size_hw[1],
            content_top=top,
            content_left=left,
        )
        self._network_maps.append((self._kernel(f"network_map_{network_map}_{self._raw_dtype}"), args))
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
        self._after.append((self._kernel("enlarge_depth" if name == "depth" else "enlarge_disparity"), args))

    def _plan_cloud(self, rays: npt.NDArray[np.float32] | None) -> None:
        plan = self.plan
        (height, width), (cloud_h, cloud_w), stride = plan.published_size_hw, plan.cloud_size_hw, plan.cloud_stride
        if rays is None:
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
        name = "cloud_xyz" if plan.cloud_fields == "xyz" else f"cloud_{FORMATS[plan.layout.encoding].source}"
        self._after.append((self._kernel(name), args))

    def _plan_picture(self) -> None:
        # A ramp that meets every colour once, drawn by the numpy stage itself.
        ramp = DepthMap(np.exp(-(np.arange(256, dtype=np.float32)[None] + 0.5) / 255), "depth_m")
        args = launch.arguments(
            launch.PICTURE_ARGS,
            self.plan.published_size_hw,
            map=self._result_addresses["depth"],
            rgb=self._result_addresses["color"],
            palette=self._buffers.constant(rgb_from_map(ramp, self.plan.colormap, math.exp(-1), 1.0)),
            numbers=self._block_address,
        )
        self._after.append((self._kernel("picture"), args))
