"""What one parameter of `config` is: its type, range and text, and how a value is checked."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ConfigError

When = Literal["live", "configure", "start"]
"""When a parameter may change: at any time, only while the node is unconfigured, or only at start (read-only)."""

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its dotted name, type (a tuple: of texts or of numbers), default and what users may give it.

    `per_camera`: whether each of several cameras may have its own value.
    """

    name: str
    type: type
    default: Any
    text: str
    when: When
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    of_numbers: bool = False
    per_camera: bool = False

    def check(self, value: Any) -> Any:  # noqa: ANN401 - any ROS parameter value
        """Return the value in the parameter's type.

        Raises:
            ConfigError: wrong type, not finite, out of range or not one of the choices.
        """
        if self.type is tuple:
            return self._checked_list(value)
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:
            raise ConfigError(f"{self.name}: {value!r} is not {_TYPE_NAMES[self.type]}")
        self._check_range(value)
        return value

    def _checked_list(self, value: Any) -> tuple[Any, ...]:  # noqa: ANN401
        items = list(value) if isinstance(value, (list, tuple, array)) else None
        if items is not None and self.of_numbers:
            items = [float(item) if type(item) is int else item for item in items]
        if items is None or any(type(item) is not (float if self.of_numbers else str) for item in items):
            raise ConfigError(f"{self.name}: {value!r} is not a list of {'numbers' if self.of_numbers else 'texts'}")
        for item in items:
            self._check_range(item)
        return tuple(items)

    def _check_range(self, value: Any) -> None:  # noqa: ANN401
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.name}: {value} is not finite")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise ConfigError(f"{self.name}: {value} is outside {self.low:g} .. {self.high:g}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: '{value}' is not one of {', '.join(self.choices)}")


def param(
    default: Any,  # noqa: ANN401
    text: str,
    when: When = "live",
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    per_camera: bool | None = None,
) -> Any:  # noqa: ANN401 - a dataclass field stands for its value
    """Return a field of a configuration dataclass that is a parameter; what may change any time is per camera, unless said otherwise."""
    own = when == "live" if per_camera is None else per_camera
    return field(default=default, metadata={"text": text, "when": when, "limits": limits, "choices": choices, "per_camera": own})
