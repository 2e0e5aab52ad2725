"""Text of a configuration -> sources: `shards:DIR`, `<data set>:DIR`, `<data set>@<split>:DIR`, each optionally with `+sky:MASKS`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

from .paired import PairedShards
from .published import DATASET_NAMES, open_dataset
from .rendered_shards import RenderedShards
from .samples import DatasetError, LabelledSample
from .sky import WithSky
from .source import Source

RENDERED = "shards"


class Concatenated:
    """Sources one after the other, as one; nothing is re-weighted, as in the paper (Depth Anything, arXiv:2401.10891, section 4.1)."""

    def __init__(self, sources: list[Source]) -> None:
        """Take at least one source."""
        self._sources = sources
        self._ends = list(accumulate(len(source) for source in sources))
        self.block_sizes = [size for source in sources for size in source.block_sizes]

    def __len__(self) -> int:
        """Return the number of samples of all."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> LabelledSample:
        """Read one sample; see `Source`."""
        which = bisect_right(self._ends, index)
        return self._sources[which][index - (self._ends[which - 1] if which else 0)]

    def manifest(self) -> dict[str, Any]:
        """Return the manifests of all."""
        return {"samples": len(self), "sources": [source.manifest() for source in self._sources]}


def open_labelled(texts: Iterable[str]) -> Source:
    """Open labelled sources.

    Args:
        texts: `shards:DIR` for rendered shards, `NAME:DIR` or `NAME@SPLIT:DIR` for a published data set. `+sky:MASKS` after DIR
            adds sky masks (see `make_sky_masks`) where the label says nothing.

    Raises:
        DatasetError: there is none, or one cannot be opened.
    """
    return _joined([_open(text) for text in texts], "data.labelled (or data.validation) names no source, such as shards:DIR")


def open_pseudo(texts: Iterable[str]) -> Source | None:
    """Open pseudo-labelled images, `LABELS::IMAGES` each; None where there are none.

    Raises:
        DatasetError: one cannot be opened.
    """
    sources: list[Source] = []
    for text in texts:
        labels, separator, images = text.partition("::")
        if not separator:
            raise DatasetError(f"data.pseudo '{text}' is not LABELS::IMAGES: the output of make_pseudo_labels, and what it was made of")
        sources.append(PairedShards(Path(labels), Path(images)))
    return _joined(sources, "") if sources else None


def _open(text: str) -> Source:
    name, separator, rest = text.partition(":")
    root, plus, masks = rest.partition("+sky:")
    name, _, split = name.partition("@")
    if not separator or name not in (RENDERED, *DATASET_NAMES):
        raise DatasetError(f"source '{text}' is not KIND:DIR; kinds are {RENDERED}, {', '.join(DATASET_NAMES)}")
    source: Source = RenderedShards(Path(root)) if name == RENDERED else open_dataset(name, root, split or None)
    return WithSky(source, Path(masks)) if plus else source


def _joined(sources: list[Source], problem: str) -> Source:
    if not sources:
        raise DatasetError(problem)
    return sources[0] if len(sources) == 1 else Concatenated(sources)
