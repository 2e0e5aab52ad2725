"""Transitions, parameters and diagnostics of the live node."""

import gc
import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rcl_interfaces.srv import DescribeParameters  # noqa: E402

from depth_anything_ros import channel as channel_module  # noqa: E402
from depth_anything_ros import node as node_module  # noqa: E402
from depth_anything_ros.config import PARAMETERS  # noqa: E402
from depth_anything_ros.engines import open_engine  # noqa: E402

from .models import write_tiny_model  # noqa: E402
from .rig import Rig, coded_image  # noqa: E402

psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.ros
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP


def transition(r, number) -> bool:
    client = r.client(ChangeState, "change_state")
    request = ChangeState.Request()
    request.transition.id = number
    return r.call(client, request).success


def test_unusable_model_fails_configure_and_a_good_one_mends_it(rig, tmp_path):
    r = rig(engine="onnxruntime", model=str(tmp_path / "none.onnx"))
    assert r.node.health.state == "unconfigured"
    status, _ = r.status(lambda s: s.level == DiagnosticStatus.ERROR)
    assert "cannot read model file" in status.message
    (tmp_path / "cut.onnx").write_bytes(write_tiny_model(tmp_path / "good.onnx").read_bytes()[:100])
    assert r.set_parameters(model=str(tmp_path / "cut.onnx"))[0].successful
    assert not transition(r, CONFIGURE)
    r.status(lambda s: "truncated" in s.message)
    assert r.set_parameters(model=str(tmp_path / "good.onnx"))[0].successful
    assert transition(r, CONFIGURE)
    assert transition(r, ACTIVATE)
    r.wait_connected()
    r.exchange(coded_image(1))
    status, values = r.status(lambda s: s.level == DiagnosticStatus.OK)
    assert (values["state"], values["model"], values["engine"], values["transition_error"]) == ("active", "tiny", "onnxruntime", "")
    assert len(values["model_sha256"]) == 64


@pytest.mark.parametrize(
    ("values", "message"),
    [({"engine": "tpu"}, "engine 'tpu' is unknown"), ({"engine": "onnxruntime", "onnxruntime__providers": ["X"]}, "no provider X")],
)
def test_engine_that_cannot_be_had_is_an_error_in_the_diagnostics(rig, tmp_path, values, message):
    r = rig(model=str(write_tiny_model(tmp_path / "m.onnx")), **values)
    status, _ = r.status(lambda s: s.level == DiagnosticStatus.ERROR)
    assert message in status.message


