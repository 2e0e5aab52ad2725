"""Procedural textures, so that scenes can be rendered without any asset folder and facades have windows with one."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Texture = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 sRGB, tileable or nearly so."""

SIZE_PX = 128


def _fractal_noise(rng: np.random.Generator, octaves: int = 5) -> npt.NDArray[np.float32]:
    """Return (SIZE_PX, SIZE_PX) float32 noise in 0..1 that wraps around."""
    total = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    for octave in range(octaves):
        cells = 2 ** (octave + 1)
        grid = rng.random((cells, cells), dtype=np.float32)
        padded = np.pad(grid, 1, mode="wrap")
        scale = SIZE_PX // cells
        big = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[scale:-scale, scale:-scale]
        total += big * 0.6**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _coloured(value: npt.NDArray[np.float32], dark: npt.NDArray, light: npt.NDArray) -> npt.NDArray[np.float32]:
    return dark + value[..., None] * (light - dark)


def _random_colour(rng: np.random.Generator, low: float = 0.1, high: float = 0.9) -> npt.NDArray[np.float32]:
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 0.12, 3), 0.02, 0.98).astype(np.float32)


def _noise(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    light = _random_colour(rng)
    return _coloured(_fractal_noise(rng), light * rng.uniform(0.5, 0.95), light)


def _plaster(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    light = _random_colour(rng, 0.55, 0.95)
    return _coloured(_fractal_noise(rng), light * rng.uniform(0.85, 0.98), light)


def _blocks(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Bricks, tiles or planks: rows of blocks with joints, each block in its own shade."""
    rows, columns = int(rng.choice([2, 4, 8, 16])), int(rng.choice([1, 2, 4, 8]))
    joint = int(rng.integers(0, 3))
    base, spread = _random_colour(rng), rng.uniform(0.02, 0.15)
    image = _coloured(_fractal_noise(rng), base * 0.8, base)
    height, width = SIZE_PX // rows, SIZE_PX // columns
    staggered = rng.random() < 0.6
    for row in range(rows):
        band = image[row * height : (row + 1) * height]
        for column in range(columns):
            band[:, column * width : (column + 1) * width] += rng.normal(0, spread)
            band[:, column * width : column * width + joint] = base * 0.5
        band[:joint] = base * 0.5
        if staggered and row % 2:
            band[:] = np.roll(band, width // 2, axis=1)
    return image


def _wood(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    light = np.array([0.75, 0.55, 0.36], np.float32) * rng.uniform(0.35, 1.2)
    grain = cv2.resize(_fractal_noise(rng)[:16], (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR).T
    return _coloured(np.abs(np.sin(grain * rng.uniform(8, 30))).astype(np.float32), light * rng.uniform(0.55, 0.9), light)


def _stripes(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    count = int(rng.choice([2, 4, 8, 16]))
    pattern = (np.arange(SIZE_PX) * count // SIZE_PX % 2).astype(np.float32)
    image = np.tile(pattern, (SIZE_PX, 1))
    if rng.random() < 0.5:
        image = np.abs(image - image.T)
    return _coloured(image, _random_colour(rng), _random_colour(rng))


def _facade(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """One storey of a building, 3 m x 3 m: wall with one or two windows."""
    image = _plaster(rng) * rng.uniform(0.45, 1.0) if rng.random() < 0.6 else _blocks(rng)
    glass, frame = _random_colour(rng, 0.05, 0.5), _random_colour(rng, 0.2, 0.95)
    columns = int(rng.integers(1, 4))
    for column in range(columns):
        width = SIZE_PX // columns
        x0, x1 = column * width + int(width * rng.uniform(0.12, 0.25)), (column + 1) * width - int(width * 0.18)
        y0, y1 = int(SIZE_PX * rng.uniform(0.15, 0.3)), int(SIZE_PX * rng.uniform(0.65, 0.85))
        image[y0 - 3 : y1 + 3, x0 - 3 : x1 + 3] = frame
        image[y0:y1, x0:x1] = glass * np.linspace(1.5, 0.7, y1 - y0, dtype=np.float32)[:, None, None]
        image[(y0 + y1) // 2 - 1 : (y0 + y1) // 2 + 1, x0:x1] = frame
    return image


def _poster(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Print, label or cover: rectangles, discs and lines of 'text' on a ground."""
    image = np.ascontiguousarray(np.broadcast_to(_random_colour(rng), (SIZE_PX, SIZE_PX, 3)), np.float32)
    for _ in range(int(rng.integers(2, 9))):
        (x, y), (w, h) = rng.integers(0, SIZE_PX, 2).tolist(), rng.integers(6, SIZE_PX // 2, 2).tolist()
        colour = _random_colour(rng).tolist()
        if rng.random() < 0.7:
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(image, (x, y), h // 2, colour, -1)
    for y in range(int(rng.integers(8, 90)), SIZE_PX - 8, int(rng.integers(5, 12))):
        cv2.line(image, (10, y), (int(rng.integers(40, 118)), y), _random_colour(rng, 0.0, 0.3).tolist(), int(rng.integers(1, 3)))
    return image


def _foliage(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    light = np.array([0.35, 0.5, 0.18], np.float32) * rng.uniform(0.5, 1.3) + rng.normal(0, 0.04, 3).astype(np.float32)
    speckle = rng.random((SIZE_PX, SIZE_PX), dtype=np.float32) * 0.6 + _fractal_noise(rng) * 0.4
    return _coloured(speckle, light * 0.25, light)


def _asphalt(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    grey = rng.uniform(0.2, 0.5)
    speckle = rng.normal(0, 0.06, (SIZE_PX, SIZE_PX)).astype(np.float32) + (_fractal_noise(rng) - 0.5) * 0.15
    return np.repeat((grey + speckle)[..., None], 3, axis=2)


GENERATORS = {
    "noise": _noise,
    "plaster": _plaster,
    "blocks": _blocks,
    "wood": _wood,
    "stripes": _stripes,
    "facade": _facade,
    "poster": _poster,
    "foliage": _foliage,
    "asphalt": _asphalt,
}


def procedural_texture(kind: str, seed: int) -> Texture:
    """Return the texture of one kind (a key of `GENERATORS`) and seed: (SIZE_PX, SIZE_PX, 3) uint8 sRGB."""
    image = GENERATORS[kind](np.random.default_rng([seed, len(kind), ord(kind[0])]))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def procedural_sky(seed: int) -> Texture:
    """Return an equirectangular sky, (128, 256, 3) uint8: a gradient from zenith to horizon with clouds, haze below."""
    rng = np.random.default_rng([seed, 77])
    zenith = np.array([0.25, 0.45, 0.8], np.float32) * rng.uniform(0.5, 1.2)
    horizon = np.clip(np.array([0.8, 0.85, 0.95], np.float32) * rng.uniform(0.6, 1.05), 0, 1)
    if rng.random() < 0.35:
        zenith = np.full(3, rng.uniform(0.45, 0.95), np.float32)
    height = np.clip(1 - np.arange(128, dtype=np.float32) / 64, 0, 1)[:, None] ** 0.6
    image = np.repeat(_coloured(height, horizon, zenith), 256, axis=1)
    cloud = np.clip(np.tile(_fractal_noise(rng, 6), (1, 2)) * rng.uniform(1, 3) - rng.uniform(0.3, 1.5), 0, 1)[..., None]
    image = image * (1 - cloud) + cloud * rng.uniform(0.7, 1.0)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
