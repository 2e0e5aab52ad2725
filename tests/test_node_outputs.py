"""The node over real topics: what goes out for what comes in."""

import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
import cv2  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number  # noqa: E402

from .models import write_tiny_model  # noqa: E402
from .rig import BEST_EFFORT, RELIABLE, camera_info, coded_image, pixels, rgb_image, stamp_ns  # noqa: E402

pytestmark = pytest.mark.ros
ALL = ("depth/image", "depth/camera_info", "depth/points", "depth/color")


def test_image_becomes_metres_with_the_same_header(rig):
    r = rig(subscribe=ALL)
    image = coded_image(750, stamp_ns=123_000_000_456, frame_id="left_optical")
    depth = r.exchange(image)
    assert depth.header == image.header
    assert (depth.encoding, depth.height, depth.width) == ("32FC1", 48, 64)
    np.testing.assert_allclose(pixels(depth), 1.0, rtol=1e-6)
    r.wait(lambda: all(r.got[topic] for topic in ALL), "all outputs")
    for topic in ALL:
        assert r.got[topic][0].header == image.header, topic
    info, cloud = r.got["depth/camera_info"][0], r.got["depth/points"][0]
    assert (info.height, info.width) == (48, 64)
    assert info.k.tolist() == camera_info(image).k.tolist()
    points = np.frombuffer(cloud.data, np.float32).reshape(48, 64, 4)
    np.testing.assert_allclose(points[10, 20, :3], [(20 - 32) / 50, (10 - 24) / 50, 1], rtol=1e-5)


def test_resolution_and_camera_may_change_while_running(rig):
    r = rig(subscribe=ALL)
    for size, focal in (((48, 64), 50.0), ((72, 128), 100.0), ((48, 64), 70.0)):
        image = coded_image(750, size)
        before = len(r.got["depth/points"]), len(r.got["depth/camera_info"])
        depth = r.exchange(image, info=camera_info(image, focal))
        assert (depth.height, depth.width) == size
        r.wait(lambda before=before: len(r.got["depth/points"]) > before[0] and len(r.got["depth/camera_info"]) > before[1], "cloud")
        assert r.got["depth/camera_info"][-1].k[0] == focal
        assert (r.got["depth/points"][-1].height, r.got["depth/points"][-1].width) == size


@pytest.mark.parametrize(("ending", "text"), [(".png", "png"), (".jpg", "bgr8; jpeg compressed bgr8")])
def test_compressed_images(rig, ending, text):
    r = rig(image_transport="compressed", compressed=True)
    raw = coded_image(321, (96, 320), stamp_ns=55)
    data = cv2.imencode(ending, pixels(raw)[..., ::-1])[1].tobytes()
    depth = r.exchange(CompressedImage(header=raw.header, format=text, data=data))
    np.testing.assert_allclose(pixels(depth), depth_of_frame_number(321), rtol=1e-6)
    assert depth.header == raw.header


def test_relative_model_never_stands_on_the_metric_topic(rig):
    r = rig(subscribe=(*ALL, "depth/relative"), synthetic__output_kind="disparity_affine_invariant", scale__mode="none")
    relative = r.exchange(coded_image(750), "depth/relative")
    np.testing.assert_allclose(pixels(relative), 1.0, rtol=1e-6)
    r.wait(lambda: r.got["depth/color"], "picture")
    assert not r.got["depth/image"]
    assert not r.got["depth/points"]
    status, values = r.status()
    assert "set scale.mode to fixed" in status.message
    assert values["model_kind"] == "disparity_affine_invariant"
    assert r.set_parameters(scale__mode="fixed", scale__factor=0.5)[0].successful
    np.testing.assert_allclose(pixels(r.exchange(coded_image(750))), 2.0, rtol=1e-6)


def test_live_parameters_act_on_the_next_frame(rig):
    r = rig(subscribe=ALL)
    white = rgb_image(np.full((48, 64, 3), 255, np.uint8))  # the synthetic engine says 2 m

    def change(**values):
        assert r.set_parameters(**values)[0].successful
        before = {topic: len(r.got[topic]) for topic in ALL}
        r.send(white)
        r.wait(lambda: all(len(r.got[topic]) > before[topic] for topic in ALL), "all outputs")
        return {topic: r.got[topic][-1] for topic in ALL}

    assert pixels(change(depth__encoding="16UC1")["depth/image"]).max() == 2000
    assert change(depth__encoding="32FC1", depth__downsample=2)["depth/image"].width == 32
    assert r.got["depth/camera_info"][-1].k[0] == 25.0
    assert np.isinf(pixels(change(depth__downsample=1, depth__max_m=1.5)["depth/image"])).all()
    change(depth__max_m=0.0)
    assert change(cloud__stride=4)["depth/points"].width == 16
    assert change(cloud__fields="xyz")["depth/points"].point_step == 12
    assert np.isnan(np.frombuffer(change(cloud__min_m=2.5)["depth/points"].data, np.float32)).all()
    assert np.isnan(np.frombuffer(change(cloud__min_m=0.0, cloud__max_m=1.5)["depth/points"].data, np.float32)).all()
    turbo = pixels(change(cloud__max_m=0.0)["depth/color"])[0, 0].tolist()
    gray = pixels(change(color__colormap="gray")["depth/color"])[0, 0].tolist()
    assert gray[0] == gray[1] == gray[2]
    assert gray != turbo
    assert pixels(change(color__near_m=2.0)["depth/color"]).min() == 255
    assert pixels(change(color__near_m=0.5, color__far_m=2.0)["depth/color"]).max() == 0
    np.testing.assert_allclose(pixels(change(scale__mode="fixed", scale__factor=3.0, scale__offset=0.5)["depth/image"]), 6.5)


