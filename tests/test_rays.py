import math

import cv2
import numpy as np
import pytest

from depth_anything_ros.errors import CalibrationError
from depth_anything_ros.rays import CameraModel, RayTable

SIZE = (480, 640)
K = (400.0, 0.0, 319.5, 0.0, 410.0, 239.5, 0.0, 0.0, 1.0)
P = (350.0, 0.0, 310.0, 0.0, 0.0, 360.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LENSES = {
    "none": ("", ()),
    "mild": ("plumb_bob", (-0.05, 0.01, 0.001, -0.002, 0.0)),
    "barrel": ("plumb_bob", (-0.32, 0.13, 0.0005, -0.0008, -0.01)),
    "pincushion": ("plumb_bob", (0.6, 0.3, 0.01, -0.01, 0.1)),
    "rational": ("rational_polynomial", (6.2, 3.1, 0.0003, -0.0004, 0.12, 6.6, 5.0, 0.9)),
    "fisheye": ("equidistant", (-0.02, 0.005, -0.003, 0.0004)),
    "strong fisheye": ("equidistant", (0.35, -0.2, 0.1, -0.02)),
    "ideal fisheye": ("equidistant", (0.0, 0.0, 0.0, 0.0)),
}


def model(lens="none", **changes):
    name, d = LENSES[lens]
    return CameraModel(**({"size_hw": SIZE, "k": K, "d": d, "distortion_model": name, "p": P} | changes))


def opencv_pixels(points, lens):
    """Project with OpenCV's own models: a second opinion that shares no code with the one under test."""
    name, d = LENSES[lens]
    matrix, zero = np.array(K).reshape(3, 3), np.zeros(3)
    if name == "equidistant":
        return cv2.fisheye.projectPoints(points.reshape(-1, 1, 3), zero, zero, matrix, np.array(d))[0].reshape(-1, 2)
    return cv2.projectPoints(points.reshape(-1, 1, 3), zero, zero, matrix, np.array(d))[0].reshape(-1, 2)


def pixels_of(stride, size_hw=SIZE):
    return np.stack(np.meshgrid(np.arange(0, size_hw[1], stride), np.arange(0, size_hw[0], stride)), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("stride", [1, 7])
@pytest.mark.parametrize("lens", LENSES)
def test_every_cloud_point_projects_back_to_its_pixel(lens, stride):
    camera = model(lens).for_image(SIZE, rectified=False)
    table = camera.ray_table(SIZE, stride)
    assert (table.xy.dtype, table.xy.shape, table.unknown) == (np.float32, (-(-480 // stride), -(-640 // stride), 2), 0)
    z = np.random.default_rng(0).uniform(0.3, 30, table.xy.shape[:2]).astype(np.float32)
    points = np.dstack([table.xy * z[..., None], z]).reshape(-1, 3).astype(np.float64)
    assert np.abs(camera.project(points) - pixels_of(stride)).max() < 1e-3
    assert np.abs(opencv_pixels(points, lens) - pixels_of(stride)).max() < 1e-3


def test_rays_by_hand():
    """Without distortion pixel (719.5, 239.5) is 1 right of the axis; the ideal fisheye sees 400 px from the centre at 1 radian."""
    wide = {"size_hw": (480, 1280)}
    straight = model(**wide).for_image((480, 1280), rectified=False)
    np.testing.assert_allclose(straight.project(np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 4.0]])), [[719.5, 239.5], [319.5, 444.5]])
    round_ = model("ideal fisheye", **wide).for_image((480, 1280), rectified=False)
    np.testing.assert_allclose(round_.project(np.array([[math.tan(1.0), 0.0, 1.0], [0.0, 0.0, 1.0]])), [[719.5, 239.5], [319.5, 239.5]])
    assert round_.focal_px == 400


def test_points_behind_the_camera_have_no_pixel():
    for lens in LENSES:
        camera = model(lens).for_image(SIZE, rectified=False)
        assert np.isnan(camera.project(np.array([[0.1, 0, -1.0], [0.1, 0, 0], [np.nan, 0, 1.0]]))).any(axis=1).all()
        assert camera.project(np.empty((0, 3))).shape == (0, 2)


def test_rectified_images_use_p_and_no_distortion():
    camera = model("barrel").for_image(SIZE, rectified=True)
    np.testing.assert_allclose(camera.project(np.array([[1.0, 1.0, 1.0]])), [[660, 590]])
    assert camera.focal_px == 350


def test_a_lens_that_turns_back_has_no_rays_beyond_its_turning_point():
    """Distortion r(1 - r²/3) turns back at r = 1, where the image is at 2/3: 400 * 2/3 = 266.7 px from the centre."""
    camera = model(d=(-1 / 3, 0.0, 0.0, 0.0), distortion_model="plumb_bob", k=(400.0, 0, 320, 0, 400, 240, 0, 0, 1)).for_image(SIZE, False)
    table = camera.ray_table(SIZE)
    radius = np.hypot(np.arange(640)[None] - 320, np.arange(480)[:, None] - 240)
    known = ~np.isnan(table.xy[..., 0])
    assert known[radius < 266.5].all()
    assert not known[radius > 266.8].any()
    assert table.unknown == (~known).sum() > 0
    assert np.hypot(*table.xy[known].T).max() <= 1.001, "a solution on another branch is not a ray"


def test_what_lies_beyond_the_lens_model_is_not_folded_back_into_the_image():
    """The lens above turns back at 45 degrees and would show a point at r = 1.7 at 0.06, 25 px from the centre."""
    lens = {"k": (400.0, 0, 320, 0, 400, 240, 0, 0, 1)}
    camera = model(d=(-1 / 3, 0.0, 0.0, 0.0), distortion_model="plumb_bob", **lens).for_image(SIZE, False)
    pixels = camera.project(np.array([[1.7, 0, 1], [0, -1.01, 1], [0.99, 0, 1], [1.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(np.isnan(pixels), np.array([[True] * 2, [True] * 2, [False] * 2, [True] * 2]))
    assert pixels[2, 0] == pytest.approx(320 + 400 * (0.99 - 0.99**3 / 3))
    fisheye = model(d=(0.0, -0.3, 0.0, 0.0), distortion_model="equidistant", **lens).for_image(SIZE, False)
    angles = np.array([0.9 * 1.5**-0.25, 1.1 * 1.5**-0.25])  # angle (1 - 0.3 angle^4) turns back at angle^4 = 1 / 1.5
    pixels = fisheye.project(np.column_stack([np.tan(angles), np.zeros(2), np.ones(2)]))
    assert np.isnan(pixels).any(axis=1).tolist() == [False, True]


def test_a_fisheye_has_no_rays_at_right_angles_to_its_axis():
    """At 200 px a radian, 90 degrees are 314 px from the centre."""
    camera = model("ideal fisheye", k=(200.0, 0, 320, 0, 200, 240, 0, 0, 1)).for_image(SIZE, False)
    table = camera.ray_table(SIZE)
    radius = np.hypot(np.arange(640)[None] - 320, np.arange(480)[:, None] - 240)
    np.testing.assert_array_equal(np.isnan(table.xy[..., 0]), radius > math.radians(89.5) * 200)


def test_region_of_interest_comes_before_binning():
    """Full-resolution pixel (419.5, 289.5): minus the offset (20, 40), divided by (2, 1) and by (2, 3)."""
    windowed = model("mild", binning_xy=(2, 3), roi_xywh=(20, 40, 400, 300))
    assert windowed.image_size_hw == (100, 200)
    point = np.array([[0.25, 0.125, 1.0]])
    full = model("mild").for_image(SIZE, False).project(point)[0]
    np.testing.assert_allclose(windowed.for_image((100, 200), False).project(point)[0], [(full[0] - 20) / 2, (full[1] - 40) / 3])
    rectified = windowed.for_image((100, 200), True).intrinsics
    assert (rectified.fx, rectified.fy, rectified.cx, rectified.cy) == (175, 120, 145, pytest.approx(190 / 3))


@pytest.mark.parametrize("lens", ["barrel", "rational", "fisheye"])
def test_binned_windows_reproject(lens):
    camera = model(lens, binning_xy=(2, 2), roi_xywh=(30, 10, 400, 300)).for_image((150, 200), False)
    table = camera.ray_table((150, 200)).xy.reshape(-1, 2).astype(np.float64)
    points = np.column_stack([table, np.ones(len(table))]) * 3
    expected = pixels_of(1, (150, 200)) * 2.0 + (30, 10)
    assert np.abs(opencv_pixels(points, lens) - expected).max() < 1e-3


def test_binning_of_zero_and_an_empty_window_mean_all_of_the_image():
    assert model(binning_xy=(0, 0)).image_size_hw == SIZE


def test_a_smaller_depth_image_has_the_rays_of_its_own_pixels():
    camera = model("barrel").for_image(SIZE, False)
    np.testing.assert_allclose(camera.ray_table((240, 320)).xy, camera.ray_table(SIZE, 2).xy, atol=1e-7)


def test_a_table_is_made_once_and_cannot_be_written():
    first, again = (model("barrel").for_image(SIZE, False).ray_table((48, 64)) for _ in range(2))
    assert isinstance(first, RayTable)
    assert first is again
    for width in (32, 16, 8):
        model("barrel").for_image(SIZE, False).ray_table((48, width))
    assert model("barrel").for_image(SIZE, False).ray_table((48, 64)) is not first, "no more than three tables are kept"
    with pytest.raises(ValueError, match="read-only"):
        first.xy[0, 0] = 0


@pytest.mark.parametrize(
    ("changes", "rectified", "message"),
    [
        ({"size_hw": (240, 320)}, False, "camera_info is for 320x240 pixels, the image has 640x480"),
        ({"binning_xy": (2, 2)}, False, "camera_info is for 320x240 pixels after its region of interest and binning, the image has 640x480"),
        ({"k": (0.0,) * 9}, False, "camera_info is not calibrated: K is"),
        ({"p": (0.0,) * 12}, True, "camera_info is not calibrated: P is"),
        ({"k": (math.nan,) * 9}, False, "camera_info is not calibrated: K is"),
        (
            {"d": (0.1,) * 4, "distortion_model": "kannala"},
            False,
            "distortion model 'kannala' is not known; known are plumb_bob, .* rectify the image",
        ),
        ({"d": (0.1,) * 4}, False, "distortion model '' is not known"),
        ({"d": (0.1,) * 14, "distortion_model": "rational_polynomial"}, False, "needs 4 or 5 or 8 finite coefficients"),
        ({"d": (0.1,) * 5, "distortion_model": "equidistant"}, False, "needs 4 finite coefficients"),
        ({"d": (math.nan,) * 5, "distortion_model": "plumb_bob"}, False, "finite coefficients"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(changes, rectified, message):
    with pytest.raises(CalibrationError, match=message):
        model(**changes).for_image(SIZE, rectified)


def test_an_unknown_lens_does_not_matter_for_a_rectified_image_or_without_coefficients():
    assert model(d=(0.1,) * 4, distortion_model="kannala").for_image(SIZE, True).lens == "pinhole"
    assert model(d=(0.0,) * 5, distortion_model="kannala").for_image(SIZE, False).lens == "pinhole"
