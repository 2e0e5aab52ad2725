import array
import math
import threading

import numpy as np
import pytest

from depth_anything_ros.errors import ConfigError, DecodeError
from depth_anything_ros.geometry import CloudBuilder
from depth_anything_ros.reference_points import (
    MAX_KEPT,
    NearestInTime,
    pinhole,
    pixels_from_depth_image,
    pixels_from_points,
    points_from_cloud,
    points_from_range,
    points_from_scan,
    rigid_transform,
)
from depth_anything_ros.structs import Intrinsics

OPTICAL_QUAT = (0.5, -0.5, 0.5, 0.5)
"""From a frame with x forward, y left, z up to an optical one."""


def test_scan_by_hand():
    points = points_from_scan([1, 2, 4], -math.pi / 2, math.pi / 2, 0.1, 10.0)
    np.testing.assert_allclose(points, [[0, -1, 0], [2, 0, 0], [0, 4, 0]], atol=1e-12)


def test_scan_leaves_out_what_is_no_hit():
    ranges = array.array("f", [math.nan, math.inf, -math.inf, 0.0, -1.0, 0.05, 10.5, 3.0])
    np.testing.assert_allclose(points_from_scan(ranges, 0.0, 0.0001, 0.1, 10.0), [[3, 0.0021, 0]], atol=1e-6)
    assert points_from_scan([], 0.0, 0.1, 0.1, 10.0).shape == (0, 3)
    assert points_from_scan([math.nan] * 9, 0.0, 0.1, 0.0, math.inf).shape == (0, 3)


@pytest.mark.parametrize("angles", [(0.0, 0.0), (math.nan, 0.1), (0.0, math.inf)])
def test_scan_without_angles_is_refused(angles):
    with pytest.raises(DecodeError, match="must be finite, the increment not 0"):
        points_from_scan([1.0], *angles, 0.1, 10.0)


@pytest.mark.parametrize("limits", [(0.0, 0.0), (2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_sensor_without_a_range_is_refused(limits):
    with pytest.raises(DecodeError, match="the sensor says that it measures from"):
        points_from_scan([1.0], 0.0, 0.1, *limits)
    with pytest.raises(DecodeError, match="the sensor says that it measures from"):
        points_from_range(1.0, 0.1, *limits)


XYZ = np.array([[1, 2, 3], [-4, 5, 6], [7, -8, 9], [10, 11, -12], [13, 14, 15], [16, 17, 18]], np.float64)
POINT_FIELD = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


def cloud(points, types=("f4", "f4", "f4"), order="xyz", big=False, before=0, after=0, height=1, row_padding=0):
    """Return the arguments of `points_from_cloud` for a cloud with fields in any order, and bytes of no meaning around."""
    kinds = dict(zip("xyz", types))
    offsets, at = {}, before
    for name in order:
        offsets[name], at = at, at + np.dtype(kinds[name]).itemsize
    step, width = at + after, len(points) // height
    row_step = width * step + row_padding
    data = np.full(height * row_step, 0xA5, np.uint8)
    for i, point in enumerate(points):
        start = i // width * row_step + i % width * step
        for name, value in zip("xyz", point):
            field = np.array(value, (">" if big else "<") + kinds[name]).tobytes()
            data[start + offsets[name] : start + offsets[name] + len(field)] = np.frombuffer(field, np.uint8)
    fields = [("intensity", 0, 7)] * (before > 0) + [(name, offsets[name], POINT_FIELD[kinds[name]]) for name in order]
    return {
        "data": data.tobytes(), "fields": fields, "point_step": step, "row_step": row_step, "width": width, "height": height, "is_bigendian": big
    }  # fmt: skip


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["xyz", "zyx", "yxz"])
@pytest.mark.parametrize("types", [("f4", "f4", "f4"), ("f8", "f8", "f8"), ("i2", "f4", "f8"), ("i4", "i1", "i2")])
@pytest.mark.parametrize("layout", [{}, {"before": 4, "after": 3}, {"height": 2}, {"height": 3, "row_padding": 5, "after": 1}])
def test_cloud_of_any_layout(big, order, types, layout):
    np.testing.assert_array_equal(points_from_cloud(**cloud(XYZ, types, order, big, **layout)), XYZ)


@pytest.mark.parametrize("buffer", [bytes, bytearray, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)])
def test_cloud_of_any_buffer(buffer):
    message = cloud(XYZ)
    np.testing.assert_array_equal(points_from_cloud(**{**message, "data": buffer(message["data"])}), XYZ)


def test_cloud_leaves_out_what_is_no_point():
    bad = [[math.nan, 1, 1], [1, math.inf, 1], [1, 1, -math.inf], [math.inf, 1, -math.inf], [0, 0, 0]]
    np.testing.assert_array_equal(points_from_cloud(**cloud(np.vstack([bad, XYZ]))), XYZ)
    assert points_from_cloud(**cloud(np.array(bad))).shape == (0, 3)


@pytest.mark.parametrize("size", [{"width": 0}, {"height": 0}, {"width": 0, "height": 0}])
def test_empty_cloud(size):
    assert points_from_cloud(**{**cloud(XYZ), "data": b"", **size}).shape == (0, 3)


def test_one_row_needs_no_row_step():
    np.testing.assert_array_equal(points_from_cloud(**{**cloud(XYZ), "row_step": 0}), XYZ)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": []}, "cloud: no field x, y, z; it has none"),
        ({"fields": [("x", 0, 7), ("y", 4, 7), ("intensity", 8, 7)]}, "cloud: no field z; it has x, y, intensity"),
        ({"fields": [("x", 0, 7), ("y", 4, 7), ("z", 8, 9)]}, "cloud: field z has datatype 9, which sensor_msgs/PointField does not know"),
        ({"fields": [("x", 0, 7), ("y", 4, 7), ("z", 9, 7)]}, "cloud: field z at byte 9 does not fit into a point of 12 bytes"),
        ({"data": bytes(71)}, "cloud: 6x1 points of 12 bytes, rows of 72 bytes do not fit into 71 bytes"),
        ({"height": 2}, "cloud: 6x2 points of 12 bytes, rows of 72 bytes do not fit into 72 bytes"),
        ({"height": 2, "width": 3, "row_step": 0}, "cloud: 3x2 points of 12 bytes, rows of 0 bytes do not fit into 72 bytes"),
    ],
)
def test_damaged_cloud_is_refused(change, message):
    with pytest.raises(DecodeError) as error:
        points_from_cloud(**{**cloud(XYZ), **change})
    assert str(error.value) == message


