"""The pipeline on the engine's GPU: raw image bytes in, depth, cloud and picture out, with nothing of a frame on the CPU but these.

What the GPU stages do not do goes through the numpy stages around the same engine, frame by frame, counted and with the reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .config import RuntimeConfig
from .cuda.frames import GpuFrames
from .cuda.plan import FrameNumbers, FramePlan
from .cuda.stages import CudaStages
from .decode import ImageLayout, RawFrame
from .engines import Engine
from .errors import EngineError
from .geometry import Level, scaled
from .obstacles import level_of
from .pipeline import Pipeline, published_size_hw
from .postprocess import canonical_scale
from .prediction import READY_MADE, Inferred, Prediction, Prepared, Request
from .preprocess import plan_resize
from .rays import ImageCamera
from .scale import RangeLimits, metric_map, range_limits
from .structs import DepthMap, ResizeRecord, RgbFrame


@dataclass(frozen=True, eq=False)
class PreparedOnGpu(Prepared):
    """A frame that waits in page-locked memory, with everything that the kernels need to know of it.

    Attributes:
        stages: the buffers that hold it.
        limits: how far its depth reaches.
        no_depth_reason: see `Prediction`.
    """

    stages: CudaStages
    limits: RangeLimits
    no_depth_reason: str

    @property
    def batch_key(self) -> Hashable:
        """Frames of equal keys may be inferred together."""
        return "gpu", self.stages.plan.resize.network_size_hw

    def infer(self, engine: Engine, batch: Sequence[PreparedOnGpu]) -> list[Inferred]:
        """Run whole frames on the GPU."""
        assert engine.gpu is not None
        if len(batch) > engine.batch_max:
            raise EngineError(f"engine '{engine.name}' got {len(batch)} images at once but takes {engine.batch_max}")
        started = time.perf_counter()
        results = engine.gpu.run([one.stages for one in batch])
        seconds = time.perf_counter() - started
        return [Inferred(seconds, results=results_of_one) for results_of_one in results]


class GpuPipeline(Pipeline):
    """What one camera's frames go through where the engine's GPU runs the stages."""

    reads_raw_images: ClassVar[bool] = True

    def __init__(self, engine: Engine, gpu: GpuFrames) -> None:
        """Take an open engine and its GPU; the caller closes it."""
        super().__init__(engine)
        self._gpu = gpu

    def prepare(self, request: Request) -> Prepared:
        """Bring a frame to page-locked memory, or into the network's form where the GPU does not do what is wanted of it.

        Raises:
            DecodeError: the frame has a size that the model cannot take.
            EngineError: there is not enough memory.
        """
        numpy_reason = why_numpy(request)
        self._gpu.note(self, numpy_reason)
        if numpy_reason:
            return super().prepare(request)
        self._temporal.reset()
        contract, config, camera = self.engine.contract, request.config, request.camera
        layout, data = raw_image(request.frame)
        started = time.perf_counter()
        intrinsics = camera.intrinsics if camera else None
        reason = self.no_depth_reason(config, intrinsics, request.measure_scale is not None)
        plan = frame_plan(request, layout, plan_resize(layout.size_hw, contract), self._outputs(request, reason))
        limits = range_limits(contract, config, partial(metric_map, scale=config.scale))
        table_of = camera if camera is not None and camera.lens != "pinhole" and "points" in plan.outputs else None
        stages = self._gpu.stages_for(self, plan, table_of, partial(_rays, table_of, plan))
        stages.image_bytes[:] = data
        focal_px = self._focal_px(request.frame, config, intrinsics) if not reason else None
        raw_scale = canonical_scale(plan.resize, contract, focal_px) if focal_px else 1.0
        stages.set_numbers(frame_numbers(config, plan, limits, camera, raw_scale))
        return PreparedOnGpu(request, time.perf_counter() - started, stages, limits, reason)

    def _outputs(self, request: Request, no_depth_reason: str) -> frozenset[str]:
        """Return what the GPU makes of a frame."""
        possible = set() if no_depth_reason else {"depth", "color", *(("points",) if request.camera else ())}
        if not self.engine.contract.is_metric:
            possible.add("relative")
        wanted = request.wanted if "depth" in request.wanted else request.wanted - READY_MADE
        return frozenset(wanted & possible)

    def finish(self, prepared: Prepared, inferred: Inferred) -> Prediction:
        """Put together what the GPU made; the arrays are page-locked memory, not overwritten while somebody holds them."""
        if not isinstance(prepared, PreparedOnGpu):
            return super().finish(prepared, inferred)
        started, found, request = time.perf_counter(), inferred.results, prepared.request
        depth = DepthMap(found["depth"], "depth_m") if "depth" in found else None
        relative = DepthMap(found["relative"], "disparity_affine_invariant") if "relative" in found else None
        stage_s = {"decode": request.frame.decode_s, "preprocess": prepared.seconds, "infer": inferred.seconds}
        return Prediction(
            depth,
            relative,
            prepared.no_depth_reason,
            stage_s | {"postprocess": time.perf_counter() - started},
            points_depth=depth,
            range_limit_m=prepared.limits.known_m if depth else None,
            points=found.get("points"),
            color=found.get("color"),
        )


def why_numpy(request: Request) -> str:
    """Return why the GPU stages cannot do what is wanted of a frame; empty where they can."""
    config = request.config
    if config.temporal.mode != "off":
        return f"temporal.mode is {config.temporal.mode}"
    if config.edges.mode != "off":
        return f"edges.mode is {config.edges.mode}"
    if config.scale.mode not in ("model", "fixed", "none"):
        return f"scale.mode is {config.scale.mode}"
    if config.confidence.min > 0:
        return f"confidence.min is {config.confidence.min:g}"
    return "the confidence is wanted" if "confidence" in request.wanted else ""


def raw_image(frame: RgbFrame) -> tuple[ImageLayout, npt.NDArray[np.uint8]]:
    """Return a frame's bytes as they came; of one that had to be decoded on the CPU (JPEG, PNG, cv_bridge) those of its pixels."""
    if isinstance(frame, RawFrame):
        return frame.layout, frame.data
    height, width = frame.size_hw
    return ImageLayout("rgb8", height, width, 3 * width), np.ascontiguousarray(frame.rgb).reshape(-1)


