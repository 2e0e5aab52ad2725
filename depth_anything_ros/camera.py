"""What the camera says about itself: which camera_info belongs to an image, and whether it can be used."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import CalibrationError
from .rays import CameraModel, ImageCamera
from .structs import Intrinsics

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

_KEPT = 16


@dataclass(frozen=True)
class Calibration:
    """The camera of one image.

    Attributes:
        info: the camera_info for the image's own pixels, None where `problem` says why.
        camera: what the rays of the image are, None likewise.
        problem: why there is none of them; empty otherwise.
        missing: no camera_info has ever arrived.
    """

    info: CameraInfo | None
    camera: ImageCamera | None
    problem: str = ""
    missing: bool = False

    @property
    def intrinsics(self) -> Intrinsics | None:
        """The pinhole of the camera, for the image's size; without the lens's distortion."""
        return self.camera.intrinsics if self.camera else None


class CameraInfoBuffer:
    """Keeps the last few camera_info messages. The executor's thread adds, the worker's thread asks.

    Attributes:
        image_topic: whose camera it is; set before `calibration_for` is asked.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.image_topic = ""
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

    def calibration_for(self, image: Image | CompressedImage, size_hw: tuple[int, int], image_kind: str = "auto") -> Calibration:
        """Return the calibration of an image: the camera_info of its stamp, otherwise the newest.

        A camera that is not calibrated (zeros or NaN), or a camera_info for another image size or of a lens that is not known, is a
        `problem`, never an assumed camera.

        Args:
            image: whose stamp counts.
            size_hw: height and width of the decoded image in pixels.
            image_kind: `raw`, `rectified` or `auto`: as the name of `image_topic` says.
        """
        info = self._by_stamp.get((image.header.stamp.sec, image.header.stamp.nanosec), self._newest)
        if info is None:
            return Calibration(None, None, "no camera_info has arrived", missing=True)
        rectified = image_kind == "rectified" or (image_kind == "auto" and is_rectified(self.image_topic))
        try:
            camera = model_from_info(info).for_image(size_hw, rectified)
        except CalibrationError as error:
            return Calibration(None, None, str(error))
        return Calibration(_for_own_pixels(info), camera)


def is_rectified(image_topic: str) -> bool:
    """Return whether a topic's name says that distortion was taken out of its images: image_rect, image_rect_color, image_rect_raw."""
    return image_topic.removesuffix("/compressed").rpartition("/")[2].startswith("image_rect")


def model_from_info(info: CameraInfo) -> CameraModel:
    """Return what a camera_info says, as numbers."""
    k, d, p = (tuple(float(value) for value in values) for values in (info.k, info.d, info.p))
    roi = info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height
    return CameraModel((info.height, info.width), k, d, info.distortion_model, p, (info.binning_x, info.binning_y), roi)


def _for_own_pixels(info: CameraInfo) -> CameraInfo:
    """Return the camera_info with region of interest and binning brought into K and P: who takes depth need not know of them."""
    left, top, bin_x, bin_y = info.roi.x_offset, info.roi.y_offset, max(1, info.binning_x), max(1, info.binning_y)
    size_hw = model_from_info(info).image_size_hw
    if (left, top, bin_x, bin_y, *size_hw) == (0, 0, 1, 1, info.height, info.width):
        return info
    own = copy.copy(info)
    own.height, own.width = size_hw
    own.roi, own.binning_x, own.binning_y = type(info.roi)(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False), 0, 0
    crop = np.array([[1 / bin_x, 0, -left / bin_x], [0, 1 / bin_y, -top / bin_y], [0, 0, 1]])
    own.k, own.p = (crop @ np.asarray(info.k).reshape(3, 3)).ravel(), (crop @ np.asarray(info.p).reshape(3, 4)).ravel()
    return own
