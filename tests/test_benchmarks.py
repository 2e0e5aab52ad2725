import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
pytest.importorskip("psutil")

from benchmarks import node as benchmark
from depth_anything_ros.config import RuntimeConfig


@pytest.mark.ros
@pytest.mark.slow
def test_node_benchmark_measures_what_it_says(monkeypatch):
    import rclpy

    rclpy.init()
    try:
        figures = benchmark.run(benchmark.Scenario("small", (48, 64), 50.0, frames=100, cloud=True, warm_up_frames=5))
    finally:
        rclpy.try_shutdown()
    assert figures["sent"] == 105
    assert figures["content_of_another_stamp"] == 0
    assert figures["depth_images_at_subscriber"] + figures["dropped"] >= 100
    assert figures["clouds_at_subscriber"] > 0
    assert figures["node_stages_ms"]["callback_to_depth"]["p50_ms"] > 0
    assert figures["parameter_calls"] == 4


def test_scenarios_are_acceptable_to_the_node():
    for scenario in benchmark.scenarios(quick=False):
        RuntimeConfig().updated(scenario.parameters)