def test_range_fills_its_cone_at_the_measured_distance():
    points = points_from_range(2.0, math.radians(20), 0.1, 4.0)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 2.0)
    off_axis = np.degrees(np.arccos(points[:, 0] / 2.0))
    assert off_axis.max() == pytest.approx(10)
    assert points[:, 1:].mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    np.testing.assert_allclose(points_from_range(2.0, 0.0, 0.1, 4.0), [[2, 0, 0]])


@pytest.mark.parametrize("range_m", [math.nan, math.inf, -math.inf, 0.0, 0.05, 4.1, -1.0])
def test_range_without_a_hit_makes_no_point(range_m):
    assert points_from_range(range_m, 0.3, 0.1, 4.0).shape == (0, 3)


@pytest.mark.parametrize("field_of_view", [-0.1, math.pi, math.nan])
def test_range_without_a_cone_is_refused(field_of_view):
    with pytest.raises(DecodeError, match="is outside 0 .. pi"):
        points_from_range(1.0, field_of_view, 0.1, 4.0)


def test_transform_by_hand():
    """A point 3 m ahead, 2 m left and 1 m up of a sensor that sits 0.5 m below the camera."""
    camera_t_sensor = rigid_transform((0.0, 0.5, 0.0), OPTICAL_QUAT)
    np.testing.assert_allclose(camera_t_sensor @ [3, 2, 1, 1], [-2, -0.5, 3, 1], atol=1e-12)
    np.testing.assert_allclose(camera_t_sensor[:3, :3] @ camera_t_sensor[:3, :3].T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (0, 0, 0, 1.01), (1, 0, 0), (math.nan, 0, 0, 1), ()])
def test_no_unit_quaternion_no_transform(quaternion):
    with pytest.raises(ConfigError, match="is not a quaternion of length 1"):
        rigid_transform((0, 0, 0), quaternion)


