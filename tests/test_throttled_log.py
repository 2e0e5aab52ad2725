from types import SimpleNamespace

from depth_anything_ros import throttled_log
from depth_anything_ros.throttled_log import THROTTLE_S, ThrottledLog


def test_one_line_of_a_kind_in_a_while(monkeypatch):
    now, lines = [100.0], []
    logger = SimpleNamespace(error=lines.append, warning=lambda text: lines.append("W " + text))
    monkeypatch.setattr(throttled_log.time, "monotonic", lambda: now[0])
    log = ThrottledLog(logger)
    for text in ("data has 5 bytes", "data has 6 bytes", "encoding 'a' is unknown", "encoding 'b\nc' is unknown", "another trouble"):
        log.error(text)
    assert lines == ["data has 5 bytes", "encoding 'a' is unknown", "another trouble"]
    log.warning("a doubt")
    assert lines[-1] == "W a doubt"
    now[0] += THROTTLE_S
    log.error("data has 7 bytes")
    assert lines[-1] == "data has 7 bytes"


def test_memory_is_bounded():
    log = ThrottledLog(SimpleNamespace(error=lambda text: None))
    for i in range(1000):
        log.error("x" * i)
    assert len(log._said_s) <= throttled_log._MAX_KINDS
