"""The depth node over real topics between two processes: latency by stage, rates, memory, loss. Prints and writes JSON.

    bash scripts/benchmark.sh [--quick]

The peer (this process) is camera and subscriber at once; the node runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from depth_anything_ros.contract import DEFAULT_MODEL, read_model_file
from depth_anything_ros.engines.ort_engine import session_options
from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number, draw_frame_number
from depth_anything_ros.memory import keep_freed_memory
from depth_anything_ros.messages import color_image
from depth_anything_ros.preprocess import plan_resize
from depth_anything_ros.transport import profile_environment

VGA, FULL_HD = (480, 640), (1080, 1920)


@dataclass
class Scenario:
    """One measurement: what the node is given and for how long."""

    name: str
    size_hw: tuple[int, int] = VGA
    rate_hz: float = 30.0
    frames: int = 300
    cloud: bool = False
    parameters: dict[str, Any] = field(default_factory=lambda: {"engine": "synthetic"})
    warm_up_frames: int = 30


class Peer(Node):
    """Sends coded images and looks at what comes back."""

    def __init__(self, scenario: Scenario) -> None:
        """Create the endpoints; nothing is sent before `run`."""
        super().__init__("benchmark_peer")
        self.scenario = scenario
        self.image_publisher = self.create_publisher(Image, "image", QoSProfile(depth=1))
        self.info_publisher = self.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1))
        self.parameter_client = self.create_client(GetParameters, "/depth_anything/get_parameters")
        self.number_of_stamp: dict[tuple[int, int], int] = {}
        self.depth_numbers: list[tuple[int, float]] = []
        self.age_s: list[float] = []
        self.sent_s: list[float] = []
        self.got_s: list[float] = []
        self.clouds = 0
        self.diagnostics: dict[str, str] = {}
        self.create_subscription(Image, "depth/image", self._on_depth, 10)
        if scenario.cloud:
            self.create_subscription(PointCloud2, "depth/points", self._on_cloud, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        height, width = scenario.size_hw
        self.rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        self.info = CameraInfo(height=height, width=width)
        self.info.k = [float(width), 0.0, width / 2, 0.0, float(width), height / 2, 0.0, 0.0, 1.0]

    def connected(self) -> bool:
        """Whether the node takes images and answers parameter calls."""
        inputs = self.image_publisher.get_subscription_count() and self.info_publisher.get_subscription_count()
        return bool(inputs) and self.count_publishers("depth/image") > 0 and self.parameter_client.service_is_ready()

    def _on_depth(self, image: Image) -> None:
        now_s = self.get_clock().now().nanoseconds / 1e9
        self.got_s.append(time.monotonic())
        stamp = image.header.stamp.sec, image.header.stamp.nanosec
        self.age_s.append(now_s - stamp[0] - stamp[1] / 1e9)
        middle = np.frombuffer(image.data, np.float32)[image.width * (image.height // 2) + image.width // 2]
        self.depth_numbers.append((self.number_of_stamp[stamp], float(middle)))

    def _on_cloud(self, _: PointCloud2) -> None:
        self.clouds += 1

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.diagnostics = {pair.key: pair.value for pair in array.status[0].values}

    def send(self, number: int) -> None:
        """Publish one coded frame."""
        self.sent_s.append(time.monotonic())
        draw_frame_number(self.rgb, number)
        self.info.header.stamp = self.get_clock().now().to_msg()
        self.number_of_stamp[self.info.header.stamp.sec, self.info.header.stamp.nanosec] = number
        self.info_publisher.publish(self.info)
        self.image_publisher.publish(color_image(self.info.header, self.rgb))


def run(scenario: Scenario) -> dict[str, Any]:
    """Run one scenario; returns its figures."""
    arguments = [piece for name, value in scenario.parameters.items() for piece in ("-p", f"{name}:={value}")]
    process = subprocess.Popen([sys.executable, "-m", "depth_anything_ros.node", "--ros-args", *arguments])
    peer = Peer(scenario)
    executor = SingleThreadedExecutor()
    executor.add_node(peer)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    try:
        wait_for(peer.connected, "the node", process)
        time.sleep(0.5)
        processes = {"node": psutil.Process(process.pid), "peer": psutil.Process()}
        cpu_s = {name: _cpu_s(member) for name, member in processes.items()}
        memory_mb, parameter_call_s = _drive(peer, scenario, processes["node"])
        sent = scenario.warm_up_frames + scenario.frames
        cpu_ms = {name: round((_cpu_s(member) - cpu_s[name]) / sent * 1000, 2) for name, member in processes.items()}
        time.sleep(2.5)
        return _figures(peer, scenario, memory_mb, parameter_call_s) | {"cpu_ms_per_sent_frame": cpu_ms}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        executor.shutdown()
        spinner.join()
        peer.destroy_node()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _drive(peer: Peer, scenario: Scenario, process: psutil.Process) -> tuple[list[float], list[float]]:
    """Send all frames at the camera's rate; returns the node's memory (MB) and the time of parameter calls (s) on the way."""
    total = scenario.warm_up_frames + scenario.frames
    memory_mb, call_s = [], []
    next_s = time.monotonic()
    for number in range(total):
        peer.send(number)
        if number >= scenario.warm_up_frames and number % 25 == 0:
            memory_mb.append(process.memory_info().rss / 2**20)
            _time_parameter_call(peer, call_s)
        next_s += 1 / scenario.rate_hz
        time.sleep(max(0.0, next_s - time.monotonic()))
    return memory_mb, call_s


def _time_parameter_call(peer: Peer, call_s: list[float]) -> None:
    started = time.monotonic()
    future = peer.parameter_client.call_async(GetParameters.Request(names=["engine"]))
    future.add_done_callback(lambda _: call_s.append(time.monotonic() - started))


def _figures(peer: Peer, scenario: Scenario, memory_mb: list[float], call_s: list[float]) -> dict[str, Any]:
    told = peer.diagnostics
    stages: dict[str, dict[str, float]] = {}
    for key, value in told.items():
        stage, _, percentile = key.partition(".")
        if percentile:
            stages.setdefault(stage, {})[percentile] = float(value)
    sent = scenario.warm_up_frames + scenario.frames
    counts = {key: int(told[key]) for key in ("received", "published", "dropped", "refused", "failed")}
    coded = scenario.parameters["engine"] == "synthetic"
    wrong = sum(abs(depth - depth_of_frame_number(number)) > 1e-4 for number, depth in peer.depth_numbers) if coded else None
    return {
        "sent": sent,
        **counts,
        "depth_images_at_subscriber": len(peer.depth_numbers),
        "clouds_at_subscriber": peer.clouds,
        "content_of_another_stamp": wrong,
        "results_plus_dropped_equals_sent": len(peer.depth_numbers) + counts["dropped"] == sent,
        "camera_hz": round((sent - 1) / (peer.sent_s[-1] - peer.sent_s[0]), 2),
        "output_hz": round((len(peer.got_s) - 1) / (peer.got_s[-1] - peer.got_s[0]), 2),
        "age_at_subscriber_ms": percentiles(peer.age_s),
        "node_stages_ms": stages,
        "memory_growth_mb": round(memory_mb[-1] - memory_mb[0], 3),
        "parameter_call_ms_max": round(max(call_s) * 1000, 1),
        "parameter_calls": len(call_s),
    }


def onnxruntime_alone(seconds: float) -> dict[str, Any]:
    """Return how fast onnxruntime runs the shipped model by itself at the size that a VGA image gets: its own defaults, and ours."""
    model = read_model_file(DEFAULT_MODEL)
    size = plan_resize(VGA, model.contract).network_size_hw
    tensor = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
    figures: dict[str, Any] = {"input_size_hw": size}
    for name, options in {"default_options": ort.SessionOptions(), "our_options": session_options(0)}.items():
        session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        times = []
        until = time.monotonic() + seconds / 2
        while time.monotonic() < until:
            started = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: tensor})
            times.append(time.perf_counter() - started)
        figures[name] = {"runs": len(times), "hz": round(len(times) / sum(times), 2), "ms": percentiles(times)}
        del session
    figures["best_hz"] = max(figures[name]["hz"] for name in ("default_options", "our_options"))
    return figures


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return three percentiles in milliseconds; nothing of an empty list."""
    return dict(zip(("p50", "p95", "p99"), (np.percentile(seconds, (50, 95, 99)) * 1000).round(2).tolist())) if seconds else {}