@pytest.mark.parametrize("translation", [(), (0, 0), (math.nan, 0, 0), (0, math.inf, 0)])
def test_no_translation_no_transform(translation):
    with pytest.raises(ConfigError, match="is not three finite numbers"):
        rigid_transform(translation, (0, 0, 0, 1))


def test_points_project_to_the_pixels_that_they_came_from():
    camera = Intrinsics(51.3, 49.9, 30.2, 25.7, (48, 64))
    depth = np.random.default_rng(0).uniform(0.3, 30, (48, 64)).astype(np.float32)
    points = CloudBuilder()(depth, camera).reshape(-1, 3).astype(np.float64)
    seen = pixels_from_points(points, np.eye(4), pinhole(camera), 7)
    rows, columns = np.indices((48, 64)).reshape(2, -1)
    np.testing.assert_allclose(seen.share_xy * (64, 48) - 0.5, np.column_stack([columns, rows]), atol=1e-4)
    np.testing.assert_allclose(seen.depth_m, depth.ravel())
    assert (seen.stamp_ns, seen.one_surface) == (7, False)


def test_what_is_behind_the_camera_is_not_seen():
    seen = pixels_from_points(np.array([[3.0, 0, 0], [-3, 0, 0], [0, 0, 0]]), rigid_transform((0, 0, 0), OPTICAL_QUAT), pinhole(CAMERA), 0)
    assert seen.depth_m.tolist() == [3.0]


CAMERA = Intrinsics(100.0, 100.0, 79.5, 59.5, (120, 160))


def test_optical_axis_meets_the_middle_of_the_image():
    seen = pixels_from_points(np.array([[0.0, 0, 2]]), np.eye(4), pinhole(CAMERA), 0)
    np.testing.assert_allclose(seen.share_xy, [[0.5, 0.5]])


@pytest.mark.parametrize(("dtype", "unit"), [(np.float32, 1.0), (np.float64, 1.0), (np.uint16, 1000)])
def test_registered_depth_image(dtype, unit):
    depth = np.array([[0, 2, 0, 0], [0, 0, 0, 5]]) * unit
    seen = pixels_from_depth_image(depth.astype(dtype), 3)
    np.testing.assert_allclose(seen.share_xy, [[1.5 / 4, 0.25], [3.5 / 4, 0.75]])
    np.testing.assert_allclose(seen.depth_m, [2, 5])
    assert seen.stamp_ns == 3


def test_registered_depth_image_leaves_out_what_is_unknown():
    seen = pixels_from_depth_image(np.array([[math.nan, math.inf, -math.inf, -1, 0, 1]], np.float32), 0)
    assert seen.depth_m.tolist() == [1]


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.int16)])
def test_other_images_are_no_depth_images(image):
    with pytest.raises(DecodeError, match="is neither 32FC1 nor 16UC1"):
        pixels_from_depth_image(image, 0)


S = 1_000_000_000


def test_nearest_message_in_time():
    kept = NearestInTime(keep_s=1.0)
    assert kept.find(0) is None
    for i in range(30):
        kept.add(i * S // 10, i)
    assert (kept.find(int(2.52 * S)), kept.find(int(2.58 * S)), kept.find(9 * S)) == (25, 26, 29)
    assert kept.find(0) == 19, "what is older than a second before the newest is gone"
    kept.clear()
    assert kept.find(0) is None


def test_messages_of_a_bag_that_starts_again_do_not_meet_old_ones():
    kept = NearestInTime(keep_s=1.0)
    kept.add(100 * S, "old")
    kept.add(1 * S, "new")
    assert kept.find(100 * S) == "new"


def test_messages_may_arrive_while_one_is_looked_for():
    kept, errors, stop = NearestInTime(keep_s=0.5), [], threading.Event()

    def look():
        while not stop.is_set():
            try:
                kept.find(S)
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    for i in range(3000):
        kept.add(i * 1_000_000, i)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert not errors


def test_messages_whose_stamps_stand_still_or_hardly_advance_do_not_pile_up():
    kept = NearestInTime(keep_s=1.0)
    for i in range(5000):
        kept.add(0, i)
    assert (len(kept._items), kept.find(0)) == (1, 4999)
    for i in range(5000):
        kept.add(i, i)
    assert len(kept._items) == MAX_KEPT
    assert kept.find(9000) == 4999
