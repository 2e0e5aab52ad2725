"""Raw bytes -> network input: every encoding, step, resize rule, interpolation and type against decode + Preprocessor."""

import ctypes

import cv2
import numpy as np
import pytest

from depth_anything_ros.cuda.formats import FORMATS
from depth_anything_ros.decode import ENCODINGS
from depth_anything_ros.preprocess import Preprocessor
from depth_anything_ros.structs import RgbFrame

from ..models import tiny_contract
from .twins import cuda_tensor, frame_of, raw_image

NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def tensors(device, contract, message):
    return cuda_tensor(device, contract, message), Preprocessor(contract)(frame_of(message)).tensor


def of_size(network_hw, **changes):
    return tiny_contract(resize="stretch", input_sizes_hw=(network_hw,), **(NORMALISED | changes))


def test_every_encoding_of_the_cpu_path_has_a_format():
    assert set(FORMATS) == set(ENCODINGS)


@pytest.mark.parametrize("size_hw", [(48, 64), (2, 2), (38, 130), (6, 4)])
@pytest.mark.parametrize("padding", [0, 13])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_decoding_is_opencvs_bit_for_bit(device, encoding, padding, size_hw):
    """At the image's own size nothing is resized: what differs would be the decoding."""
    message = raw_image(np.random.default_rng(1), encoding, size_hw, padding)
    np.testing.assert_array_equal(*tensors(device, of_size(size_hw), message))


@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if not ENCODINGS[e].even_width])
@pytest.mark.parametrize("size_hw", [(3, 3), (5, 7), (1, 1), (2, 5), (5, 2), (1, 9)])
def test_odd_and_tiny_images_are_decoded_bit_for_bit(device, encoding, size_hw):
    np.testing.assert_array_equal(*tensors(device, of_size(size_hw), raw_image(np.random.default_rng(2), encoding, size_hw)))


def test_high_byte_of_mono16_in_either_byte_order(device):
    for is_bigendian in (0, 1):
        message = raw_image(np.random.default_rng(3), "mono16", (5, 6), 3, is_bigendian)
        np.testing.assert_array_equal(*tensors(device, of_size((5, 6)), message))


@pytest.mark.parametrize("encoding", ["bgr8", "yuv422", "nv12", "bayer_grbg8"])
def test_linear_resize_is_opencvs_bit_for_bit_at_many_sizes(device, encoding):
    rng = np.random.default_rng(4)
    for _ in range(25):
        height, width, to_height, to_width = rng.integers(1, 90, 4).tolist()
        message = raw_image(rng, encoding, (2 * height, 2 * width), int(rng.integers(0, 9)))
        np.testing.assert_array_equal(*tensors(device, of_size((to_height, to_width)), message))
    halved = raw_image(rng, encoding, (60, 80))  # OpenCV averages areas where both sides are halved
    np.testing.assert_array_equal(*tensors(device, of_size((30, 40)), halved))


@pytest.mark.parametrize(("image_hw", "network_hw"), [((480, 640), (518, 686)), ((1080, 1920), (308, 560))])
def test_cameras_sizes_are_resized_bit_for_bit(device, image_hw, network_hw):
    np.testing.assert_array_equal(*tensors(device, of_size(network_hw), raw_image(np.random.default_rng(5), "rgb8", image_hw)))


@pytest.mark.parametrize("encoding", ["rgba8", "yuv422_yuy2", "nv21", "bayer_bggr8"])
def test_cubic_resize_differs_by_one_of_255_and_seldom(device, encoding):
    """Where the exact value lies between two integers, OpenCV's vector code rounds in float32; ours adds integers."""
    rng, differing, total = np.random.default_rng(6), 0, 0
    for index in range(25):
        height, width, to_height, to_width = rng.integers(1, 90, 4).tolist()
        to_hw = (height, width) if index < 5 else (to_height, to_width)  # halving has the most ties
        message = raw_image(rng, encoding, (2 * height, 2 * width))
        contract = tiny_contract(resize="stretch", input_sizes_hw=(to_hw,), interpolation="cubic")
        steps = np.rint(np.subtract(*tensors(device, contract, message)) * 255)
        assert np.abs(steps).max() <= 1
        differing, total = differing + np.count_nonzero(steps), total + steps.size
    assert differing <= 1e-3 * total


