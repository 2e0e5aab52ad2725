"""The GPU stages: against their numpy twins, against the bytes they must move, and end to end around a ViT-S. Prints and writes JSON.

    python -m benchmarks.gpu [--frames 300] [--output docs/benchmarks/gpu.json]

Needs an NVIDIA GPU, pycuda, NVRTC and PyTorch with CUDA; the network runs by TensorRT where that is installed. Aims: kernels within 2x of
the time that their bytes take at the measured copy bandwidth; image bytes in host memory -> depth and cloud in host memory within 1.15x
of the network alone.

The arithmetic was checked on CPUs (see docs/cuda.md); this program has not been run on a GPU yet, so there are no figures of it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.contract import ModelContract
from depth_anything_ros.cuda.frames import GpuFrames
from depth_anything_ros.decode import ImageLayout, RawFrame
from depth_anything_ros.engines import Engine
from depth_anything_ros.engines.cuda_runtime import CudaSession
from depth_anything_ros.geometry import CloudBuilder
from depth_anything_ros.gpu_pipeline import GpuPipeline, PreparedOnGpu
from depth_anything_ros.obstacles import points_from_depth
from depth_anything_ros.pipeline import Pipeline
from depth_anything_ros.prediction import Inferred, Request
from depth_anything_ros.preprocess import Preprocessor, plan_resize
from depth_anything_ros.rays import ImageCamera
from depth_anything_ros.structs import Intrinsics

CAMERAS = {"vga": (480, 640), "1080p": (1080, 1920)}
NETWORK_BOUNDS_PX = (518, 308)
COPY_BYTES = 2**28
REPEATS = 200
WARM_UP_FRAMES = 10


class Case:
    """One camera before one engine: rgb8 images, depth at the image's size, XYZRGB."""

    def __init__(self, engine: Engine, gpu: GpuFrames, size_hw: tuple[int, int]) -> None:
        """Take an open engine and make a random image."""
        self.engine, self.gpu, self.session, (height, width) = engine, gpu, gpu.session, size_hw
        self._bytes = np.random.default_rng(0).integers(0, 256, 3 * height * width, np.uint8)
        self._layout = ImageLayout("rgb8", height, width, 3 * width)
        self._camera = ImageCamera(Intrinsics(float(width), float(width), width / 2, height / 2, size_hw), "pinhole", (0.0,) * 8)
        self._build_cloud, self.gpu_pipeline, self.numpy_pipeline = CloudBuilder(), GpuPipeline(engine, gpu), Pipeline(engine)
        with self.session.active():
            self.network = gpu.network_for((1, 3, *engine.contract.input_sizes_hw[0]))

    def request(self) -> Request:
        """Return a frame that nobody has decoded yet."""
        return Request(RawFrame(self._layout, self._bytes), RuntimeConfig(), self._camera, frozenset({"depth", "points"}))

    def gpu_frame(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Run a whole frame on the GPU; returns depth and cloud in host memory."""
        request = self.request()
        prediction = self.gpu_pipeline(request.frame, request.config, request.camera, request.wanted)
        assert prediction.depth is not None
        assert prediction.points is not None
        return prediction.depth.values, prediction.points

    def numpy_frame(self, raw: npt.NDArray[np.float32] | None = None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Run a frame with the numpy stages around the engine, or around what the engine gave before; returns depth and cloud."""
        request = self.request()
        prepared = self.numpy_pipeline.prepare(request)
        inferred = prepared.infer(self.engine, [prepared])[0] if raw is None else Inferred(0.0, raw)
        prediction = self.numpy_pipeline.finish(prepared, inferred)
        assert prediction.depth is not None
        depth = prediction.depth.values
        points = points_from_depth(self._build_cloud, depth, self._camera, request.frame.rgb, request.config, prediction.range_limit_m)
        return depth, points

    def on_device(self, address: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return a copy of float32 device memory."""
        values = np.empty(shape, np.float32)
        with self.session.active():
            self.session.driver.memcpy_dtoh(values, address)
        return values


def twin_figures(case: Case) -> dict[str, float]:
    """Return the largest differences from the numpy stages, on the network's own output."""
    depth, points = case.gpu_frame()
    size_hw = case.engine.contract.input_sizes_hw[0]
    tensor = case.on_device(case.network.input_address, (1, 3, *size_hw))
    numpy_depth, numpy_points = case.numpy_frame(case.on_device(case.network.output_address, (1, *size_hw)))
    with np.errstate(invalid="ignore"):  # beyond range on both sides is no difference, on one side an infinite one
        depth_difference = np.abs(depth - numpy_depth) / numpy_depth
    return {
        "tensor_max": float(np.abs(tensor - Preprocessor(case.engine.contract)(case.request().frame).tensor).max()),
        "depth_max_relative": float(np.nanmax(depth_difference)),
        "points_max_m": float(np.nanmax(np.abs(points[..., :3] - numpy_points[..., :3]))),
        "unknown_on_one_side": int(np.count_nonzero(np.isnan(points[..., :3]) != np.isnan(numpy_points[..., :3]))),
        "colours_that_differ": int(np.count_nonzero(points[..., 3].view(np.uint32) != numpy_points[..., 3].view(np.uint32))),
    }


def kernel_figures(case: Case, bytes_per_us: float) -> dict[str, Any]:
    """Return the kernels' times in microseconds, and how far above the time of their bytes they are."""
    prepared = case.gpu_pipeline.prepare(case.request())
    assert isinstance(prepared, PreparedOnGpu)
    stages, stream, plan = prepared.stages, case.session.stream, prepared.stages.plan
    pixels = int(np.prod(plan.resize.network_size_hw))
    moved = {
        "preprocess": plan.layout.nbytes + 4 * 3 * pixels,
        "postprocess": 4 * pixels + plan.layout.nbytes + sum(4 * int(np.prod(plan.result(name)[0])) for name in plan.outputs),
    }
    works = {
        "preprocess": lambda: stages.enqueue_preprocess(stream, case.network.input_address),
        "postprocess": lambda: stages.enqueue_postprocess(stream, case.network.output_address),
    }
    figures: dict[str, Any] = {}
    with case.session.active():
        stages.enqueue_upload(stream)
        for name, enqueue in works.items():
            taken_us = _device_us(case.session, enqueue)
            figures[name] = {"us": round(taken_us, 2), "bytes": moved[name], "times_floor": round(taken_us * bytes_per_us / moved[name], 2)}
    return figures


def end_to_end_figures(case: Case, frames: int) -> dict[str, Any]:
    """Return times of the network alone and of whole frames with either kind of stages, in milliseconds, and their ratios."""
    with case.session.active():
        case.network.enqueue()
        case.session.synchronize()
        alone = case.session.capture(case.network.enqueue)

    def engine_alone() -> None:
        with case.session.active():
            case.session.launch(alone)
            case.session.synchronize()

    launches = case.gpu.launches.copy()
    runs = {"engine_alone": engine_alone, "gpu_stages": case.gpu_frame, "numpy_stages": case.numpy_frame}
    figures: dict[str, Any] = {name: _host_ms(run, frames) for name, run in runs.items()}
    for name in ("gpu_stages", "numpy_stages"):
        figures[name]["times_engine"] = {p: round(figures[name][p] / figures["engine_alone"][p], 3) for p in ("p50", "p99")}
    figures["gpu_stages"]["launches"] = dict(case.gpu.launches - launches)
    with case.session.active():
        case.session.free_graph(alone)
    return figures


def _device_us(session: CudaSession, enqueue: Callable[[], Any]) -> float:
    """Return the time of what is enqueued; many times in one graph, as launches from Python take longer than small kernels."""

    def repeat() -> None:
        for _ in range(REPEATS):
            enqueue()

    enqueue()
    session.synchronize()
    graph, start, end = session.capture(repeat), session.driver.Event(), session.driver.Event()
    session.launch(graph)
    start.record(session.stream)
    session.launch(graph)
    end.record(session.stream)
    end.synchronize()
    session.free_graph(graph)
    return float(start.time_till(end)) * 1000 / REPEATS


def _host_ms(run: Callable[[], Any], frames: int) -> dict[str, Any]:
    times = []
    for index in range(frames + WARM_UP_FRAMES):
        started = time.perf_counter()
        run()
        if index >= WARM_UP_FRAMES:
            times.append(time.perf_counter() - started)
    return dict(zip(("p50", "p99"), (np.percentile(times, (50, 99)) * 1000).round(4).tolist()))


def measured_bytes_per_us(session: CudaSession) -> float:
    """Return how many bytes the GPU reads and writes in a microsecond while it copies."""
    with session.active():
        source, target = session.allocate(COPY_BYTES), session.allocate(COPY_BYTES)
        copy_us = _device_us(session, lambda: session.driver.memcpy_dtod_async(int(target), int(source), COPY_BYTES, session.stream))
        source.free()
        target.free()
    return 2 * COPY_BYTES / copy_us


def network_size_hw(image_hw: tuple[int, int], bound_px: int) -> tuple[int, int]:
    """Return the input size that Depth Anything takes for an image: the shorter side `bound_px`, multiples of 14."""
    official = ModelContract("vits", ((bound_px, bound_px),), "lower_bound", "depth_m", size_multiple=14)
    return plan_resize(image_hw, official).network_size_hw


def measured(image_hw: tuple[int, int], bound_px: int, folder: Path, frames: int) -> dict[str, Any]:
    """Return the figures of one camera before one network."""
    from .gpu_networks import engine_for

    size_hw = network_size_hw(image_hw, bound_px)
    with closing(engine_for(size_hw, folder)) as engine:
        assert engine.gpu is not None
        session, case = engine.gpu.session, Case(engine, engine.gpu, image_hw)
        bytes_per_us = measured_bytes_per_us(session)
        return {
            "device": str(session.device),
            "driver_cuda": session.device.driver_cuda,
            "engine": engine.platform,
            "network_hw": list(size_hw),
            "copy_gb_per_s": round(bytes_per_us / 1000, 1),
            "twins": twin_figures(case),
            "kernels": kernel_figures(case, bytes_per_us),
            "end_to_end_ms": end_to_end_figures(case, frames),
        }


def main(argv: list[str] | None = None) -> int:
    """Run every camera with every network size and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="frames of each end-to-end measurement (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/gpu.json"), help="JSON file to write (default: %(default)s)")
    parser.add_argument("--engines", type=Path, default=Path("benchmark_out/engines"), help="folder of models and engines (default: %(default)s)")
    args = parser.parse_args(argv)
    figures = {
        f"{camera}_vits_{bound_px}": measured(image_hw, bound_px, args.engines, args.frames)
        for camera, image_hw in CAMERAS.items()
        for bound_px in NETWORK_BOUNDS_PX
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
