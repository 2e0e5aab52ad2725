"""The benchmark's own arithmetic, on the fake device: its cases fit together, and its comparison with the numpy stages finds what differs."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="the benchmark's network is PyTorch")

import torch

from benchmarks import gpu

from .fake_driver import FakeDriver


@pytest.fixture
def case(host_library, monkeypatch):
    """A small camera around a network that answers with a ramp of depths."""

    def network_for(size_hw):
        ramp = torch.linspace(0.5, 1.5 * gpu.MAX_DEPTH_M, size_hw[0] * size_hw[1]).reshape(1, *size_hw).half()
        network = SimpleNamespace(name="ramp", tensor=torch.zeros(1, 3, *size_hw, dtype=torch.float16), raw=torch.zeros_like(ramp))
        network.enqueue = lambda: network.raw.copy_(ramp)
        return network

    monkeypatch.setattr(gpu, "network_for", network_for)
    return gpu.Case(FakeDriver(host_library), b"host loops", (60, 80), 56)


def test_twins_agree(case):
    figures = gpu.twin_figures(case, case.stages._driver.Stream())
    assert figures["tensor_max"] < 2e-2, "one of 255 by the cubic filter, and half precision"
    assert figures["depth_max_relative"] < 1e-6
    assert figures["points_max_m"] < 1e-4
    assert figures["unknown_on_one_side"] == figures["colours_that_differ"] == 0


def test_a_difference_is_found(case):
    case.message.data = case.message.data[::-1].copy()
    figures = gpu.twin_figures(case, case.stages._driver.Stream())
    assert figures["tensor_max"] > 0.5
    assert figures["colours_that_differ"] > 1000
