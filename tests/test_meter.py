import pytest

from depth_anything_ros import meter as meter_module
from depth_anything_ros.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: now[0])
    return now


def test_percentiles_are_in_milliseconds():
    meter = Meter()
    for i in range(1, 101):
        meter.add("infer", i / 1000)
    p = meter.percentiles()["infer"]
    assert (p.p50_ms, p.p95_ms, p.p99_ms) == pytest.approx((50.5, 95.05, 99.01))


def test_rate_counts_intervals_and_decays(clock):
    meter = Meter()
    for i in range(11):
        clock[0] = 100 + i * 0.1
        meter.count("received")
    assert meter.rate_hz("received") == pytest.approx(10)
    clock[0] += 4.5
    assert meter.rate_hz("received") < 3
    clock[0] += 10
    assert meter.rate_hz("received") == 0


def test_totals_and_time_since(clock):
    meter = Meter()
    assert meter.seconds_since("dropped") is None
    meter.count("dropped", 3)
    clock[0] += 2
    assert (meter.total("dropped"), meter.seconds_since("dropped")) == (3, 2)
    meter.reset()
    assert meter.total("dropped") == 0


def test_counting_nothing_is_not_an_event():
    meter = Meter()
    meter.count("dropped", 0)
    assert meter.seconds_since("dropped") is None
