"""Stage 5/6, before the geometry: camera_info -> the ray of every pixel, with the lens's distortion.

Depth stays in the pixels of the image that it was made from; a distorted image needs no rectification, only its own rays.
A ray is (x/z, y/z): times the depth along +Z it is the point (REP 103 optical frame). The inverse of a lens model has no
closed form, so a table is made once per camera and size. It is solved by Newton's method here, because OpenCV's
`undistortPoints` iterates a fixed point that does not converge for strong lenses and takes other arguments in each version.

Source of the models: OpenCV's calib3d (pinhole with rational and tangential terms) and fisheye (equidistant) modules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from .errors import CalibrationError
from .geometry import intrinsics_from_k, scaled
from .structs import Intrinsics

Lens = Literal["pinhole", "polynomial", "equidistant"]
Points = npt.NDArray[np.float64]

_LENSES: dict[str, Lens] = {"plumb_bob": "polynomial", "rational_polynomial": "polynomial", "equidistant": "equidistant", "fisheye": "equidistant"}
_COEFFICIENTS = {"polynomial": (0, 4, 5, 8), "equidistant": (0, 4)}
_TOLERANCE_PX = 1e-5
_ITERATIONS = 20
_BLOCK = 4096
"""Pixels solved at a time: what they need stays in the processor's cache."""
_WIDEST_RAD = math.radians(89.5)
"""Angle from the optical axis of the widest ray: at 90 degrees there is no point in front of the camera."""


@dataclass(frozen=True)
class CameraModel:
    """The content of a camera_info, all of it for the camera's full resolution.

    Attributes:
        size_hw: `height` and `width`: the full resolution, which `k`, `p` and the region of interest refer to.
        k: row-major 3x3 matrix of the raw image.
        d: distortion coefficients; empty = none.
        distortion_model: plumb_bob, rational_polynomial, equidistant (or fisheye); may be empty where `d` is empty or zero.
        p: row-major 3x4 matrix of the rectified image.
        binning_xy: full-resolution pixels per image pixel; 0 means 1.
        roi_xywh: x_offset, y_offset, width, height of the window of the sensor that the image shows; size 0 = all of it.
    """

    size_hw: tuple[int, int]
    k: tuple[float, ...]
    d: tuple[float, ...] = ()
    distortion_model: str = ""
    p: tuple[float, ...] = (0.0,) * 12
    binning_xy: tuple[int, int] = (1, 1)
    roi_xywh: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def image_size_hw(self) -> tuple[int, int]:
        """Height and width in pixels of the images that the camera sends: the region of interest, then binned."""
        _, _, width, height = self.roi_xywh
        bin_x, bin_y = self._binning
        return (height or self.size_hw[0]) // bin_y, (width or self.size_hw[1]) // bin_x

    @property
    def _binning(self) -> tuple[int, int]:
        return max(1, self.binning_xy[0]), max(1, self.binning_xy[1])

    def for_image(self, size_hw: tuple[int, int], rectified: bool) -> ImageCamera:
        """Return the camera of one image.

        The offset of the region of interest is taken from the principal point first, then everything is divided by the
        binning, for P as for K, as image_geometry's PinholeCameraModel does it. `do_rectify` and `r` change nothing: image_proc
        writes its rectified images with the same P, and points of a raw image are in the raw camera's own frame.

        Args:
            size_hw: height and width of the image in pixels.
            rectified: whether distortion was taken out of it: then P counts and `d` does not; otherwise K and `d`.

        Raises:
            CalibrationError: not calibrated, of another size, or of a lens model that is not known.
        """
        if size_hw != self.image_size_hw:
            (height, width), what = self.image_size_hw, "" if self.image_size_hw == self.size_hw else " after its region of interest and binning"
            raise CalibrationError(f"camera_info is for {width}x{height} pixels{what}, the image has {size_hw[1]}x{size_hw[0]}")
        name, matrix = ("P", [self.p[i] for i in (0, 1, 2, 4, 5, 6, 8, 9, 10)]) if rectified else ("K", list(self.k))
        full = intrinsics_from_k(matrix, self.size_hw)
        if full is None:
            raise CalibrationError(f"camera_info is not calibrated: {name} is {[float(f'{v:g}') for v in matrix]}")
        (left, top, _, _), (bin_x, bin_y) = self.roi_xywh, self._binning
        pinhole = Intrinsics(full.fx / bin_x, full.fy / bin_y, (full.cx - left) / bin_x, (full.cy - top) / bin_y, size_hw)
        lens: Lens = "pinhole" if rectified else self._lens()
        return ImageCamera(pinhole, lens, (0.0,) * 8 if lens == "pinhole" else self.d + (0.0,) * (8 - len(self.d)))

    def _lens(self) -> Lens:
        if not self.d or (not any(self.d) and self.distortion_model not in ("equidistant", "fisheye")):
            return "pinhole"
        lens = _LENSES.get(self.distortion_model)
        if lens is None:
            raise CalibrationError(
                f"distortion model '{self.distortion_model}' is not known; known are {', '.join(_LENSES)}: rectify the image first"
            )
        if len(self.d) not in _COEFFICIENTS[lens] or not all(map(math.isfinite, self.d)):
            wanted = " or ".join(map(str, _COEFFICIENTS[lens][1:]))
            raise CalibrationError(f"distortion model '{self.distortion_model}' needs {wanted} finite coefficients, camera_info has {list(self.d)}")
        return lens


