"""Broken messages: one clear error each, counted, and the next good frame is processed."""

from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
import cv2  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from depth_anything_ros.decode import ENCODINGS, rgb_frame_from_compressed, rgb_frame_from_image  # noqa: E402
from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number  # noqa: E402
from depth_anything_ros.errors import DecodeError, EngineError  # noqa: E402

from .rig import camera_info, coded_image, pixels  # noqa: E402

pytestmark = pytest.mark.ros


def altered(**changes) -> Image:
    image = coded_image(1)
    image.data = bytes(image.data)
    for name, value in changes.items():
        setattr(image, name, value)
    return image


class Log:
    """Collects the errors and warnings that the node logs."""

    def __init__(self, r, monkeypatch):
        self.lines = []
        logger = SimpleNamespace(error=self.lines.append, warning=self.lines.append)
        monkeypatch.setattr(r.channel.log, "_logger", logger)

    def saying(self, fragment):
        return [text for text in self.lines if fragment in text]


BAD_IMAGES = {
    "truncated": (altered(data=bytes(100)), "data has 100 bytes, not 9216"),
    "oversized": (altered(data=bytes(9217)), "data has 9217 bytes, not 9216"),
    "step too small": (altered(step=100), "step 100 is below the 192 bytes of a row"),
    "zero width": (altered(width=0), "image of 0x48 pixels"),
    "absurd size": (altered(height=4_000_000_000), "image of 64x4000000000 pixels"),
    "unknown encoding": (altered(encoding="rgb101010"), "'rgb101010' is not one of rgb8"),
    "too thin": (altered(height=1, width=4000, step=12000, data=bytes(12000)), "image of 4000x1 pixels is too thin"),
    "no encoding": (altered(encoding=""), "'' is not one of rgb8"),
}


@pytest.mark.parametrize("name", list(BAD_IMAGES))
def test_bad_image_is_refused_once_clearly_and_the_next_is_fine(rig, monkeypatch, name):
    bad, reason = BAD_IMAGES[name]
    r = rig()
    log = Log(r, monkeypatch)
    for i in range(3):
        r.send(bad, camera_info(coded_image(1)))
        r.wait(lambda i=i: r.total("refused") == i + 1, "refusal")
    assert len(log.saying(reason)) == 1, "throttled: one line for one cause"
    depth = r.exchange(coded_image(77))
    np.testing.assert_allclose(pixels(depth), depth_of_frame_number(77), rtol=1e-6)
    status, values = r.status()
    assert values["refused"] == "3"
    assert reason in values["last_refusal"]
    assert reason in status.message


def test_broken_jpeg_is_refused(rig):
    r = rig(image_transport="compressed", compressed=True)
    r.send(CompressedImage(format="jpeg", data=b"\xff\xd8 broken"))
    r.wait(lambda: r.total("refused") == 1, "refusal")
    _, values = r.status()
    assert "broken or cut short after" in values["last_refusal"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"k": [0.0] * 9}, "camera_info is not calibrated: K is [0.0, 0.0"),
        ({"k": [float("nan")] * 9}, "camera_info is not calibrated: K is [nan, nan"),
        ({"width": 128}, "camera_info is for 128x48 pixels, the image has 64x48"),
    ],
)
def test_unusable_camera_info_costs_the_cloud_not_the_depth(rig, monkeypatch, change, problem):
    r = rig(subscribe=("depth/image", "depth/points", "depth/camera_info"))
    log = Log(r, monkeypatch)
    image = coded_image(5)
    info = camera_info(image)
    for name, value in change.items():
        setattr(info, name, value)
    np.testing.assert_allclose(pixels(r.exchange(image, info=info)), depth_of_frame_number(5), rtol=1e-6)
    r.wait(lambda: r.total("published") == 1, "frame")
    assert not r.got["depth/points"]
    r.wait(lambda: r.got["depth/camera_info"], "camera_info")
    assert r.got["depth/camera_info"][0].k.tolist() == [0.0] * 9
    assert len(log.saying(problem)) == 1
    status, _ = r.status()
    assert (status.level, problem in status.message) == (b"\x01", True)
    r.exchange(image, "depth/points", info=camera_info(image))


def test_cloud_alone_is_wanted_but_cannot_be_made_so_nothing_is_inferred(rig):
    r = rig(subscribe=("depth/points",))
    inferred, infer = [], r.node._engine.infer
    r.node._engine.infer = lambda tensor: inferred.append(1) or infer(tensor)
    image = coded_image(5)
    r.send(image, camera_info(image, 0.0))
    r.wait(lambda: r.total("withheld") == 1, "frame")
    assert not inferred
    r.exchange(image, "depth/points", info=camera_info(image))


