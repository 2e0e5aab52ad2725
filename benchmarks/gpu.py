"""The GPU stages: against their numpy twins, against the bytes they must move, and end to end around a ViT-S. Prints and writes JSON.

    python -m benchmarks.gpu [--frames 300] [--output benchmark_out/gpu.json]

Needs an NVIDIA GPU, pycuda, NVRTC and PyTorch with CUDA. Aims: kernels within 2x of the time that their bytes take at the measured copy
bandwidth; image bytes in host memory -> depth and cloud in host memory within 1.15x of the network alone.

The arithmetic was checked on CPUs (see docs/cuda.md); this program has not been run on a GPU yet, so there are no figures of it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from depth_anything_ros.contract import ModelContract
from depth_anything_ros.cuda.formats import ImageLayout
from depth_anything_ros.cuda.plan import FrameNumbers, FramePlan
from depth_anything_ros.cuda.sources import compiled_kernels
from depth_anything_ros.cuda.stages import CudaStages
from depth_anything_ros.decode import rgb_frame_from_image
from depth_anything_ros.geometry import CloudBuilder
from depth_anything_ros.postprocess import enlarge, map_from_raw
from depth_anything_ros.preprocess import Preprocessor, plan_resize
from depth_anything_ros.structs import Intrinsics

from .gpu_networks import MAX_DEPTH_M, TorchNetwork, network_for

CAMERAS = {"vga": (480, 640), "1080p": (1080, 1920)}
NETWORK_BOUNDS_PX = (518, 308)
OUTPUTS = frozenset({"depth", "points"})
COPY_BYTES = 2**28
REPEATS = 200


def contract_for(bound_px: int) -> ModelContract:
    """Return the contract of a metric Depth Anything V2 whose shorter side is `bound_px`."""
    return ModelContract("vits", ((bound_px, bound_px),), "lower_bound", "depth_m", size_multiple=14, interpolation="cubic", max_depth_m=MAX_DEPTH_M)


class Case:
    """One camera and one network, planned on the GPU, with everything that the CPU stages need beside it."""

    def __init__(self, driver: Any, cubin: bytes, size_hw: tuple[int, int], bound_px: int) -> None:  # noqa: ANN401 - the module pycuda.driver
        """Make a random image and plan for it; rgb8, depth at the image's size, XYZRGB."""
        self.contract, (height, width) = contract_for(bound_px), size_hw
        self.layout = ImageLayout("rgb8", height, width, 3 * width)
        data = np.random.default_rng(0).integers(0, 256, self.layout.nbytes, np.uint8)
        header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id="")
        self.message = SimpleNamespace(header=header, height=height, width=width, step=3 * width, encoding="rgb8", is_bigendian=0, data=data)
        self.resize = plan_resize(size_hw, self.contract)
        self.network: TorchNetwork = network_for(self.resize.network_size_hw)
        self.camera = Intrinsics(float(width), float(width), width / 2, height / 2, size_hw)
        self.stages = CudaStages(driver, cubin, self.contract, "float16", "float16")
        plan = FramePlan(self.layout, self.resize, size_hw, OUTPUTS)
        self.stages.plan(plan, self.network.tensor.data_ptr(), self.network.raw.data_ptr())
        self.stages.image_bytes[:] = data
        self.stages.set_numbers(FrameNumbers(max_depth_m=MAX_DEPTH_M, intrinsics=self.camera))
        self.preprocess, self.build_cloud = Preprocessor(self.contract), CloudBuilder()

    def enqueue_frame(self, stream: Any) -> None:  # noqa: ANN401 - a pycuda stream
        """Enqueue a whole frame; PyTorch's current stream must be the same one."""
        self.stages.enqueue_upload(stream)
        self.stages.enqueue_preprocess(stream)
        self.network.enqueue()
        self.stages.enqueue_postprocess(stream)
        self.stages.enqueue_download(stream)

    def numpy_frame(self, infer: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
        """Run a frame with the numpy stages around `infer`; returns depth and cloud."""
        frame = rgb_frame_from_image(self.message)
        self.network.tensor.copy_(torch.from_numpy(self.preprocess(frame).tensor))
        infer()
        raw = self.network.raw.float().cpu().numpy()
        depth = enlarge(map_from_raw(raw, self.resize, self.contract), self.layout.size_hw, MAX_DEPTH_M).values
        return depth, self.build_cloud(depth, self.camera, frame.rgb)


def kernel_figures(case: Case, driver: Any, stream: Any, bytes_per_us: float) -> dict[str, Any]:  # noqa: ANN401
    """Return the kernels' times in microseconds, and how far above the time of their bytes they are."""
    stages, pixels = case.stages, case.network.raw.numel()
    moved = {
        "preprocess": case.layout.nbytes + 2 * 3 * pixels,
        "postprocess": 2 * pixels + case.layout.nbytes + sum(values.nbytes for values in stages.results.values()),
    }
    stages.enqueue_upload(stream)
    figures: dict[str, Any] = {}
    for name, enqueue in (("preprocess", stages.enqueue_preprocess), ("postprocess", stages.enqueue_postprocess)):
        taken_us = _device_us(driver, stream, lambda enqueue=enqueue: enqueue(stream))
        figures[name] = {"us": round(taken_us, 2), "bytes": moved[name], "times_floor": round(taken_us * bytes_per_us / moved[name], 2)}
    return figures


def twin_figures(case: Case, stream: Any) -> dict[str, float]:  # noqa: ANN401
    """Return the largest differences from the numpy stages, on the network's own output."""
    case.enqueue_frame(stream)
    stream.synchronize()
    tensor, depth = case.network.tensor.float().cpu().numpy(), case.stages.results["depth"].copy()
    points = case.stages.results["points"].copy()
    numpy_depth, numpy_points = case.numpy_frame(lambda: None)  # the output of the run before is still there
    with np.errstate(invalid="ignore"):  # beyond range on both sides is no difference, on one side an infinite one
        depth_difference = np.abs(depth - numpy_depth) / numpy_depth
    return {
        "tensor_max": float(np.abs(tensor - case.preprocess(rgb_frame_from_image(case.message)).tensor).max()),
        "depth_max_relative": float(np.nanmax(depth_difference)),
        "points_max_m": float(np.nanmax(np.abs(points[..., :3] - numpy_points[..., :3]))),
        "unknown_on_one_side": int(np.count_nonzero(np.isnan(points[..., :3]) != np.isnan(numpy_points[..., :3]))),
        "colours_that_differ": int(np.count_nonzero(points[..., 3].view(np.uint32) != numpy_points[..., 3].view(np.uint32))),
    }


def end_to_end_figures(case: Case, stream: Any, frames: int) -> dict[str, Any]:  # noqa: ANN401
    """Return times of the network alone and of whole frames with either kind of stages, in milliseconds, and their ratios."""
    torch_stream = torch.cuda.ExternalStream(stream.handle)
    with torch.cuda.stream(torch_stream):
        for _ in range(3):
            case.enqueue_frame(stream)
        stream.synchronize()
        alone, whole = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(alone, stream=torch_stream):
            case.network.enqueue()
        with torch.cuda.graph(whole, stream=torch_stream):
            case.enqueue_frame(stream)

        def cuda_frame() -> None:
            case.stages.image_bytes[:] = case.message.data
            case.stages.set_numbers(FrameNumbers(max_depth_m=MAX_DEPTH_M, intrinsics=case.camera))
            whole.replay()
            stream.synchronize()

        def engine_alone() -> None:
            alone.replay()
            stream.synchronize()

        runs = {"engine_alone": engine_alone, "cuda_stages": cuda_frame, "numpy_stages": lambda: case.numpy_frame(alone.replay)}
        figures: dict[str, Any] = {name: _host_ms(run, frames) for name, run in runs.items()}
    for name in ("cuda_stages", "numpy_stages"):
        figures[name]["times_engine"] = round(figures[name]["p50"] / figures["engine_alone"]["p50"], 3)
    return figures


def _device_us(driver: Any, stream: Any, enqueue: Callable[[], None]) -> float:  # noqa: ANN401
    """Return the time of what is enqueued; many times in one graph, as launches from Python take longer than small kernels."""
    torch_stream, graph, start, end = torch.cuda.ExternalStream(stream.handle), torch.cuda.CUDAGraph(), driver.Event(), driver.Event()
    with torch.cuda.graph(graph, stream=torch_stream):
        for _ in range(REPEATS):
            enqueue()
    with torch.cuda.stream(torch_stream):
        graph.replay()
        start.record(stream)
        graph.replay()
        end.record(stream)
    end.synchronize()
    return float(start.time_till(end)) * 1000 / REPEATS


def _host_ms(run: Callable[[], Any], frames: int) -> dict[str, float]:
    times = []
    for index in range(frames + 10):
        started = time.perf_counter()
        run()
        if index >= 10:
            times.append(time.perf_counter() - started)
    return dict(zip(("p50", "p99"), (np.percentile(times, (50, 99)) * 1000).round(3).tolist()))


def measured_bytes_per_us(driver: Any, stream: Any) -> float:  # noqa: ANN401
    """Return how many bytes the GPU reads and writes in a microsecond while it copies."""
    source, target = driver.mem_alloc(COPY_BYTES), driver.mem_alloc(COPY_BYTES)
    return 2 * COPY_BYTES / _device_us(driver, stream, lambda: driver.memcpy_dtod_async(int(target), int(source), COPY_BYTES, stream))


def main(argv: list[str] | None = None) -> int:
    """Run every camera with every network size and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="frames of each end-to-end measurement (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmark_out/gpu.json"), help="JSON file to write (default: %(default)s)")
    args = parser.parse_args(argv)
    from pycuda import driver

    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    try:
        cubin, stream = compiled_kernels(driver.Device(0).compute_capability()), driver.Stream()
        bytes_per_us = measured_bytes_per_us(driver, stream)
        figures: dict[str, Any] = {"device": driver.Device(0).name(), "copy_gb_per_s": round(bytes_per_us / 1000, 1)}
        for camera, size_hw in CAMERAS.items():
            for bound_px in NETWORK_BOUNDS_PX:
                case = Case(driver, cubin, size_hw, bound_px)
                with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
                    found = {"engine": case.network.name, "twins": twin_figures(case, stream)}
                found["kernels"] = kernel_figures(case, driver, stream, bytes_per_us)
                found["end_to_end_ms"] = end_to_end_figures(case, stream, args.frames)
                figures[f"{camera}_vits_{bound_px}"] = found
                case.stages.close()
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps(figures, indent=2))
    finally:
        context.pop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
