"""What the node did and how long it took: counters, rates and percentiles over the last frames. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

WINDOW_FRAMES = 300
RATE_WINDOW_S = 5.0


@dataclass(frozen=True)
class Percentiles:
    """Of one stage over the last frames, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


class Meter:
    """Counts events by name, keeps durations by stage and the times of events for their rate."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._times: dict[str, deque[float]] = {}
            self._durations: dict[str, deque[float]] = {}

    def count(self, event: str, by: int = 1) -> None:
        """Note that something happened, `by` times at once."""
        if not by:
            return
        with self._lock:
            self._counts[event] += by
            self._times.setdefault(event, deque(maxlen=WINDOW_FRAMES)).append(time.monotonic())

    def add(self, stage: str, seconds: float) -> None:
        """Note how long a stage took for one frame."""
        with self._lock:
            self._durations.setdefault(stage, deque(maxlen=WINDOW_FRAMES)).append(seconds)

    def total(self, event: str) -> int:
        """Return how often something happened."""
        with self._lock:
            return self._counts[event]

    def rate_hz(self, event: str) -> float:
        """Return how often something happened per second, over the last seconds."""
        now = time.monotonic()
        with self._lock:
            recent = [t for t in self._times.get(event, ()) if now - t <= RATE_WINDOW_S]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1] - recent[0], now - recent[-1], 1e-9)

    def seconds_since(self, event: str) -> float | None:
        """Return the time since something last happened; None if it never did."""
        with self._lock:
            times = self._times.get(event)
            return time.monotonic() - times[-1] if times else None

    def percentiles(self) -> dict[str, Percentiles]:
        """Return the percentiles of every stage that was measured."""
        with self._lock:
            copies = {stage: np.array(durations) for stage, durations in self._durations.items()}
        return {stage: Percentiles(*(np.percentile(d, (50, 95, 99)) * 1000).tolist()) for stage, d in copies.items()}
