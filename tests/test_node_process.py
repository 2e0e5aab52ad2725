"""The node as a process of its own: how it starts, what it says on stderr, how it ends."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.wait_for_message import wait_for_message  # noqa: E402

pytestmark = pytest.mark.ros


def node_process(*parameters):
    arguments = [piece for p in parameters for piece in ("-p", p)]
    return subprocess.Popen(
        [sys.executable, "-m", "depth_anything_ros.node", "--ros-args", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for_diagnostics():
    """Wait until a node in another process spins."""
    context = rclpy.Context()
    rclpy.init(context=context)
    listener = Node("listener", context=context)
    came, _ = wait_for_message(DiagnosticArray, listener, "/diagnostics", time_to_wait=20)
    listener.destroy_node()
    rclpy.try_shutdown(context=context)
    assert came


@pytest.mark.parametrize("autostart", ["true", "false"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_process_ends_cleanly_on_sigint(autostart, twice):
    process = node_process("engine:=synthetic", f"autostart:={autostart}")
    started = time.monotonic()
    seen = ""
    while autostart == "true" and "active" not in seen:
        seen += process.stderr.readline()
        assert time.monotonic() - started < 20
    if autostart == "false":
        wait_for_diagnostics()
    process.send_signal(signal.SIGINT)
    if twice:
        time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, seen + errors
    assert "ERROR" not in seen + errors
    assert "Traceback" not in errors
    assert ("opened model" in seen + errors) == (autostart == "true")


def test_process_refuses_a_bad_parameter_with_its_name():
    process = node_process("cloud.stride:=0")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "parameter cloud.stride" in errors
    assert "Traceback" not in errors


def test_unusable_model_leaves_the_process_alive():
    process = node_process("model:=/no/such.onnx")
    try:
        assert any("cannot read model file '/no/such.onnx'" in line for line in itertools.islice(process.stderr, 5))
        time.sleep(0.5)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_unknown_parameter_is_pointed_out():
    process = node_process("engine:=synthetic", "cloud.strid:=4")
    try:
        assert any("'cloud.strid' is unknown and has no effect; did you mean 'cloud.stride'?" in line for line in itertools.islice(process.stderr, 5))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
