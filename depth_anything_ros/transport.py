"""Environment of processes that send camera-sized messages with Fast DDS."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROFILE = "fastdds_shm16.xml"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Kilted and later (rclpy 9) read the first and call the second deprecated; Jazzy and earlier read only the second."""


def profile_path() -> Path | None:
    """Return the shipped Fast DDS profile: in the checkout, or where pip and colcon put the package's share folder."""
    here = Path(__file__).resolve()
    installed = [folder / "share" / "depth_anything_ros" / "config" for folder in here.parents]  # <prefix>/lib/python3.x/site-packages/...
    places = [here.parents[1] / "config", *installed]
    return next((place / PROFILE for place in places if (place / PROFILE).is_file()), None)


def profile_environment(environment: Mapping[str, str], profile: Path | None = None) -> dict[str, str]:
    """Return the variables to add so that big messages arrive; none where the user has set either, be it to nothing.

    Stock Fast DDS has a 512 KiB shared-memory segment and loses most best-effort images between processes.
    """
    profile = profile or profile_path()
    if profile is None or any(name in environment for name in PROFILE_VARIABLES):
        return {}
    return {PROFILE_VARIABLES[0] if _rclpy_major() >= 9 else PROFILE_VARIABLES[1]: str(profile)}


def _rclpy_major() -> int:
    try:
        return int(version("rclpy").split(".")[0])
    except PackageNotFoundError:  # a distribution that strips metadata: take the present
        return 9
