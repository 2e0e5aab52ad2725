"""RuntimeConfig <-> ROS parameters: declaration with text, unit, range and read-only flag, and checked live updates."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from .config import PARAMETERS, RuntimeConfig
from .config_parameter import Parameter
from .errors import ConfigError

_CHANGES = {"live": "", "configure": "Changes while unconfigured.", "start": "Set at start."}


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Return what `ros2 param describe` shows."""
    described = ParameterDescriptor(description=parameter.text, read_only=parameter.when == "start")
    described.dynamic_typing = parameter.of_numbers  # ROS cannot tell what an empty list is made of, nor takes [0, 0, 1] for floats
    constraints = [f"One of: {', '.join(parameter.choices)}."] if parameter.choices else []
    described.additional_constraints = " ".join(filter(None, [*constraints, _CHANGES[parameter.when]]))
    if parameter.low is not None and parameter.high is not None:
        if parameter.type is float:
            described.floating_point_range = [FloatingPointRange(from_value=parameter.low, to_value=parameter.high)]
        else:
            described.integer_range = [IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))]
    return described


class NodeParameters:
    """The node's configuration, always valid, kept equal to its ROS parameters."""

    def __init__(self, node: Node, is_unconfigured: Callable[[], bool]) -> None:
        """Declare all parameters and take what was given at start.

        Args:
            node: the node to declare them on.
            is_unconfigured: whether parameters that the engine or the endpoints were made from may change now.

        Raises:
            ConfigError: a value given at start is wrong.
        """
        self._is_unconfigured = is_unconfigured
        given: dict[str, Any] = {}
        for parameter in PARAMETERS.values():
            default = list(parameter.default) if parameter.type is tuple else parameter.default
            try:
                given[parameter.name] = node.declare_parameter(parameter.name, default, descriptor(parameter)).value
            except Exception as error:  # rclpy has a class for every way to be wrong
                raise ConfigError(f"parameter {parameter.name}: {error}") from error
        self.config = RuntimeConfig().updated(given)
        self._warn_of_unknown(node)
        node.add_on_set_parameters_callback(self._on_set)

    @staticmethod
    def _warn_of_unknown(node: Node) -> None:
        """Say it where a value was given at start to a name that nobody declares: ROS ignores such a value in silence."""
        for name in getattr(node, "_parameter_overrides", {}):
            if not node.has_parameter(name) and not name.startswith("qos_overrides."):
                guess = get_close_matches(name, PARAMETERS, n=1)
                hint = f"; did you mean '{guess[0]}'?" if guess else ""
                node.get_logger().warning(f"parameter '{name}' is unknown and has no effect{hint}")

    def _on_set(self, parameters: list[RosParameter[Any]]) -> SetParametersResult:
        """Accept all or nothing; the reason of a refusal goes back to the caller."""
        changes = {p.name: p.value for p in parameters if p.name in PARAMETERS}
        try:
            fixed = [name for name in changes if PARAMETERS[name].when == "configure" and not self._is_unconfigured()]
            if fixed:
                raise ConfigError(f"{', '.join(fixed)}: changes only while the node is unconfigured; deactivate and clean up first")
            self.config = self.config.updated(changes)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)
