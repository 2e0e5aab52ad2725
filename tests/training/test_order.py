"""Order of samples: every epoch sees each once, groups keep shards together, and a position needs no history."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.order import ShuffledOrder

SIZES = [5, 3, 8, 1, 4, 9]


def _epoch(order: ShuffledOrder, number: int) -> list[int]:
    return [order[number * order.total + i] for i in range(order.total)]


def test_an_epoch_sees_every_sample_once_and_epochs_differ() -> None:
    order = ShuffledOrder(SIZES, seed=0, blocks_together=2)
    epochs = [_epoch(order, number) for number in range(3)]
    assert all(sorted(epoch) == list(range(sum(SIZES))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_position_gives_the_same_sample_whatever_was_asked_before() -> None:
    one, other = ShuffledOrder(SIZES, 3, 2), ShuffledOrder(SIZES, 3, 2)
    ahead = [one[position] for position in range(90)]
    assert [other[position] for position in reversed(range(90))] == ahead[::-1]
    assert ahead != [ShuffledOrder(SIZES, 4, 2)[position] for position in range(90)]


def test_samples_of_a_group_of_blocks_come_together() -> None:
    order = ShuffledOrder([10] * 12, seed=1, blocks_together=3)
    block_of = np.array(_epoch(order, 0)) // 10
    groups = [set(block_of[start : start + 30].tolist()) for start in range(0, 120, 30)]
    assert all(len(group) == 3 for group in groups)
    assert len(set(block_of[:10].tolist())) > 1, "blocks of a group are mixed"


def test_sixty_two_million_samples_need_no_table() -> None:
    order = ShuffledOrder([1000] * 62_000, seed=0)
    assert 0 <= order[61_999_999] < 62_000_000
    assert order._samples.size == 1000 * 62_000 % 16_000 or order._samples.size == 16_000


def test_nothing_has_no_order() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        ShuffledOrder([], 0)
