"""Several cameras in one node: topics, parameters, services, sensors and a past of their own for each."""

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from sensor_msgs.msg import LaserScan  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from depth_anything_ros import parameters as parameters_module  # noqa: E402
from depth_anything_ros.config_cameras import camera_configs  # noqa: E402
from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number  # noqa: E402
from depth_anything_ros.errors import ConfigError  # noqa: E402

from .measured import LASER, NETWORK_HW, black_image, info_of, laser_scan, truth_m  # noqa: E402
from .raytraced import relative  # noqa: E402
from .rig import BEST_EFFORT, pixels, rgb_image  # noqa: E402
from .test_node_cameras import cameras, image_of, status_of, total  # noqa: E402
from .test_node_scale import median_error, tf2_ros  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.ros


def test_topics_stand_under_the_cameras_names_in_the_nodes_namespace(rig):
    r = cameras(rig, ["front", "left"], subscribe=(), connect=False, cli_args=["-r", "__ns:=/robot", "-r", "left/image:=/usb/image_raw"])
    name = ("depth_anything", "/robot")
    published = {topic for topic, _ in r.node.get_publisher_names_and_types_by_node(*name)}
    outputs = ("depth/image", "depth/camera_info", "depth/points", "depth/relative", "depth/confidence", "depth/color", "scan")
    assert {f"/robot/{camera}/{output}" for camera in ("front", "left") for output in outputs} <= published
    assert "/robot/depth/image" not in published
    subscribed = {topic for topic, _ in r.node.get_subscriber_names_and_types_by_node(*name)}
    assert {"/robot/front/image", "/robot/front/camera_info", "/usb/image_raw", "/robot/left/camera_info"} <= subscribed


def white(stamp=0, frame_id="cam"):
    """An image that the synthetic engine takes for a wall 2 m away."""
    return rgb_image(np.full((48, 64, 3), 255, np.uint8), stamp, frame_id)


def metres(r, camera):
    return float(np.median(pixels(r.exchange(white(), f"{camera}/depth/image"))))


def test_each_camera_has_its_own_parameters_and_follows_the_shared_ones_elsewhere(rig):
    r = cameras(rig, ["front", "left"], scale__mode="fixed", scale__factor=2.0, left__scale__factor=3.0, left__depth__downsample=2)
    assert (metres(r, "front"), metres(r, "left")) == (4.0, 6.0)
    assert (r.got["front/depth/image"][-1].width, r.got["left/depth/image"][-1].width) == (64, 32)
    assert r.set_parameters(scale__factor=5.0)[0].successful
    assert (metres(r, "front"), metres(r, "left")) == (10.0, 6.0), "left has its own"
    assert r.set_parameters(front__scale__factor=1.0, front__scale__offset=0.5)[0].successful
    assert (metres(r, "front"), metres(r, "left")) == (2.5, 6.0)
    assert r.node.get_parameter("front.scale.offset").value == 0.5
    assert r.set_parameters(left__scale__factor=None)[0].successful
    assert metres(r, "left") == 10.0, "without a value of its own it follows again"
    assert r.set_parameters(left__scale__factor=7.0)[0].successful
    assert metres(r, "left") == 14.0


REFUSED = [
    ({"front__cloud__stride": 0}, "front.cloud.stride out of range. Min: 1, Max: 64, value: 0"),
    ({"front__scale__factor": "much"}, "front.scale.factor: 'much' is not a number"),
    ({"front__color__near_m": 20.0}, "camera 'front': color.far_m (10) must be above color.near_m (20)"),
    ({"color__near_m": 5.0}, "camera 'left': color.far_m (3) must be above color.near_m (5)"),
    ({"front__image_transport": "compressed"}, "front.image_transport: changes only while the node is unconfigured"),
    ({"front__engine": "tensorrt"}, "front.engine: no such parameter; 'engine' is not a camera's own: it counts for the whole node"),
    ({"fron__depth__max_m": 2.0}, "fron.depth.max_m: no such parameter; did you mean 'front.depth.max_m'?"),
    ({"front__depth__max": 2.0}, "front.depth.max: no such parameter; did you mean 'front.depth.max_m'?"),
    ({"front__depth__max_m": 2.0, "left__depth__max_m": -1.0}, "left.depth.max_m out of range"),
    ({"cameras": ["front"]}, "read-only"),
]


def test_bad_values_of_cameras_are_rejected_with_the_reason_and_leave_nothing_behind(rig):
    r = cameras(rig, ["front", "left"], subscribe=(), connect=False, left__color__far_m=3.0)
    before, declared = r.node.parameters.configs, set(r.node._parameters)
    for values, reason in REFUSED:
        (result,) = r.set_parameters(**values)
        assert not result.successful, values
        assert reason in result.reason
        assert r.node.parameters.configs == before
        assert set(r.node._parameters) == declared


