"""Augmentation: crop and zoom with the focal length kept right, flip, and what cameras do to colours and sharpness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        rgb: (H, W, 3) uint8.
        label: (H, W) of any type; values per pixel that mean the same in every crop of the image (depth, disparity, class).
        focal_px: focal length in pixels of this image; NaN = unknown.
    """

    rgb: npt.NDArray[np.uint8]
    label: npt.NDArray[Any]
    focal_px: float


def crop_and_resize(sample: Sample, size_hw: tuple[int, int], rng: np.random.Generator, min_zoom: float = 0.55) -> Sample:
    """Cut a random window of the wanted aspect and bring it to `size_hw`.

    Label values stay (a zoom moves no surface), the focal length grows with the enlargement. Labels are not interpolated.
    Side lengths are whole pixels, so the two axes may differ by up to half a pixel in scale; the focal length is that along x.

    Args:
        sample: any size.
        size_hw: of the result.
        rng: source of chance.
        min_zoom: smallest window, as a fraction of the largest that fits; half of the windows are the largest.
    """
    height, width = sample.rgb.shape[:2]
    aspect = size_hw[1] / size_hw[0]
    zoom = 1.0 if rng.random() < 0.5 else rng.uniform(min_zoom, 1.0)
    window_h = min(height, width / aspect) * zoom
    h, w = round(window_h), min(width, round(window_h * aspect))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    interpolation = cv2.INTER_AREA if h >= size_hw[0] else cv2.INTER_LINEAR
    rgb = cv2.resize(np.ascontiguousarray(sample.rgb[top : top + h, left : left + w]), size_hw[::-1], interpolation=interpolation)
    rows = top + ((np.arange(size_hw[0]) + 0.5) * h / size_hw[0]).astype(int)
    columns = left + ((np.arange(size_hw[1]) + 0.5) * w / size_hw[1]).astype(int)
    return Sample(rgb, sample.label[rows][:, columns], sample.focal_px * size_hw[1] / w)


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    return Sample(np.ascontiguousarray(sample.rgb[:, ::-1]), np.ascontiguousarray(sample.label[:, ::-1]), sample.focal_px)


def photometric(rgb: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Change colours, light, sharpness and noise, nothing geometric: (H, W, 3) uint8 -> the same.

    Colours change much, sharpness and noise little: making a camera's image as small as a network's input takes most of its blur,
    noise and JPEG artefacts away, and a network that never sees a sharp edge does not learn to draw one.
    """
    image = _colours(rgb, rng)
    if rng.random() < 0.3:
        image = _uneven_light(image, rng)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.9)))
    if rng.random() < 0.05:
        image = _motion_blur(image, rng)
    if rng.random() < 0.05:
        small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        image = np.clip(image + _noise(image.shape, rng, 1, 7), 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        image = _jpeg(image, rng, 40)
    return image


def retaken(rgb: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Take the same view a moment later: a slightly different exposure, other noise, another compression; (H, W, 3) uint8 -> the same."""
    noise = _noise(rgb.shape, rng, 0.5, 6)
    image = np.clip(rgb * rng.normal(1, 0.03) + noise, 0, 255).astype(np.uint8)
    return _jpeg(image, rng, 50) if rng.random() < 0.5 else image


def _noise(shape: tuple[int, ...], rng: np.random.Generator, least: float, most: float) -> npt.NDArray[np.float32]:
    """Gaussian noise of a deviation between `least` and `most` grey levels."""
    return rng.standard_normal(shape, dtype=np.float32) * rng.uniform(least, most)


def _jpeg(image: npt.NDArray[np.uint8], rng: np.random.Generator, least_quality: int) -> npt.NDArray[np.uint8]:
    _, encoded = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(least_quality, 95))))
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def _colours(rgb: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Saturation, order of the channels, white balance, brightness, contrast and gamma as one matrix and one table."""
    saturation = 0.0 if rng.random() < 0.1 else float(np.clip(rng.normal(0.85, 0.35), 0, 1.7))
    luma = np.array([0.299, 0.587, 0.114])
    matrix = saturation * np.eye(3) + (1 - saturation) * np.tile(luma, (3, 1))
    if rng.random() < 0.15:
        matrix = matrix[rng.permutation(3)]
    matrix = np.diag(np.exp(rng.normal(0, 0.15, 3))) @ matrix
    image = cv2.transform(rgb, matrix)
    gain, bias, gamma = np.exp(rng.normal(0, 0.25)), rng.normal(0, 0.08), np.exp(rng.normal(0, 0.35))
    ramp = np.clip((np.arange(256) / 255 - 0.5) * gain + 0.5 + bias, 0, 1) ** gamma
    return cv2.LUT(image, (ramp * 255).astype(np.uint8))


def _uneven_light(rgb: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Smooth gains of 0.5 to 2 or so over the image: shade, windows, vignettes."""
    coarse = rng.normal(0, 0.25, (int(rng.integers(2, 5)), int(rng.integers(2, 6)))).astype(np.float32)
    gain = np.exp(cv2.resize(coarse, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_CUBIC))
    return np.clip(rgb * gain[..., None], 0, 255).astype(np.uint8)


def _motion_blur(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    length = int(rng.integers(3, 6))
    kernel = np.zeros((length, length), np.float32)
    direction = rng.integers(3)
    if direction == 2:
        np.fill_diagonal(kernel, 1 / length)
    else:
        kernel[(length // 2, slice(None)) if direction == 0 else (slice(None), length // 2)] = 1 / length
    return cv2.filter2D(image, -1, kernel)
