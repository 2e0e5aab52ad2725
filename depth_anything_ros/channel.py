"""One camera of the node: its topics, its part of the data path, its scale, counters and troubles. Never mixed with another camera's.

Data path: `on_image` stores -> the worker's thread takes the newest -> `prepare` -> `batching.process_together` infers, perhaps with frames
of other cameras -> `finish` publishes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from .camera import Calibration
from .config import RuntimeConfig
from .decode import rgb_frame_from_compressed, rgb_frame_from_image, stamp_ns_of
from .diagnostics import CameraHealth
from .engines import Engine
from .errors import DecodeError
from .inputs import Inputs
from .live_scale import LiveScale
from .meter import Meter
from .outputs import FrameResult, Outputs, maps_for
from .pipeline import Pipeline, pipeline_for
from .prediction import READY_MADE, Inferred, Prepared, Request
from .scale_filter import ScaleState
from .sensors import SharedTransforms
from .snapshot import Snapshots
from .structs import RgbFrame
from .throttled_log import ThrottledLog

CAMERA_INFO_GRACE_S = 1.0


@dataclass(frozen=True, eq=False)
class Job:
    """An image on its way to the worker.

    Attributes:
        channel: whose it is.
        image: the message.
        arrived_s: when its callback ran (monotonic seconds).
        sensor_message: what the scale may be measured against, as far as it was there already; None where nothing was.
    """

    channel: Channel
    image: Image | CompressedImage
    arrived_s: float
    sensor_message: Any


@dataclass(frozen=True, eq=False)
class Ready:
    """A frame that the network can take, and what its outputs need beside the network's.

    Attributes:
        job: where it comes from.
        prepared: what the network is given.
        calibration: of its camera.
        outputs: that are wanted of it.
        taken_s: when the worker took it (monotonic seconds).
    """

    job: Job
    prepared: Prepared
    calibration: Calibration
    outputs: frozenset[str]
    taken_s: float


def frame_from_message(image: Image | CompressedImage) -> RgbFrame:
    """Turn a message into a frame.

    Raises:
        DecodeError: it is no image that can be read.
    """
    return rgb_frame_from_image(image) if isinstance(image, Image) else rgb_frame_from_compressed(image)


class Channel:
    """One camera. The executor's thread opens, closes and calls `on_image`; the worker's thread prepares and finishes.

    Attributes:
        name: of the camera; empty for the only one of a node, whose topics are the node's own.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        config: Callable[[], RuntimeConfig],
        submit: Callable[[Job], int],
        transforms: SharedTransforms,
    ) -> None:
        """Make a camera without topics.

        Args:
            node: its node.
            name: see above.
            config: gives the camera's parameters as they are now.
            submit: hands a frame to the worker; returns how many were dropped for it.
            transforms: TF, shared by all cameras.
        """
        self.name, self._node, self._config, self._submit = name, node, config, submit
        self._prefix = f"{name}/" if name else ""
        self.meter, self.health = Meter(), CameraHealth()
        self.inputs = Inputs(node, self.on_image, transforms, self._prefix)
        self.scale = LiveScale(self.inputs.sensors)
        self.snapshots = Snapshots(name)
        self.outputs: Outputs | None = None
        self.pipeline: Pipeline | None = None
        self.log = ThrottledLog(node.get_logger().get_child(name) if name else node.get_logger())
        self.last_stamp_ns, self._frame_id = 0, ""

    @property
    def config(self) -> RuntimeConfig:
        """The camera's parameters as they are now."""
        return self._config()

    # Life

    def open(self, engine: Engine) -> None:
        """Start anew with an open engine, and create the publishers."""
        self.meter.reset()
        self.health = CameraHealth()
        self.pipeline, self.outputs = pipeline_for(engine), Outputs(self._node, self._prefix)
        self.scale = LiveScale(self.inputs.sensors)

    def subscribe(self) -> str:
        """Take images; returns their topic."""
        self.health.active_since_s = time.monotonic()
        return self.inputs.open(self.config)

    def pause(self) -> None:
        """Forget the frames so far; called where none is in progress and none can come."""
        if self.pipeline is not None:
            self.pipeline.reset()
        self.last_stamp_ns, self._frame_id = 0, ""

    def close(self) -> None:
        """Remove the publishers and let go of the engine."""
        if self.outputs is not None:
            self.outputs.destroy()
        self.outputs = self.pipeline = self.snapshots.newest = None
        self.health = CameraHealth()

    # Data path

    def on_image(self, image: Image | CompressedImage) -> None:
        """Hand an image to the worker."""
        self.meter.count("received")
        self.inputs.sensors.follow(self.config.scale)
        stamp_ns = stamp_ns_of(image.header)
        if stamp_ns < self.last_stamp_ns:
            self.meter.count("stamp_jumps_back")
            self.log.warning(f"image stamps jump back by {(self.last_stamp_ns - stamp_ns) / 1e9:.3f} s; going on from there")
        self.last_stamp_ns = stamp_ns
        self.meter.count("dropped", self._submit(Job(self, image, time.monotonic(), self.inputs.sensors.there_is(stamp_ns))))

    def prepare(self, job: Job) -> Ready | None:
        """Bring an image into the network's form; None where it goes no farther, which is counted. Raises nothing."""
        try:
            return self._prepare(job)
        except DecodeError as error:
            self._refuse(str(error))
        except Exception as error:
            self.fail(error)
        return None

    def _prepare(self, job: Job) -> Ready | None:
        outputs, pipeline, config, taken_s = self.outputs, self.pipeline, self.config, time.monotonic()
        if outputs is None or pipeline is None:
            return None
        wanted = outputs.due(outputs.wanted(), config)
        if not wanted - {"camera_info"}:
            self.meter.count("idle")
            return None
        frame = frame_from_message(job.image)
        if frame.frame_id != self._frame_id:  # another camera's past is none of this one
            pipeline.reset()
            self._frame_id = frame.frame_id
        self.inputs.sensors.pin(frame.stamp_ns, job.sensor_message)
        calibration = self.inputs.camera_infos.calibration_for(job.image, frame.size_hw, config.camera.image)
        if calibration.intrinsics is None:
            wanted -= {"points", "scan"}
        reason = pipeline.no_depth_reason(config, calibration.intrinsics, is_measured=True)
        maps = maps_for(wanted, not reason, not pipeline.engine.contract.is_metric)
        if not maps or self._awaits_camera_info(calibration, pipeline):
            self._note_problems(reason, calibration, pipeline)
            self.meter.count("withheld")
            return None
        measure = partial(self.scale, frame=frame, camera=calibration.camera, config=config)
        prepared = pipeline.prepare(Request(frame, config, calibration.camera, maps | (wanted & READY_MADE), measure))
        return Ready(job, prepared, calibration, wanted, taken_s)

    def finish(self, ready: Ready, inferred: Inferred, together: int) -> None:
        """Publish what comes of a frame that was inferred with `together - 1` others; trouble is counted and logged. Raises nothing."""
        outputs, pipeline, request = self.outputs, self.pipeline, ready.prepared.request
        if outputs is None or pipeline is None:
            return
        self.meter.count("inferred")
        self.meter.count("batches", int(together > 1))
        self.meter.count("in_batches", together)
        try:
            prediction = pipeline.finish(ready.prepared, inferred)
            self._note_problems(prediction.no_depth_reason, ready.calibration, pipeline, prediction.scale)
            result = FrameResult(ready.job.image.header, request.frame, ready.calibration, prediction, request.config)
            self._publish(outputs, result, ready)
        except DecodeError as error:
            self._refuse(str(error))
        except Exception as error:
            self.fail(error)

    def _publish(self, outputs: Outputs, result: FrameResult, ready: Ready) -> None:
        publishing_s, arrived_s = time.monotonic(), ready.job.arrived_s
        published = outputs.publish_depth(result, ready.outputs)
        depth_out_s = time.monotonic()
        age_s = (self._node.get_clock().now().nanoseconds - result.frame.stamp_ns) / 1e9
        published |= outputs.publish_rest(result, ready.outputs)
        self.health.scan_problem = outputs.scan_problem
        if self.health.scan_problem:
            self.log.warning(self.health.scan_problem)
        done_s = time.monotonic()
        stages = {"wait": ready.taken_s - arrived_s, **result.prediction.stage_s}
        stages |= {"publish": done_s - publishing_s, "callback_to_depth": depth_out_s - arrived_s}
        stages |= {"callback_to_all": done_s - arrived_s, "age": age_s}
        for stage, seconds in stages.items():
            self.meter.add(stage, seconds)
        self.meter.count("published" if published else "withheld")
        self.snapshots.newest = result

    # Trouble

    def fail(self, error: BaseException) -> None:
        """Count a frame that did not come through, and say why."""
        if not self._node.context.ok():  # Ctrl-C came in the middle of a frame
            return
        self.health.last_failure = f"{type(error).__name__}: {error}"
        self.meter.count("failed")
        self.log.error(f"frame failed: {self.health.last_failure}")

    def _refuse(self, reason: str) -> None:
        self.health.last_refusal = reason
        self.meter.count("refused")
        self.log.error(f"image refused: {reason}")

    def _awaits_camera_info(self, calibration: Calibration, pipeline: Pipeline) -> bool:
        """Whether a focal length may yet come: many drivers send the first image before the first camera_info."""
        waited_s = time.monotonic() - self.health.active_since_s
        return pipeline.needs_focal_length and calibration.missing and waited_s < CAMERA_INFO_GRACE_S

    def _note_problems(self, no_depth_reason: str, calibration: Calibration, pipeline: Pipeline, scale: ScaleState | None = None) -> None:
        warning = self.health.note(no_depth_reason, calibration, scale, self.config.fallback_hfov_deg if pipeline.needs_focal_length else 0.0)
        if warning and (no_depth_reason or not self._awaits_camera_info(calibration, pipeline)):
            self.log.warning(warning)
