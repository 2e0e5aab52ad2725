"""A log that says each kind of trouble once in a while: a bad camera sends thirty bad images a second."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

THROTTLE_S = 5.0
_MAX_KINDS = 200


class ThrottledLog:
    """Passes on the first line of each kind in `THROTTLE_S` seconds. A kind is the text without numbers and quotations."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said_s: dict[str, float] = {}

    def __call__(self, write: Callable[[str], object], text: str) -> None:
        """Write a line, unless one of its kind was written a moment ago.

        Args:
            write: where to, such as a ROS logger's `error`.
            text: the line.
        """
        kind, now_s = re.sub(r"\d+|'.*?'", "#", text, flags=re.DOTALL), time.monotonic()
        if now_s - self._said_s.get(kind, -THROTTLE_S) < THROTTLE_S:
            return
        if len(self._said_s) >= _MAX_KINDS:
            self._said_s.clear()
        self._said_s[kind] = now_s
        write(text)
