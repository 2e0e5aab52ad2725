"""Published labelled data sets in the folder layout in which they are published; one short adapter each.

Every adapter's docstring says how files are paired, what the numbers are, which pixels are valid, where these facts
come from, and which of them could not be checked. Nothing is downloaded. Adapters are imported when they are asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from ..samples import DatasetError
from .base import Adapter, PublishedDataset

_ADAPTERS = {
    "blendedmvs": ("captured", "BlendedMvs"),
    "diml": ("captured", "Diml"),
    "hrwsi": ("captured", "Hrwsi"),
    "hypersim": ("rendered", "Hypersim"),
    "irs": ("rendered", "Irs"),
    "kitti": ("measured", "Kitti"),
    "megadepth": ("captured", "MegaDepth"),
    "nyuv2": ("measured", "NyuV2"),
    "tartanair": ("rendered", "TartanAir"),
    "vkitti2": ("rendered", "Vkitti2"),
}
_EVALUATION_ADAPTERS = {
    "ddad": ("evaluation_sets", "Ddad"),
    "diode_indoor": ("evaluation_sets", "diode_indoor"),
    "diode_outdoor": ("evaluation_sets", "diode_outdoor"),
    "eth3d": ("evaluation_sets", "Eth3d"),
    "sintel": ("evaluation_sets", "Sintel"),
}
DATASET_NAMES = tuple(_ADAPTERS)
EVALUATION_NAMES = tuple(_EVALUATION_ADAPTERS)
"""Zero-shot comparisons rest on these; do not train on them."""

__all__ = ["DATASET_NAMES", "EVALUATION_NAMES", "PublishedDataset", "adapter", "open_dataset"]


def adapter(name: str) -> Adapter:
    """Return the adapter of a data set by its name, one of `DATASET_NAMES` or `EVALUATION_NAMES`.

    Raises:
        DatasetError: the name is unknown.
    """
    known = _ADAPTERS | _EVALUATION_ADAPTERS
    if name not in known:
        raise DatasetError(f"unknown data set '{name}'; known are {', '.join(sorted(known))}")
    module, factory = known[name]
    made: Adapter = getattr(importlib.import_module(f".{module}", __name__), factory)()
    return made


def open_dataset(name: str, root: Path | str, split: str | None = None) -> PublishedDataset:
    """Open a data set that lies on disk as it is published.

    Args:
        name: one of `DATASET_NAMES` or `EVALUATION_NAMES`.
        root: the folder that the adapter's `layout` describes.
        split: a published split; None takes the first one of the adapter.

    Raises:
        DatasetError: unknown name or split, a package is missing, or `root` does not look like that data set; the message
            says what was expected there and what was found.
    """
    return PublishedDataset(adapter(name), Path(root), split)