def test_cubic_resize_of_one_column_is_bit_for_bit(device):
    """OpenCV's vector code needs eight values in a row; below that it adds integers, too."""
    rng = np.random.default_rng(7)
    for height, to_height in ((8, 21), (40, 9), (33, 50), (60, 30)):
        contract = of_size((to_height, 2), interpolation="cubic")
        np.testing.assert_array_equal(*tensors(device, contract, raw_image(rng, "rgb8", (height, 5))))


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_intels_library_differs_by_one_of_255(device, interpolation):
    cv2.ipp.setUseIPP(True)
    contract = tiny_contract(resize="stretch", input_sizes_hw=((70, 91),), interpolation=interpolation)
    ours, opencvs = tensors(device, contract, raw_image(np.random.default_rng(8), "rgb8", (120, 160)))
    assert np.abs(ours - opencvs).max() < 1.01 / 255


@pytest.mark.parametrize("rule", ["lower_bound", "letterbox", "stretch"])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_resize_rules_and_channel_orders(device, rule, channel_order):
    contract = tiny_contract(resize=rule, input_sizes_hw=((56, 56),), size_multiple=14, channel_order=channel_order, **NORMALISED)
    for size_hw in ((48, 64), (90, 40), (31, 33), (56, 56)):
        ours, numpys = tensors(device, contract, raw_image(np.random.default_rng(9), "rgb8", size_hw))
        np.testing.assert_array_equal(ours, numpys)
        if rule == "letterbox" and size_hw == (48, 64):
            assert (ours[0, :, :7] == 0).all()
            assert (ours[0, :, 7:49] != 0).any()


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("encoding", ["rgb8", "uyvy", "nv12", "bayer_rggb8"])
def test_half_precision_is_the_rounded_single_precision(device, encoding, interpolation):
    message, contract = raw_image(np.random.default_rng(10), encoding, (40, 52)), of_size((33, 47), interpolation=interpolation)
    single = cuda_tensor(device, contract, message)
    half = cuda_tensor(device, contract, message, "float16")
    np.testing.assert_array_equal(half.view(np.uint16), single.astype(np.float16).view(np.uint16))


def test_an_image_that_is_a_view_gives_the_same(device):
    """The twin itself: decode of a padded message is a view, and its resize is that of the copy."""
    message = raw_image(np.random.default_rng(11), "rgb8", (40, 52), padding=20)
    contract = of_size((30, 30))
    copied = Preprocessor(contract)(RgbFrame(np.ascontiguousarray(frame_of(message).rgb))).tensor
    np.testing.assert_array_equal(cuda_tensor(device, contract, message), copied)


def test_every_half_and_its_neighbours_round_as_numpy_rounds(host_library):
    halves = np.arange(2**16, dtype=np.uint16)
    floats = np.empty(halves.size, np.float32)
    host_library.floats_from_halves(*_pointers(halves, floats), ctypes.c_long(halves.size))
    np.testing.assert_array_equal(floats, halves.view(np.float16).astype(np.float32))
    finite = floats[np.isfinite(floats)]
    with np.errstate(over="ignore", invalid="ignore"):
        middles = (finite.astype(np.float64) + np.nextafter(finite.astype(np.float16), np.float16(np.inf)).astype(np.float64)) / 2
        nearby = np.concatenate([finite, *(np.nextafter(middles.astype(np.float32), np.float32(to)) for to in (-np.inf, np.inf)), middles])
        values = np.concatenate([nearby, [np.nan, np.inf, -np.inf, 65519.9, 65520, 3.4e38, 1e-8, -1e-30]]).astype(np.float32)
        expected = values.astype(np.float16)
    rounded = np.empty(values.size, np.uint16)
    host_library.halves_from_floats(*_pointers(values, rounded), ctypes.c_long(values.size))
    np.testing.assert_array_equal(rounded.view(np.float16), expected)


def _pointers(*arrays):
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]
