"""The node while an engine is built: it answers, tells how far the build is, and can be stopped. The build itself is a slow stand-in."""

import signal
import subprocess
import sys
import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402

from depth_anything_ros import node as node_module  # noqa: E402
from depth_anything_ros.engines.synthetic_engine import SyntheticEngine  # noqa: E402
from depth_anything_ros.errors import EngineError  # noqa: E402

from .rig import coded_image  # noqa: E402

pytestmark = pytest.mark.ros
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE


class Build:
    """Stands still at 40 % until it is released, cancelled, or made to fail."""

    def __init__(self):
        self.go, self.error, self.thread = threading.Event(), None, ""

    def __call__(self, config, watch):
        self.thread = threading.current_thread().name
        watch.note("Building", 40.0)
        while not self.go.wait(0.01):
            watch.raise_if_stopped()
        watch.done()
        if self.error:
            raise self.error


@pytest.fixture
def build(monkeypatch):
    build = Build()
    monkeypatch.setattr(node_module, "prepare_engine", build)
    yield build
    build.go.set()


def request(transition_id=0, label=""):
    message = ChangeState.Request()
    message.transition.id, message.transition.label = transition_id, label
    return message


@pytest.mark.parametrize("wanted", [request(CONFIGURE), request(label="configure")], ids=["by number", "by name"])
def test_node_answers_while_the_engine_is_built(rig, build, wanted):
    r = rig(autostart=False, subscribe=())
    client = r.client(ChangeState, "change_state")
    answer = client.call_async(wanted)
    status, values = r.status(lambda s: s.message == "configuring")
    assert values["engine_build"] == "Building 40 %"
    assert status.level == DiagnosticStatus.OK
    assert build.thread == "configure"
    assert r.call(r.client(GetState, "get_state"), GetState.Request()).current_state.label == "configuring"
    started_s = time.monotonic()
    assert r.set_parameters(cloud__stride=2)[0].successful
    assert time.monotonic() - started_s < 1.0
    (refused,) = r.set_parameters(model="other.onnx")
    assert "changes only while the node is unconfigured" in refused.reason
    assert not r.call(client, request(ACTIVATE)).success, "no other transition while one goes on"
    assert not answer.done()
    build.go.set()
    r.wait(answer.done, "the transition")
    assert answer.result().success
    assert r.call(client, request(ACTIVATE)).success
    _, values = r.status(lambda s: s.level != DiagnosticStatus.OK or s.message != "configuring")
    assert (values["state"], values["engine_build"]) == ("active", "")


def test_build_that_fails_is_a_failed_transition_and_may_be_tried_again(rig, build):
    r = rig(autostart=False, subscribe=())
    client = r.client(ChangeState, "change_state")
    build.error = EngineError("there is no CUDA device on this machine")
    build.go.set()
    assert not r.call(client, request(CONFIGURE)).success
    status, values = r.status(lambda s: s.level == DiagnosticStatus.ERROR)
    assert status.message == "cannot configure: there is no CUDA device on this machine"
    assert (values["state"], values["engine_build"]) == ("unconfigured", "")
    build.error = None
    assert r.call(client, request(CONFIGURE)).success


def test_closing_the_node_cancels_the_build(rig, build):
    r = rig(autostart=False, subscribe=())
    r.client(ChangeState, "change_state").call_async(request(CONFIGURE))
    r.status(lambda s: s.message == "configuring")
    started_s = time.monotonic()
    r.close()
    r.close = lambda: None  # the fixture would do it again
    assert time.monotonic() - started_s < 5.0


def test_engine_with_doubtful_numbers_is_a_warning(rig, monkeypatch):
    monkeypatch.setattr(SyntheticEngine, "self_check_problem", "self-check failed: AbsRel 0.3")
    monkeypatch.setattr(SyntheticEngine, "check", lambda self, mode: None)
    r = rig(subscribe=())
    r.send(coded_image(1))
    status, values = r.status(lambda s: s.level == DiagnosticStatus.WARN)
    assert status.message == "self-check failed: AbsRel 0.3"
    assert "self_check" in values
    assert "engine_platform" in values


def test_ctrl_c_during_a_build_at_start_ends_the_process():
    code = """
import sys, time
from depth_anything_ros import node
def build(config, watch):
    watch.note("Building", 40.0)
    while True:
        time.sleep(0.01)
        watch.raise_if_stopped()
node.prepare_engine = build
sys.exit(node.main())
"""
    arguments = [sys.executable, "-c", code, "--ros-args", "-p", "engine:=synthetic"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "engine: Building 40 %" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
