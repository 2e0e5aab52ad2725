from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from depth_anything_ros.decode import ENCODINGS, RawFrame, rgb_frame_from_compressed, rgb_frame_from_image
from depth_anything_ros.errors import DecodeError

RED, GREEN, BLUE, GRAY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)


def image(data, encoding, width, height, step, is_bigendian=0):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=5), frame_id="cam")
    return SimpleNamespace(data=bytes(data), encoding=encoding, width=width, height=height, step=step, is_bigendian=is_bigendian, header=header)


def picture(height=8, width=12):
    """Four flat quarters: red, green, blue, gray."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2], rgb[: height // 2, width // 2 :] = RED, GREEN
    rgb[height // 2 :, : width // 2], rgb[height // 2 :, width // 2 :] = BLUE, GRAY
    return rgb


def encoded(rgb, encoding):
    """Return (rows of bytes, is_bigendian) of a picture, written from the definition of each format."""
    height, width, _ = rgb.shape
    alpha = np.full((height, width, 1), 77, np.uint8)
    if encoding in ("rgb8", "bgr8", "rgba8", "bgra8"):
        order = rgb[..., ::-1] if encoding.startswith("bgr") else rgb
        return np.concatenate([order, alpha], axis=2).reshape(height, -1) if "a8" in encoding else order.reshape(height, -1)
    if encoding.startswith("bayer"):
        pattern = encoding[6:10]
        rows = np.empty((height, width), np.uint8)
        for i, colour in enumerate(pattern):
            rows[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(colour)]
        return rows
    # ITU-R BT.601, studio range, as cameras send it
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    y, u, v = (np.rint(p).astype(np.uint8) for p in (y, u, v))
    if encoding in ("nv12", "nv21"):
        first, second = (u, v) if encoding == "nv12" else (v, u)
        chroma = np.stack([first[::2, ::2], second[::2, ::2]], axis=-1).reshape(height // 2, width)
        return np.concatenate([y, chroma])
    chroma = np.where(np.arange(width) % 2 == 0, u, v)
    pair = [chroma, y] if encoding in ("yuv422", "uyvy") else [y, chroma]
    return np.stack(pair, axis=-1).reshape(height, -1)


COLOUR = [e for e in ENCODINGS if not e.startswith("mono")]


@pytest.mark.parametrize("padding", [0, 5, 64])
@pytest.mark.parametrize("encoding", COLOUR)
def test_every_colour_encoding_gives_the_same_picture(encoding, padding):
    rows = encoded(picture(), encoding)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    message = image(padded.tobytes(), encoding, 12, 8, padded.shape[1])
    frame = rgb_frame_from_image(message)
    assert frame.rgb.shape == (8, 12, 3)
    assert (frame.stamp_ns, frame.frame_id) == (3_000_000_005, "cam")
    inner = frame.rgb[[1, 1, 6, 6], [2, 9, 2, 9]]
    tolerance = 0 if encoding in ("rgb8", "bgr8", "rgba8", "bgra8") else 4
    np.testing.assert_allclose(inner.astype(int), [RED, GREEN, BLUE, GRAY], atol=tolerance)


def test_mono8_becomes_gray():
    frame = rgb_frame_from_image(image(bytes([0, 50, 100, 200]), "mono8", 2, 2, 2))
    assert frame.rgb[1, 0].tolist() == [100, 100, 100]


@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_mono16_keeps_the_high_byte_in_either_byte_order(is_bigendian):
    values = np.array([[0x1234, 0xFF00], [0x00FF, 0x8001]], ">u2" if is_bigendian else "<u2")
    padded = np.pad(values.view(np.uint8).reshape(2, 4), ((0, 0), (0, 3)))
    frame = rgb_frame_from_image(image(padded.tobytes(), "mono16", 2, 2, 7, is_bigendian))
    assert frame.rgb[..., 0].tolist() == [[0x12, 0xFF], [0x00, 0x80]]


def test_rgb8_is_a_view_of_the_message():
    frame = rgb_frame_from_image(image(picture().tobytes(), "rgb8", 12, 8, 36))
    assert not frame.rgb.flags.owndata


GOOD = {"data": bytes(8 * 36), "encoding": "rgb8", "width": 12, "height": 8, "step": 36}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": bytes(8 * 36 - 1)}, "rgb8 image of 12x8 pixels, step 36: data has 287 bytes, not 288"),
        ({"data": bytes(8 * 36 + 1)}, "data has 289 bytes, not 288"),
        ({"data": b""}, "data has 0 bytes"),
        ({"step": 35}, "step 35 is below the 36 bytes of a row"),
        ({"step": 0}, "step 0 is below"),
        ({"width": 0}, "image of 0x8 pixels: both sides must be 1 .. 16384, at most 67108864 pixels in all"),
        ({"height": 0}, "image of 12x0 pixels"),
        ({"width": 2**31, "height": 2**31, "step": 2**32 - 1}, "both sides must be"),
        ({"encoding": "nv12", "height": 7, "step": 12}, "sides must be even"),
        ({"encoding": "yuv422", "width": 11}, "sides must be even"),
        ({"encoding": "nv21", "step": 12, "data": bytes(8 * 12)}, "data has 96 bytes, not 144"),
        ({"encoding": "bayer_rggb8", "width": 1, "height": 1, "step": 1, "data": b"1"}, None),
    ],
)
def test_bad_images_are_refused_with_the_reason(changes, message):
    try:
        rgb_frame_from_image(image(**(GOOD | changes)))
    except DecodeError as error:
        assert message is None or message in str(error)
    else:
        assert message is None


def test_unknown_encoding_names_the_table_and_the_package():
    with pytest.raises(DecodeError, match=r"'rgb161616' is not one of rgb8, bgr8, .*install cv_bridge \(apt: ros-\$ROS_DISTRO-cv-bridge\)"):
        rgb_frame_from_image(image(**(GOOD | {"encoding": "rgb161616"})))


def test_unknown_encoding_goes_to_cv_bridge_where_it_is(monkeypatch):
    """A stand-in with the signature of cv_bridge.CvBridge.imgmsg_to_cv2(img_msg, desired_encoding); the real one was never run here."""
    calls = []

    class CvBridge:
        def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
            calls.append((img_msg.encoding, desired_encoding))
            return np.full((img_msg.height, img_msg.width, 3), 9, np.uint8)

    module = SimpleNamespace(CvBridge=CvBridge, CvBridgeError=type("CvBridgeError", (TypeError,), {}))
    monkeypatch.setitem(__import__("sys").modules, "cv_bridge", module)
    frame = rgb_frame_from_image(image(**(GOOD | {"encoding": "bayer_rggb16"})))
    assert calls == [("bayer_rggb16", "rgb8")]
    assert frame.rgb.shape == (8, 12, 3)


def compressed(data, format_text="jpeg"):
    return SimpleNamespace(data=bytes(data), format=format_text, header=image(b"", "", 0, 0, 0).header)


@pytest.mark.parametrize(("ending", "tolerance"), [(".png", 0), (".jpg", 12)])
def test_compressed_images_are_decoded(ending, tolerance):
    rgb = picture(64, 96)
    data = cv2.imencode(ending, rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    frame = rgb_frame_from_compressed(compressed(data, "rgb8; jpeg compressed bgr8"))
    inner = frame.rgb[[16, 16, 48, 48], [24, 72, 24, 72]]
    np.testing.assert_allclose(inner.astype(int), [RED, GREEN, BLUE, GRAY], atol=tolerance)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_compressed_image_that_is_cut_short_is_refused(ending):
    data = cv2.imencode(ending, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    with pytest.raises(DecodeError, match="broken or cut short after"):
        rgb_frame_from_compressed(compressed(data[: len(data) // 2]))


@pytest.mark.parametrize(
    ("data", "format_text", "message"),
    [
        (b"", "jpeg", "with 0 bytes is neither JPEG nor PNG"),
        (b"GIF89a....", "gif", "neither JPEG nor PNG"),
        (b"\xff\xd8\xff\xd9", "jpeg", "is broken"),
        (b"\x89PNG\r\n\x1a\nIEND", "png", "is broken"),
        (b"\x89PNG\r\n\x1a\n\xf8%\x8e\x81IEND", "png", "is broken"),  # claims a chunk of 4 GB
        (b"\xff\xd8\xff\xd9", "16UC1; compressedDepth", "is a depth image"),
    ],
)
def test_broken_compressed_images_are_refused(data, format_text, message):
    with pytest.raises(DecodeError, match=message):
        rgb_frame_from_compressed(compressed(data, format_text))


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_size_is_checked_before_anything_is_allocated(ending, monkeypatch):
    data = bytearray(cv2.imencode(ending, np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = 16 if ending == ".png" else data.index(b"\xff\xc0") + 5
    data[at : at + (8 if ending == ".png" else 4)] = (20000).to_bytes(4 if ending == ".png" else 2, "big") * 2
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(DecodeError, match="image of 20000x20000 pixels"):
        rgb_frame_from_compressed(compressed(data))


def test_orientation_tag_is_ignored():
    """A JPEG with an EXIF orientation (6: turn right) still comes as its pixels are stored, which is what camera_info describes."""
    jpeg = cv2.imencode(".jpg", picture(16, 32)[..., ::-1])[1].tobytes()
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"
    app1 = b"Exif\0\0" + tiff
    tagged = jpeg[:2] + b"\xff\xe1" + (len(app1) + 2).to_bytes(2, "big") + app1 + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR).shape == (32, 16, 3), "the tag should work without the flag"
    assert rgb_frame_from_compressed(compressed(tagged)).rgb.shape == (16, 32, 3)


def test_raw_image_is_decoded_when_it_is_asked_for_and_once(monkeypatch):
    """Its size is known before; a GPU reads the bytes themselves."""
    calls = []

    def to_rgb(pixels):
        calls.append(pixels.shape)
        return np.ascontiguousarray(pixels[..., ::-1])

    monkeypatch.setitem(ENCODINGS, "bgr8", replace(ENCODINGS["bgr8"], to_rgb=to_rgb))
    message = image(**(GOOD | {"encoding": "BGR8"}))
    frame = rgb_frame_from_image(message)
    assert isinstance(frame, RawFrame)
    assert (frame.size_hw, frame.decode_s, calls) == ((8, 12), 0.0, [])
    assert (frame.layout.encoding, frame.layout.nbytes) == ("bgr8", frame.data.nbytes)
    assert frame.rgb is frame.rgb
    assert calls == [(8, 12, 3)]
    assert frame.decode_s > 0


def test_time_of_decoding_goes_with_the_frame():
    data = cv2.imencode(".jpg", picture(64, 96))[1].tobytes()
    assert rgb_frame_from_compressed(compressed(data)).decode_s > 0
