"""The node over real topics: cameras with lenses, windows and mounts, and what becomes of their points."""

import math
import time

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from sensor_msgs.msg import CameraInfo, RegionOfInterest  # noqa: E402

from .models import write_tiny_model  # noqa: E402
from .rig import camera_info, coded_image, pixels, rgb_image, stamp_ns  # noqa: E402

pytestmark = pytest.mark.ros
SIZE = (96, 128)
K = (90.0, 0.0, 63.5, 0.0, 92.0, 47.5, 0.0, 0.0, 1.0)
P = (80.0, 0.0, 60.0, 0.0, 0.0, 81.0, 45.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LENSES = {
    "plumb_bob": (-0.32, 0.13, 0.0005, -0.0008, -0.01),
    "rational_polynomial": (6.2, 3.1, 0.0003, -0.0004, 0.12, 6.6, 5.0, 0.9),
    "equidistant": (-0.02, 0.005, -0.003, 0.0004),
}
BOTH = ("depth/points", "depth/camera_info")


def info_of(image, lens="plumb_bob", **changes):
    values = {"height": SIZE[0], "width": SIZE[1], "k": K, "p": P, "d": LENSES.get(lens, ()), "distortion_model": lens}
    return CameraInfo(header=image.header, **(values | changes))


def xyz(cloud):
    return np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, -1)[..., :3]


def opencv_pixels(points, lens, d):
    points, matrix, zero = points.reshape(-1, 1, 3).astype(np.float64), np.array(K).reshape(3, 3), np.zeros(3)
    project = cv2.fisheye.projectPoints if lens == "equidistant" else cv2.projectPoints
    return project(points, zero, zero, matrix, np.array(d))[0].reshape(-1, 2)


def grid(height, width, step=1):
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2) * float(step)


def white(size=SIZE, **kwargs):
    """An image that the synthetic engine takes for a wall 2 m away."""
    return rgb_image(np.full((*size, 3), 255, np.uint8), **kwargs)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("lens", LENSES)
def test_points_of_a_distorted_camera_project_back_to_their_pixels(rig, lens, stride):
    r = rig(subscribe=BOTH, cloud__stride=stride)
    image = coded_image(1750, SIZE)
    cloud = r.exchange(image, "depth/points", info_of(image, lens))
    points = xyz(cloud)
    np.testing.assert_allclose(points[..., 2], 2.0, rtol=1e-6)
    assert np.abs(opencv_pixels(points, lens, LENSES[lens]) - grid(cloud.height, cloud.width, stride)).max() < 1e-3
    r.wait(lambda: r.got["depth/camera_info"], "camera_info")
    out = r.got["depth/camera_info"][0]
    assert (out.distortion_model, out.d.tolist(), out.k.tolist()) == (lens, list(LENSES[lens]), list(K)), "depth has the input's own pixels"
    assert cloud.header == out.header == image.header


def test_rectified_images_have_the_rays_of_p(rig):
    r = rig(subscribe=("depth/points",), camera__image="rectified")
    image = coded_image(1750, SIZE)
    unknown = info_of(image, distortion_model="kannala")
    point = xyz(r.exchange(image, "depth/points", unknown))[10, 20]
    np.testing.assert_allclose(point, [(20 - 60) / 80 * 2, (10 - 45) / 81 * 2, 2], rtol=1e-5)
    assert r.set_parameters(camera__image="raw")[0].successful
    r.send(image, unknown)
    status, _ = r.status(lambda s: "distortion model" in s.message)
    assert "distortion model 'kannala' is not known" in status.message


def test_the_topics_name_tells_rectified_images(rig):
    r = rig(subscribe=("depth/points",), cli_args=["-r", "image:=/cam/image_rect_color"], connect=False)
    r.publishers[""] = r.peer.create_publisher(type(white()), "/cam/image_rect_color", 10), r.info_publisher
    r.wait_connected()
    image = coded_image(1750, SIZE)
    np.testing.assert_allclose(xyz(r.exchange(image, "depth/points", info_of(image)))[45, 60], [0, 0, 2], atol=1e-6)


