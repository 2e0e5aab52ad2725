"""Command-line arguments that bags and videos share: the node's parameters by name or from its YAML file, without ROS."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import PARAMETERS, RuntimeConfig
from .engines import ENGINES
from .errors import ConfigError

_NODE_NAMES = ("**", "*", "depth_anything")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model, --engine, --params-file and --set."""
    parser.add_argument("--model", help="ONNX model (default: the one inside the package)")
    parser.add_argument("--engine", help=f"inference engine: {', '.join(ENGINES)}")
    parser.add_argument("--params-file", type=Path, help="ROS 2 parameter file, as for the node")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter of the node, such as depth.encoding=16UC1; goes over --params-file",
    )


def config_from(args: argparse.Namespace) -> RuntimeConfig:
    """Return the configuration that the arguments of `add_arguments` ask for.

    Raises:
        ConfigError: an unknown parameter, a bad value or an unreadable file.
    """
    values = parameters_from_file(args.params_file) if args.params_file else {}
    for assignment in args.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: write it as name=value")
        values[name] = _value_from_text(name, text)
    values |= {name: getattr(args, name) for name in ("model", "engine") if getattr(args, name) is not None}
    return RuntimeConfig().updated(values)


def parameters_from_file(path: Path) -> dict[str, Any]:
    """Return the node's parameters of a ROS 2 parameter file by dotted name: sections `/**` and any node `depth_anything`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has no such section.
    """
    try:
        import yaml
    except ImportError:
        raise ConfigError("--params-file needs PyYAML: pip install pyyaml") from None
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read parameter file '{path}': {error}") from error
    sections = list(_sections(document, ""))
    if not sections:
        raise ConfigError(f"'{path}' is no parameter file of this node: no 'ros__parameters' under '/**' or 'depth_anything'")
    return {name: value for section in sections for name, value in _flat(section, "")}


def _sections(node: Any, name: str) -> Iterator[Any]:  # noqa: ANN401 - parsed YAML
    for key, value in node.items() if isinstance(node, dict) else ():
        if key != "ros__parameters":
            yield from _sections(value, str(key))
        elif name.rpartition("/")[2] in _NODE_NAMES:
            yield value


def _flat(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - parsed YAML
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value_from_text(name: str, text: str) -> Any:  # noqa: ANN401 - of the parameter's type
    """Read a value in the parameter's type; `RuntimeConfig` judges what cannot be read."""
    kind = PARAMETERS[name].type if name in PARAMETERS else str
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text
