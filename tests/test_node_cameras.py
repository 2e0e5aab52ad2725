"""Several cameras in one node: one model, fair turns, batches, and nothing of one camera in another's outputs."""

import itertools
import threading

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402

from depth_anything_ros import node as node_module  # noqa: E402
from depth_anything_ros.config import RuntimeConfig  # noqa: E402
from depth_anything_ros.engines import open_engine  # noqa: E402
from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number  # noqa: E402
from depth_anything_ros.errors import EngineError  # noqa: E402

from .rig import coded_image, pixels, stamp_ns  # noqa: E402

pytestmark = pytest.mark.ros
THREE = ["front", "left", "right"]
DEPTHS = tuple(f"{camera}/depth/image" for camera in THREE)
FIRST = {camera: 10000 * (index + 1) for index, camera in enumerate(THREE)}
"""Frame numbers and stamps of a camera count from here."""


def cameras(rig, names=THREE, **parameters):
    """Start a node with several cameras, whose depth images are subscribed to."""
    parameters.setdefault("subscribe", tuple(f"{name}/depth/image" for name in names))
    return rig(cameras=list(names), **parameters)


def image_of(camera, number, **kwargs):
    return coded_image(FIRST[camera] + number, stamp_ns=FIRST[camera] + number, frame_id=f"{camera}_optical", **kwargs)


def check_depths(r):
    """Every depth image has its own camera's frame_id, stamp and content, newer and newer."""
    for camera, topic in zip(THREE, DEPTHS):
        stamps = [stamp_ns(depth) for depth in r.got[topic]]
        assert stamps == sorted(set(stamps))
        for depth in r.got[topic]:
            assert depth.header.frame_id == f"{camera}_optical"
            assert 0 <= stamp_ns(depth) - FIRST[camera] < 1000
            np.testing.assert_allclose(pixels(depth), depth_of_frame_number(stamp_ns(depth)), rtol=1e-6)


def status_of(r, camera, accept=lambda s: True):
    return r.status(lambda s: s.name == f"/depth_anything: depth {camera}" and accept(s), f"diagnostics of {camera}")


def total(r, camera, event):
    return r.channel_of(camera).meter.total(event)


class Shapes:
    """Notes how many images every call of the engine gets, and holds the first call until it may go on."""

    def __init__(self, r):
        self.seen, self.begun, self.go, infer = [], threading.Event(), threading.Event(), r.node._engine.infer

        def held(tensor):
            self.seen.append(tensor.shape[0])
            self.begun.set()
            assert self.go.wait(10)
            return infer(tensor)

        r.node._engine.infer = held


def while_busy(r, images):
    """Send images of cameras while the engine is busy with another one of the first camera; returns the calls' sizes when all are through."""
    shapes, before = Shapes(r), {camera: total(r, camera, "received") for camera in THREE}
    r.send(image_of("front", 900), camera="front")
    r.wait(shapes.begun.is_set, "the first call")
    for camera, image in images:
        r.send(image, camera=camera)
    expected = {camera: before[camera] + sum(sender == camera for sender, _ in images) + (camera == "front") for camera in THREE}
    r.wait(lambda: all(total(r, camera, "received") == count for camera, count in expected.items()), "arrival")
    shapes.go.set()
    ends = ("published", "withheld", "refused", "failed", "dropped")
    r.wait(lambda: all(sum(total(r, camera, end) for end in ends) == expected[camera] for camera in expected), "the end of all frames")
    return shapes.seen


