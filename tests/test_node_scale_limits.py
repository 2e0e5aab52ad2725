"""What bounds a measured scale: too few points, too large errors, jumps, another way to measure."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")

from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.live_scale import LiveScale
from depth_anything_ros.reference_points import pixels_from_depth_image
from depth_anything_ros.sensors import Sensors
from depth_anything_ros.structs import RgbFrame

from .measured import CAMERA, IMAGE_HW, NETWORK_HW, truth_m
from .raytraced import relative
from .test_node_scale import HEIGHT_M, PITCH_DEG, floor_truth, relative_room

pytestmark = pytest.mark.ros
S = 1_000_000_000


class Known(Sensors):
    """What a perfect depth sensor says, `late_ns` after the image."""

    def __init__(self, late_ns=0):
        self.late_ns = late_ns

    def reference_pixels(self, frame, camera, reference):
        return pixels_from_depth_image(truth_m((60, 80)), frame.stamp_ns + self.late_ns)


def measure(values, network_map=None, late_ns=0, scale=None, stamp_ns=0):
    config = RuntimeConfig().updated({key.replace("__", "."): value for key, value in values.items()})
    frame = RgbFrame(np.zeros((*IMAGE_HW, 3), np.uint8), stamp_ns, "cam")
    return (scale or LiveScale(Known(late_ns)))(network_map or relative_room(0.05), frame, CAMERA, config)


REFERENCE = {"scale__mode": "reference", "scale__reference__type": "depth_image"}
GROUND = {"scale__mode": "ground_plane", "camera__height_m": HEIGHT_M, "camera__pitch_deg": PITCH_DEG}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"scale__reference__min_points": 100000}, "100000 are needed"),
        ({"scale__reference__max_error": 0.01}, "agree within 1%"),
        ({"scale__reference__min_inlier_ratio": 1.0, "scale__reference__max_error": 0.05}, "100% are needed"),
        ({"scale__reference__min_depth_ratio": 100.0}, "one depth only"),
        ({"scale__reference__max_dt_s": 0.01}, "the nearest reference is 0.050 s after the image"),
    ],
)
def test_limits_of_a_reference(changes, reason):
    state = measure(REFERENCE | changes, late_ns=S // 20)
    assert reason in state.reason
    assert bool(state.reason) == bool(reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"scale__ground__min_points": 100000}, "100000 are needed"),
        ({"scale__ground__max_error": 0.01}, "agree within 1%"),
        ({"scale__ground__min_inlier_ratio": 1.0}, "100% are needed"),
        ({"scale__ground__min_depth_ratio": 100.0}, "one depth only"),
        ({"scale__ground__max_m": 0.5}, "look at the floor within 0.5 m"),
        ({"camera__roll_deg": 90.0}, ""),
    ],
)
def test_limits_of_the_floor(changes, reason):
    state = measure(GROUND | changes, relative(floor_truth(NETWORK_HW), 0.37, 0.05, 0.05, np.random.default_rng(0)))
    assert reason in state.reason
    assert bool(state.reason) == (bool(reason) or "camera__roll_deg" in changes)


@pytest.mark.parametrize(("filter_s", "share"), [(0.0, 1.0), (0.5, 1 - np.exp(-0.2)), (60.0, 1 - np.exp(-0.1 / 60))])
def test_filter_smooths_and_jumps_must_be_confirmed(filter_s, share):
    values, first = REFERENCE | {"scale__filter_s": filter_s, "scale__max_jump": 0.25}, relative_room(0)
    scale = LiveScale(Known())
    before = measure(values, first, scale=scale).scale
    a_tenth_more = measure(values, replace(first, values=first.values / np.float32(1.1)), scale=scale, stamp_ns=S // 10)
    assert a_tenth_more.scale / before == pytest.approx(1 + 0.1 * share, rel=2e-3)
    twice = replace(first, values=first.values / np.float32(2))
    states = [measure(values, twice, scale=scale, stamp_ns=(2 + i) * S // 10) for i in range(3)]
    assert [state.held for state in states] == [True, True, False]
    assert "the depth would jump by" in states[0].reason


def test_another_way_to_measure_starts_anew():
    scale = LiveScale(Known())
    assert measure(REFERENCE, scale=scale).scale is not None
    assert measure(GROUND | {"scale__ground__max_m": 0.5}, scale=scale, stamp_ns=S).scale is None