def test_a_value_given_at_start_is_gone_once_it_is_deleted(rig):
    given = {"left__depth__max_m": 3.0, "left__image_transport": "compressed"}
    r = cameras(rig, ["front", "left"], subscribe=(), autostart=False, **given)
    assert r.set_parameters(**dict.fromkeys(given))[0].successful
    assert not r.set_parameters(left__depth__max_m=-1.0)[0].successful
    r.node.trigger_configure()
    (result,) = r.set_parameters(left__image_transport="compressed")
    assert "left.image_transport: changes only while the node is unconfigured" in result.reason
    config = r.channel_of("left").config
    assert (config.depth.max_m, config.image_transport) == (0.0, "raw")
    assert not any(r.node.has_parameter(name) for name in ("left.depth.max_m", "left.image_transport"))


def test_a_value_set_while_others_declare_theirs_is_not_lost(rig, monkeypatch):
    """A node that configures declares the overridable QoS of its publishers on a thread of its own."""
    r, set_meanwhile = rig(subscribe=()), []

    def configs(values):
        made = camera_configs(values)
        if threading.current_thread().name == "declares" and not set_meanwhile:
            set_meanwhile.append(r.set_parameters(depth__max_m=5.0)[0].successful)
        return made

    monkeypatch.setattr(parameters_module, "camera_configs", configs)
    thread = threading.Thread(target=r.node.declare_parameter, args=("qos_overrides./depth/new.publisher.depth", 1), name="declares")
    thread.start()
    thread.join()
    assert set_meanwhile or r.set_parameters(depth__max_m=5.0)[0].successful
    assert r.node.get_parameter("depth.max_m").value == r.channel.config.depth.max_m == 5.0


def test_shared_mode_with_each_cameras_height(rig):
    heights = {"front__camera__height_m": 0.5, "left__camera__height_m": 0.7}
    r = cameras(rig, ["front", "left"], subscribe=(), connect=False, scale__mode="ground_plane", **heights)
    assert [channel.config.camera.height_m for channel in r.node.channels] == [0.5, 0.7]
    with pytest.raises(ConfigError, match="camera 'right': scale.mode ground_plane needs camera.height_m"):
        cameras(rig, subscribe=(), scale__mode="ground_plane", **heights)


def test_parameters_that_no_camera_has_are_pointed_out(rig, capfd):
    given = {"fron__depth__max_m": 2.0, "front__engine": "tensorrt", "front__cloud__strid": 4, "gripper__depth__max_m": 1.0}
    cameras(rig, ["front", "left"], subscribe=(), connect=False, **given)
    said = capfd.readouterr().err
    assert "parameter 'fron.depth.max_m' is unknown and has no effect; did you mean 'front.depth.max_m'?" in said
    assert "parameter 'front.engine' is unknown and has no effect; 'engine' is not a camera's own: it counts for the whole node" in said
    assert "parameter 'front.cloud.strid' is unknown and has no effect; did you mean 'front.cloud.stride'?" in said
    assert "parameter 'gripper.depth.max_m' is unknown and has no effect; there is no camera 'gripper' in cameras" in said


def test_stale_after_may_differ_between_cameras(rig):
    r = cameras(rig, ["front", "left"], diagnostics__stale_after_s=0.3, left__diagnostics__stale_after_s=60.0)
    status_of(r, "front", lambda s: s.level == DiagnosticStatus.STALE)
    assert status_of(r, "left")[0].level == DiagnosticStatus.OK


def test_camera_info_of_one_camera_is_not_anothers(rig):
    r = cameras(rig, ["front", "left"], subscribe=("front/depth/points", "left/depth/points", "left/depth/image"))
    r.exchange(white(), "front/depth/points")
    r.publishers["left"][0].publish(white())
    r.wait(lambda: r.got["left/depth/image"], "depth without a camera_info")
    assert status_of(r, "left", lambda s: "no camera_info has arrived" in s.message)[0].level == DiagnosticStatus.WARN
    assert status_of(r, "front")[0].message == "running"
    assert not r.got["left/depth/points"]


def test_each_camera_is_measured_against_its_own_sensor(rig):
    seen = relative(truth_m(NETWORK_HW), 0.37, 0.05, 0.01, np.random.default_rng(0))
    given = {f"scale__reference__{key}": value for key, value in LASER.items()}
    r = cameras(rig, ["front", "left"], scale__mode="reference", synthetic__output_kind=seen.kind, **given)
    r.node._engine.infer = lambda tensor: np.stack([seen.values] * len(tensor))
    laser = r.peer.create_publisher(LaserScan, "left/reference", BEST_EFFORT)
    r.wait(laser.get_subscription_count, "the sensor's subscription")
    laser.publish(laser_scan(10**10))
    r.wait(lambda: r.channel_of("left").inputs.sensors._messages.find(10**10), "the sensor's message")
    image = black_image(10**10)
    assert median_error(pixels(r.exchange(image, "left/depth/image", info_of(image)))) < 0.02
    r.send(image, info_of(image), "front")
    r.wait(lambda: total(r, "front", "withheld") == 1, "the other camera's frame")
    assert r.channel_of("front").health.no_depth_reason == "no reference has arrived"
    assert call(r, "front/reset_scale").success
    later = black_image(11 * 10**9)
    assert median_error(pixels(r.exchange(later, "left/depth/image", info_of(later)))) < 0.02, "the other camera's scale is still held"
    assert "is held" in status_of(r, "left", lambda s: s.level == DiagnosticStatus.WARN)[0].message


