"""The node around an engine whose GPU runs the stages: what goes out is what the numpy stages give, and the diagnostics say where it was made."""

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from std_srvs.srv import Trigger  # noqa: E402

from depth_anything_ros import node as node_module  # noqa: E402
from depth_anything_ros.camera import model_from_info  # noqa: E402
from depth_anything_ros.color import rgb_from_map  # noqa: E402
from depth_anything_ros.config import RuntimeConfig  # noqa: E402
from depth_anything_ros.decode import rgb_frame_from_image  # noqa: E402
from depth_anything_ros.geometry import CloudBuilder  # noqa: E402
from depth_anything_ros.obstacles import points_from_depth  # noqa: E402
from depth_anything_ros.pipeline import Pipeline  # noqa: E402

from ..models import tiny_contract  # noqa: E402
from ..rig import camera_info, pixels, rgb_image  # noqa: E402
from .fake_engine import FakeEngine  # noqa: E402

pytestmark = pytest.mark.ros
ALL = ("depth/image", "depth/points", "depth/color")


@pytest.fixture
def engine(host_library, monkeypatch):
    """The engine that the node opens; afterwards nothing of it is left on the device."""
    engines = []

    def open_engine(config):
        engines.append(FakeEngine(host_library, tiny_contract(resize="stretch", input_sizes_hw=((24, 32),))))
        return engines[-1]

    monkeypatch.setattr(node_module, "open_engine", open_engine)
    yield engines
    for opened in engines:
        opened.close()
        assert not opened.driver.live
        assert not opened.session.graphs


def image_of(seed, frame_id="cam"):
    return rgb_image(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8), stamp_ns=1000 + seed, frame_id=frame_id)


def assert_outputs(engine, image, messages):
    """Compare depth, cloud and picture with what the numpy stages make of the image."""
    depth, cloud, color = messages
    for message in messages:
        assert message.header == image.header
    frame, config = rgb_frame_from_image(image), RuntimeConfig()
    camera = model_from_info(camera_info(image)).for_image((48, 64), rectified=False)
    expected = Pipeline(engine)(frame, config, camera)
    np.testing.assert_array_equal(pixels(depth), expected.depth.values)
    points = points_from_depth(CloudBuilder(), expected.depth.values, camera, frame.rgb, config, None)
    np.testing.assert_array_equal(np.frombuffer(cloud.data, np.uint32).reshape(48, 64, 4), points.view(np.uint32))
    picture = rgb_from_map(expected.depth, config.color.colormap, config.color.near_m, config.color.far_m)
    assert np.count_nonzero((pixels(color) != picture).any(axis=2)) <= 3


def test_outputs_are_those_of_the_numpy_stages(rig, engine, tmp_path):
    r = rig(subscribe=ALL, snapshot__dir=str(tmp_path))
    for seed in range(4):
        image = image_of(seed)
        r.exchange(image, "depth/color")
        r.wait(lambda count=seed + 1: all(len(r.got[topic]) == count for topic in ALL), "all outputs")
        assert_outputs(engine[0], image, [r.got[topic][-1] for topic in ALL])
    _, values = r.status(lambda s: any(pair.key == "published" and pair.value == "4" for pair in s.values))
    assert (values["decode.p50_ms"], values["last_failure"]) == ("0.00", "")
    assert engine[0].gpu.details() == {"stages": "gpu", "gpu_frames": "4", "numpy_frames": "0"}
    answer = r.call(r.client(Trigger, "save_snapshot"), Trigger.Request())
    assert answer.success, answer.message
    (saved,) = tmp_path.glob("*/depth.npy")
    np.testing.assert_array_equal(np.load(saved), pixels(r.got["depth/image"][-1]))


def test_parameters_change_where_a_frame_is_made(rig, engine):
    r = rig(subscribe=ALL)
    for mode, where in (("off", "gpu"), ("snap", "numpy: edges.mode is snap"), ("off", "gpu")):
        assert r.set_parameters(edges__mode=mode)[0].successful
        r.exchange(image_of(1), "depth/color")
        assert engine[0].gpu.details()["stages"] == where


def test_two_cameras_share_the_engine(rig, engine):
    cameras = ["left", "right"]
    r = rig(cameras=cameras, subscribe=tuple(f"{camera}/{topic}" for camera in cameras for topic in ALL))
    for seed in range(3):
        images = {camera: image_of(10 * seed + number, camera) for number, camera in enumerate(cameras)}
        for camera, image in images.items():
            r.send(image, camera=camera)
        r.wait(lambda count=seed + 1: all(len(messages) == count for messages in r.got.values()), "all outputs")
        for camera, image in images.items():
            assert_outputs(engine[0], image, [r.got[f"{camera}/{topic}"][-1] for topic in ALL])
    assert engine[0].gpu.details()["gpu_frames"] == "6"