def frame_plan(request: Request, layout: ImageLayout, resize: ResizeRecord, outputs: frozenset[str]) -> FramePlan:
    """Return the kind of a frame. Parameters of what is not made do not count: they need no new buffers when they change."""
    config = request.config
    kind = FramePlan(layout, resize, published_size_hw(layout.size_hw, config), outputs)
    if "points" in outputs:
        kind = replace(kind, cloud_stride=config.cloud.stride, cloud_fields=config.cloud.fields)
    return replace(kind, colormap=config.color.colormap) if "color" in outputs else kind


def frame_numbers(config: RuntimeConfig, plan: FramePlan, limits: RangeLimits, camera: ImageCamera | None, raw_scale: float) -> FrameNumbers:
    """Return what the kernels read for one frame; the counterpart of `obstacles.points_from_depth` and of `Pipeline`'s scale."""
    cloud, color, fixed = config.cloud, config.color, config.scale.mode == "fixed"
    far_m = min(cloud.max_m, math.inf if limits.known_m is None else limits.known_m) if cloud.far_policy == "clamp" else math.inf
    level = level_of(config.camera) if cloud.has_heights else Level((0.0, 0.0, 0.0), 0.0)
    heights_m = (cloud.min_height_m - level.height_m, cloud.max_height_m - level.height_m) if cloud.has_heights else (-math.inf, math.inf)
    return FrameNumbers(
        raw_scale=raw_scale,
        model_max_m=limits.model_max_m,
        scale_factor=config.scale.factor if fixed else 1.0,
        scale_offset=config.scale.offset if fixed else 0.0,
        max_depth_m=limits.max_depth_m,
        clamp_m=far_m,
        cloud_range_m=(cloud.min_m, cloud.max_m or math.inf),
        up=level.up,
        heights_m=heights_m,
        color_range_m=(color.near_m, color.far_m),
        intrinsics=scaled(camera.intrinsics, plan.published_size_hw) if camera else None,
    )


def _rays(camera: ImageCamera | None, plan: FramePlan) -> npt.NDArray[np.float32] | None:
    return camera.ray_table(plan.published_size_hw, plan.cloud_stride).xy if camera else None
