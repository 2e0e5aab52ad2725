"""RuntimeConfig <-> ROS parameters: declaration with text, unit, range and read-only flag, and checked live updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from .config import PARAMETERS, RuntimeConfig
from .config_cameras import advice_for, camera_configs, own_parameter
from .config_parameter import Parameter
from .errors import ConfigError

Apply = Callable[[list[RosParameter[Any]]], SetParametersResult]
"""Sets declared parameters, all or none."""

_CHANGES = {"live": "", "configure": "Changes while unconfigured.", "start": "Set at start."}


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Return what `ros2 param describe` shows."""
    described = ParameterDescriptor(description=parameter.text, read_only=parameter.when == "start")
    # ROS cannot tell what an empty list is made of, nor takes [0, 0, 1] for floats.
    described.dynamic_typing = parameter.of_numbers or parameter.default == ()
    constraints = [f"One of: {', '.join(parameter.choices)}."] if parameter.choices else []
    described.additional_constraints = " ".join(filter(None, [*constraints, _CHANGES[parameter.when]]))
    if parameter.low is not None and parameter.high is not None:
        if parameter.type is float:
            described.floating_point_range = [FloatingPointRange(from_value=parameter.low, to_value=parameter.high)]
        else:
            described.integer_range = [IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))]
    return described


def as_meant(parameter: Parameter, value: Any) -> Any:  # noqa: ANN401 - any parameter's value
    """Return a value in the type that its writer meant: for YAML and `ros2 param set`, a bare off, on or nan is no text, and 5 no float."""
    words = {"off": value is False, "on": value is True, "nan": isinstance(value, float) and math.isnan(value)}
    for word, is_meant in words.items():
        if is_meant and word in parameter.choices:
            return word
    return float(value) if parameter.type is float and type(value) is int else value


class NodeParameters:
    """The configuration of every camera, always valid, kept equal to the node's ROS parameters.

    Attributes:
        configs: by camera's name; that of "" where `cameras` is empty.
    """

    def __init__(self, node: Node, is_unconfigured: Callable[[], bool]) -> None:
        """Declare all parameters and take what was given at start.

        Args:
            node: the node to declare them on.
            is_unconfigured: whether parameters that the engine or the endpoints were made from may change now.

        Raises:
            ConfigError: a value given at start is wrong.
        """
        self._node, self._is_unconfigured = node, is_unconfigured
        self._values: dict[str, Any] = {}
        for parameter in PARAMETERS.values():
            self._values[parameter.name] = self._declare(parameter, list(parameter.default) if parameter.type is tuple else parameter.default)
        cameras = PARAMETERS["cameras"].check(self._values["cameras"])
        for name in [name for name in getattr(node, "_parameter_overrides", {}) if not node.has_parameter(name)]:
            own = own_parameter(name, cameras)
            if own is not None:
                self._values[name] = self._declare(own, None)
            elif not name.startswith("qos_overrides."):  # ROS ignores it in silence
                node.get_logger().warning(f"parameter '{name}' is unknown and has no effect{advice_for(name, cameras)}")
        self.configs = camera_configs(self._values)
        node.add_on_set_parameters_callback(self._on_set)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras; empty for one in the node's own namespace."""
        return self.shared.cameras

    @property
    def shared(self) -> RuntimeConfig:
        """A configuration for what all cameras share: the first camera's."""
        return next(iter(self.configs.values()))

    def _declare(self, parameter: Parameter, default: Any, takes_start_value: bool = True) -> Any:  # noqa: ANN401 - any parameter's value
        """Declare a parameter and return its value; without a default one that may be taken away again: a camera's own."""
        described, start_values = descriptor(parameter), getattr(self._node, "_parameter_overrides", {}) if takes_start_value else {}
        described.dynamic_typing |= default is None
        if parameter.name in start_values:
            given = start_values[parameter.name].value
            meant = [] if given is None and parameter.type is tuple else as_meant(parameter, given)  # a file's empty list has no type in ROS
            if meant is not given:
                default, takes_start_value = meant, False
        try:
            return self._node.declare_parameter(parameter.name, default, described, ignore_override=not takes_start_value).value
        except Exception as error:  # rclpy has a class for every way to be wrong
            raise ConfigError(f"parameter {parameter.name}: {error}") from error

    def set_atomically(self, parameters: list[RosParameter[Any]], apply: Apply) -> SetParametersResult:
        """Set parameters with `apply`; a camera's own value is declared when it is first given, until then the shared one counts."""
        parameters = [self._as_meant(parameter) for parameter in parameters]
        new = {p.name: own_parameter(p.name, self.cameras) for p in parameters if not self._node.has_parameter(p.name)}
        unknown = [f"{name}: no such parameter{advice_for(name, self.cameras)}" for name, own in new.items() if own is None]
        if unknown:
            return SetParametersResult(successful=False, reason="; ".join(unknown))
        for own in filter(None, new.values()):
            self._declare(own, None, takes_start_value=False)  # what was given at start was taken then, and may have been deleted since
        try:
            return apply(parameters)
        finally:
            for name in filter(self._node.has_parameter, new):
                if self._node.get_parameter(name).value is None:  # it was refused
                    self._node.undeclare_parameter(name)

    def _as_meant(self, given: RosParameter[Any]) -> RosParameter[Any]:
        known = PARAMETERS.get(given.name) or own_parameter(given.name, self.cameras)
        meant = as_meant(known, given.value) if known else given.value
        return given if meant is given.value else RosParameter(given.name, value=meant)

    def _on_set(self, parameters: list[RosParameter[Any]]) -> SetParametersResult:
        """Accept all or nothing; the reason of a refusal goes back to the caller."""
        known = {p.name: known for p in parameters if (known := PARAMETERS.get(p.name) or own_parameter(p.name, self.cameras))}
        if not known:  # such as qos_overrides, declared while the node configures on a thread of its own: nothing of `_values` may get lost
            return SetParametersResult(successful=True)
        values = self._values | {p.name: p.value for p in parameters if p.name in known}
        values = {name: value for name, value in values.items() if value is not None or name in PARAMETERS}
        given = [name for name in known if name in values or name in self._values]
        try:
            fixed = [name for name in given if known[name].when == "configure" and not self._is_unconfigured()]
            if fixed:
                raise ConfigError(f"{', '.join(fixed)}: changes only while the node is unconfigured; deactivate and clean up first")
            self.configs = camera_configs(values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._values = values
        return SetParametersResult(successful=True)
