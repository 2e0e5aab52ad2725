"""The check of the stages at open: it passes where they are right, for every kind of model, and finds what is wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

from depth_anything_ros.cuda import check, stages
from depth_anything_ros.cuda.check import stage_problem
from depth_anything_ros.cuda.taps import depth_taps, pixel_taps
from depth_anything_ros.engines import base
from depth_anything_ros.errors import EngineError

from ..models import tiny_contract
from .fake_engine import FakeEngine

KINDS = [
    {},
    {"output_kind": "depth_canonical_focal", "canonical_focal_px": 31.0},
    {"output_kind": "disparity_affine_invariant"},
    {"resize": "letterbox", "interpolation": "cubic", "channel_order": "bgr", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
    {"resize": "lower_bound", "max_depth_m": 1.5},
]


@pytest.fixture
def engine(host_library):
    engines = []

    def make(dtype="float32", **changes):
        contract = tiny_contract(**({"resize": "stretch", "input_sizes_hw": ((48, 64),)} | changes))
        engines.append(FakeEngine(host_library, contract, dtype))
        return engines[-1]

    yield make
    for opened in engines:
        opened.close()
        assert not opened.driver.live


@pytest.mark.parametrize("changes", KINDS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_right_stages_pass_and_leave_nothing(engine, changes, dtype):
    opened = engine(dtype, **changes)
    assert stage_problem(opened.gpu, opened.contract) == ""
    assert len(opened.driver.live) == 2, "the network's own buffers"
    assert not opened.session.graphs
    assert not opened.driver.pinned
    assert opened.gpu.launches == {"plain": 1, "graph": 1}


def shifted(source_px, target_px, interpolation, is_row):
    """Take pixels half a pixel of the network's beside where they are."""
    twice = pixel_taps(source_px, 2 * target_px, interpolation, is_row)
    return twice[::2].copy()


def swapped(contract):
    gain, bias = stages_gain_and_bias(contract)
    return gain[::-1], bias[::-1]


stages_gain_and_bias = stages.gain_and_bias


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gain_and_bias", swapped),
        ("pixel_taps", lambda source, target, *args, **kwargs: pixel_taps(source, target, *args, **kwargs)[::-1].copy()),
        ("pixel_taps", shifted),
        ("depth_taps", lambda source, target, *args, **kwargs: np.roll(depth_taps(source, target, *args, **kwargs), 4)),
    ],
)
def test_wrong_stages_are_found(engine, monkeypatch, name, wrong):
    opened = engine(**KINDS[3])
    monkeypatch.setattr(stages, name, wrong)
    assert "the GPU stages differ from the numpy stages: network input by" in stage_problem(opened.gpu, opened.contract)


def test_result_that_only_a_graph_makes_wrong_is_found(engine, monkeypatch):
    opened = engine()
    monkeypatch.setattr(opened.session, "launch", lambda graph: None)
    assert "map by" in stage_problem(opened.gpu, opened.contract)


def test_engine_fails_warns_or_does_not_look(engine, monkeypatch):
    opened = engine()
    opened.check("fail")
    assert opened.self_check == "not possible: the model file holds no golden image; GPU stages agree with the numpy stages"
    monkeypatch.setattr(check, "MAP_BOUND", -1.0)
    with pytest.raises(EngineError, match=r"self-check failed on .*: the GPU stages differ .* fake.gpu_stages: off runs the numpy stages"):
        opened.check("fail")
    opened.check("warn")
    assert "the GPU stages differ" in opened.self_check_problem
    opened.golden = "some"
    monkeypatch.setattr(base, "measure", lambda *_: SimpleNamespace(acceptable=False))
    opened.check("warn")
    assert opened.self_check_problem.startswith("self-check failed: fake does not compute what model")
    assert "the GPU stages differ" in opened.self_check_problem, "one problem hides no other"
    opened.check("off")
    assert (opened.self_check, opened.self_check_problem) == ("off", "")
