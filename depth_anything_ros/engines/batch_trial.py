"""How many images an engine really takes at once, found by trying."""

from __future__ import annotations

import logging

import numpy as np

from ..errors import EngineError
from .base import Engine


def usable_batch_max(engine: Engine, wanted: int, cameras: int) -> int:
    """Return how many images an open engine gets at once; logs a warning where its model file promises more than the network inside can do.

    Some exports fail on a second image, and some let one image change another's depth.

    Args:
        engine: open, on the thread that owns it.
        wanted: at most so many; 0 = one of each camera, if batches pay with this engine.
        cameras: how many there are.
    """
    if engine.batch_max < min(wanted, cameras):
        logging.getLogger(__name__).warning(f"batch_max is {wanted}, but {engine} takes {engine.batch_max} at once")
    most = min(wanted or (cameras if engine.batch_pays else 1), cameras, engine.batch_max)
    if most == 1:
        return 1
    noise = np.random.default_rng(0).standard_normal((3, *engine.contract.input_sizes_hw[0]), np.float32)
    images = np.stack([noise * np.float32(strength) for strength in np.linspace(0, 1, most)])
    try:
        together = engine.infer(images)[[0, -1]].copy()
        alone = np.concatenate([engine.infer(image[None]).copy() for image in images[[0, -1]]])
    except EngineError as error:
        problem = str(error)
    else:
        wrong, apart, size = (float(np.abs(values).mean()) for values in (together - alone, alone[0] - alone[1], alone))
        if wrong <= 0.1 * apart + 1e-3 * size:  # rounding, no mixing
            return most
        problem = "its output for an image depends on the other images"
    logging.getLogger(__name__).warning(f"{engine} cannot infer {most} images at once, they go one by one: {problem}")
    return 1
