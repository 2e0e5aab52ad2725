"""Three stages at the same time: a source, the work and a sink, each on a thread of its own, every item in order."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
QUEUE_MAX = 4
_POLL_S = 0.1
_SWITCH_S = 0.0005  # a stage that comes back from native code gets the interpreter after this; Python's 5 ms is a whole inference
_END = object()


class _Stopped(Exception):
    """Another stage failed; leave."""


def overlapped(source: Iterable[A], work: Callable[[A], B], sink: Callable[[Iterator[B]], None]) -> None:
    """Give `work(item)` for every item of the source to the sink, in order.

    The source is iterated on one thread, `work` is called on the caller's, and the sink runs on a third, called once with all results.
    So each may open and close what belongs to one thread; where another stage fails, an exception leaves the sink's iterator.
    At most `QUEUE_MAX` items wait between two stages. Returns when the sink has.

    Raises:
        BaseException: the first one that any stage raised, after all stages have stopped.
    """
    run = _Run()
    sourced: Queue[Any] = Queue(QUEUE_MAX)
    worked: Queue[Any] = Queue(QUEUE_MAX)

    def produce() -> None:
        for item in source:
            run.put(sourced, item)
        run.put(sourced, _END)

    def labour() -> None:
        for item in run.items(sourced):
            run.put(worked, work(item))
        run.put(worked, _END)

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        for stage in (produce, lambda: sink(run.items(worked))):
            run.start(stage)
        run.guarded(labour)
        run.wait()
    finally:  # Ctrl-C may come while this waits; the caller then closes what the stages still use
        run.stop.set()
        run.wait()
        sys.setswitchinterval(switch_s)
    if run.errors:
        raise run.errors[0]


class _Run:
    """What the stages share: the wish to stop, and why; and which have ended."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self._ended: list[threading.Event] = []

    def start(self, stage: Callable[[], None]) -> None:
        """Run a stage on a thread of its own."""
        ended = threading.Event()

        def run() -> None:
            try:
                self.guarded(stage)
            finally:
                ended.set()

        threading.Thread(target=run, daemon=True).start()
        self._ended.append(ended)

    def wait(self) -> None:
        """Wait until the started stages have ended. A join that Ctrl-C interrupts takes its thread for ended (Python 3.11)."""
        for ended in self._ended:
            ended.wait()

    def guarded(self, stage: Callable[[], None]) -> None:
        """Run a stage; what it raises stops the others."""
        try:
            stage()
        except _Stopped:
            pass
        except BaseException as error:
            self.errors.append(error)
            self.stop.set()

    def put(self, queue: Queue[Any], item: object) -> None:
        while not self.stop.is_set():
            try:
                return queue.put(item, timeout=_POLL_S)
            except Full:
                pass
        raise _Stopped

    def items(self, queue: Queue[Any]) -> Iterator[Any]:
        while not self.stop.is_set():
            try:
                item = queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if item is _END:
                return
            yield item
        raise _Stopped
