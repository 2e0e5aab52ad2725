"""Several cameras in one depth node, over real topics between two processes: rates, fairness, batches, latency. Prints and writes JSON.

    python -m benchmarks.cameras [--quick]

The peer (this process) is all cameras and all subscribers; the node runs in a process of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from depth_anything_ros.messages import color_image

from .node import VGA, arguments, finish, percentiles, run_all, start, wait_for

NAMES = ("front", "left", "right")
SHOWN_STAGES = ("wait", "infer", "callback_to_depth", "age")


@dataclass(frozen=True)
class Scenario:
    """One measurement: how often each camera sends, and what the node is given."""

    name: str
    rates_hz: tuple[float, ...] = (15.0, 15.0, 15.0)
    seconds: float = 20.0
    size_hw: tuple[int, int] = VGA
    parameters: dict[str, Any] = field(default_factory=dict)


class Camera:
    """One camera and the subscriber of its depth."""

    def __init__(self, node: Node, name: str, rate_hz: float) -> None:
        """Create the endpoints."""
        self.name, self.rate_hz = name, rate_hz
        self.publisher = node.create_publisher(Image, f"{name}/image", QoSProfile(depth=1))
        self.sent, self.foreign = 0, 0
        self.got_s: list[float] = []
        self.age_s: list[float] = []
        self._node = node
        node.create_subscription(Image, f"{name}/depth/image", self._on_depth, 10)

    def _on_depth(self, depth: Image) -> None:
        now_s = self._node.get_clock().now().nanoseconds / 1e9
        self.got_s.append(time.monotonic())
        self.age_s.append(now_s - depth.header.stamp.sec - depth.header.stamp.nanosec / 1e9)
        self.foreign += depth.header.frame_id != self.name

    def run(self, seconds: float, rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Send images at the camera's rate."""
        next_s = time.monotonic()
        for _ in range(round(seconds * self.rate_hz)):
            self.publisher.publish(color_image(Header(stamp=self._node.get_clock().now().to_msg(), frame_id=self.name), rgb))
            self.sent += 1
            next_s += 1 / self.rate_hz
            time.sleep(max(0.0, next_s - time.monotonic()))


class Peer(Node):
    """All cameras."""

    def __init__(self, scenario: Scenario) -> None:
        """Create the endpoints; nothing is sent."""
        super().__init__("benchmark_peer")
        self.cameras = [Camera(self, name, rate_hz) for name, rate_hz in zip(NAMES, scenario.rates_hz)]
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def connected(self) -> bool:
        """Whether the node takes the images of all cameras."""
        return all(camera.publisher.get_subscription_count() and self.count_publishers(f"{camera.name}/depth/image") for camera in self.cameras)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self.diagnostics[status.name.rpartition(" ")[2]] = {pair.key: pair.value for pair in status.values}


def run(scenario: Scenario) -> dict[str, Any]:
    """Run one scenario; returns its figures."""
    parameters = {"cameras": list(NAMES[: len(scenario.rates_hz)])} | scenario.parameters
    arguments = [piece for name, value in parameters.items() for piece in ("-p", f"{name}:={value}")]
    process = subprocess.Popen([sys.executable, "-m", "depth_anything_ros.node", "--ros-args", *arguments])
    peer, executor = Peer(scenario), SingleThreadedExecutor()
    executor.add_node(peer)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    rgb = np.random.default_rng(0).integers(0, 256, (*scenario.size_hw, 3), np.uint8)
    try:
        wait_for(peer.connected, "the node", process)
        time.sleep(0.5)
        senders = [threading.Thread(target=camera.run, args=(scenario.seconds, rgb)) for camera in peer.cameras]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        time.sleep(1.5)
        return _figures(peer)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        executor.shutdown()
        spinner.join()
        peer.destroy_node()


def _figures(peer: Peer) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for camera in peer.cameras:
        told = peer.diagnostics[camera.name]
        stages = {stage: {p: float(told[f"{stage}.{p}_ms"]) for p in ("p50", "p95")} for stage in SHOWN_STAGES}
        figures[camera.name] = {
            "sent": camera.sent,
            "depth_images_at_subscriber": len(camera.got_s),
            "of_another_camera": camera.foreign,
            "output_hz": round((len(camera.got_s) - 1) / (camera.got_s[-1] - camera.got_s[0]), 2),
            **{key: int(told[key]) for key in ("received", "published", "dropped", "failed", "batches")},
            "batch_mean": float(told["batch_mean"]),
            "node_stages_ms": stages,
            "age_at_subscriber_ms": percentiles(camera.age_s),
        }
    rates = [figures[camera.name]["output_hz"] for camera in peer.cameras]
    return figures | {"slowest_over_fastest": round(min(rates) / max(rates), 3), "sum_hz": round(sum(rates), 2)}


def scenarios(quick: bool) -> list[Scenario]:
    """Return what is measured."""
    seconds = 5.0 if quick else 20.0
    batches, flood = {"batch_max": 3}, (60.0, 60.0, 60.0)
    return [
        Scenario("three_at_15_hz", seconds=seconds),
        Scenario("three_at_15_hz_batches", seconds=seconds, parameters=batches),
        Scenario("three_saturated", flood, seconds),
        Scenario("three_saturated_batches", flood, seconds, parameters=batches),
        Scenario("one_fast_two_slow", (120.0, 20.0, 20.0), seconds),
        Scenario("network_of_100ms", seconds=seconds, parameters={"engine": "synthetic", "synthetic.delay_ms": 100.0}),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run all scenarios (or those named) and write the figures."""
    args = arguments("cameras", __doc__, argv)
    result = {"machine": start(), "scenarios": run_all(scenarios(args.quick), run, args.only)}
    finish(result, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
