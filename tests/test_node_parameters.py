"""Values of the node's parameters as people write them: in a file, on the command line, at the running node."""

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
pytestmark = pytest.mark.ros

WORDS = """
/**:
  ros__parameters:
    cameras: [front, left]
    temporal: {mode: off}
    cloud: {far_policy: nan}
    tensorrt: {gpu_stages: on}
    depth: {max_m: 8}
    scale:
      reference: {translation_m: [0, 0, 1], quat_xyzw: [0, 0, 0, 1]}
    front:
      edges: {mode: off}
      depth: {max_m: 5}
      scale:
        reference: {translation_m: [], quat_xyzw: []}
"""


def test_words_that_yaml_takes_for_something_else_may_stand_in_a_file(rig, tmp_path):
    (tmp_path / "words.yaml").write_text(WORDS)
    r = rig(subscribe=(), autostart=False, cli_args=["--params-file", str(tmp_path / "words.yaml")])
    front, left = (r.channel_of(camera).config for camera in ("front", "left"))
    assert (left.temporal.mode, left.cloud.far_policy, left.tensorrt.gpu_stages, left.depth.max_m) == ("off", "nan", "on", 8.0)
    assert (front.edges.mode, front.depth.max_m) == ("off", 5.0)
    assert (front.scale.reference.translation_m, left.scale.reference.translation_m) == ((), (0.0, 0.0, 1.0))
    shown = {name: r.node.get_parameter(name).value for name in ("temporal.mode", "cloud.far_policy", "front.edges.mode", "front.depth.max_m")}
    assert shown == {"temporal.mode": "off", "cloud.far_policy": "nan", "front.edges.mode": "off", "front.depth.max_m": 5.0}


def test_no_cameras_may_be_said_in_a_file(rig, tmp_path):
    (tmp_path / "one.yaml").write_text("/**:\n  ros__parameters:\n    cameras: []\n")
    r = rig(subscribe=(), autostart=False, cli_args=["--params-file", str(tmp_path / "one.yaml")])
    assert [channel.name for channel in r.node.channels] == [""]


def test_words_that_ros2_param_set_takes_for_something_else_are_understood(rig):
    r = rig(cameras=["front"], subscribe=(), connect=False, temporal__mode="align")
    for values in ({"temporal__mode": False, "front__edges__mode": False}, {"cloud__far_policy": float("nan")}, {"depth__max_m": 5}):
        (result,) = r.set_parameters(**values)
        assert result.successful, result.reason
    config = r.channel.config
    assert (config.temporal.mode, config.edges.mode, config.cloud.far_policy, config.depth.max_m) == ("off", "off", "nan", 5.0)
    assert r.node.get_parameter("temporal.mode").value == "off"


@pytest.mark.parametrize(
    "values", [{"temporal__mode": True}, {"engine": False}, {"cloud__stride": 2.0}, {"depth__max_m": True}, {"color__near_m": float("nan")}]
)
def test_what_stands_for_no_word_is_still_refused(rig, values):
    (result,) = rig(subscribe=(), autostart=False).set_parameters(**values)
    assert not result.successful