def test_onnxruntime_threads_reach_the_engine(rig, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(node_module, "open_engine", lambda config: seen.append(config.onnxruntime.threads) or open_engine(config))
    rig(engine="onnxruntime", model=str(write_tiny_model(tmp_path / "m.onnx")), onnxruntime__threads=1)
    assert seen == [1]


def test_without_autostart_the_node_waits(rig):
    r = rig(autostart=False, subscribe=())
    _, values = r.status()
    assert values["state"] == "unconfigured"
    assert transition(r, CONFIGURE)
    assert r.node.count_subscribers("image") == 0, "subscriptions exist only while active"
    assert transition(r, ACTIVATE)
    assert r.node.count_subscribers("image") == 1


def test_cleanup_frees_the_engine_and_removes_everything(rig):
    r = rig()
    engine = r.node._engine
    closed = []
    engine.close = lambda: closed.append(threading.current_thread().name)
    assert transition(r, DEACTIVATE)
    assert r.node.count_subscribers("image") == 0
    assert transition(r, CLEANUP)
    assert closed == ["inference"], "engines are closed by the thread that owns them"
    assert r.node.count_publishers("depth/image") == 0
    assert transition(r, CONFIGURE)
    assert transition(r, ACTIVATE)
    r.wait_connected()
    r.exchange(coded_image(3))


def test_twenty_cycles_while_images_arrive(rig):
    r = rig(synthetic__delay_ms=20.0)
    stop = threading.Event()

    def camera():
        number = 0
        while not stop.is_set():
            r.send(coded_image(number := number + 1, stamp_ns=number))
            time.sleep(0.01)

    sender = threading.Thread(target=camera)
    sender.start()
    try:
        process = psutil.Process()
        counts = []
        for cycle in range(20):
            assert transition(r, DEACTIVATE)
            if cycle % 5 == 4:
                assert transition(r, CLEANUP)
                assert transition(r, CONFIGURE)
            assert transition(r, ACTIVATE)
            counts.append((process.num_threads(), process.num_fds()))
        before = len(r.got["depth/image"])
        r.wait(lambda: len(r.got["depth/image"]) > before, "depth after the last cycle")
    finally:
        stop.set()
        sender.join()
    assert r.total("failed") == 0
    assert counts[-1][0] <= counts[0][0] + 2
    assert counts[-1][1] <= counts[0][1] + 5


def test_every_parameter_is_described(rig):
    r = rig(subscribe=())
    client = r.client(DescribeParameters, "describe_parameters")
    described = r.call(client, DescribeParameters.Request(names=list(PARAMETERS))).descriptors
    for descriptor, parameter in zip(described, PARAMETERS.values()):
        assert descriptor.description == parameter.text
        assert bool(descriptor.integer_range or descriptor.floating_point_range) == (parameter.low is not None)
        assert descriptor.read_only == (parameter.when == "start")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"cloud__stride": 0}, "cloud.stride"),
        ({"cloud__stride": 2.5}, "Wrong parameter type"),
        ({"frame_policy": "all"}, "read-only"),
        ({"color__near_m": 50.0}, "color.far_m (10) must be above color.near_m (50)"),
        ({"color__colormap": "jet"}, "'jet' is not one of turbo"),
        ({"model": "other.onnx"}, "model: changes only while the node is unconfigured"),
        ({"autostart": False}, "read-only"),
        ({"depth__max_m": 5.0, "scale__mode": "guess"}, "'guess' is not one of"),
    ],
)
def test_bad_values_are_rejected_with_the_reason_and_the_old_ones_stay(rig, values, reason):
    r = rig(subscribe=())
    before = r.node.config
    (result,) = r.set_parameters(**values)
    assert not result.successful
    assert reason in result.reason
    assert r.node.config == before
    for name in values:
        dotted = name.replace("__", ".")
        shown = r.node.get_parameter(dotted).value
        assert shown == before.value(dotted)


@pytest.mark.parametrize("parameters", [{"diagnostics__stale_after_s": 0.5}, {"diagnostics__period_s": 1.0}], ids=["set", "default"])
def test_stale_when_the_camera_stops_and_back_when_it_returns(rig, parameters):
    r = rig(**parameters)
    r.exchange(coded_image(1))
    status, _ = r.status(lambda s: s.level == DiagnosticStatus.OK)
    assert status.message == "running"
    stopped = time.monotonic()
    status, _ = r.status(lambda s: s.level == DiagnosticStatus.STALE)
    assert time.monotonic() - stopped < 3.0
    assert "no image for" in status.message
    r.exchange(coded_image(2, stamp_ns=1))
    r.status(lambda s: s.level == DiagnosticStatus.OK)


@pytest.mark.parametrize("period_s", [0.1, 0.4])
def test_diagnostics_come_with_their_period(rig, period_s):
    r = rig(subscribe=(), diagnostics__period_s=period_s)
    r.status()
    count = round(2 / period_s)
    started = time.monotonic()
    r.diagnostics.clear()
    r.wait(lambda: len(r.diagnostics) >= count, f"{count} messages")
    assert time.monotonic() - started == pytest.approx(2, abs=0.6)


def test_a_pause_is_not_the_cameras_silence(rig):
    r = rig(diagnostics__stale_after_s=0.5)
    r.exchange(coded_image(1))
    assert transition(r, DEACTIVATE)
    time.sleep(0.8)
    assert transition(r, ACTIVATE)
    status, _ = r.status()
    assert status.level == DiagnosticStatus.OK


