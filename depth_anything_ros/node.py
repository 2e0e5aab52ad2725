"""The ROS 2 node: parameters, topics, lifecycle, diagnostics. No arithmetic: that is `pipeline` and what it names.

Data path: `_on_image` stores -> the worker's thread takes the newest -> `_process` decodes, predicts and publishes.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .camera import Calibration, CameraInfoBuffer
from .config import RuntimeConfig
from .decode import rgb_frame_from_compressed, rgb_frame_from_image
from .diagnostics import Health, status
from .engines import Engine, open_engine
from .errors import ConfigError, DecodeError, DepthAnythingError
from .memory import keep_freed_memory
from .meter import Meter
from .outputs import FrameResult, Outputs
from .parameters import NodeParameters
from .pipeline import Pipeline, Prediction
from .throttled_log import ThrottledLog
from .worker import Worker


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
        self._infos = CameraInfoBuffer()
        self._worker: Worker[Job] = Worker(self._process, self._on_failure)
        self._engine: Engine | None = None
        self._pipeline: Pipeline | None = None
        self._outputs: Outputs | None = None
        self._subscriptions_made: list[Any] = []
        self._last_stamp_ns = 0
        self._log_throttled = ThrottledLog()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = self.create_timer(self.config.diagnostics.period_s, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def config(self) -> RuntimeConfig:
        """The parameters as they are now."""
        return self.parameters.config

    # Lifecycle

    def autostart(self) -> None:
        """Configure and activate, where the parameter `autostart` says so; a failure is logged and leaves the node waiting."""
        if self.config.autostart and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the engine on the worker's thread and create the publishers."""
        started_s = time.monotonic()
        try:
            self._engine = self._worker.run(lambda: open_engine(self.config))
        except Exception as error:
            known = isinstance(error, DepthAnythingError)
            self.health.configure_error = str(error) if known else f"{type(error).__name__}: {error}"
            self.get_logger().error(f"cannot configure: {self.health.configure_error}")
            return TransitionCallbackReturn.FAILURE
        self._pipeline, self._outputs = Pipeline(self._engine), Outputs(self)
        self._worker.set_policy(self.config.frame_policy == "latest", self.config.frame_queue_max)
        self.health = Health(state="inactive")
        self.meter.reset()
        contract = self._engine.contract
        self.get_logger().info(
            f"opened model '{contract.name}' ({contract.output_kind}) with engine '{self._engine.name}' in {time.monotonic() - started_s:.2f} s"
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        self.health.state, self.health.active_since_s = "active", time.monotonic()
        result = super().on_activate(state)
        self._subscribe()
        self.get_logger().info(f"active: waiting for images on {self._subscriptions_made[0].topic_name}")
        return result

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
        self._release()
        self._worker.stop()
        self.destroy_node()

    def _subscribe(self) -> None:
        """Subscribe so that every camera connects: best effort, newest only. Where every frame counts, reliable and all of them."""
        kind, topic = (CompressedImage, "image/compressed") if self.config.image_transport == "compressed" else (Image, "image")
        every = self.config.frame_policy == "all"
        qos = QoSProfile(depth=1, history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE) if every else _newest_qos()
        overridable = QoSOverridingOptions.with_default_policies()
        image = self.create_subscription(kind, topic, self._on_image, qos, qos_overriding_options=overridable)
        info = self.create_subscription(CameraInfo, "camera_info", self._infos.add, _newest_qos(), qos_overriding_options=overridable)
        self._subscriptions_made = [image, info]

    def _unsubscribe(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made = []

    def _quiesce(self) -> None:
        self._unsubscribe()
        self.meter.count("dropped", self._worker.clear())
        self._worker.run(lambda: None)
        self._infos.clear()
        self._last_stamp_ns = 0

    def _release(self) -> None:
        self._quiesce()
        if self._outputs is not None:
            self._outputs.destroy()
        if self._engine is not None:
            self._worker.run(self._engine.close)
        self._engine = self._pipeline = self._outputs = None
        self.health = Health()

    # Data path

    def _on_image(self, image: Image | CompressedImage) -> None:
        self.meter.count("received")
        stamp_ns = image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec
        if stamp_ns < self._last_stamp_ns:
            self.meter.count("stamp_jumps_back")
            self._log_throttled(
                self.get_logger().warning, f"image stamps jump back by {(self._last_stamp_ns - stamp_ns) / 1e9:.3f} s; going on from there"
            )
        self._last_stamp_ns = stamp_ns
        dropped = self._worker.submit(Job(image, time.monotonic()))
        if dropped:
            self.meter.count("dropped", dropped)

    def _process(self, job: Job) -> None:
        """Turn one image into outputs; runs on the worker's thread."""
        outputs, pipeline, config = self._outputs, self._pipeline, self.config
        if outputs is None or pipeline is None:
            return
        wanted = outputs.wanted()
        if not wanted - {"camera_info"}:
            self.meter.count("idle")
            return
        taken_s = time.monotonic()
        try:
            frame = rgb_frame_from_image(job.image) if isinstance(job.image, Image) else rgb_frame_from_compressed(job.image)
        except DecodeError as error:
            self._refuse(str(error))
            return
        decoded_s = time.monotonic()
        calibration = self._infos.calibration_for(job.image, frame.size_hw)
        prediction = pipeline(frame, config, calibration.intrinsics)
        self._note_problems(prediction, calibration)
        publishing_s = time.monotonic()
        result = FrameResult(job.image.header, frame, calibration, prediction, config)
        outputs.publish_depth(result, wanted)
        depth_out_s = time.monotonic()
        age_s = (self.get_clock().now().nanoseconds - frame.stamp_ns) / 1e9
        outputs.publish_rest(result, wanted)
        stages = {"wait": taken_s - job.arrived_s, "decode": decoded_s - taken_s, **prediction.stage_s}
        done_s = time.monotonic()
        stages |= {"publish": done_s - publishing_s, "callback_to_depth": depth_out_s - job.arrived_s}
        stages |= {"callback_to_all": done_s - job.arrived_s, "age": age_s}
        for stage, seconds in stages.items():
            self.meter.add(stage, seconds)
        self.meter.count("published")

    def _note_problems(self, prediction: Prediction, calibration: Calibration) -> None:
        self.health.no_depth_reason = prediction.no_depth_reason
        self.health.camera_info_problem = calibration.problem
        if prediction.no_depth_reason:
            self._log_throttled(self.get_logger().warning, f"no metric depth: {prediction.no_depth_reason}")
        if calibration.problem:
            self._log_throttled(self.get_logger().warning, f"{calibration.problem}; depth goes out without cloud")

    def _refuse(self, reason: str) -> None:
        self.health.last_refusal = reason
        self.meter.count("refused")
        self._log_throttled(self.get_logger().error, f"image refused: {reason}")

    def _on_failure(self, error: BaseException) -> None:
        self.health.last_failure = f"{type(error).__name__}: {error}"
        self.meter.count("failed")
        self._log_throttled(self.get_logger().error, f"frame failed: {self.health.last_failure}")

    # Watching it

    def _publish_diagnostics(self) -> None:
        self._follow_best_effort_publishers()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name()
        message.status = [status(name, self.health, self.meter, self.config, self._engine, time.monotonic())]
        self._diagnostics.publish(message)

    def _follow_best_effort_publishers(self) -> None:
        """Where every frame is wanted but the camera is best effort, take what it gives rather than nothing."""
        if self.config.frame_policy != "all" or not self._subscriptions_made:
            return
        image = self._subscriptions_made[0]
        topic = image.topic_name
        publishers = self.get_publishers_info_by_topic(topic)
        if image.qos_profile.reliability != ReliabilityPolicy.RELIABLE or all(
            p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers
        ):
            return
        self.get_logger().warning(f"{topic} is published best effort: frames may be lost on their way although frame_policy is 'all'")
        qos = image.qos_profile
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
        self.destroy_subscription(image)
        self._subscriptions_made[0] = self.create_subscription(image.msg_type, topic, self._on_image, qos)


def _newest_qos() -> QoSProfile:
    """Return a new profile: rclpy writes a user's overrides into the one that it is given."""
    return QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


def main(argv: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    keep_freed_memory()
    rclpy.init(args=argv)
    node = None
    try:
        node = DepthNode()
        node.autostart()
        rclpy.spin(node)
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
