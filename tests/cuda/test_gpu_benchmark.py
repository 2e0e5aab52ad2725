"""The benchmark's own arithmetic, on the fake device: its cases fit together, and its comparison with the numpy stages finds what differs."""

import numpy as np
import pytest

from benchmarks import gpu

from ..models import tiny_contract
from .fake_engine import FakeEngine


@pytest.fixture
def case(host_library):
    """A small camera; half of what the network sees is beyond the model's range."""
    engine = FakeEngine(host_library, tiny_contract(resize="stretch", input_sizes_hw=((56, 70),), interpolation="cubic", max_depth_m=1.5))
    yield gpu.Case(engine, engine.gpu, (60, 80))
    engine.close()


def test_twins_agree(case):
    figures = gpu.twin_figures(case)
    assert figures["tensor_max"] <= 1 / 255 + 1e-6, "one of 255 by the cubic filter"
    assert figures["depth_max_relative"] < 1e-6
    assert figures["points_max_m"] < 1e-5
    assert figures["unknown_on_one_side"] == figures["colours_that_differ"] == 0


def test_a_difference_is_found(case, monkeypatch):
    right = case.request

    def upside_down():
        request = right()
        object.__setattr__(request.frame, "data", request.frame.data[::-1].copy())
        return request

    monkeypatch.setattr(case.gpu_pipeline, "prepare", lambda request, prepare=case.gpu_pipeline.prepare: prepare(upside_down()))
    figures = gpu.twin_figures(case)
    assert figures["tensor_max"] > 0.5
    assert figures["colours_that_differ"] > 1000


def test_whole_frames_are_timed_and_launched_as_graphs(case):
    figures = gpu.end_to_end_figures(case, 20)
    assert figures["gpu_stages"]["launches"] == {"plain": 1, "graph": 20 + gpu.WARM_UP_FRAMES - 1}
    for name in ("gpu_stages", "numpy_stages"):
        for p in ("p50", "p99"):
            assert figures[name][p] > 0
            assert figures[name]["times_engine"][p] == pytest.approx(figures[name][p] / figures["engine_alone"][p], abs=1e-3)
    assert not case.session.graphs or len(case.session.graphs) == 1, "the network's own graph is freed"


def test_networks_are_of_the_official_sizes():
    assert gpu.network_size_hw((480, 640), 518) == (518, 686)
    assert gpu.network_size_hw((1080, 1920), 308) == (308, 546)
    np.testing.assert_array_equal(np.array(gpu.network_size_hw((1080, 1920), 518)) % 14, 0)
