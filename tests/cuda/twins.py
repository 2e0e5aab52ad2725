"""What both sides of a comparison are made from: raw images as messages, and the GPU stages run once."""

from types import SimpleNamespace

import numpy as np

from depth_anything_ros.cuda.plan import FrameNumbers, FramePlan
from depth_anything_ros.cuda.stages import CudaStages
from depth_anything_ros.decode import ENCODINGS, ImageLayout, rgb_frame_from_image
from depth_anything_ros.preprocess import plan_resize
from depth_anything_ros.structs import RgbFrame


def raw_image(rng: np.random.Generator, encoding: str, size_hw: tuple[int, int], padding: int = 0, is_bigendian: int = 0) -> SimpleNamespace:
    """Return a sensor_msgs/Image of random bytes, the padding of its rows included."""
    (height, width), kind = size_hw, ENCODINGS[encoding]
    step = width * kind.bytes_per_pixel + padding
    rows = height * 3 // 2 if kind.planar_420 else height
    data = rng.integers(0, 256, rows * step, np.uint8)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id="")
    return SimpleNamespace(header=header, height=height, width=width, step=step, encoding=encoding, is_bigendian=is_bigendian, data=data)


def layout_of(message: SimpleNamespace) -> ImageLayout:
    return ImageLayout(message.encoding, message.height, message.width, message.step, bool(message.is_bigendian))


def frame_of(message: SimpleNamespace) -> RgbFrame:
    return rgb_frame_from_image(message)


class Planned:
    """The stages with a plan, and a network's two buffers beside them; frees everything at the end of `with`."""

    def __init__(self, device, contract, plan: FramePlan, tensor_dtype: str = "float32", raw_dtype: str = "float32", rays=None) -> None:
        self.driver, self._size_hw, self._tensor_dtype = device.driver, plan.resize.network_size_hw, np.dtype(tensor_dtype)
        pixels = self._size_hw[0] * self._size_hw[1]
        self._tensor = device.driver.mem_alloc(3 * pixels * self._tensor_dtype.itemsize)
        self._raw = device.driver.mem_alloc(pixels * np.dtype(raw_dtype).itemsize)
        kernels = device.driver.module_from_buffer(device.cubin)
        try:
            self.stages = CudaStages(device.driver, kernels, contract, plan, rays, (tensor_dtype, raw_dtype))
        except BaseException:
            self._free_network()
            raise
        self.results = {name: device.driver.pagelocked_empty(*plan.result(name)) for name in plan.outputs}
        self.stream = device.driver.Stream()

    def __enter__(self) -> "Planned":
        return self

    def __exit__(self, *_) -> None:
        self.stages.close()
        self._free_network()

    def _free_network(self) -> None:
        self._tensor.free()
        self._raw.free()

    @property
    def tensor(self) -> np.ndarray:
        """What the network sees, once the stream is done."""
        tensor = np.empty((1, 3, *self._size_hw), self._tensor_dtype)
        self.driver.memcpy_dtoh(tensor, int(self._tensor))
        return tensor

    def set_raw(self, raw: np.ndarray) -> None:
        """Give what the network would give."""
        self.driver.memcpy_htod(int(self._raw), raw)

    def enqueue(self) -> None:
        """Enqueue a whole frame but for the network."""
        self.stages.enqueue_upload(self.stream)
        self.enqueue_kernels()
        self.stages.enqueue_download(self.stream, self.results)

    def enqueue_kernels(self) -> None:
        """Enqueue what goes into a graph, but for the network."""
        self.stages.enqueue_preprocess(self.stream, int(self._tensor))
        self.stages.enqueue_postprocess(self.stream, int(self._raw))


def cuda_tensor(device, contract, message, dtype="float32") -> np.ndarray:
    """Run the GPU's preprocessing of one message; returns the tensor as the network sees it."""
    layout = layout_of(message)
    with Planned(device, contract, FramePlan(layout, plan_resize(layout.size_hw, contract), layout.size_hw, frozenset()), dtype) as planned:
        planned.stages.image_bytes[:] = message.data
        planned.enqueue()
        planned.stream.synchronize()
        return planned.tensor


def cuda_results(device, contract, message, raw, plan: FramePlan, numbers: FrameNumbers, rays=None) -> dict[str, np.ndarray]:
    """Run the GPU's stages before and after the network, with `raw` as what the network gave; returns copies of the results."""
    with Planned(device, contract, plan, raw_dtype=raw.dtype.name, rays=rays) as planned:
        planned.stages.image_bytes[:] = message.data
        planned.stages.set_numbers(numbers)
        planned.set_raw(raw)
        planned.enqueue()
        planned.stream.synchronize()
        return planned.results


def ulps(actual: np.ndarray, expected: np.ndarray, at_least: float = 0.0) -> float:
    """Return the largest difference in units of the last place; NaN and Inf must stand in the same places.

    Values below `at_least` are measured in that one's units: where positive and negative values are added, the sum is as exact as they are.
    """
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(actual), np.isinf(expected))
    finite = np.isfinite(expected)
    distance = np.abs(actual[finite].astype(np.float64) - expected[finite])
    return float((distance / np.spacing(np.maximum(np.abs(expected[finite]), np.float32(at_least)))).max(initial=0))
