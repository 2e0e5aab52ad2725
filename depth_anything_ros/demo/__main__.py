"""The demonstration: camera, depth node and recorder as three processes over real ROS 2 topics, for some seconds."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from tqdm import tqdm

from ..transport import profile_environment
from .camera import add_arguments
from .recorder import Recorder
from .report import write_report

START_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 5.0


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration; returns 0 where depth arrived."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to record (default: 10)")
    parser.add_argument("--output-dir", type=Path, default=Path("demo_out"), help="where the results go (default: demo_out)")
    parser.add_argument("--model", default="", help="ONNX model (default: the one inside the package)")
    args = parser.parse_args(argv)
    _set_environment()
    camera_args = ["--rate-hz", str(args.rate_hz), "--hfov-deg", str(args.hfov_deg)]
    camera_args += ["--video", str(args.video)] if args.video else []
    camera_args += ["--image", *map(str, args.image)] if args.image else []
    model_args = ["-p", f"model:={args.model}"] if args.model else []
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        processes["camera"] = _start("depth_anything_ros.demo.camera", camera_args)
        processes["depth node"] = _start("depth_anything_ros.node", ["--ros-args", "-p", "cloud.stride:=2", *model_args])
        rclpy.init()
        recorder = Recorder(depth_is_known=not (args.video or args.image))
        executor = SingleThreadedExecutor()
        executor.add_node(recorder)
        problem = _record(recorder, executor, processes, args.seconds)
        _stop({"camera": processes["camera"]})
        _settle(recorder, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        problem = "interrupted"
    finally:
        _stop(processes)
    if problem:
        print(f"demo: no depth: {problem}", file=sys.stderr)
        return 1
    result = write_report(recorder, args.output_dir, args.seconds)
    recorder.destroy_node()
    rclpy.try_shutdown()
    _tell(result, args.output_dir)
    return 0


def _set_environment() -> None:
    """Keep the demo's topics on this machine and apart from a running robot's, unless the user chose otherwise."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(60 + os.getpid() % 40))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.update(profile_environment(os.environ))


def _start(module: str, args: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *args], start_new_session=True)


def _record(recorder: Recorder, executor: SingleThreadedExecutor, processes: dict[str, subprocess.Popen[bytes]], seconds: float) -> str:
    """Spin until enough was seen since every topic arrives; returns what went wrong, or nothing."""
    until_s = time.monotonic() + START_TIMEOUT_S
    bar_format = "{desc} |{bar}| {n:.1f}/{total:.0f} s"
    with tqdm(total=seconds, bar_format=bar_format, desc="waiting for depth", mininterval=0.5) as bar:
        while not recorder.started_s or time.monotonic() - recorder.started_s < seconds:
            executor.spin_once(timeout_sec=0.1)
            for name, process in processes.items():
                if process.poll() is not None:
                    return f"the {name} stopped with exit code {process.returncode}; its messages are above"
            if recorder.started_s:
                bar.set_description(f"{recorder.depth_count} depth images", refresh=False)
                bar.update(min(seconds, time.monotonic() - recorder.started_s) - bar.n)
            elif recorder.node_status.get("transition_error"):
                return str(recorder.node_status["transition_error"])
            elif time.monotonic() > until_s:
                return _what_is_missing(recorder)
    return ""


def _what_is_missing(recorder: Recorder) -> str:
    if recorder.depth_count:
        return f"none of {recorder.depth_count} depth images came with its camera image, or no known depth came; is the machine very busy?"
    return f"none within {START_TIMEOUT_S:.0f} s; the node says: {recorder.node_status.get('message', 'nothing')}"


def _settle(recorder: Recorder, executor: SingleThreadedExecutor) -> None:
    """Take in what is under way, and the diagnostics that count it: the second after the camera's end, as the first may have been made before."""
    until_s, told = time.monotonic() + SETTLE_TIMEOUT_S, recorder.status_count + 2
    while time.monotonic() < until_s and not (recorder.status_count >= told and recorder.all_counted()):
        executor.spin_once(timeout_sec=0.1)


def _stop(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for name, process in processes.items():
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            print(f"demo: the {name} did not stop within 10 s and is killed", file=sys.stderr)
            process.kill()
            process.wait()


def _tell(result: dict, output_dir: Path) -> None:  # type: ignore[type-arg]
    frames, age = result["frames"], result["stamp_to_depth_published"]
    error = result.get("error_against_known_depth")
    quality = f", AbsRel {error['abs_rel']:.3f} against the known depth" if error else ""
    watched = frames["received"] - frames["idle"]  # while nobody subscribes nothing is inferred
    print(f"{frames['published']} depth images of {watched} camera images, {result['rate_hz']['depth']:.1f} per second{quality}")
    print(f"image stamp -> depth published: p50 {age['p50_ms']:.0f} ms, p95 {age['p95_ms']:.0f} ms; all figures: {output_dir}/summary.json")
    print(f"look at {output_dir}/depth.png (input | depth), and open {output_dir}/cloud.ply with MeshLab, CloudCompare or Open3D")


if __name__ == "__main__":
    raise SystemExit(main())
