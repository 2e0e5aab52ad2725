"""The one inference thread, and the slots in front of it where each camera's newest frame waits.

Callbacks only `submit`; everything slow happens on this thread, which also owns whatever belongs to one thread alone
(a CUDA context): engines are opened and closed through `run`.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Worker(Generic[Job]):
    """Processes the jobs of all cameras on its own thread: of each camera the newest or all in order, the cameras in turn."""

    def __init__(
        self, process: Callable[[Sequence[Job]], None], on_error: Callable[[Sequence[Job], BaseException], None], name: str = "inference"
    ) -> None:
        """Start the thread.

        Args:
            process: called on the worker's thread with jobs of different cameras, at least one.
            on_error: called there with the jobs and what `process` raised; the worker goes on with the next ones.
            name: name of the thread.
        """
        self._process, self._on_error = process, on_error
        self._wake = threading.Condition()
        self._waiting: dict[str, deque[Job]] = {}
        """By camera; none is empty."""
        self._served: dict[str, int] = {}
        """Number of each camera's last turn."""
        self._turns = itertools.count(1)
        self._calls: deque[Callable[[], None]] = deque()
        self._capacity, self._keep_newest, self._batch_max = 1, True, 1
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def set_policy(self, keep_newest: bool, capacity: int, batch_max: int = 1) -> None:
        """Keep only the newest job of a camera, or up to `capacity` in order; hand over those of up to `batch_max` cameras at once."""
        with self._wake:
            self._keep_newest, self._capacity, self._batch_max = keep_newest, 1 if keep_newest else capacity, batch_max

    def submit(self, job: Job, camera: str = "") -> int:
        """Hand over a job; returns at once.

        Returns:
            How many jobs of the camera were dropped for it: the one that waited (newest wins), or this one (the queue is full).
        """
        with self._wake:
            jobs = self._waiting.setdefault(camera, deque())
            dropped = int(len(jobs) >= self._capacity)
            if dropped and not self._keep_newest:
                return 1
            if dropped:
                jobs.popleft()
            jobs.append(job)
            self._wake.notify()
        return dropped

    def clear(self, camera: str = "") -> int:
        """Forget a camera's jobs that wait; returns how many there were."""
        with self._wake:
            return len(self._waiting.pop(camera, ()))

    def run(self, call: Callable[[], Result]) -> Result:
        """Run something on the worker's thread, after the jobs in progress and before those that wait.

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
        """Finish the jobs in progress, forget the rest, end the thread."""
        with self._wake:
            self._stopping = True
            self._waiting.clear()
            self._wake.notify()
        self._thread.join()

    def _next_jobs(self) -> list[Job]:
        """Take one job of each camera whose turn it is: those that have waited longest since they were served.

        Not since their job came: of cameras that send at the same moment, one would always be first.
        """
        taken = []
        for camera in sorted(self._waiting, key=lambda camera: self._served.get(camera, 0))[: self._batch_max]:
            self._served[camera] = next(self._turns)
            jobs = self._waiting[camera]
            taken.append(jobs.popleft())
            if not jobs:
                del self._waiting[camera]
        return taken

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._calls or self._stopping)
                call = self._calls.popleft() if self._calls else None
                jobs = [] if call else self._next_jobs()
            if call is not None:
                call()
            elif jobs:
                try:
                    self._process(jobs)
                except Exception as error:
                    self._on_error(jobs, error)
            else:
                return
            del call, jobs  # a camera that has stopped would keep its last image alive
