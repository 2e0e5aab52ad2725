"""Which frames are processed, in what order, under whose header, and what the node says of the rest."""

import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from rcl_interfaces.srv import GetParameters  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number  # noqa: E402

from .rig import BEST_EFFORT, coded_image, pixels, stamp_ns  # noqa: E402

pytestmark = pytest.mark.ros


def content_matches_stamp(depths, first_ns, period_ns):
    for depth in depths:
        number = (stamp_ns(depth) - first_ns) // period_ns
        np.testing.assert_allclose(pixels(depth), depth_of_frame_number(number), rtol=1e-6)


def test_latest_takes_the_newest_and_counts_the_rest(rig):
    """A 100 ms network and a 50 Hz camera; the stamp says which number the content must have."""
    r = rig(synthetic__delay_ms=100.0, frame_policy="latest")
    started_s = time.monotonic()
    for i in range(60):
        r.send(coded_image(i, stamp_ns=1000 + i * 20))
        time.sleep(0.02)
    r.wait(lambda: r.total("published") + r.total("dropped") == r.total("received"), "all frames accounted for")
    r.wait(lambda: len(r.got["depth/image"]) == r.total("published"), "all results")
    depths = r.got["depth/image"]
    assert r.total("received") >= 30, "the middleware's queue of one may lose some on a busy machine"
    assert 5 <= len(depths) <= (time.monotonic() - started_s) / 0.1
    assert r.total("dropped") > 0
    content_matches_stamp(depths, 1000, 20)
    stamps = [stamp_ns(d) for d in depths]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] == r.channel.last_stamp_ns, "the newest frame that arrived must not be lost"


def test_parameters_answer_while_the_network_runs(rig):
    r = rig(synthetic__delay_ms=2000.0)
    client = r.client(GetParameters, "get_parameters")
    r.send(coded_image(1))
    r.wait(lambda: r.total("received"), "arrival")
    started = time.monotonic()
    r.call(client, GetParameters.Request(names=["engine"]))
    assert time.monotonic() - started < 1.0, "the executor must not wait for the network"
    assert r.total("published") == 0, "the network should still have been running"


@pytest.mark.parametrize("camera_qos", [None, BEST_EFFORT], ids=["reliable camera", "best-effort camera"])
def test_all_keeps_every_frame_in_order(rig, camera_qos):
    r = rig(frame_policy="all", synthetic__delay_ms=5.0, **({"camera_qos": camera_qos} if camera_qos else {}))
    for i in range(50):
        r.send(coded_image(i, stamp_ns=1000 + i))
        if camera_qos:
            time.sleep(0.005)
    r.wait(lambda: len(r.got["depth/image"]) == 50, "50 results")
    assert [stamp_ns(d) for d in r.got["depth/image"]] == list(range(1000, 1050))
    content_matches_stamp(r.got["depth/image"], 1000, 1)
    assert r.total("dropped") == 0


def test_all_drops_what_exceeds_its_queue_and_counts_it(rig):
    r = rig(frame_policy="all", frame_queue_max=3)
    infer, begun, may_end = r.node._engine.infer, threading.Event(), threading.Event()
    r.node._engine.infer = lambda tensor: begun.set() or (may_end.wait(10) and infer(tensor))
    r.send(coded_image(0, stamp_ns=0))
    r.wait(begun.is_set, "the first inference")
    for i in range(1, 8):
        r.send(coded_image(i, stamp_ns=i))
    r.wait(lambda: r.total("received") == 8, "arrival")
    may_end.set()
    r.wait(lambda: len(r.got["depth/image"]) == 4, "four results")
    assert [stamp_ns(d) for d in r.got["depth/image"]] == [0, 1, 2, 3]
    assert r.total("dropped") == 4


def test_sim_time_is_the_nodes_time(rig):
    """The clock stands at 100 s; an image of 99 s is one second old, whatever the time of day."""
    r = rig(use_sim_time=True)
    clock = r.peer.create_publisher(Clock, "/clock", 10)
    message = Clock()
    message.clock.sec = 100
    r.wait(lambda: clock.publish(message) or r.node.get_clock().now().nanoseconds == 100_000_000_000, "sim time")
    depth = r.exchange(coded_image(5, stamp_ns=99_000_000_000))
    assert stamp_ns(depth) == 99_000_000_000
    r.wait(lambda: "age" in r.channel.meter.percentiles(), "age")
    assert r.channel.meter.percentiles()["age"].p50_ms == pytest.approx(1000)


def test_stamps_that_jump_back_are_noted_and_processed(rig):
    r = rig()
    r.exchange(coded_image(1, stamp_ns=10_000_000_000))
    depth = r.exchange(coded_image(2, stamp_ns=4_000_000_000))
    np.testing.assert_allclose(pixels(depth), depth_of_frame_number(2), rtol=1e-6)
    _, values = r.status()
    assert values["stamp_jumps_back"] == "1"