@dataclass(frozen=True, eq=False)
class RayTable:
    """Rays of a grid of pixels.

    Attributes:
        xy: (h, w, 2) float32, x/z and y/z; NaN where the lens model has no ray. Shared and read-only.
        unknown: number of pixels without a ray: outside of what the lens model describes, or 90 degrees and more off the axis.
    """

    xy: npt.NDArray[np.float32]
    unknown: int


@dataclass(frozen=True)
class ImageCamera:
    """The camera of one image, ready to be used: pinhole and lens.

    Attributes:
        intrinsics: for the image's own size.
        lens: which model `d` belongs to.
        d: 8 coefficients, 0 where there are fewer. `polynomial`: k1 k2 p1 p2 k3 k4 k5 k6; `equidistant`: k1 k2 k3 k4.
    """

    intrinsics: Intrinsics
    lens: Lens
    d: tuple[float, ...]

    @property
    def focal_px(self) -> float:
        """Focal length along x in pixels at the image's centre, for models that need one."""
        return self.intrinsics.fx

    def ray_table(self, size_hw: tuple[int, int], stride: int = 1) -> RayTable:
        """Return the rays of every `stride`-th pixel of a map of this camera's image, of any size. Tables are kept.

        Args:
            size_hw: height and width of the map in pixels; see `geometry.scaled` for what a pixel of it is.
            stride: in pixels of the map, in both directions.

        Returns:
            (ceil(H / stride), ceil(W / stride)) rays; each projects back to within 1e-3 px of its pixel.
        """
        return _ray_table(self, size_hw, stride)

    def project(self, points: npt.NDArray[np.floating]) -> Points:
        """Project (N, 3) points in metres in the camera's optical frame: (N, 2) float64 pixels of the image, NaN where the lens sees no such point.

        That is: not in front, or farther off the axis than the lens model goes, which would fold the point back into the image.
        """
        xyz = np.asarray(points, np.float64).reshape(-1, 3)
        in_front = np.where(xyz[:, 2] > 0, xyz[:, 2], np.nan)
        ideal = xyz[:, :2] / in_front[:, None]
        if self.lens != "pinhole":
            widest = math.tan(_radius_table(self)[0][-1]) * (1 + 1e-6)  # rays are kept in float32
            ideal[~(np.hypot(ideal[:, 0], ideal[:, 1]) <= widest)] = np.nan
        distorted = _distorted(ideal, self)
        camera = self.intrinsics
        return distorted * (camera.fx, camera.fy) + (camera.cx, camera.cy)


@lru_cache(maxsize=3)  # a table of a large image takes tens of MB
def _ray_table(camera: ImageCamera, size_hw: tuple[int, int], stride: int) -> RayTable:
    pinhole = scaled(camera.intrinsics, size_hw)
    columns, rows = np.arange(0, size_hw[1], stride), np.arange(0, size_hw[0], stride)
    grid = np.empty((rows.size, columns.size, 2))
    grid[..., 0], grid[..., 1] = (columns - pinhole.cx) / pinhole.fx, ((rows - pinhole.cy) / pinhole.fy)[:, None]
    if camera.lens != "pinhole":
        flat = grid.reshape(-1, 2)
        for start in range(0, len(flat), _BLOCK):
            flat[start : start + _BLOCK] = _undistorted(flat[start : start + _BLOCK], camera)
    table = grid.astype(np.float32)
    table.flags.writeable = False
    return RayTable(table, int(np.isnan(table[..., 0]).sum()))


