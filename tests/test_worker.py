import threading
import time
import weakref

import pytest

from depth_anything_ros.worker import Worker


class Gate:
    """A process function that records the jobs of every call and can be held."""

    def __init__(self):
        self.calls, self.entered, self.open = [], threading.Semaphore(0), threading.Event()
        self.errors, self.meanwhile = [], lambda: None
        self.open.set()

    def __call__(self, jobs):
        self.entered.release()
        assert self.open.wait(10)
        self.meanwhile()
        if "bad" in jobs:
            raise ValueError("bad job")
        self.calls.append(list(jobs))

    @property
    def done(self):
        return [job for jobs in self.calls for job in jobs]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    worker = Worker(gate, lambda jobs, error: gate.errors.append((list(jobs), str(error))))
    yield worker
    gate.open.set()
    worker.stop()


def hold(worker, gate, camera=""):
    """Let the worker get stuck in a first job."""
    gate.open.clear()
    worker.submit("first", camera)
    assert gate.entered.acquire(timeout=10)


def finish(worker, gate):
    gate.open.set()
    while worker._waiting:
        worker.run(lambda: None)
    worker.run(lambda: None)


def test_newest_job_wins_and_the_rest_is_counted(worker, gate):
    hold(worker, gate)
    assert [worker.submit(i) for i in range(5)] == [0, 1, 1, 1, 1]
    finish(worker, gate)
    assert gate.done == ["first", 4]


def test_all_jobs_in_order_up_to_the_capacity(worker, gate):
    worker.set_policy(keep_newest=False, capacity=3)
    hold(worker, gate)
    assert [worker.submit(i) for i in range(5)] == [0, 0, 0, 1, 1]
    finish(worker, gate)
    assert gate.done == ["first", 0, 1, 2]


def test_every_camera_has_a_slot_of_its_own(worker, gate):
    hold(worker, gate)
    assert [worker.submit(f"{camera}{i}", camera) for i in range(3) for camera in "abc"] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    finish(worker, gate)
    assert gate.calls == [["first"], ["a2"], ["b2"], ["c2"]]


def test_a_fast_camera_does_not_starve_slow_ones(worker, gate):
    """It has a new frame in every turn; the slow ones have one each."""
    frames = iter(f"fast{number}" for number in range(5))
    gate.meanwhile = lambda: [worker.submit(frame, "fast") for frame in [next(frames, None)] if frame]
    hold(worker, gate, "fast")
    worker.submit("slow", "slow")
    worker.submit("slower", "slower")
    finish(worker, gate)
    assert gate.done == ["first", "slow", "slower", "fast2", "fast3", "fast4"], "fast0 and fast1 were replaced by newer ones"


def test_a_camera_that_was_served_goes_behind_those_that_wait(worker, gate):
    worker.set_policy(keep_newest=False, capacity=10)
    hold(worker, gate, "a")
    for camera in "abc":
        for number in range(3):
            worker.submit(f"{camera}{number}", camera)
    finish(worker, gate)
    assert gate.done == ["first", "b0", "c0", "a0", "b1", "c1", "a1", "b2", "c2", "a2"]


def test_cameras_that_send_at_the_same_moment_get_equal_turns(worker, gate):
    """New frames of all come in every second turn: a, which sends first, must not slip in before the one that was served earlier."""
    turns = []

    def all_send():
        turns.append(1)
        if len(turns) % 2 == 0 and len(turns) <= 20:
            for camera in "abc":
                worker.submit(camera, camera)

    hold(worker, gate, "d")
    for camera in "abc":
        worker.submit(camera, camera)
    gate.meanwhile = all_send
    finish(worker, gate)
    assert "".join(gate.done[1:19]) == "abc" * 6


def test_a_batch_has_one_job_of_each_camera_that_waits(worker, gate):
    worker.set_policy(keep_newest=False, capacity=10, batch_max=8)
    hold(worker, gate, "c")
    for job in ("a0", "a1", "b0"):
        worker.submit(job, job[0])
    finish(worker, gate)
    assert gate.calls == [["first"], ["a0", "b0"], ["a1"]]


def test_a_batch_is_no_larger_than_it_may_be_and_the_rest_comes_first_in_the_next(worker, gate):
    worker.set_policy(keep_newest=True, capacity=1, batch_max=2)
    hold(worker, gate, "d")
    for camera in "abcd":
        worker.submit(f"{camera}0", camera)
    finish(worker, gate)
    assert gate.calls == [["first"], ["a0", "b0"], ["c0", "d0"]]


def test_a_job_that_waits_alone_does_not_wait_for_others(worker, gate):
    worker.set_policy(keep_newest=True, capacity=1, batch_max=8)
    for camera in "abc":
        worker.submit(camera, camera)
        assert gate.entered.acquire(timeout=10)
        finish(worker, gate)
    assert gate.calls == [["a"], ["b"], ["c"]]


def test_a_failing_job_is_reported_and_the_next_one_done(worker, gate):
    worker.set_policy(keep_newest=False, capacity=3)
    hold(worker, gate)
    worker.submit("bad")
    worker.submit("good")
    finish(worker, gate)
    assert gate.done == ["first", "good"]
    assert gate.errors == [(["bad"], "bad job")]


def test_calls_run_on_the_workers_thread_between_jobs(worker, gate):
    hold(worker, gate)
    worker.submit("second")
    order = []
    caller = threading.Thread(target=lambda: order.append(worker.run(lambda: (threading.current_thread().name, list(gate.done)))))
    caller.start()
    gate.open.set()
    caller.join(10)
    assert order == [("inference", ["first"])]


def test_calls_hand_back_their_exception(worker):
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda: 1 / 0)
    assert worker.run(lambda: 5) == 5


def test_clear_forgets_what_waits_of_one_camera(worker, gate):
    hold(worker, gate)
    worker.submit("second")
    worker.submit("other", "other")
    assert worker.clear() == 1
    assert worker.clear("unknown") == 0
    finish(worker, gate)
    assert gate.done == ["first", "other"]


def test_a_worker_that_waits_keeps_no_image_alive(worker, gate):
    class Image:
        pass

    done = threading.Event()
    worker._process = lambda jobs: done.set()
    image = Image()
    alive = weakref.ref(image)
    worker.submit(image)
    del image
    assert done.wait(10)
    end_s = time.monotonic() + 5
    while alive() is not None and time.monotonic() < end_s:
        time.sleep(0.005)
    assert alive() is None


def test_stop_ends_the_thread_and_later_calls_fail(gate):
    worker = Worker(gate, lambda jobs, error: None)
    worker.stop()
    worker.stop()
    with pytest.raises(RuntimeError, match="the worker has stopped"):
        worker.run(lambda: None)
