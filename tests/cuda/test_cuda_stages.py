"""The stages as an engine uses them: layouts, launches, one plan for many frames, capture, errors and memory."""

import numpy as np
import pytest

from depth_anything_ros.cuda import launch, taps
from depth_anything_ros.cuda.formats import FORMATS
from depth_anything_ros.cuda.plan import FrameNumbers, FramePlan
from depth_anything_ros.decode import ENCODINGS, ImageLayout
from depth_anything_ros.errors import DecodeError, EngineError
from depth_anything_ros.geometry import CloudBuilder
from depth_anything_ros.preprocess import Preprocessor, plan_resize
from depth_anything_ros.structs import Intrinsics

from ..models import tiny_contract
from .conftest import Device
from .fake_driver import FakeDriver
from .twins import Planned, frame_of, layout_of, raw_image

METRIC = tiny_contract(resize="stretch", input_sizes_hw=((24, 32),))
CAMERA = Intrinsics(40.0, 40.0, 32.0, 24.0, (48, 64))
EVERYTHING = frozenset({"depth", "points", "color"})


def plan_for(message, contract=METRIC, outputs=EVERYTHING, **changes):
    layout = layout_of(message)
    return FramePlan(layout, plan_resize(layout.size_hw, contract), layout.size_hw, outputs, **changes)


@pytest.fixture
def message():
    return raw_image(np.random.default_rng(0), "nv12", (48, 64), padding=8)


@pytest.fixture
def planned(host_library, message):
    """Return a function that plans for the message on a fake device."""

    def plan(driver=None, rays=None, **changes) -> Planned:
        return Planned(Device(driver or FakeDriver(host_library), b"host loops"), METRIC, plan_for(message, **changes), rays=rays)

    return plan


@pytest.mark.gpu
def test_this_machine_runs_the_kernels(real_device):
    """Every test that takes `device` runs there, too."""
    assert real_device.driver.module_from_buffer(real_device.cubin).get_function("picture") is not None


def test_structs_are_as_long_in_python_as_in_c(host_library):
    structs = {"Image": launch.IMAGE, "Numbers": launch.NUMBERS, "DepthTaps": taps.DEPTH_TAPS}
    structs |= {"PreprocessArgs": launch.PREPROCESS_ARGS, "NetworkMapArgs": launch.NETWORK_MAP_ARGS, "EnlargeArgs": launch.ENLARGE_ARGS}
    structs |= {"CloudArgs": launch.CLOUD_ARGS, "PictureArgs": launch.PICTURE_ARGS}
    for name, dtype in structs.items():
        assert dtype.itemsize == getattr(host_library, f"size_of_{name}")(), name


def test_forgotten_field_of_a_struct_is_an_error():
    with pytest.raises(TypeError, match="arguments without map, numbers, rgb"):
        launch.arguments(launch.PICTURE_ARGS, (2, 2), palette=5)


@pytest.mark.parametrize(("size_hw", "grid"), [((8, 32), (1, 1, 1)), ((9, 33), (2, 2, 1)), ((1, 1), (1, 1, 1)), ((1080, 1920), (60, 135, 1))])
def test_blocks_cover_the_output(size_hw, grid):
    assert launch.grid_for(launch.arguments(launch.PICTURE_ARGS, size_hw, map=0, rgb=0, palette=0, numbers=0)) == grid


def test_many_frames_on_one_plan(device, message):
    """Content and numbers change, the buffers stay."""
    rng, preprocess, build = np.random.default_rng(1), Preprocessor(METRIC), CloudBuilder()
    with Planned(device, METRIC, plan_for(message)) as planned:
        results = planned.results
        for number in range(3):
            message.data = rng.integers(0, 256, message.data.size, np.uint8)
            camera = Intrinsics(40.0 + number, 41.0, 30.0, 20.0 + number, (48, 64))
            planned.stages.image_bytes[:] = message.data
            planned.stages.set_numbers(FrameNumbers(scale_factor=1.0 + number, intrinsics=camera))
            planned.set_raw(np.full((1, 24, 32), 2.0 + number, np.float32))
            planned.enqueue()
            planned.stream.synchronize()
            np.testing.assert_array_equal(planned.tensor, preprocess(frame_of(message)).tensor)
            assert (results["depth"] == (2.0 + number) * (1.0 + number)).all()
            points = build(np.array(results["depth"]), camera, frame_of(message).rgb)
            np.testing.assert_array_equal(results["points"].view(np.uint32), points.view(np.uint32))


def test_captured_graph_follows_image_and_numbers(planned, message):
    """What is captured once is right for frames that come later: nothing of a frame is frozen in it."""
    with planned() as frame:
        with frame.driver.captured(frame.stream) as graph:
            frame.enqueue_kernels()
        frame.set_raw(np.full((1, 24, 32), 2.0, np.float32))
        results = frame.results
        for byte, factor, limit_m, expected in ((3, 1.0, 100.0, 2.0), (99, 3.0, 100.0, 6.0), (200, 3.0, 5.0, np.inf)):
            frame.stages.image_bytes[:] = byte
            frame.stages.set_numbers(FrameNumbers(scale_factor=factor, max_depth_m=limit_m, intrinsics=CAMERA))
            frame.stages.enqueue_upload(frame.stream)
            frame.stream.queue += graph
            frame.stages.enqueue_download(frame.stream, results)
            assert not (results["depth"] == expected).any(), "it must not be done before the stream is"
            frame.stream.synchronize()
            assert (results["depth"] == expected).all()
            assert np.isnan(results["points"][..., 2]).all() == np.isinf(expected)
            message.data[:] = byte
            np.testing.assert_array_equal(frame.tensor, Preprocessor(METRIC)(frame_of(message)).tensor)


