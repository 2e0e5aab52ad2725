"""The node's health as a diagnostic_msgs/DiagnosticStatus: a level, one sentence, and the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from .config import RuntimeConfig
from .engines import Engine
from .meter import Meter

RECENT_S = 3.0
COUNTED = ("received", "published", "dropped", "refused", "failed", "idle", "withheld", "stamp_jumps_back")


@dataclass
class Health:
    """What the numbers of the meter do not say."""

    state: str = "unconfigured"
    transition_error: str = ""
    last_refusal: str = ""
    last_failure: str = ""
    no_depth_reason: str = ""
    camera_info_problem: str = ""
    active_since_s: float = 0.0


def status(name: str, health: Health, meter: Meter, config: RuntimeConfig, engine: Engine | None, now_s: float) -> DiagnosticStatus:
    """Put the node's health together.

    Args:
        name: fully qualified name of the node.
        health: its state and last troubles.
        meter: counters and durations.
        config: for `diagnostics.stale_after_s`.
        engine: the open engine, None while unconfigured.
        now_s: monotonic time in seconds.
    """
    level, message = _level(health, meter, config, now_s)
    values: dict[str, object] = {"state": health.state, "engine": config.engine}
    if engine is not None:
        contract = engine.contract
        values |= {"model": contract.name, "model_kind": contract.output_kind, "model_sha256": engine.model_sha256}
    values |= {"input_hz": f"{meter.rate_hz('received'):.2f}", "output_hz": f"{meter.rate_hz('published'):.2f}"}
    values |= {event: meter.total(event) for event in COUNTED}
    values |= {"last_refusal": health.last_refusal, "last_failure": health.last_failure, "transition_error": health.transition_error}
    values |= {"scale_mode": config.scale.mode, "no_depth_reason": health.no_depth_reason, "camera_info": health.camera_info_problem or "ok"}
    for stage, p in meter.percentiles().items():
        values |= {f"{stage}.p50_ms": f"{p.p50_ms:.2f}", f"{stage}.p95_ms": f"{p.p95_ms:.2f}", f"{stage}.p99_ms": f"{p.p99_ms:.2f}"}
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=f"{name}: depth", message=message, hardware_id=name, values=pairs)


def _level(health: Health, meter: Meter, config: RuntimeConfig, now_s: float) -> tuple[bytes, str]:
    if health.state != "active":
        if health.transition_error:
            return DiagnosticStatus.ERROR, health.transition_error
        return DiagnosticStatus.OK, health.state
    active_s, since_image_s = now_s - health.active_since_s, meter.seconds_since("received")
    silent_s = active_s if since_image_s is None else min(active_s, since_image_s)
    if silent_s > config.diagnostics.stale_after_s:
        return DiagnosticStatus.STALE, f"no image for {silent_s:.1f} s"
    for event, reason in (("failed", health.last_failure), ("refused", health.last_refusal)):
        ago_s = meter.seconds_since(event)
        if ago_s is not None and ago_s < RECENT_S:
            return DiagnosticStatus.ERROR, f"{event}: {reason}"
    if health.no_depth_reason:
        return DiagnosticStatus.WARN, f"no metric depth: {health.no_depth_reason}"
    if health.camera_info_problem:
        return DiagnosticStatus.WARN, health.camera_info_problem
    return DiagnosticStatus.OK, "running"
