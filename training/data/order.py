"""The order in which samples are seen: position in training -> sample number, so that a resumed run goes on where it was.

An epoch visits every sample once. Blocks (shards) are shuffled, a few neighbours in that order form a group, and samples are
shuffled inside their group: nearly as random as a full shuffle, while few files are open at a time, and a position can be
computed without a table of all samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BLOCKS_TOGETHER = 16


class ShuffledOrder:
    """Order of the samples of a source over endless epochs; a function of block sizes and seed alone."""

    def __init__(self, block_sizes: Sequence[int], seed: int, blocks_together: int = BLOCKS_TOGETHER) -> None:
        """Take the sizes of the blocks in the order of the samples' numbers.

        Raises:
            ValueError: there is no sample.
        """
        self._sizes = np.asarray(block_sizes, np.int64)
        self.total = int(self._sizes.sum())
        if self.total < 1:
            raise ValueError("an order needs at least one sample")
        self._first = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self._seed, self._together = seed, blocks_together
        self._epoch = self._group = -1
        self._blocks = self._ends = self._samples = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> int:
        """Return the sample number at a position (0, 1, ... without end)."""
        epoch, within = divmod(position, self.total)
        if epoch != self._epoch:
            self._blocks = np.random.default_rng([self._seed, epoch]).permutation(len(self._sizes))
            starts = range(0, len(self._blocks), self._together)
            self._ends = np.cumsum([self._sizes[self._blocks[start : start + self._together]].sum() for start in starts])
            self._epoch, self._group = epoch, -1
        group = int(np.searchsorted(self._ends, within, side="right"))
        if group != self._group:
            self._samples, self._group = self._shuffled(epoch, group), group
        return int(self._samples[within - (int(self._ends[group - 1]) if group else 0)])

    def _shuffled(self, epoch: int, group: int) -> npt.NDArray[np.int64]:
        blocks = self._blocks[group * self._together : (group + 1) * self._together]
        samples = np.concatenate([np.arange(self._first[block], self._first[block] + self._sizes[block]) for block in blocks])
        return np.random.default_rng([self._seed, epoch, group + 1]).permutation(samples)