def test_three_cameras_at_15_hz_share_one_model_and_one_may_stop(rig, monkeypatch):
    opened = []
    monkeypatch.setattr(node_module, "open_engine", lambda config: opened.append(config) or open_engine(config))
    r = cameras(rig, synthetic__delay_ms=80.0, diagnostics__stale_after_s=0.7)
    sending, stop = list(THREE), threading.Event()

    def send():
        for number in itertools.count():
            for camera in list(sending):
                r.send(image_of(camera, number), camera=camera)
            if stop.wait(1 / 15):
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        r.wait(lambda: max(total(r, camera, "published") for camera in THREE) >= 12, "a second of frames")
        published = [total(r, camera, "published") for camera in THREE]
        assert min(published) / max(published) > 0.8
        for camera in THREE:
            status, values = status_of(r, camera)
            assert (status.level, int(values["batches"]) > 0, 1 < float(values["batch_mean"]) <= 3) == (DiagnosticStatus.OK, True, True)
        sending.remove("right")
        assert "no image for" in status_of(r, "right", lambda s: s.level == DiagnosticStatus.STALE)[0].message
        before = total(r, "front", "published")
        r.wait(lambda: total(r, "front", "published") >= before + 5, "more frames of the others")
        for camera in ("front", "left"):
            assert status_of(r, camera)[0].level == DiagnosticStatus.OK
    finally:
        stop.set()
        sender.join()
    assert len(opened) == 1
    check_depths(r)


def test_a_fast_camera_takes_no_turn_of_a_slow_one(rig):
    """Front has a new frame in every call of the network, the others in every fourth: none of theirs may be lost."""
    r = cameras(rig, batch_max=1)
    infer, calls = r.node._engine.infer, itertools.count(1)

    def busy(tensor):
        number = next(calls)
        if number <= 20:
            sent = THREE if number % 4 == 0 else ["front"]
            expected = {camera: total(r, camera, "received") + 1 for camera in sent}
            for camera in sent:
                r.send(image_of(camera, number), camera=camera)
            r.wait(lambda: all(total(r, camera, "received") == count for camera, count in expected.items()), "arrival")
        return infer(tensor)

    r.node._engine.infer = busy
    r.send(image_of("front", 0), camera="front")
    r.wait(lambda: sum(total(r, camera, "published") + total(r, camera, "dropped") for camera in THREE) == 31, "all frames")
    assert [total(r, camera, "dropped") for camera in ("left", "right")] == [0, 0]
    r.wait(lambda: [len(r.got[topic]) for topic in DEPTHS[1:]] == [5, 5], "their depth images")
    assert total(r, "front", "dropped") > 0, "the network was busy all the time"
    assert int(status_of(r, "front")[1]["batches"]) == 0
    check_depths(r)


@pytest.mark.parametrize(("batch_max", "calls"), [(0, [1, 3]), (2, [1, 2, 1]), (1, [1, 1, 1, 1])])
def test_frames_that_wait_go_through_the_network_together(rig, batch_max, calls):
    r = cameras(rig, batch_max=batch_max)
    assert while_busy(r, [(camera, image_of(camera, 950)) for camera in THREE]) == calls
    r.wait(lambda: [len(r.got[topic]) for topic in DEPTHS] == [2, 1, 1], "depth images")
    check_depths(r)
    assert r.channel.meter.percentiles()["callback_to_depth"].p50_ms > r.channel.meter.percentiles()["infer"].p50_ms


def test_frames_of_another_network_size_go_by_themselves(rig):
    r = cameras(rig)
    images = [("front", image_of("front", 950)), ("left", image_of("left", 950, size_hw=(48, 128))), ("right", image_of("right", 950))]
    assert sorted(while_busy(r, images)) == [1, 1, 2]
    r.wait(lambda: [len(r.got[topic]) for topic in DEPTHS] == [2, 1, 1], "depth images")
    check_depths(r)
    assert r.got["left/depth/image"][0].width == 128


def test_a_camera_of_garbage_and_one_that_never_comes_harm_no_other(rig):
    r = cameras(rig, diagnostics__stale_after_s=0.5)
    for number in range(3):
        garbage = image_of("left", number)
        garbage.data = garbage.data[:100]
        assert while_busy(r, [("front", image_of("front", number)), ("left", garbage)]) == [1, 1]
    status, values = status_of(r, "left")
    assert (status.level, values["refused"]) == (DiagnosticStatus.ERROR, "3")
    assert "data has 100 bytes" in status.message
    status, values = status_of(r, "front")
    assert (status.level, values["refused"], values["failed"], values["last_refusal"]) == (DiagnosticStatus.OK, "0", "0", "")
    assert status_of(r, "right", lambda s: s.level == DiagnosticStatus.STALE)[1]["received"] == "0"


