import signal
import threading
import time

import pytest

from depth_anything_ros.overlap import QUEUE_MAX, overlapped


def test_every_result_arrives_in_order_and_each_stage_has_its_thread():
    threads, results = {}, []

    def source():
        threads["source"] = threading.get_ident()
        yield from range(100)

    def work(item):
        threads["work"] = threading.get_ident()
        return item * item

    def sink(items):
        threads["sink"] = threading.get_ident()
        results.extend(items)

    overlapped(source(), work, sink)
    assert results == [item * item for item in range(100)]
    assert len(set(threads.values())) == 3
    assert threads["work"] == threading.get_ident()


def test_stages_run_at_the_same_time():
    def slow(item):
        time.sleep(0.02)
        return item

    started_s = time.monotonic()
    overlapped(map(slow, range(20)), slow, lambda items: [slow(item) for item in items])
    assert time.monotonic() - started_s < 0.9  # one after the other: 1.2 s


def test_source_does_not_run_away_from_a_slow_sink():
    made, most = [], 0

    def sink(items):
        nonlocal most
        for count, _ in enumerate(items):
            time.sleep(0.005)
            most = max(most, len(made) - count)

    overlapped((made.append(item) for item in range(60)), lambda item: item, sink)
    assert len(made) == 60
    assert most <= 2 * QUEUE_MAX + 3


class Broken(Exception):
    pass


@pytest.mark.parametrize("stage", ["source", "work", "sink"])
def test_error_of_any_stage_ends_all_and_comes_out(stage):
    closed = []

    def source():
        for item in range(1000):
            if stage == "source" and item == 20:
                raise Broken(stage)
            yield item

    def work(item):
        if stage == "work" and item == 20:
            raise Broken(stage)
        return item

    def sink(items):
        try:
            for item in items:
                if stage == "sink" and item == 20:
                    raise Broken(stage)
        finally:
            closed.append(threading.get_ident())

    before = threading.active_count()
    with pytest.raises(Broken, match=stage):
        overlapped(source(), work, sink)
    assert len(closed) == 1
    assert threading.active_count() == before


def test_after_ctrl_c_no_stage_still_uses_what_the_caller_closes():
    used = []

    def sink(items):
        list(items)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # which waits for this thread now
        time.sleep(0.3)
        used.append(time.monotonic())

    with pytest.raises(KeyboardInterrupt):
        overlapped(range(3), lambda item: item, sink)
    assert used