@pytest.mark.parametrize(("endpoint", "reached"), [("/depth/points.publisher", "configure"), ("/image.subscription", "activate")])
def test_impossible_qos_override_is_a_failure_with_its_reason(rig, endpoint, reached):
    r = rig(subscribe=(), **{f"qos_overrides.{endpoint}.reliability": "bogus"})
    status, values = r.status()
    assert status.level == DiagnosticStatus.ERROR
    assert f"cannot {reached}: " in values["transition_error"]
    assert values["state"] == {"configure": "unconfigured", "activate": "inactive"}[reached]
    assert r.node.count_subscribers("image") == 0
    r.wait(lambda: r.node.count_publishers("depth/image") == {"configure": 0, "activate": 1}[reached], "publishers")


def test_trouble_of_a_transition_is_over_when_it_succeeds(rig, monkeypatch):
    r = rig(autostart=False)
    assert transition(r, CONFIGURE)
    with monkeypatch.context() as trouble:
        trouble.setattr(r.channel.inputs, "open", lambda config: 1 / 0)
        assert not transition(r, ACTIVATE)
    assert r.status(lambda s: s.level == DiagnosticStatus.ERROR)[0].message == "cannot activate: ZeroDivisionError: division by zero"
    assert transition(r, ACTIVATE)
    assert transition(r, DEACTIVATE)
    status, values = r.status(lambda s: s.message != "running")
    assert (status.level, status.message, values["transition_error"]) == (DiagnosticStatus.OK, "inactive", "")


def test_withheld_frames_are_not_called_published(rig):
    r = rig(synthetic__output_kind="disparity_affine_invariant", scale__mode="model")
    inferred = []
    infer = r.node._engine.infer
    r.node._engine.infer = lambda tensor: inferred.append(1) or infer(tensor)
    r.send(coded_image(1))
    r.wait(lambda: r.total("withheld") == 1, "frame")
    status, values = r.status()
    assert (values["published"], inferred) == ("0", [])
    assert "set scale.mode to fixed" in status.message


def test_first_image_waits_for_its_calibration_where_metres_depend_on_it(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(channel_module, "CAMERA_INFO_GRACE_S", 60.0)
    path = write_tiny_model(tmp_path / "m.onnx", output_kind="depth_canonical_focal", canonical_focal_px=20.0)
    r = rig(engine="onnxruntime", model=str(path))
    r.image_publisher.publish(coded_image(1))
    r.wait(lambda: r.total("withheld") == 1, "first frame")
    monkeypatch.setattr(channel_module, "CAMERA_INFO_GRACE_S", 0.0)
    r.image_publisher.publish(coded_image(1, stamp_ns=1))
    r.wait(lambda: r.total("published") == 1, "frame without calibration")
    status, _ = r.status()
    assert "no camera_info has arrived" in status.message


def test_diagnostics_tell_what_happened(rig):
    r = rig(subscribe=("depth/image", "depth/points"), diagnostics__period_s=0.2)
    for i in range(5):
        r.exchange(coded_image(i, stamp_ns=r.peer.get_clock().now().nanoseconds))
    _, values = r.status(lambda s: s.level == DiagnosticStatus.OK)
    assert (values["received"], values["published"], values["dropped"], values["refused"]) == ("5", "5", "0", "0")
    for stage in ("wait", "decode", "preprocess", "infer", "postprocess", "publish", "callback_to_depth", "age"):
        p50, p95, p99 = (float(values[f"{stage}.{p}_ms"]) for p in ("p50", "p95", "p99"))
        assert 0 <= p50 <= p95 <= p99 < 5000, stage
    assert float(values["output_hz"]) > 0
    assert r.status()[0].name == "/depth_anything: depth"


def test_a_closed_node_leaves_nothing_behind_before_the_garbage_collector_runs():
    process = psutil.Process()
    Rig().close()  # what stays of the first in a process, such as log threads, is not the node's
    gc.collect()
    before = process.num_threads()
    gc.disable()
    try:
        Rig().close()
        for _ in range(100):
            if process.num_threads() <= before:
                break
            time.sleep(0.05)
        assert process.num_threads() <= before
    finally:
        gc.enable()
