import cv2
import numpy as np
import pytest

from depth_anything_ros.errors import DecodeError
from depth_anything_ros.preprocess import Preprocessor, plan_resize
from depth_anything_ros.structs import RgbFrame

from .models import tiny_contract

OFFICIAL = {"resize": "lower_bound", "input_sizes_hw": ((518, 518),), "size_multiple": 14}


@pytest.mark.parametrize(
    ("image_hw", "network_hw"),
    # the official rule's results for common cameras
    [((480, 640), (518, 686)), ((720, 1280), (518, 924)), ((360, 640), (518, 924)), ((240, 424), (518, 910)), ((240, 320), (518, 686))],
)
def test_lower_bound_is_the_official_rule(image_hw, network_hw):
    assert plan_resize(image_hw, tiny_contract(**OFFICIAL)).network_size_hw == network_hw


@pytest.mark.parametrize("image_hw", [(1, 16384), (16384, 1), (100, 4000)])
def test_image_so_thin_that_its_input_would_be_enormous_is_refused(image_hw):
    with pytest.raises(DecodeError, match="is too thin: the network would need 8 times its usual area"):
        plan_resize(image_hw, tiny_contract(**OFFICIAL))


def test_failed_allocation_is_not_taken_for_a_buffer(monkeypatch):
    preprocess = Preprocessor(tiny_contract())
    with monkeypatch.context() as m:
        m.setattr(np, "zeros", lambda *args: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            preprocess(RgbFrame(np.full((48, 64, 3), 51, np.uint8)))
    assert preprocess(RgbFrame(np.full((48, 64, 3), 51, np.uint8))).tensor.shape == (1, 3, 24, 32)


def test_stretch_takes_the_size_of_the_nearest_aspect():
    contract = tiny_contract(resize="stretch", input_sizes_hw=((24, 32), (18, 32)))
    assert plan_resize((480, 640), contract).network_size_hw == (24, 32)
    assert plan_resize((1080, 1920), contract).network_size_hw == (18, 32)


def test_letterbox_centres_the_image():
    resize = plan_resize((100, 200), tiny_contract(resize="letterbox", input_sizes_hw=((32, 32),)))
    assert resize.content_tlhw == (8, 0, 16, 32)
    assert resize.scale_xy == (0.16, 0.16)


def test_normalisation_by_hand():
    contract = tiny_contract(resize="stretch", input_sizes_hw=((2, 2),), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    rgb = np.full((2, 2, 3), (255, 0, 51), np.uint8)
    tensor = Preprocessor(contract)(RgbFrame(rgb)).tensor
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0, :, 0, 0], [1.0, -1.0, 0.1], atol=1e-6)


def test_bgr_model_gets_bgr():
    contract = tiny_contract(resize="stretch", input_sizes_hw=((2, 2),), channel_order="bgr")
    tensor = Preprocessor(contract)(RgbFrame(np.full((2, 2, 3), (255, 0, 51), np.uint8))).tensor
    np.testing.assert_allclose(tensor[0, :, 0, 0], [0.2, 0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(("name", "code"), [("linear", cv2.INTER_LINEAR), ("cubic", cv2.INTER_CUBIC)])
def test_interpolation_is_the_contracts(name, code):
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    tensor = Preprocessor(tiny_contract(interpolation=name))(RgbFrame(rgb)).tensor
    expected = cv2.resize(rgb, (32, 24), interpolation=code).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(tensor[0], expected, atol=1e-6)


def test_letterbox_padding_is_zero_after_a_change_of_size():
    preprocess = Preprocessor(tiny_contract(resize="letterbox", input_sizes_hw=((32, 32),)))
    preprocess(RgbFrame(np.full((32, 32, 3), 255, np.uint8)))
    tensor = preprocess(RgbFrame(np.full((16, 32, 3), 255, np.uint8))).tensor
    assert tensor[0, :, :8].max() == 0
    assert tensor[0, :, 8:24].min() == 1


def test_padded_rows_are_read_through_the_view():
    rgb = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    contract = tiny_contract(resize="stretch", input_sizes_hw=((24, 32),))
    whole = Preprocessor(contract)(RgbFrame(np.ascontiguousarray(rgb[:, :32]))).tensor
    np.testing.assert_array_equal(Preprocessor(contract)(RgbFrame(rgb[:, :32])).tensor, whole)