def test_fallback_field_of_view_acts_on_canonical_models(rig, tmp_path):
    path = write_tiny_model(tmp_path / "m.onnx", output_kind="depth_canonical_focal", canonical_focal_px=20.0)
    r = rig(engine="onnxruntime", model=str(path))
    image = rgb_image(np.full((48, 64, 3), 51, np.uint8))
    uncalibrated = camera_info(image, 0.0)
    np.testing.assert_allclose(pixels(r.exchange(image, info=camera_info(image, 80.0))), 2.4, rtol=1e-6)
    sixty = pixels(r.exchange(image, info=uncalibrated)).mean()
    r.set_parameters(fallback_hfov_deg=90.0)
    assert pixels(r.exchange(image, info=uncalibrated)).mean() == pytest.approx(sixty * np.tan(np.pi / 6), rel=1e-5)
    r.set_parameters(fallback_hfov_deg=0.0)
    r.send(image, uncalibrated)
    status, _ = r.status(lambda s: "no metric depth" in s.message)
    assert "publish a valid camera_info or set fallback_hfov_deg" in status.message


def test_a_live_rate_of_the_cloud_acts_at_once(rig):
    r = rig(subscribe=("depth/points",), cloud__max_hz=0.01)
    r.exchange(coded_image(1, stamp_ns=1), "depth/points")
    assert r.set_parameters(cloud__max_hz=30.0)[0].successful
    time.sleep(1 / 30)
    r.exchange(coded_image(2, stamp_ns=2), "depth/points")
    assert r.set_parameters(cloud__max_hz=0.01)[0].successful
    r.send(coded_image(3, stamp_ns=3))
    r.wait(lambda: r.total("idle") == 1, "an idle frame")


def test_what_nobody_takes_is_not_made(rig):
    r = rig(subscribe=("depth/camera_info",))
    for i in range(5):
        r.send(coded_image(i, stamp_ns=i))
        r.wait(lambda i=i: r.total("received") == i + 1, "arrival")
    r.wait(lambda: r.total("idle") == 5, "idle frames")
    assert (r.total("published"), r.got["depth/camera_info"]) == (0, [])
    r.subscribe("depth/image")
    r.wait_connected()
    made = []
    r.channel.outputs._cloud = lambda *args: made.append(args)
    r.exchange(coded_image(9, stamp_ns=9))
    assert r.total("published") == 1
    assert not made, "nobody subscribes to the cloud"


@pytest.mark.parametrize("camera_qos", [RELIABLE, BEST_EFFORT], ids=["reliable camera", "best-effort camera"])
@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable subscriber", "best-effort subscriber"])
def test_every_pair_of_qos_connects(rig, qos, camera_qos):
    r = rig(qos=qos, camera_qos=camera_qos)
    assert stamp_ns(r.exchange(coded_image(1, stamp_ns=77))) == 77


ENDPOINTS = {
    "/image": ("subscription", "best_effort"),
    "/camera_info": ("subscription", "best_effort"),
    "/scan": ("publisher", "reliable"),
    **{f"/depth/{name}": ("publisher", "reliable") for name in ("image", "camera_info", "points", "relative", "color")},
}


@pytest.mark.parametrize("overridden", list(ENDPOINTS))
def test_qos_can_be_overridden_on_every_endpoint_by_itself(rig, overridden):
    flipped = {"reliable": "best_effort", "best_effort": "reliable"}
    kind, default = ENDPOINTS[overridden]
    r = rig(subscribe=(), **{f"qos_overrides.{overridden}.{kind}.reliability": flipped[default]})
    for topic, (kind, default) in ENDPOINTS.items():
        list_ends = r.node.get_subscriptions_info_by_topic if kind == "subscription" else r.node.get_publishers_info_by_topic
        found = [e.qos_profile.reliability.name.lower() for e in list_ends(topic) if e.node_name == "depth_anything"]
        assert found == [flipped[default] if topic == overridden else default], topic


def test_names_are_relative_and_remappable(rig):
    r = rig(autostart=False, subscribe=(), cli_args=["-r", "__ns:=/front", "-r", "depth/image:=metric"])
    r.node.autostart()
    names = {name for name, _ in r.node.get_publisher_names_and_types_by_node("depth_anything", "/front")}
    assert {
        "/front/metric",
        "/front/depth/points",
        "/front/depth/camera_info",
        "/front/depth/relative",
        "/front/depth/color",
        "/diagnostics",
    } <= names
    subscribed = {name for name, _ in r.node.get_subscriber_names_and_types_by_node("depth_anything", "/front")}
    assert {"/front/image", "/front/camera_info"} <= subscribed
