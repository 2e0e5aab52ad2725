import threading

import pytest

from depth_anything_ros.worker import Worker


class Gate:
    """A process function that records jobs and can be held."""

    def __init__(self):
        self.done, self.entered, self.open = [], threading.Semaphore(0), threading.Event()
        self.errors = []
        self.open.set()

    def __call__(self, job):
        self.entered.release()
        assert self.open.wait(10)
        if job == "bad":
            raise ValueError("bad job")
        self.done.append(job)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    worker = Worker(gate, gate.errors.append)
    yield worker
    gate.open.set()
    worker.stop()


def hold(worker, gate):
    """Let the worker get stuck in a first job."""
    gate.open.clear()
    worker.submit("first")
    assert gate.entered.acquire(timeout=10)


def finish(worker, gate):
    gate.open.set()
    while worker_waits(worker):
        worker.run(lambda: None)
    worker.run(lambda: None)


def worker_waits(worker):
    return len(worker._jobs)


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


def test_a_failing_job_is_reported_and_the_next_one_done(worker, gate):
    worker.set_policy(keep_newest=False, capacity=3)
    hold(worker, gate)
    worker.submit("bad")
    worker.submit("good")
    finish(worker, gate)
    assert gate.done == ["first", "good"]
    assert [str(e) for e in gate.errors] == ["bad job"]


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


def test_clear_forgets_what_waits(worker, gate):
    hold(worker, gate)
    worker.submit("second")
    assert worker.clear() == 1
    finish(worker, gate)
    assert gate.done == ["first"]


def test_stop_ends_the_thread_and_later_calls_fail(gate):
    worker = Worker(gate, gate.errors.append)
    worker.stop()
    worker.stop()
    with pytest.raises(RuntimeError, match="the worker has stopped"):
        worker.run(lambda: None)