def test_windows_and_binning(rig):
    """The image shows 96 x 64 pixels from (20, 16) on, each of 2 x 2 of the sensor's."""
    r = rig(subscribe=BOTH, depth__downsample=2)
    image = coded_image(1750, (32, 48))
    window = RegionOfInterest(x_offset=20, y_offset=16, width=96, height=64)
    cloud = r.exchange(image, "depth/points", info_of(image, binning_x=2, binning_y=2, roi=window))
    assert (cloud.height, cloud.width) == (16, 24)
    expected = grid(16, 24, 4) + np.array((20, 16))
    assert np.abs(opencv_pixels(xyz(cloud), "plumb_bob", LENSES["plumb_bob"]) - expected).max() < 1e-3
    r.wait(lambda: r.got["depth/camera_info"], "camera_info")
    out = r.got["depth/camera_info"][0]
    assert (out.height, out.width, out.binning_x, out.roi.width) == (16, 24, 0, 0), "who reads it need not know of the window"
    np.testing.assert_allclose(out.k.reshape(3, 3), [[22.5, 0, (63.5 - 20) / 4], [0, 23, (47.5 - 16) / 4], [0, 0, 1]])
    np.testing.assert_allclose(out.p.reshape(3, 4)[:2], [[20, 0, 10, 0], [0, 81 / 4, 29 / 4, 0]])


def test_canonical_models_use_the_focal_length_of_the_images_own_pixels(rig, tmp_path):
    """Full resolution 90 px, binned by 2: 45 px. The network of 32 x 32 sees 128 / 2 columns, the canonical focal length is 20 px."""
    path = write_tiny_model(tmp_path / "m.onnx", output_kind="depth_canonical_focal", canonical_focal_px=20.0)
    r = rig(engine="onnxruntime", model=str(path))
    image = rgb_image(np.full((48, 64, 3), 51, np.uint8))
    full = pixels(r.exchange(image, info=camera_info(image, 45.0)))
    np.testing.assert_allclose(pixels(r.exchange(image, info=info_of(image, binning_x=2, binning_y=2))), full, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"height": 48, "width": 64}, "camera_info is for 64x48 pixels, the image has 128x96"),
        ({"binning_x": 2, "binning_y": 2}, "camera_info is for 64x48 pixels after its region of interest and binning"),
        ({"distortion_model": "kannala"}, "distortion model 'kannala' is not known; known are plumb_bob"),
        ({"d": (math.nan,) * 5}, "distortion model 'plumb_bob' needs 4 or 5 or 8 finite coefficients"),
        ({"d": (0.1,) * 3}, "distortion model 'plumb_bob' needs 4 or 5 or 8 finite coefficients"),
        ({"k": (math.nan,) * 9}, "camera_info is not calibrated: K is [nan"),
    ],
)
def test_a_camera_info_that_cannot_be_used_takes_the_cloud_away_and_says_why(rig, changes, problem):
    r = rig(subscribe=(*BOTH, "depth/image"))
    image = coded_image(1750, SIZE, stamp_ns=5)
    r.exchange(image, info=info_of(image, **changes))
    _, values = r.status(lambda s: problem in s.message, problem)
    assert values["camera_info"].startswith(problem)
    r.wait(lambda: r.got["depth/camera_info"], "camera_info")
    assert r.got["depth/camera_info"][0].k.tolist() == [0.0] * 9
    assert r.total("failed") == 0
    cloud = r.exchange(coded_image(1750, SIZE, stamp_ns=6), "depth/points", info_of(image))
    assert cloud.header.stamp.nanosec == 6, "the first image had no cloud"
    assert len(r.got["depth/points"]) == 1


def test_only_points_between_two_heights(rig):
    """A camera 1 m above the floor: at 2 m, the row v is 1 - 2 (v - 48) / 50 m high."""
    r = rig(subscribe=("depth/points",), camera__height_m=1.0, cloud__min_height_m=0.21, cloud__max_height_m=1.49)
    heights = 1 - 2 * (np.arange(96) - 48) / 50
    known = np.isfinite(xyz(r.exchange(white(), "depth/points"))[..., 2])
    np.testing.assert_array_equal(known, np.repeat(((heights > 0.21) & (heights < 1.49))[:, None], 128, axis=1))
    assert r.set_parameters(camera__pitch_deg=30.0)[0].successful
    down = np.isfinite(xyz(r.exchange(white(), "depth/points"))[..., 2])
    heights = 1 - 2 * ((np.arange(96) - 48) / 50 * math.cos(math.radians(30)) + 0.5)
    np.testing.assert_array_equal(down, np.repeat(((heights > 0.21) & (heights < 1.49))[:, None], 128, axis=1))
    assert r.set_parameters(camera__roll_deg=180.0, camera__pitch_deg=0.0)[0].successful
    np.testing.assert_array_equal(np.isfinite(xyz(r.exchange(white(), "depth/points"))[1:, 1:, 2]), known[:0:-1, 1:])
    assert r.set_parameters(cloud__min_height_m=-100.0, cloud__max_height_m=100.0)[0].successful
    assert np.isfinite(xyz(r.exchange(white(), "depth/points"))).all(), "without heights everything is a point"
    (refused,) = r.set_parameters(cloud__min_height_m=0.2, camera__height_m=0.0)
    assert refused.reason == "cloud.min_height_m and cloud.max_height_m need camera.height_m"


