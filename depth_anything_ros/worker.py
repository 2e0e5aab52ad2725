"""The one inference thread, and the slot in front of it where the newest frame waits.

Callbacks only `submit`; everything slow happens on this thread, which also owns whatever belongs to one thread alone
(a CUDA context): engines are opened and closed through `run`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Worker(Generic[Job]):
    """Processes jobs one at a time on its own thread, the newest or all of them in order."""

    def __init__(self, process: Callable[[Job], None], on_error: Callable[[BaseException], None], name: str = "inference") -> None:
        """Start the thread.

        Args:
            process: called with each job on the worker's thread.
            on_error: called there with what `process` raised; the worker goes on with the next job.
            name: name of the thread.
        """
        self._process, self._on_error = process, on_error
        self._wake = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._capacity, self._keep_newest = 1, True
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def set_policy(self, keep_newest: bool, capacity: int) -> None:
        """Keep only the newest job, or up to `capacity` jobs in order."""
        with self._wake:
            self._keep_newest, self._capacity = keep_newest, 1 if keep_newest else capacity

    def submit(self, job: Job) -> int:
        """Hand over a job; returns at once.

        Returns:
            How many jobs were dropped for it: the one that waited (newest wins), or this one (the queue is full).
        """
        with self._wake:
            dropped = int(len(self._jobs) >= self._capacity)
            if dropped and not self._keep_newest:
                return 1
            if dropped:
                self._jobs.popleft()
            self._jobs.append(job)
            self._wake.notify()
        return dropped

    def clear(self) -> int:
        """Forget the jobs that wait; returns how many there were."""
        with self._wake:
            waiting = len(self._jobs)
            self._jobs.clear()
        return waiting

    def run(self, call: Callable[[], Result]) -> Result:
        """Run something on the worker's thread, after the job in progress and before those that wait.

        Returns and raises what `call` returns and raises.
        """
        future: Future[Result] = Future()

        def settle() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # handed to the caller
                future.set_exception(error)

        with self._wake:
            if self._stopping:
                raise RuntimeError("the worker has stopped")
            self._calls.append(settle)
            self._wake.notify()
        return future.result()

    def stop(self) -> None:
        """Finish the job in progress, forget the rest, end the thread."""
        with self._wake:
            self._stopping = True
            self._jobs.clear()
            self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._calls or self._stopping)
                if self._calls:
                    step: Callable[[], None] = self._calls.popleft()
                elif self._jobs:
                    job = self._jobs.popleft()
                    step = lambda: self._process(job)  # noqa: E731, B023 - called before the next round
                else:
                    return
            try:
                step()
            except Exception as error:
                self._on_error(error)
