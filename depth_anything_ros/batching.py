"""Frames of several cameras through one engine: those of the same network size at once, and no trouble of one reaches another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from .channel import Job, Ready
from .engines import Engine
from .pipeline import infer_together


def process_together(engine: Engine, jobs: Sequence[Job]) -> None:
    """Turn images of different cameras into outputs; what goes wrong with one is counted by its own channel. Raises nothing.

    Args:
        engine: open; takes batches of `len(jobs)`.
        jobs: at most one of a camera.
    """
    groups: dict[Hashable, list[Ready]] = {}
    for job in jobs:
        ready = job.channel.prepare(job)
        if ready is not None:
            groups.setdefault(ready.prepared.batch_key, []).append(ready)
    for group in groups.values():
        try:
            results = infer_together(engine, [ready.prepared for ready in group])
        except Exception as error:
            for ready in group:
                ready.job.channel.fail(error)
            continue
        for ready, inferred in zip(group, results):
            ready.job.channel.finish(ready, inferred, len(group))
