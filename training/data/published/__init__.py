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
DATASET_NAMES = tuple(_ADAPTERS)

__all__ = ["DATASET_NAMES", "PublishedDataset", "adapter", "open_dataset"]


def adapter(name: str) -> Adapter:
    """Return the adapter of a data set by its name, one of `DATASET_NAMES`.

    Raises:
        DatasetError: the name is unknown.
    """
    if name not in _ADAPTERS:
        raise DatasetError(f"unknown data set '{name}'; known are {', '.join(DATASET_NAMES)}")
    module, class_name = _ADAPTERS[name]
    made: Adapter = getattr(importlib.import_module(f".{module}", __name__), class_name)()
    return made


def open_dataset(name: str, root: Path | str, split: str | None = None) -> PublishedDataset:
    """Open a data set that lies on disk as it is published.

    Args:
        name: one of `DATASET_NAMES`.
        root: the folder that the adapter's `layout` describes.
        split: a published split; None takes the first one of the adapter.

    Raises:
        DatasetError: unknown name or split, a package is missing, or `root` does not look like that data set; the message
            says what was expected there and what was found.
    """
    return PublishedDataset(adapter(name), Path(root), split)