def test_sensor_of_the_images_time_is_used_however_long_an_image_waits_for_its_turn(rig):
    seen = relative(truth_m(NETWORK_HW), 0.37, 0.05, 0.01, np.random.default_rng(0))
    given = {f"scale__reference__{key}": value for key, value in LASER.items()}
    given |= {"scale__mode": "reference", "scale__reference__max_dt_s": 0.02, "synthetic__output_kind": seen.kind}
    r = cameras(rig, ["front", "left"], **given)
    begun, go = threading.Event(), threading.Event()

    def held(tensor):
        begun.set()
        assert go.wait(10)
        return np.stack([seen.values] * len(tensor))

    r.node._engine.infer = held
    r.send(black_image(10**10), camera="front")
    r.wait(begun.is_set, "the turn of the other camera")
    sensors, image = r.channel_of("left").inputs.sensors, black_image(11 * 10**9)
    sensors._store(laser_scan(11 * 10**9))
    r.send(image, info_of(image), "left")
    r.wait(lambda: total(r, "left", "received") == 1, "the image that waits")
    for later_s in (12, 13, 14):  # the sensor goes on meanwhile, and what is older than a second is forgotten
        sensors._store(laser_scan(later_s * 10**9))
    go.set()
    r.wait(lambda: total(r, "left", "published") + total(r, "left", "withheld") == 1, "the frame")
    assert r.channel_of("left").health.no_depth_reason == ""
    r.wait(lambda: r.got["left/depth/image"], "depth")
    assert median_error(pixels(r.got["left/depth/image"][-1])) < 0.02


def test_tf_is_listened_to_once_for_all_cameras_that_need_it(rig, tf2_ros):  # noqa: F811
    r = cameras(rig, ["front", "left"], subscribe=(), connect=False, scale__mode="reference")
    assert tf2_ros.listeners == 1
    channels = r.node.channels
    channels[0].inputs.sensors.close()
    assert tf2_ros.listeners == 1, "left still needs it"
    channels[1].inputs.sensors.close()
    assert tf2_ros.listeners == 0


TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (288, 384, 3), np.uint8), (0, 0), 2) // 2 * 2


def test_the_past_of_one_camera_is_not_anothers(rig):
    """Both see the same picture; left is 1.5 times as far, which a common past would take for flicker."""
    r = cameras(rig, ["front", "left"], temporal__mode="align")
    far = [1.0]
    r.node._engine.infer = lambda tensor: np.full((1, 288, 384), far[0], np.float32)
    for number, (camera, metres) in enumerate([("front", 1.0), ("left", 1.5)] * 4):
        far[0] = metres
        depth = r.exchange(rgb_image(TEXTURE, number * 33_000_000), f"{camera}/depth/image")
        np.testing.assert_array_equal(pixels(depth), metres)


def test_another_frame_id_starts_without_a_past(rig):
    r = rig(temporal__mode="align")
    depths = []
    for number, frame_id in enumerate(["one", "one", "two"]):
        r.node._engine.infer = lambda tensor, number=number: np.full((1, 288, 384), 1 + 0.2 * number, np.float32)
        depths.append(float(pixels(r.exchange(rgb_image(TEXTURE, number * 33_000_000, frame_id)))[0, 0]))
    assert depths[1] < 1.15, "the same camera's scale is steadied"
    assert depths[2] == pytest.approx(1.4)


def call(r, name):
    return r.call(r.client(Trigger, name), Trigger.Request())


def test_services_are_the_cameras_own(rig, tmp_path):
    r = cameras(rig, ["front", "left"], snapshot__dir=str(tmp_path))
    for number, camera in enumerate(("front", "left")):
        r.exchange(image_of(camera, number), f"{camera}/depth/image")
        r.wait(lambda camera=camera: total(r, camera, "published") == 1, "the end of the frame")
    folders = [Path(call(r, f"{camera}/save_snapshot").message) for camera in ("left", "front")]
    assert folders == [tmp_path / "left" / "0.000020001", tmp_path / "front" / "0.000010000"]
    np.testing.assert_allclose(np.load(folders[0] / "depth.npy"), depth_of_frame_number(20001), rtol=1e-6)
    again = rig(cli_args=["--params-file", str(folders[0] / "parameters.yaml")], autostart=False, connect=False)
    assert again.channel.config == replace(r.channel_of("left").config, cameras=())
    refused = call(r, "left/reset_scale")
    assert not refused.success
    assert "scale.mode is model" in refused.message


def test_each_camera_may_come_raw_or_compressed(rig):
    r = cameras(rig, ["front", "left"], connect=False, left__image_transport="compressed", subscribe=())
    kinds = {topic: types for topic, types in r.node.get_subscriber_names_and_types_by_node("depth_anything", "/") if "image" in topic}
    assert kinds == {"/front/image": ["sensor_msgs/msg/Image"], "/left/image/compressed": ["sensor_msgs/msg/CompressedImage"]}
