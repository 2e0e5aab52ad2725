"""The ROS 2 node: parameters, topics, lifecycle, diagnostics. No arithmetic: that is `pipeline` and what it names.

Data path: `_on_image` stores -> the worker's thread takes the newest -> `_process` decodes, predicts and publishes.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image

from .camera import Calibration
from .config import RuntimeConfig
from .decode import rgb_frame_from_compressed, rgb_frame_from_image
from .diagnostics import Health, publish_periodically, status
from .engines import BuildWatch, Engine, open_engine, prepare_engine
from .errors import ConfigError, DecodeError, DepthAnythingError
from .inputs import Inputs
from .live_scale import LiveScale
from .memory import keep_freed_memory
from .meter import Meter
from .outputs import FrameResult, Outputs, maps_for
from .parameters import NodeParameters
from .pipeline import Pipeline
from .scale_filter import ScaleState
from .services import offer_service
from .snapshot import Snapshots
from .throttled_log import ThrottledLog
from .transitions import BackgroundConfigure, free_state_machine
from .worker import Worker

CAMERA_INFO_GRACE_S = 1.0
FOLLOW_PERIOD_S = 0.5


@dataclass(frozen=True)
class Job:
    """An image on its way to the worker, and when its callback ran (monotonic seconds)."""

    image: Image | CompressedImage
    arrived_s: float


class DepthNode(LifecycleNode):
    """Camera images in, metric depth images and point clouds out."""

    def __init__(self, node_name: str = "depth_anything", **kwargs: Any) -> None:  # noqa: ANN401 - of rclpy's Node
        """Declare the parameters and start the worker; the model is opened in configure.

        Raises:
            ConfigError: a parameter given at start is wrong.
        """
        super().__init__(node_name, **kwargs)
        self.meter, self.health = Meter(), Health()
        self.parameters = NodeParameters(self, lambda: self.health.state == "unconfigured")
        self._inputs = Inputs(self, self._on_image)
        self._worker: Worker[Job] = Worker(self._process, self._on_failure)
        self._engine: Engine | None = None
        self._pipeline: Pipeline | None = None
        self._outputs: Outputs | None = None
        self._scale = LiveScale(self._inputs.sensors)
        self._snapshots = Snapshots()
        offer_service(self, "reset_scale", self._worker.run, lambda: self._scale.forget(self.config.scale))
        offer_service(self, "save_snapshot", self._worker.run, lambda: self._snapshots.save(self._engine, self._status()))
        self.build_watch = BuildWatch(self.get_logger().info)
        self.background = BackgroundConfigure(self)
        self._last_stamp_ns = 0
        self._throttled_log = ThrottledLog(self.get_logger())
        publish_periodically(self, self.config.diagnostics.period_s, self._status)
        if self.config.frame_policy == "all":
            self.create_timer(FOLLOW_PERIOD_S, self._inputs.follow_best_effort_publishers, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def config(self) -> RuntimeConfig:
        """The parameters as they are now."""
        return self.parameters.config

    # Lifecycle

    def autostart(self, executor: SingleThreadedExecutor | None = None) -> None:
        """Configure and activate, where `autostart` says so: beside an executor that spins, or at once; a failure leaves the node waiting."""
        if self.config.autostart:
            self.background.autostart(executor)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Build the engine where that is needed, open it on the worker's thread, and create the publishers."""
        started_s = time.monotonic()
        self.health = Health(state="configuring")
        try:
            prepare_engine(self.config, self.build_watch)
            self._engine = self._worker.run(lambda: open_engine(self.config))
            self._pipeline, self._outputs = Pipeline(self._engine), Outputs(self)
            self._scale = LiveScale(self._inputs.sensors)
        except Exception as error:
            return self._transition_failed("configure", error)
        self._worker.set_policy(self.config.frame_policy == "latest", self.config.frame_queue_max)
        self.health = Health(state="inactive", self_check_problem=self._engine.self_check_problem)
        self.meter.reset()
        self.get_logger().info(f"opened {self._engine} in {time.monotonic() - started_s:.2f} s; self-check: {self._engine.self_check}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        result = super().on_activate(state)
        self.health.active_since_s = time.monotonic()
        try:
            topic = self._inputs.open(self.config)
        except Exception as error:
            super().on_deactivate(state)
            return self._transition_failed("activate", error)
        self.health.state = "active"
        self.get_logger().info(f"active: waiting for images on {topic}")
        return result

    def _transition_failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        """Undo what was done, and say why: rclpy itself drops exceptions of transitions without a word."""
        reason = str(error) if isinstance(error, DepthAnythingError) else f"{type(error).__name__}: {error}"
        self.get_logger().error(f"cannot {transition}: {reason}")
        if transition == "configure":
            self._release()
        else:
            self._inputs.close()
        self.health.transition_error = f"cannot {transition}: {reason}"
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and wait for the frame in progress."""
        self._quiesce()
        self.health.state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the engine and remove the publishers."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave nothing running, from whatever state."""
        self._release()
        self.health.state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after a transition that raised."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Free everything; the node is of no use afterwards."""
        self.build_watch.cancel()
        self.background.join()
        self._release()
        self._worker.stop()
        self.destroy_node()
        free_state_machine(self)

    def _quiesce(self) -> None:
        self._inputs.close()
        self.meter.count("dropped", self._worker.clear())
        self._worker.run(self._pipeline.reset if self._pipeline is not None else lambda: None)
        self._last_stamp_ns = 0

    def _release(self) -> None:
        self._quiesce()
        if self._outputs is not None:
            self._outputs.destroy()
        if self._engine is not None:
            self._worker.run(self._engine.close)
        self._engine = self._pipeline = self._outputs = self._snapshots.newest = None
        self.health = Health()

    # Data path

    def _on_image(self, image: Image | CompressedImage) -> None:
        self.meter.count("received")
        self._inputs.sensors.follow(self.config.scale)
        stamp_ns = image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec
        if stamp_ns < self._last_stamp_ns:
            self.meter.count("stamp_jumps_back")
            self._throttled_log.warning(f"image stamps jump back by {(self._last_stamp_ns - stamp_ns) / 1e9:.3f} s; going on from there")
        self._last_stamp_ns = stamp_ns
        dropped = self._worker.submit(Job(image, time.monotonic()))
        if dropped:
            self.meter.count("dropped", dropped)

    def _process(self, job: Job) -> None:
        """Turn one image into outputs; runs on the worker's thread."""
        outputs, pipeline, config = self._outputs, self._pipeline, self.config
        if outputs is None or pipeline is None:
            return
        wanted = outputs.due(outputs.wanted(), config)
        if not wanted - {"camera_info"}:
            self.meter.count("idle")
            return
        taken_s = time.monotonic()
        try:
            frame = rgb_frame_from_image(job.image) if isinstance(job.image, Image) else rgb_frame_from_compressed(job.image)
            decoded_s = time.monotonic()
            self._inputs.sensors.pin(frame.stamp_ns)
            calibration = self._inputs.camera_infos.calibration_for(job.image, frame.size_hw, config.camera.image)
            if calibration.intrinsics is None:
                wanted -= {"points", "scan"}
            reason = pipeline.no_depth_reason(config, calibration.intrinsics, is_measured=True)
            maps = maps_for(wanted, not reason, not pipeline.engine.contract.is_metric)
            if not maps or self._awaits_camera_info(calibration, pipeline):
                self._note_problems(reason, calibration, pipeline)
                self.meter.count("withheld")
                return
            measure = partial(self._scale, frame=frame, camera=calibration.camera, config=config)
            prediction = pipeline(frame, config, calibration.intrinsics, maps, measure)
            self._note_problems(prediction.no_depth_reason, calibration, pipeline, prediction.scale)
        except DecodeError as error:
            self._refuse(str(error))
            return
        self._publish(FrameResult(job.image.header, frame, calibration, prediction, config), wanted, job.arrived_s, taken_s, decoded_s)

    def _publish(self, result: FrameResult, wanted: frozenset[str], arrived_s: float, taken_s: float, decoded_s: float) -> None:
        assert self._outputs is not None
        publishing_s = time.monotonic()
        published = self._outputs.publish_depth(result, wanted)
        depth_out_s = time.monotonic()
        age_s = (self.get_clock().now().nanoseconds - result.frame.stamp_ns) / 1e9
        published |= self._outputs.publish_rest(result, wanted)
        self.health.scan_problem = self._outputs.scan_problem
        if self.health.scan_problem:
            self._throttled_log.warning(self.health.scan_problem)
        done_s = time.monotonic()
        stages = {"wait": taken_s - arrived_s, "decode": decoded_s - taken_s, **result.prediction.stage_s}
        stages |= {"publish": done_s - publishing_s, "callback_to_depth": depth_out_s - arrived_s}
        stages |= {"callback_to_all": done_s - arrived_s, "age": age_s}
        for stage, seconds in stages.items():
            self.meter.add(stage, seconds)
        self.meter.count("published" if published else "withheld")
        self._snapshots.newest = result

    def _awaits_camera_info(self, calibration: Calibration, pipeline: Pipeline) -> bool:
        """Whether a focal length may yet come: many drivers send the first image before the first camera_info."""
        waited_s = time.monotonic() - self.health.active_since_s
        return pipeline.needs_focal_length and calibration.missing and waited_s < CAMERA_INFO_GRACE_S

    def _note_problems(self, no_depth_reason: str, calibration: Calibration, pipeline: Pipeline, scale: ScaleState | None = None) -> None:
        warning = self.health.note(no_depth_reason, calibration, scale, self.config.fallback_hfov_deg if pipeline.needs_focal_length else 0.0)
        if warning and (no_depth_reason or not self._awaits_camera_info(calibration, pipeline)):
            self._throttled_log.warning(warning)

    def _refuse(self, reason: str) -> None:
        self.health.last_refusal = reason
        self.meter.count("refused")
        self._throttled_log.error(f"image refused: {reason}")

    def _on_failure(self, error: BaseException) -> None:
        if not self.context.ok():  # Ctrl-C came in the middle of a frame
            return
        self.health.last_failure = f"{type(error).__name__}: {error}"
        self.meter.count("failed")
        self._throttled_log.error(f"frame failed: {self.health.last_failure}")

    # Watching it

    def _status(self) -> DiagnosticStatus:
        name = self.get_fully_qualified_name()
        return status(name, self.health, self.meter, self.config, self._engine, time.monotonic(), self.build_watch.text)


def main(argv: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    keep_freed_memory()
    rclpy.init(args=argv)
    node = None
    try:
        node = DepthNode()
        executor = SingleThreadedExecutor()  # before autostart: Ctrl-C while rclpy makes one prints a traceback
        executor.add_node(node)
        node.autostart(executor)
        executor.spin()
    except ConfigError as error:
        print(f"depth_anything: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # launch and the terminal may both send it: once is enough
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
