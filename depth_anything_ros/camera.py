"""What the camera says about itself: which camera_info belongs to an image, and whether it can be used."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .geometry import intrinsics_from_k
from .structs import Intrinsics

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

_KEPT = 16


@dataclass(frozen=True)
class Calibration:
    """The camera of one image: both fields are None where `problem` says why. `missing`: no camera_info has ever arrived."""

    info: CameraInfo | None
    intrinsics: Intrinsics | None
    problem: str = ""
    missing: bool = False


class CameraInfoBuffer:
    """Keeps the last few camera_info messages. The executor's thread adds, the worker's thread asks."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_stamp: OrderedDict[tuple[int, int], CameraInfo] = OrderedDict()
        self._newest: CameraInfo | None = None

    def add(self, info: CameraInfo) -> None:
        """Store a camera_info."""
        self._by_stamp[info.header.stamp.sec, info.header.stamp.nanosec] = info
        self._newest = info
        while len(self._by_stamp) > _KEPT:
            self._by_stamp.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._by_stamp.clear()
        self._newest = None

    def calibration_for(self, image: Image | CompressedImage, size_hw: tuple[int, int]) -> Calibration:
        """Return the calibration of an image: the camera_info of its stamp, otherwise the newest.

        A camera that is not calibrated (K of zeros or NaN), or a camera_info for another image size, is a `problem`,
        never an assumed camera.
        """
        info = self._by_stamp.get((image.header.stamp.sec, image.header.stamp.nanosec), self._newest)
        if info is None:
            return Calibration(None, None, "no camera_info has arrived", missing=True)
        if (info.height, info.width) != size_hw:
            return Calibration(None, None, f"camera_info is for {info.width}x{info.height} pixels, the image has {size_hw[1]}x{size_hw[0]}")
        intrinsics = intrinsics_from_k(info.k, size_hw)
        if intrinsics is None:
            return Calibration(None, None, f"camera_info is not calibrated: K is {[float(f'{v:g}') for v in info.k]}")
        return Calibration(info, intrinsics)