def wait_for(condition: Callable[[], bool], what: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until something is so; end the benchmark where the node ends before, or after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"benchmark: {what} did not come up")
        time.sleep(0.05)


def scenarios(quick: bool) -> list[Scenario]:
    """Return what is measured."""
    frames = 90 if quick else 300
    slow = {"engine": "synthetic", "synthetic.delay_ms": 100.0}
    return [
        Scenario("synthetic_vga", frames=120 if quick else 600),
        Scenario("synthetic_vga_cloud", frames=frames, cloud=True),
        Scenario("synthetic_1080p", FULL_HD, frames=frames),
        Scenario("synthetic_1080p_cloud", FULL_HD, 10.0, frames=60 if quick else 150, cloud=True),
        Scenario("network_of_100ms_vga", frames=frames, parameters=slow),
        Scenario("default_model_vga_cloud", frames=frames, cloud=True, parameters={"engine": "onnxruntime"}),
        Scenario("default_model_vga_saturated", rate_hz=150.0, frames=3 * frames, parameters={"engine": "onnxruntime"}),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run all scenarios (or those named) and write the figures."""
    args = arguments("node", __doc__, argv)
    machine = start()
    alone = onnxruntime_alone(2 if args.quick else 10)
    result: dict[str, Any] = {"machine": machine, "scenarios": run_all(scenarios(args.quick), run, args.only), "onnxruntime_alone": alone}
    saturated = result["scenarios"].get("default_model_vga_saturated")
    if saturated:
        result["saturated_share_of_onnxruntime_alone"] = round(saturated["output_hz"] / alone["best_hz"], 3)
    finish(result, args.output)
    return 0


def arguments(name: str, description: str, argv: list[str] | None) -> argparse.Namespace:
    """Return `quick`, `only` and `output` of a benchmark's command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, for trying it out")
    parser.add_argument("--only", nargs="+", default=[], help="names of scenarios to run")
    parser.add_argument("--output", type=Path, default=Path(f"benchmark_out/{name}.json"), help="JSON file to write (default: %(default)s)")
    return parser.parse_args(argv)


def run_all(scenarios: Sequence[Any], run: Callable[[Any], dict[str, Any]], only: list[str]) -> dict[str, Any]:
    """Return the figures of all scenarios (or of those named) by name."""
    figures = {}
    for scenario in scenarios:
        if not only or scenario.name in only:
            print(f"{scenario.name} ...", file=sys.stderr, flush=True)
            figures[scenario.name] = run(scenario)
    return figures


def start() -> dict[str, Any]:
    """Start ROS in this process, on a domain of its own; returns what is to be said about the machine."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(60 + os.getpid() % 40))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.update(profile_environment(os.environ))
    keep_freed_memory()
    rclpy.init()
    return {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "load_before": os.getloadavg()[0]}


def finish(result: dict[str, Any], output: Path) -> None:
    """Stop ROS, print the figures and write them to a file."""
    rclpy.try_shutdown()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    raise SystemExit(main())
