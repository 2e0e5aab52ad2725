"""Stability from frame to frame and confidence, through the running node."""

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")

from depth_anything_ros.confidence import confidence  # noqa: E402
from depth_anything_ros.structs import DepthMap  # noqa: E402

from .rig import camera_info, pixels, rgb_image  # noqa: E402

pytestmark = pytest.mark.ros
SIZE_HW = (288, 384)
FLICKER = np.array([1.0, 1.3, 0.8, 1.2, 0.9, 1.1, 0.8, 1.3], np.float32)
PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), np.uint8), (0, 0), 2) // 2 * 2
SCENE = cv2.GaussianBlur(np.random.default_rng(1).uniform(1, 6, SIZE_HW).astype(np.float32), (0, 0), 3)

QUARTER = np.arange(SIZE_HW[1]) >= 288
"""Of the columns."""


class Flickering:
    """A node whose network gives the same scene another scale in every frame."""

    def __init__(self, rig, **parameters):
        self.rig, self.number, self.stamp_ns = rig(**parameters), 0, 0
        self.rig.node._engine.infer = lambda tensor: self.raw[None]

    @property
    def raw(self):
        return SCENE * FLICKER[self.number % len(FLICKER)]

    def next(self, topic="depth/image"):
        self.number += 1
        self.stamp_ns += 33_000_000
        return pixels(self.rig.exchange(rgb_image(PICTURE, self.stamp_ns), topic))

    def spread(self, frames=16):
        """Return how much the scale still flickers: the standard deviation of its logarithm."""
        return float(np.std([np.log(np.median(self.next() / SCENE)) for _ in range(frames)][frames // 2 :]))


def test_off_changes_no_bit(rig):
    camera = Flickering(rig, temporal__mode="off")
    for _ in range(4):
        np.testing.assert_array_equal(camera.next(), camera.raw)


@pytest.mark.parametrize("mode", ["align", "filter"])
@pytest.mark.parametrize(("memory_s", "least", "most"), [(0.05, 0.04, 0.19), (1.0, 0, 0.05), (5.0, 0, 0.015)])
def test_flicker_of_the_scale_is_averaged_out_by_the_memory(rig, mode, memory_s, least, most):
    assert least <= Flickering(rig, temporal__mode=mode, temporal__memory_s=memory_s).spread() < most


@pytest.mark.parametrize("depth_change", [0.5, 0.01])
def test_depth_that_changes_is_taken_as_it_is(rig, depth_change):
    """A quarter of the scene goes 2 % farther in a picture that does not change."""
    camera = Flickering(rig, temporal__mode="filter", temporal__depth_change=depth_change)
    farther = np.where(QUARTER, np.float32(1.02), np.float32(1))
    camera.rig.node._engine.infer = lambda tensor: (SCENE * (farther if camera.number > 1 else 1))[None]
    camera.next()
    followed = float(np.median((camera.next() / SCENE)[:, QUARTER]) - 1) / 0.02
    assert followed > 0.95 if depth_change == 0.01 else followed < 0.1


def test_a_new_life_starts_without_a_past(rig):
    camera = Flickering(rig, temporal__mode="align")
    camera.next()
    assert not np.array_equal(camera.next(), camera.raw)
    camera.rig.node.trigger_deactivate()
    camera.rig.node.trigger_activate()
    camera.rig.wait_connected()
    np.testing.assert_array_equal(camera.next(), camera.raw)


def test_confidence_goes_out_and_leaves_uncertain_points_out(rig):
    camera = Flickering(rig, subscribe=("depth/image", "depth/confidence", "depth/points"), cloud__fields="xyz")
    expected = confidence(DepthMap(SCENE, "depth_m"))
    image = rgb_image(PICTURE, 1)
    sure = pixels(camera.rig.exchange(image, "depth/confidence", camera_info(image)))
    np.testing.assert_allclose(sure, expected, rtol=1e-6)
    assert 0 < sure.min() < sure.max() <= 1
    limit = float(np.median(sure))
    camera.rig.set_parameters(confidence__min=limit)
    points = np.frombuffer(camera.rig.exchange(rgb_image(PICTURE, 2), "depth/points").data, np.float32).reshape(*SIZE_HW, 3)
    np.testing.assert_array_equal(np.isnan(points[..., 2]), sure < np.float32(limit))
    np.testing.assert_array_equal(pixels(camera.rig.got["depth/image"][-1]), SCENE)


def test_confidence_is_low_where_the_network_flickers(rig):
    camera = Flickering(rig, subscribe=("depth/confidence",), temporal__mode="align")
    wobbling = np.where(QUARTER, np.float32(1.2), np.float32(1))
    camera.rig.node._engine.infer = lambda tensor: (SCENE * wobbling ** (camera.number % 2))[None]
    camera.next("depth/confidence")
    ratio = camera.next("depth/confidence") / confidence(DepthMap(SCENE, "depth_m"))
    assert np.median(ratio[:, ~QUARTER]) == pytest.approx(1, abs=0.01)
    assert np.median(ratio[:, QUARTER]) == pytest.approx(1 / 1.2, abs=0.01)