def test_a_batch_that_fails_is_counted_by_its_cameras_and_the_next_goes_on(rig):
    r = cameras(rig)
    infer = r.node._engine.infer

    def fails_on_batches(tensor):
        if len(tensor) > 1:
            raise EngineError("out of memory")
        return infer(tensor)

    r.node._engine.infer = fails_on_batches
    assert while_busy(r, [(camera, image_of(camera, 950)) for camera in THREE]) == [1, 3]
    assert [total(r, camera, "failed") for camera in THREE] == [1, 1, 1]
    for camera, topic in zip(THREE, DEPTHS):
        assert "out of memory" in status_of(r, camera)[1]["last_failure"]
        r.exchange(image_of(camera, 960), topic)
    check_depths(r)


def test_a_frame_that_fails_after_the_network_takes_no_other_with_it(rig, monkeypatch):
    r = cameras(rig)

    def fails(*args):
        raise EngineError("no memory left")

    monkeypatch.setattr(r.channel_of("left").pipeline, "finish", fails)
    assert while_busy(r, [(camera, image_of(camera, 950)) for camera in ("left", "right")]) == [1, 2]
    assert [total(r, camera, "failed") for camera in THREE] == [0, 1, 0]
    r.wait(lambda: r.got["right/depth/image"], "depth of the other camera")
    check_depths(r)


def test_all_keeps_every_frame_of_every_camera_in_order(rig):
    r = cameras(rig, frame_policy="all", synthetic__delay_ms=2.0)
    for number in range(30):
        for camera in THREE[: 1 + number % 3]:
            r.send(image_of(camera, number), camera=camera)
    r.wait(lambda: [len(r.got[topic]) for topic in DEPTHS] == [30, 20, 10], "all results")
    check_depths(r)
    assert sum(total(r, camera, "dropped") for camera in THREE) == 0


def test_transitions_take_all_cameras_with_them(rig):
    r = cameras(rig)
    r.exchange(image_of("left", 1), "left/depth/image")
    r.node.trigger_deactivate()
    r.wait(lambda: not any(r.node.count_subscribers(f"{camera}/image") for camera in THREE), "no subscription")
    r.node.trigger_cleanup()
    r.wait(lambda: not any(r.node.count_publishers(topic) for topic in DEPTHS), "no publisher")
    assert [total(r, camera, "failed") for camera in THREE] == [0, 0, 0]
    r.node.trigger_configure()
    r.node.trigger_activate()
    r.wait_connected()
    for number, (camera, topic) in enumerate(zip(THREE, DEPTHS)):
        r.exchange(image_of(camera, 10 + number), topic)
    check_depths(r)


@pytest.mark.slow
def test_benchmark_of_cameras_measures_what_it_says():
    pytest.importorskip("psutil")
    from benchmarks import cameras as benchmark

    for scenario in benchmark.scenarios(quick=True):
        RuntimeConfig().updated(scenario.parameters)
    rclpy.init()
    try:
        figures = benchmark.run(benchmark.Scenario("small", (20.0, 20.0), 2.0, (48, 64), {"engine": "synthetic", "synthetic.delay_ms": 80.0}))
    finally:
        rclpy.try_shutdown()
    for camera in ("front", "left"):
        assert figures[camera]["sent"] == 40
        assert figures[camera]["of_another_camera"] == 0
        assert figures[camera]["batches"] > 0
        assert figures[camera]["node_stages_ms"]["infer"]["p50"] >= 80
    assert figures["slowest_over_fastest"] > 0.8
