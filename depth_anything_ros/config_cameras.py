"""Several cameras in one node: their names, and each one's own values over those that all share.

A camera's own value has the camera's name in front: `front.depth.max_m` is `depth.max_m` of the camera `front`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from .config import PARAMETERS, RuntimeConfig
from .config_parameter import Parameter
from .errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN = {name.partition(".")[0] for name in PARAMETERS} | {"qos_overrides", "use_sim_time"}


def camera_configs(values: Mapping[str, Any]) -> dict[str, RuntimeConfig]:
    """Return the configuration of every camera by its name; that of "" where `cameras` is empty.

    Args:
        values: by name, those that all share and those of single cameras.

    Raises:
        ConfigError: unknown name, a bad value, values that contradict each other, or `cameras` that cannot be.
    """
    shared = {name: PARAMETERS[name].check(value) for name, value in values.items() if name in PARAMETERS}
    cameras: tuple[str, ...] = shared.get("cameras", ())
    _check_names(cameras)
    own: dict[str, dict[str, Any]] = {camera: {} for camera in cameras or ("",)}
    for name in values.keys() - shared.keys():
        parameter = own_parameter(name, cameras)
        if parameter is None:
            raise ConfigError(f"{name}: no such parameter")
        camera, _, shared_name = name.partition(".")
        own[camera][shared_name] = parameter.check(values[name])
    configs = {}
    for camera, changes in own.items():
        try:
            configs[camera] = RuntimeConfig().updated(shared | changes)
        except ConfigError as error:
            raise ConfigError(f"camera '{camera}': {error}" if camera else str(error)) from error
    return configs


def own_parameter(name: str, cameras: Sequence[str]) -> Parameter | None:
    """Return what a camera's own value of this name is; None where it is none."""
    camera, _, shared_name = name.partition(".")
    parameter = PARAMETERS.get(shared_name)
    if camera not in cameras or parameter is None or not parameter.per_camera:
        return None
    return replace(parameter, name=name)


def advice_for(name: str, cameras: Sequence[str]) -> str:
    """Return what may have been meant by a parameter that does not exist; begins with "; ", empty where nothing comes near."""
    head, _, rest = name.partition(".")
    if head in cameras and rest in PARAMETERS:
        return f"; '{rest}' is not a camera's own: it counts for the whole node"
    if head not in _TAKEN and head not in cameras and rest in PARAMETERS and PARAMETERS[rest].per_camera:
        near = get_close_matches(head, cameras, n=1)
        return f"; did you mean '{near[0]}.{rest}'?" if near else f"; there is no camera '{head}' in cameras"
    own = [f"{camera}.{parameter.name}" for camera in cameras for parameter in PARAMETERS.values() if parameter.per_camera]
    guess = get_close_matches(name, [*PARAMETERS, *own], n=1)
    return f"; did you mean '{guess[0]}'?" if guess else ""


def _check_names(cameras: Sequence[str]) -> None:
    for camera in cameras:
        if not _NAME.fullmatch(camera):
            raise ConfigError(f"cameras: '{camera}' is no name of a camera: letters, digits and _, not a digit first")
        if camera in _TAKEN:
            raise ConfigError(f"cameras: '{camera}' begins the names of parameters: give the camera another name")
    twins = sorted({camera for camera in cameras if cameras.count(camera) > 1})
    if twins:
        raise ConfigError(f"cameras: '{twins[0]}' is there more than once")
