import os

import cv2
import numpy as np
import pytest

from depth_anything_ros import video
from depth_anything_ros.color import rgb_from_map
from depth_anything_ros.config import ColorConfig
from depth_anything_ros.structs import DepthMap

SYNTHETIC = ["--engine", "synthetic"]
FRAMES, FPS, SIZE_WH = 12, 12.5, (96, 64)


@pytest.fixture
def source(tmp_path):
    """Return a video whose picture gets brighter from frame to frame."""
    path = tmp_path / "in.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, SIZE_WH)
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write mp4v")
    for number in range(FRAMES):
        writer.write(np.full((SIZE_WH[1], SIZE_WH[0], 3), 20 * number, np.uint8))
    writer.release()
    return path


def frames_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, bgr = capture.read()
        if not there:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(bgr)


@pytest.mark.parametrize("kind", ["depth_m", "disparity_affine_invariant"])
def test_every_frame_stands_beside_its_depth(tmp_path, source, kind, capsys):
    assert video.main([str(source), str(tmp_path / "out.mp4"), *SYNTHETIC, "--set", f"synthetic.output_kind={kind}"]) == 0
    frames, fps = frames_of(tmp_path / "out.mp4")
    assert (len(frames), fps) == (FRAMES, FPS)
    for number, frame in enumerate(frames):
        assert frame.shape == (64, 96 + 96 + 72, 3)
        assert abs(float(frame[40:60, 10:80].mean()) - 20 * number) < 8
        if kind == "depth_m":  # 1 m (black) to 2 m (white)
            depth = DepthMap(np.full((1, 1), 1 + 20 * number / 255, np.float32), "depth_m")
            expected = rgb_from_map(depth, "turbo", 0.3, 10.0)[0, 0, ::-1]
            assert np.abs(frame[20:44, 110:180].mean((0, 1)) - expected).max() < 25
    assert f"{FRAMES} frames, {FPS} frames/s" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_bar_has_the_colours_of_the_map_and_the_near_end_below():
    color = ColorConfig()
    bar = video.color_bar(101, "depth_m", color)
    for row, depth_m in ((0, color.far_m), (50, (color.near_m * color.far_m) ** 0.5), (100, color.near_m)):
        expected = rgb_from_map(DepthMap(np.full((1, 1), depth_m, np.float32), "depth_m"), color.colormap, color.near_m, color.far_m)
        assert np.abs(bar[row, 10].astype(int) - expected[0, 0]).max() <= 4


def test_sides_are_even_and_the_frame_is_numbered():
    depth = DepthMap(np.ones((33, 51), np.float32), "depth_m")
    pictures = [video.side_by_side(np.zeros((33, 51, 3), np.uint8), depth, number, ColorConfig()) for number in (1, 2)]
    assert pictures[0].shape == (32, 174, 3)
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[0][:, 51:] == pictures[1][:, 51:]).all()


def test_video_that_ends_early_is_converted_as_far_as_it_goes(tmp_path, monkeypatch, source, capsys):
    monkeypatch.setattr(video.Source, "frames", lambda self: ((n, np.zeros((64, 96, 3), np.uint8)) for n in range(5)))
    assert video.main([str(source), str(tmp_path / "out.mp4"), *SYNTHETIC]) == 1
    assert "ends early: 5 of its 12 frames could be read" in capsys.readouterr().err
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 5


def test_mistakes_are_told_and_nothing_is_left_behind(tmp_path, source, capsys):
    (tmp_path / "there.mp4").write_bytes(b"x")
    (tmp_path / "noise.mp4").write_bytes(b"no video" * 50)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    before = sorted(tmp_path.iterdir())
    cases = [
        (source, source, "IN and OUT are the same"),
        (source, tmp_path / "there.mp4", "exists already"),
        (source, tmp_path / "out.avi", "give it that ending"),
        (source, tmp_path / "no" / "out.mp4", "there is no folder"),
        (tmp_path / "gone.mp4", tmp_path / "out.mp4", "there is no video"),
        (tmp_path / "noise.mp4", tmp_path / "out.mp4", "is not a video that OpenCV reads"),
        (cut, tmp_path / "out.mp4", "or its end with the index is missing"),
    ]
    for given, output, said in cases:
        assert video.main([str(given), str(output), *SYNTHETIC]) == 2
        assert said in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_failure_in_the_middle_leaves_no_file(tmp_path, monkeypatch, source, capsys):
    def no_space(self):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(video.Sink, "check", no_space)
    assert video.main([str(source), str(tmp_path / "out.mp4"), *SYNTHETIC]) == 2
    assert os.strerror(28) in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_file_that_the_disk_cut_short_is_noticed(tmp_path, source):
    sink = video.Sink(source, FPS, ColorConfig())
    sink.count = FRAMES
    sink.check()
    source.write_bytes(source.read_bytes()[:500])
    with pytest.raises(video.VideoError, match=f"only 0 of {FRAMES} frames could be written"):
        sink.check()


def test_frames_have_the_times_of_the_video(tmp_path, monkeypatch, source):
    stamps = []
    real = video.Pipeline.__call__
    monkeypatch.setattr(video.Pipeline, "__call__", lambda self, frame, *rest: stamps.append(frame.stamp_ns) or real(self, frame, *rest))
    assert video.main([str(source), str(tmp_path / "out.mp4"), "--set", "engine=synthetic"]) == 0
    assert len(set(np.diff(stamps))) == 1
    assert min(stamps) > 0
