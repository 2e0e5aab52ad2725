"""The ROS 2 node: parameters, lifecycle, the engine, the worker, and a channel for each camera. No arithmetic: that is `pipeline` and what it names.

Data path: a channel's `on_image` stores -> the worker's thread takes the newest of each -> `batching.process_together`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from .batching import process_together
from .channel import Channel, Job
from .config import RuntimeConfig
from .diagnostics import NodeHealth, publish_periodically, status
from .engines import BuildWatch, Engine, open_engine, prepare_engine
from .engines.batch_trial import usable_batch_max
from .errors import ConfigError, DepthAnythingError
from .memory import keep_freed_memory
from .parameters import NodeParameters
from .sensors import SharedTransforms
from .services import offer_service
from .transitions import BackgroundConfigure, free_state_machine
from .worker import Worker

FOLLOW_PERIOD_S = 0.5


class DepthNode(LifecycleNode):
    """Camera images in, metric depth images and point clouds out; one camera or several, one model."""

    def __init__(self, node_name: str = "depth_anything", **kwargs: Any) -> None:  # noqa: ANN401 - of rclpy's Node
        """Declare the parameters and start the worker; the model is opened in configure.

        Raises:
            ConfigError: a parameter given at start is wrong.
        """
        super().__init__(node_name, **kwargs)
        self.health = NodeHealth()
        self.parameters = NodeParameters(self, lambda: self.health.state == "unconfigured")
        self._worker: Worker[Job] = Worker(self._process, self._on_failure)
        self._engine: Engine | None = None
        transforms = SharedTransforms(self)
        self.channels = [self._channel(name, transforms) for name in self.config.cameras or ("",)]
        self.build_watch = BuildWatch(self.get_logger().info)
        self.background = BackgroundConfigure(self)
        publish_periodically(self, self.config.diagnostics.period_s, lambda: map(self._status, self.channels))
        if self.config.frame_policy == "all":
            self.create_timer(FOLLOW_PERIOD_S, self._follow_best_effort_publishers, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def config(self) -> RuntimeConfig:
        """What all cameras share, as it is now; of several cameras, their own values stand in their channels' configurations."""
        return self.parameters.shared

    def set_parameters_atomically(self, parameter_list: list[Parameter[Any]]) -> SetParametersResult:
        """Set all or none of some parameters; each camera may be given values of its own."""
        return self.parameters.set_atomically(parameter_list, super().set_parameters_atomically)

    def _channel(self, name: str, transforms: SharedTransforms) -> Channel:
        """Make a camera and its services."""
        channel = Channel(self, name, lambda: self.parameters.configs[name], partial(self._worker.submit, camera=name), transforms)
        prefix = f"{name}/" if name else ""
        offer_service(self, f"{prefix}reset_scale", self._worker.run, lambda: channel.scale.forget(channel.config.scale))
        offer_service(self, f"{prefix}save_snapshot", self._worker.run, lambda: channel.snapshots.save(self._engine, self._status(channel)))
        return channel

    # Lifecycle

    def autostart(self, executor: SingleThreadedExecutor | None = None) -> None:
        """Configure and activate, where `autostart` says so: beside an executor that spins, or at once; a failure leaves the node waiting."""
        if self.config.autostart:
            self.background.autostart(executor)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Build the engine where that is needed, open it on the worker's thread, and create the publishers."""
        started_s = time.monotonic()
        self.health = NodeHealth(state="configuring")
        try:
            prepare_engine(self.config, self.build_watch)
            engine = self._engine = self._worker.run(lambda: open_engine(self.config))
            batch_max = self._worker.run(lambda: usable_batch_max(engine, self.config.batch_max, len(self.channels)))
            for channel in self.channels:
                channel.open(engine)
        except Exception as error:
            return self._transition_failed("configure", error)
        self._worker.set_policy(self.config.frame_policy == "latest", self.config.frame_queue_max, batch_max)
        self.health = NodeHealth(state="inactive", self_check_problem=engine.self_check_problem)
        self.get_logger().info(f"opened {engine} in {time.monotonic() - started_s:.2f} s; self-check: {engine.self_check}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        result = super().on_activate(state)
        try:
            topics = [channel.subscribe() for channel in self.channels]
        except Exception as error:
            super().on_deactivate(state)
            return self._transition_failed("activate", error)
        self.health.state, self.health.transition_error = "active", ""
        self.get_logger().info(f"active: waiting for images on {', '.join(topics)}")
        return result

    def _transition_failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        """Undo what was done, and say why: rclpy itself drops exceptions of transitions without a word."""
        reason = str(error) if isinstance(error, DepthAnythingError) else f"{type(error).__name__}: {error}"
        self.get_logger().error(f"cannot {transition}: {reason}")
        if transition == "configure":
            self._release()
        else:
            self._unsubscribe()
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

    def _unsubscribe(self) -> None:
        for channel in self.channels:
            channel.inputs.close()

    def _quiesce(self) -> None:
        self._unsubscribe()
        for channel in self.channels:
            channel.meter.count("dropped", self._worker.clear(channel.name))
        for channel in self.channels:
            self._worker.run(channel.pause)

    def _release(self) -> None:
        self._quiesce()
        for channel in self.channels:
            channel.close()
        if self._engine is not None:
            self._worker.run(self._engine.close)
        self._engine = None
        self.health = NodeHealth()

    def _follow_best_effort_publishers(self) -> None:
        for channel in self.channels:
            channel.inputs.follow_best_effort_publishers()

    # Data path

    def _process(self, jobs: Sequence[Job]) -> None:
        """Turn images of different cameras into outputs; runs on the worker's thread."""
        if self._engine is not None:
            process_together(self._engine, jobs)

    def _on_failure(self, jobs: Sequence[Job], error: BaseException) -> None:
        for job in jobs:
            job.channel.fail(error)

    # Watching it

    def _status(self, channel: Channel) -> DiagnosticStatus:
        name, build = self.get_fully_qualified_name(), self.build_watch.text
        return status(self.health, channel.health, channel.meter, channel.config, self._engine, name, channel.name, build)


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
