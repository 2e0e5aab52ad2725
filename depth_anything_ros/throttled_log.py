"""A log that says each kind of trouble once in a while: a bad camera sends thirty bad images a second."""

from __future__ import annotations

import re
import time
from typing import Any

THROTTLE_S = 5.0
_MAX_KINDS = 200


class ThrottledLog:
    """Passes on the first line of each kind in `THROTTLE_S` seconds. A kind is the text without numbers and quotations."""

    def __init__(self, logger: Any) -> None:  # noqa: ANN401 - rclpy's logger
        """Write to a ROS logger; nothing is said so far."""
        self._logger = logger
        self._said_s: dict[str, float] = {}

    def error(self, text: str) -> None:
        """Write an error, unless one of its kind was written a moment ago."""
        if self._is_due(text):
            self._logger.error(text)

    def warning(self, text: str) -> None:
        """Write a warning, unless one of its kind was written a moment ago."""
        if self._is_due(text):
            self._logger.warning(text)

    def _is_due(self, text: str) -> bool:
        kind, now_s = re.sub(r"\d+|'.*?'", "#", text, flags=re.DOTALL), time.monotonic()
        if now_s - self._said_s.get(kind, -THROTTLE_S) < THROTTLE_S:
            return False
        if len(self._said_s) >= _MAX_KINDS:
            self._said_s.clear()
        self._said_s[kind] = now_s
        return True