def test_memory_is_freed_by_closing(planned):
    with planned() as frame:
        frame.stages.close()
        assert len(frame.driver.live) == 2, "the network's own"
        frame.stages.close()


def test_memory_that_does_not_suffice_is_an_error_and_nothing_stays(planned, host_library):
    driver = FakeDriver(host_library, 50_000)
    with pytest.raises(EngineError, match=r"the GPU has no \d+ bytes left: .*; use a smaller image or depth.downsample"):
        planned(driver)
    assert not driver.live


def test_memory_that_cannot_be_locked_is_an_error_and_nothing_stays(planned, host_library, monkeypatch):
    def refuse(*_):
        raise FakeDriver.MemoryError("cuMemHostAlloc failed: out of memory")

    driver = FakeDriver(host_library)
    monkeypatch.setattr(driver, "pagelocked_empty", refuse)
    with pytest.raises(EngineError, match=r"no page-locked memory of \(\d+,\) uint8 is left: .*; use a smaller image or depth.downsample"):
        planned(driver)
    assert not driver.live


@pytest.mark.parametrize(("outputs", "kernels"), [((), 1), (("depth",), 3), (("color",), 4), (("points", "color"), 5)])
def test_only_what_is_wanted_is_made(planned, outputs, kernels):
    with planned(outputs=frozenset(outputs)) as frame:
        frame.stages.set_numbers(FrameNumbers(intrinsics=CAMERA))
        frame.enqueue_kernels()
        assert len(frame.stream.queue) == kernels


def test_outputs_that_cannot_be_are_refused(planned):
    with pytest.raises(EngineError, match="model 'tiny' cannot give a relative map"):
        planned(outputs=frozenset({"relative"}))
    with pytest.raises(EngineError, match="model 'tiny' cannot give normals"):
        planned(outputs=frozenset({"normals"}))


@pytest.mark.parametrize("camera", [None, Intrinsics(40.0, 40.0, 32.0, 24.0, (96, 128))])
def test_points_need_the_camera_of_the_published_size(planned, camera):
    with pytest.raises(EngineError, match="points need the camera of an image of the published size"):
        planned().stages.set_numbers(FrameNumbers(intrinsics=camera))
    planned(outputs=frozenset({"depth"})).stages.set_numbers(FrameNumbers(intrinsics=camera))


def test_rays_of_another_size_are_refused(planned):
    with pytest.raises(EngineError, match=r"rays have shape \(48, 64, 2\), the points need \(24, 32, 2\)"):
        planned(cloud_stride=2, rays=np.zeros((48, 64, 2), np.float32))


def test_every_encoding_has_a_reader():
    assert FORMATS.keys() == ENCODINGS.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "rgb16"}, "encoding 'rgb16' is not one of rgb8, bgr8"),
        ({"step": 191}, "rgb8 image of 64x48 pixels: step 191 is below the 192 bytes of a row"),
        ({"step": 2**31}, "step 2147483648 is above 2147483647"),
        ({"height": 0}, "image of 64x0 pixels: both sides must be 1 .. 16384"),
        ({"height": 16384, "width": 16384, "step": 3 * 16384}, "at most 67108864 pixels in all"),
        ({"encoding": "yuv422", "width": 63}, "sides must be even"),
        ({"encoding": "nv21", "height": 47}, "sides must be even"),
    ],
)
def test_layouts_that_would_be_read_beside_the_image_are_refused(changes, words):
    with pytest.raises(DecodeError) as error:
        ImageLayout(**({"encoding": "rgb8", "height": 48, "width": 64, "step": 192} | changes))
    assert words in str(error.value)


def test_image_of_another_length_does_not_fit(planned, message):
    image_bytes = planned().stages.image_bytes
    assert image_bytes.nbytes == layout_of(message).nbytes == message.data.size
    with pytest.raises(ValueError, match="could not broadcast"):
        image_bytes[:] = message.data[:-1]


def test_the_fake_device_notices_what_a_gpu_would_not(planned):
    """It is an instrument, so it is tested, too."""
    frame = planned(outputs=frozenset({"depth"}))
    fake = frame.driver
    with pytest.raises(AssertionError, match="not asynchronous"):
        fake.memcpy_htod_async(int(fake.mem_alloc(8)), np.zeros(8, np.uint8), fake.Stream())
    with pytest.raises(AssertionError, match="outside device memory"):
        fake.memcpy_htod(int(fake.mem_alloc(8)) + 1, np.zeros(8, np.uint8))
    frame.stages.set_numbers(FrameNumbers())
    function, args = frame.stages._after[-1]
    row_taps = np.zeros(49, taps.DEPTH_TAPS)
    args["height"], args["row_taps"] = 49, int(fake.mem_alloc(row_taps.nbytes))
    fake.memcpy_htod(int(args["row_taps"]), row_taps)
    function(args, block=launch.BLOCK, grid=launch.grid_for(args), stream=frame.stream)
    with pytest.raises(AssertionError, match="a kernel wrote outside"):
        frame.stream.synchronize()
