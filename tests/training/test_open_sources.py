"""Text of a configuration -> sources, joined without re-weighting; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.open_sources import Concatenated, open_labelled, open_pseudo
from training.data.order import ShuffledOrder
from training.data.samples import DatasetError

from .made_up import MadeUp
from .published_trees import blendedmvs


def test_concatenated_sources_are_one_and_keep_their_blocks() -> None:
    joined = Concatenated([MadeUp(6), MadeUp(5)])
    assert (len(joined), joined.block_sizes) == (11, [4, 2, 4, 1])
    assert [joined[i].name for i in (0, 5, 6, 10)] == ["0", "5", "0", "4"]
    assert joined.manifest() == {"samples": 11, "sources": [{"dataset": "made_up", "samples": 6}, {"dataset": "made_up", "samples": 5}]}
    order = ShuffledOrder(joined.block_sizes, 0)
    assert sorted(order[i] for i in range(11)) == list(range(11))


def test_a_published_data_set_is_a_source(tmp_path: Path) -> None:
    blendedmvs(tmp_path)
    source = open_labelled([f"blendedmvs:{tmp_path}"])
    assert len(source) == sum(source.block_sizes) > 0
    assert source[0].dataset == "blendedmvs"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "names no source, such as shards:DIR"),
        (["data/train"], "source 'data/train' is not KIND:DIR; kinds are shards, blendedmvs"),
        (["imagenet:data"], "source 'imagenet:data' is not KIND:DIR"),
        (["shards:/no/such"], "no shards in '/no/such'; render some"),
        (["kitti@moon:/no/such"], "'/no/such' is not a folder"),
    ],
)
def test_wrong_texts_are_named(texts: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_labelled(texts)


def test_pseudo_labels_need_both_folders() -> None:
    assert open_pseudo([]) is None
    with pytest.raises(DatasetError, match="'labels' is not LABELS::IMAGES"):
        open_pseudo(["labels"])
