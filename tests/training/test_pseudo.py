"""Pseudo-labels: what is stored for a pixel, and which images are read."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from depth_anything_ros.errors import DecodeError
from depth_anything_ros.structs import DepthMap
from tests.training.label_fixtures import image
from training.data.pseudo import decode_label, encode_label, rgb_from_bytes
from training.data.teacher import disparity_from_map


def test_a_label_comes_back_to_half_a_step() -> None:
    disparity = np.random.default_rng(0).normal(3, 40, (30, 40)).astype(np.float32)
    disparity[0, :3] = np.nan, np.inf, -np.inf
    png, limits = encode_label(disparity)
    decoded = decode_label(png, json.loads(json.dumps(limits)))
    known = np.isfinite(disparity)
    assert np.array_equal(np.isfinite(decoded), known)
    step = (limits["max"] - limits["min"]) / 65534
    assert np.abs(decoded - disparity)[known].max() <= 0.51 * step
    assert (decoded[known].min(), decoded[known].max()) == (disparity[known].min(), disparity[known].max())


def test_codes_of_unknown_smallest_middle_and_largest() -> None:
    png, limits = encode_label(np.array([[np.nan, 2.0, 3.0, 4.0]], np.float32))
    assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED).tolist() == [[0, 1, 32768, 65535]]
    assert limits == {"min": 2.0, "max": 4.0}


def test_a_constant_map_comes_back_and_an_unknown_one_is_refused() -> None:
    png, limits = encode_label(np.full((4, 5), 7.5, np.float32))
    assert limits == {"min": 7.5, "max": 7.5}
    assert np.array_equal(decode_label(png, limits), np.full((4, 5), 7.5, np.float32))
    with pytest.raises(DecodeError, match="no finite value"):
        encode_label(np.full((4, 5), np.nan, np.float32))


def test_what_is_no_label_is_refused() -> None:
    for content in (b"", b"rubbish", image(1), cv2.imencode(".png", np.zeros((4, 5), np.uint8))[1].tobytes()):
        with pytest.raises(DecodeError, match=f"^{len(content)} bytes that are no label$"):
            decode_label(content, {"min": 0.0, "max": 1.0})


def test_depth_becomes_disparity_and_the_sky_zero() -> None:
    depth = DepthMap(np.array([[0.5, 4.0, np.inf, np.nan]], np.float32), "depth_m")
    assert disparity_from_map(depth).tolist()[0][:3] == [2.0, 0.25, 0.0]
    assert np.isnan(disparity_from_map(depth)[0, 3])
    relative = DepthMap(np.array([[0.5, -1.0]], np.float32), "disparity_affine_invariant")
    assert np.array_equal(disparity_from_map(relative), relative.values)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_that_is_cut_short_is_refused(ending: str) -> None:
    content = image(1, ending)
    assert rgb_from_bytes(content).shape == (48, 64, 3)
    with pytest.raises(DecodeError, match="cut short after"):
        rgb_from_bytes(content[: len(content) // 2])
    for other in (b"", b"not an image at all"):
        with pytest.raises(DecodeError, match="do not decode"):
            rgb_from_bytes(other)


def test_images_are_turned_upright() -> None:
    plain = image(1, "jpg")
    orientation_6 = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    tagged = plain[:2] + b"\xff\xe1" + (len(orientation_6) + 2).to_bytes(2, "big") + orientation_6 + plain[2:]
    assert np.array_equal(rgb_from_bytes(tagged), np.rot90(rgb_from_bytes(plain), -1))
