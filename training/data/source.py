"""Where training images come from: anything that counts its samples, says which lie together on disk, and reads one by its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .samples import LabelledSample


class Source(Protocol):
    """Labelled (or pseudo-labelled) images on disk. A source is pickled into loader processes: it opens files when it is first read.

    Attributes:
        block_sizes: samples per block, in the order of their numbers; a block is what is stored together (one shard), and
            shuffling keeps the samples of few blocks near each other, so that files are read one after the other.
    """

    block_sizes: Sequence[int]

    def __len__(self) -> int:
        """Return the number of samples, broken ones included: the sum of `block_sizes`."""
        ...

    def __getitem__(self, index: int) -> LabelledSample:
        """Read one sample.

        Raises:
            BrokenFileError: this one cannot be used; the others may be fine.
        """
        ...

    def manifest(self) -> dict[str, Any]:
        """Describe the data for the record beside a checkpoint: what, how many, hashes; no absolute paths."""
        ...
