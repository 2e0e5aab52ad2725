"""The health of the node and of each camera as diagnostic_msgs/DiagnosticStatus: a level, one sentence, and the numbers behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from .camera import Calibration
from .config import RuntimeConfig
from .engines import Engine
from .meter import Meter
from .scale_filter import ScaleState

RECENT_S = 3.0
COUNTED = ("received", "published", "dropped", "refused", "failed", "idle", "withheld", "stamp_jumps_back")


@dataclass
class NodeHealth:
    """What concerns all cameras."""

    state: str = "unconfigured"
    transition_error: str = ""
    self_check_problem: str = ""


@dataclass
class CameraHealth:
    """What the numbers of a camera's meter do not say."""

    last_refusal: str = ""
    last_failure: str = ""
    no_depth_reason: str = ""
    camera_info_problem: str = ""
    scan_problem: str = ""
    active_since_s: float = 0.0
    scale: ScaleState | None = None

    def note(self, no_depth_reason: str, calibration: Calibration, scale: ScaleState | None, assumed_hfov_deg: float) -> str:
        """Take over what is wrong with a frame; returns the line for the log, empty where all is well.

        Args:
            no_depth_reason: why no metric depth comes of it.
            calibration: of its camera.
            scale: how its scale was measured, None where it was not.
            assumed_hfov_deg: field of view that the model takes for the camera's without a calibration; 0 = it needs none.
        """
        self.no_depth_reason, self.camera_info_problem, self.scale = no_depth_reason, calibration.problem, scale
        if no_depth_reason:
            return f"no metric depth: {no_depth_reason}"
        if scale is not None and scale.held:
            return f"the last good scale is held: {scale.reason}"
        assumed = f", scaled for the assumed fallback_hfov_deg of {assumed_hfov_deg:g}" if assumed_hfov_deg else ""
        return f"{calibration.problem}; depth goes out without cloud{assumed}" if calibration.problem else ""


def publish_periodically(node: Node, period_s: float, make: Callable[[], Iterable[DiagnosticStatus]]) -> None:
    """Publish the statuses in one message on /diagnostics every `period_s` seconds of real time, whatever the node's clock does."""
    overridable = QoSOverridingOptions.with_default_policies()
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10), qos_overriding_options=overridable)

    def publish() -> None:
        message = DiagnosticArray(status=list(make()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(period_s, publish, clock=Clock(clock_type=ClockType.STEADY_TIME))


def status(
    node: NodeHealth, camera: CameraHealth, meter: Meter, config: RuntimeConfig, engine: Engine | None, name: str, camera_name: str, engine_build: str
) -> DiagnosticStatus:
    """Put together how a camera and the node around it are.

    Args:
        node: state and last trouble of the node.
        camera: last troubles of the camera.
        meter: its counters and durations.
        config: its parameters.
        engine: the open engine, None while unconfigured.
        name: fully qualified name of the node.
        camera_name: empty for the only camera of a node.
        engine_build: phase and percentage of the build that goes on, otherwise empty.
    """
    level, message = _level(node, camera, meter, config)
    values: dict[str, object] = {"state": node.state, "engine": config.engine, "engine_build": engine_build}
    if engine is not None:
        contract = engine.contract
        values |= {"model": contract.name, "model_kind": contract.output_kind, "model_sha256": engine.model_sha256}
        values |= {"engine_platform": engine.platform, "self_check": engine.self_check, **engine.details()}
    values |= {"input_hz": f"{meter.rate_hz('received'):.2f}", "output_hz": f"{meter.rate_hz('published'):.2f}"}
    values |= {event: meter.total(event) for event in COUNTED}
    if camera_name:
        mean = meter.total("in_batches") / max(1, meter.total("inferred"))
        values |= {"batches": meter.total("batches"), "batch_mean": f"{mean:.2f}"}
    values |= {"last_refusal": camera.last_refusal, "last_failure": camera.last_failure, "transition_error": node.transition_error}
    values |= {"scale_mode": config.scale.mode, "no_depth_reason": camera.no_depth_reason, "camera_info": camera.camera_info_problem or "ok"}
    values["scan"] = camera.scan_problem or ("ok" if config.camera.height_m else "off: camera.height_m is not set")
    scale = camera.scale  # once: the worker's thread may take it away
    if scale is not None:
        values |= {key.replace("scale_", "scale.", 1): text for key, text in scale.diagnostics().items()}
    for stage, p in meter.percentiles().items():
        values |= {f"{stage}.p50_ms": f"{p.p50_ms:.2f}", f"{stage}.p95_ms": f"{p.p95_ms:.2f}", f"{stage}.p99_ms": f"{p.p99_ms:.2f}"}
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    title, hardware = (f"{name}: depth {camera_name}", f"{name}/{camera_name}") if camera_name else (f"{name}: depth", name)
    return DiagnosticStatus(level=level, name=title, message=message, hardware_id=hardware, values=pairs)


def _level(node: NodeHealth, camera: CameraHealth, meter: Meter, config: RuntimeConfig) -> tuple[bytes, str]:
    if node.state != "active":
        if node.transition_error:
            return DiagnosticStatus.ERROR, node.transition_error
        return DiagnosticStatus.OK, node.state
    active_s, since_image_s = time.monotonic() - camera.active_since_s, meter.seconds_since("received")
    silent_s = active_s if since_image_s is None else min(active_s, since_image_s)
    if silent_s > config.diagnostics.stale_after_s:
        return DiagnosticStatus.STALE, f"no image for {silent_s:.1f} s"
    for event, reason in (("failed", camera.last_failure), ("refused", camera.last_refusal)):
        ago_s = meter.seconds_since(event)
        if ago_s is not None and ago_s < RECENT_S:
            return DiagnosticStatus.ERROR, f"{event}: {reason}"
    if camera.no_depth_reason:
        return DiagnosticStatus.WARN, f"no metric depth: {camera.no_depth_reason}"
    scale = camera.scale  # once: the worker's thread may take it away
    if scale is not None and scale.held:
        return DiagnosticStatus.WARN, f"the scale of {scale.age_s:.1f} s ago is held: {scale.reason}"
    for problem in (node.self_check_problem, camera.camera_info_problem, camera.scan_problem):
        if problem:
            return DiagnosticStatus.WARN, problem
    return DiagnosticStatus.OK, "running"