def _distorted(xy: Points, camera: ImageCamera) -> Points:
    """Bend ideal (N, 2) coordinates at z = 1 as the lens does."""
    if camera.lens == "pinhole":
        return xy
    if camera.lens == "equidistant":
        radius = np.hypot(xy[:, 0], xy[:, 1])
        bent = _bent_radius(np.arctan(radius), camera)
        return xy * np.where(radius > 0, bent / np.where(radius > 0, radius, 1.0), 1.0)[:, None]
    return _polynomial(xy, camera.d)[0]


def _polynomial(xy: Points, d: tuple[float, ...]) -> tuple[Points, tuple[Points, Points, Points]]:
    """Bend (N, 2) coordinates; returns them and the (symmetric) derivatives: d/dx of x, d/dy of x, d/dy of y."""
    k1, k2, p1, p2, k3, k4, k5, k6 = d
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    gain = above / below
    slope = (k1 + r2 * (2 * k2 + r2 * 3 * k3) - gain * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / below
    bent = np.stack([x * gain + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * gain + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=1)
    dxx = gain + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    dxy = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    dyy = gain + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return bent, (dxx, dxy, dyy)


def _bent_radius(angle: Points, camera: ImageCamera) -> Points:
    """Return the distance from the centre, at focal length 1, of rays at an angle (radians) from the axis; radial terms only."""
    k1, k2, k3, k4 = camera.d[:4]
    if camera.lens == "equidistant":
        a2 = angle * angle
        return angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    straight = np.stack([np.tan(angle), np.zeros_like(angle)], axis=1)
    return _polynomial(straight, (*camera.d[:2], 0.0, 0.0, *camera.d[4:]))[0][:, 0]


@lru_cache(maxsize=8)
def _radius_table(camera: ImageCamera) -> tuple[Points, Points]:
    """Return angles from the axis and the bent radius of each, up to where the lens model turns back (it is not of use from there on)."""
    angle = np.linspace(0.0, _WIDEST_RAD, 8192)
    radius = _bent_radius(angle, camera)
    turns = np.flatnonzero(~(np.diff(radius) > 0))
    end = turns[0] + 1 if turns.size else angle.size
    return angle[:end], radius[:end]


def _undistorted(xy: Points, camera: ImageCamera) -> Points:
    """Find the ideal coordinates of (N, 2) bent ones; NaN where there are none."""
    angles, radii = _radius_table(camera)
    radius = np.hypot(xy[:, 0], xy[:, 1])
    start = np.interp(radius, radii, angles)
    if camera.lens == "equidistant":
        return _undistorted_equidistant(xy, radius, start, camera)
    found = xy * (np.tan(start) / np.where(radius > 0, radius, 1.0))[:, None]
    for _ in range(_ITERATIONS):
        bent, (dxx, dxy, dyy) = _polynomial(found, camera.d)
        error, determinant = bent - xy, dxx * dyy - dxy * dxy
        # Another branch of the polynomial has the same image: what is beyond the turning point, or mirrored, is no ray of this lens.
        good = (np.abs(error).max(axis=1) * camera.focal_px < _TOLERANCE_PX) & (determinant > 0)
        good &= np.hypot(found[:, 0], found[:, 1]) <= math.tan(angles[-1])
        if good.all():
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            found[:, 0] -= (dyy * error[:, 0] - dxy * error[:, 1]) / determinant
            found[:, 1] -= (dxx * error[:, 1] - dxy * error[:, 0]) / determinant
    return np.where(good[:, None], found, np.nan)


def _undistorted_equidistant(xy: Points, radius: Points, start: Points, camera: ImageCamera) -> Points:
    k1, k2, k3, k4 = camera.d[:4]
    widest, angle = _radius_table(camera)[0][-1], start
    for _ in range(_ITERATIONS):
        error, a2 = _bent_radius(angle, camera) - radius, angle * angle
        good = (np.abs(error) * camera.focal_px < _TOLERANCE_PX) & (angle >= 0) & (angle <= widest)
        if good.all():
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            angle = angle - error / (1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + a2 * 9 * k4))))
    gain = np.where(radius > 0, np.tan(angle) / np.where(radius > 0, radius, 1.0), 1.0)
    return np.where(good[:, None], xy * gain[:, None], np.nan)