def test_failing_engine_is_reported_and_the_next_frame_tried(rig):
    r = rig()
    infer, calls = r.node._engine.infer, []

    def fail_once(tensor):
        calls.append(1)
        if len(calls) == 1:
            raise EngineError("out of memory")
        return infer(tensor)

    r.node._engine.infer = fail_once
    r.send(coded_image(1))
    r.wait(lambda: r.total("failed") == 1, "failure")
    r.exchange(coded_image(2))
    status, values = r.status()
    assert "out of memory" in values["last_failure"]
    assert status.level == b"\x02"


images = st.builds(
    lambda **fields: Image(**fields),
    height=st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1)),
    width=st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1)),
    encoding=st.one_of(
        st.sampled_from([*ENCODINGS, *(e.upper() for e in ENCODINGS)]), st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=12)
    ),
    step=st.one_of(st.integers(0, 200), st.integers(0, 2**32 - 1)),
    is_bigendian=st.integers(0, 255),
    data=st.binary(max_size=3000),
)


@st.composite
def nearly_good_images(draw):
    """Images of the right size, and those a few bytes off."""
    encoding = draw(st.sampled_from(list(ENCODINGS)))
    height, width, padding = draw(st.integers(1, 20)), draw(st.integers(1, 20)), draw(st.integers(0, 3))
    step = width * ENCODINGS[encoding].bytes_per_pixel + padding
    rows = height * 3 // 2 if ENCODINGS[encoding].planar_420 else height
    size = max(0, rows * step + draw(st.sampled_from([0, 0, 0, 0, -1, 1, -step, step])))
    return Image(height=height, width=width, encoding=encoding, step=step, data=bytes(size))


@given(st.one_of(images, nearly_good_images()))
@settings(max_examples=3000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_decode_gives_a_picture_or_a_decode_error(message):
    try:
        frame = rgb_frame_from_image(message)
    except DecodeError as error:
        assert len(str(error)) > 10
    else:
        assert frame.rgb.shape == (message.height, message.width, 3)
        assert frame.rgb.dtype == np.uint8


SEEDS = [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b""]


@given(st.sampled_from(SEEDS), st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd9", b"IEND"]), st.text(max_size=10))
@settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_decode_of_compressed_bytes_gives_a_picture_or_a_decode_error(head, body, tail, text):
    try:
        assert rgb_frame_from_compressed(CompressedImage(format=text, data=head + body + tail)).rgb.ndim == 3
    except DecodeError:
        pass


@pytest.mark.slow
def test_live_node_survives_a_flood_of_mutated_compressed_messages(rig):
    r = rig(frame_policy="all", image_transport="compressed", compressed=True)
    good = cv2.imencode(".png", pixels(coded_image(99, (96, 320))))[1].tobytes()
    rng, total = np.random.default_rng(0), 600
    for i in range(total):
        data = bytearray(good)
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(0, len(data))] = rng.integers(0, 256)
        r.image_publisher.publish(CompressedImage(format="png", data=bytes(data[: rng.integers(0, len(data) + 1)] if i % 3 else data)))
        if i % 40 == 39:
            r.wait(lambda i=i: r.total("refused") + r.total("published") + r.total("failed") == i + 1, "all accounted for")
    assert r.total("failed") == 0
    assert r.total("refused") > total / 2
    depth = r.exchange(CompressedImage(format="png", data=good))
    np.testing.assert_allclose(pixels(depth), depth_of_frame_number(99), rtol=1e-6)


@pytest.mark.slow
def test_live_node_survives_a_flood_of_mutated_messages(rig):
    """Hundreds of broken messages among good ones: every frame is accounted for and every good one comes out right."""
    r = rig(frame_policy="all")
    sent = []

    @given(st.one_of(images, nearly_good_images()))
    @settings(max_examples=1500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def flood(message):
        if len(message.encoding) != len(message.encoding.encode()):
            return
        r.image_publisher.publish(message)
        sent.append(message)
        if len(sent) % 40 == 0:
            r.wait(lambda: r.total("refused") + r.total("published") + r.total("failed") == len(sent), "all accounted for")

    flood()
    r.wait(lambda: r.total("refused") + r.total("published") + r.total("failed") == len(sent), "all accounted for")
    assert r.total("failed") == 0
    assert r.total("refused") > 300
    for garbage in (float("nan"), float("inf"), -1.0, 1e300):
        info = camera_info(coded_image(1), garbage)
        r.exchange(coded_image(len(sent) % 60000, stamp_ns=len(sent)), info=info)
    good = r.exchange(coded_image(4242))
    np.testing.assert_allclose(pixels(good), depth_of_frame_number(4242), rtol=1e-6)