def test_far_points_are_left_out_or_put_at_the_range(rig):
    r = rig(subscribe=("depth/image", "depth/points"), cloud__max_m=1.5)
    half = np.zeros((*SIZE, 3), np.uint8)
    half[:, 64:] = 255
    assert np.isnan(xyz(r.exchange(rgb_image(half), "depth/points"))[:, 70:]).all()
    assert r.set_parameters(cloud__far_policy="clamp", depth__max_m=1.8)[0].successful
    points = xyz(r.exchange(rgb_image(half), "depth/points"))
    np.testing.assert_allclose(points[:, :60, 2], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(points[:, 70:, 2], 1.5)
    np.testing.assert_allclose(points[48, 114], [1.5, 0, 1.5])
    r.wait(lambda: np.isinf(pixels(r.got["depth/image"][-1])[:, 70:]).all(), "the depth image keeps +Inf")
    (refused,) = r.set_parameters(cloud__max_m=0.0)
    assert "cloud.far_policy clamp needs cloud.max_m" in refused.reason


def test_edges_are_cut_or_snapped_in_depth_and_cloud(rig):
    """Two surfaces, 1 m and 2 m, side by side: bilinear enlarging puts depths in between."""
    r = rig(subscribe=("depth/image", "depth/points"))
    half = np.zeros((480, 640, 3), np.uint8)
    half[:, 320:] = 255

    def depth_and_z(number, **values):
        assert r.set_parameters(**values)[0].successful
        image = rgb_image(half, stamp_ns=number)
        r.send(image)
        r.wait(lambda: all(messages and stamp_ns(messages[-1]) == number for messages in r.got.values()), "both outputs")
        return pixels(r.got["depth/image"][-1]), xyz(r.got["depth/points"][-1])[..., 2]

    def between(depth):
        return int(((depth > 1.05) & (depth < 1.95)).sum())

    assert min(map(between, depth_and_z(1, edges__mode="off"))) > 0
    for number, mode in ((2, "cut"), (3, "snap")):
        depth, z = depth_and_z(number, edges__mode=mode)
        assert (between(depth), between(z)) == (0, 0), mode
        assert np.isnan(depth).any() == np.isnan(z).any() == (mode == "cut")
    assert between(depth_and_z(4, edges__jump=0.9)[0]) > 0, "1 m and 2 m differ by half of the farther"


def test_a_cloud_comes_no_more_often_than_it_may_while_depth_goes_on(rig):
    r = rig(subscribe=("depth/image", "depth/points"), cloud__max_hz=5.0)
    started_s = time.monotonic()
    for number in range(40):
        r.exchange(coded_image(number, stamp_ns=number))
        time.sleep(0.01)
    lasted_s = time.monotonic() - started_s
    r.wait(lambda: r.total("published") == 40, "all frames")
    clouds = len(r.got["depth/points"])
    assert 2 <= clouds <= 1 + 5 * lasted_s < 40
    assert r.set_parameters(cloud__max_hz=0.0)[0].successful
    for number in range(40, 45):
        r.exchange(coded_image(number, stamp_ns=number), "depth/points")
    assert [cloud.header.stamp.nanosec for cloud in r.got["depth/points"][-5:]] == list(range(40, 45))


def test_without_another_subscriber_nothing_is_inferred_between_two_clouds(rig):
    r = rig(subscribe=("depth/points",), cloud__max_hz=0.01)
    r.exchange(coded_image(1, stamp_ns=1), "depth/points")
    for number in range(2, 6):
        r.send(coded_image(number, stamp_ns=number))
        r.wait(lambda number=number: r.total("idle") == number - 1, "an idle frame")
    assert r.total("published") == 1
