"""What is seen of an engine's build from outside, and how it is stopped. Thread-safe; one object for one build."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..errors import EngineError

LOG_EVERY_PERCENT = 10


class BuildWatch:
    """Carries progress out of a build and the wish to stop into it."""

    def __init__(self, log: Callable[[str], object] | None = None) -> None:
        """Log with `log`; by default with the logger of this module, as warnings: a wait of minutes needs a word."""
        self.log: Callable[[str], object] = log or logging.getLogger(__name__).warning
        self._deadline_s = float("inf")
        self._text, self._logged, self._cancelled = "", ("", -1), False

    @property
    def text(self) -> str:
        """The phase and its percentage, such as `building 40 %`; empty while nothing is built."""
        return self._text

    def note(self, phase: str, percent: float) -> None:
        """Say how far a phase is; every tenth of it goes to the log."""
        self._text = f"{phase} {percent:.0f} %"
        tenth = int(percent // LOG_EVERY_PERCENT)
        if (phase, tenth) != self._logged:
            self._logged = (phase, tenth)
            self.log(f"engine: {self._text}")

    def limit(self, seconds: float) -> None:
        """Let the build give up that many seconds from now."""
        self._deadline_s = time.monotonic() + seconds

    def done(self) -> None:
        """Nothing is built any more."""
        self._text = ""

    def cancel(self) -> None:
        """Ask the build to stop; it does so at its next step."""
        self._cancelled = True

    @property
    def must_stop(self) -> bool:
        """Whether the build was cancelled or took too long."""
        return self._cancelled or time.monotonic() > self._deadline_s

    def raise_if_stopped(self) -> None:
        """Raise what `must_stop` says.

        Raises:
            EngineError: the build was cancelled or took too long.
        """
        if self._cancelled:
            raise EngineError("the build of the engine was cancelled")
        if self.must_stop:
            raise EngineError("the engine was not built within tensorrt.build_timeout_s; raise it, or lower tensorrt.optimisation_level")
