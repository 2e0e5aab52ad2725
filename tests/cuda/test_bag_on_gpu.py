"""A bag through an engine whose GPU runs the stages: byte for byte what the numpy stages write, although frames wait in queues meanwhile."""

import threading
from dataclasses import replace

import pytest

pytest.importorskip("rosbags", reason="needs the package rosbags")

from depth_anything_ros import decode
from depth_anything_ros.bag import conversion

from .. import bags
from ..bags import convert, of_topic
from ..models import tiny_contract
from .fake_engine import FakeEngine

MADE = ("/camera/depth/image", "/camera/depth/camera_info", "/camera/depth/points")


@pytest.fixture
def engines(host_library, monkeypatch):
    """The engines that conversions open: the first one with the GPU stages, the second one without."""
    opened = []

    def open_engine(config):
        opened.append(FakeEngine(host_library, tiny_contract(resize="stretch", input_sizes_hw=((24, 32),))))
        if len(opened) == 2:
            opened[-1].gpu = None
        return opened[-1]

    monkeypatch.setattr(conversion, "open_engine", open_engine)
    return opened


@pytest.mark.parametrize("raw", [True, False])
def test_both_kinds_of_stages_write_the_same_bag(tmp_path, engines, raw):
    source = bags.write_bag(tmp_path / "in", raw=raw)
    for name in ("gpu", "numpy"):
        assert convert(source, tmp_path / name, "--cloud") == 0
    for topic in MADE:
        written = of_topic(tmp_path / "gpu", topic)
        assert len(written) == 6
        assert written == of_topic(tmp_path / "numpy", topic)
    assert not engines[0].driver.live


def test_images_are_decoded_on_the_reading_thread_unless_the_gpu_does_it(tmp_path, engines, monkeypatch):
    threads = []

    def to_rgb(pixels):
        threads.append(threading.current_thread())
        return pixels

    monkeypatch.setitem(decode.ENCODINGS, "rgb8", replace(decode.ENCODINGS["rgb8"], to_rgb=to_rgb))
    source = bags.write_bag(tmp_path / "in")
    assert convert(source, tmp_path / "gpu", "--cloud") == 0
    assert threads == []
    assert convert(source, tmp_path / "numpy", "--cloud") == 0
    assert len(threads) == 6
    assert len(set(threads)) == 1
    assert threading.main_thread() not in threads
