"""Depth for a video file, without ROS: the picture and its depth side by side, with a colour bar, as an .mp4 to look at."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .arguments import add_arguments, config_from
from .color import rgb_from_map
from .config import ColorConfig, RuntimeConfig
from .engines import open_engine
from .errors import DepthAnythingError
from .memory import keep_freed_memory
from .overlap import overlapped
from .pipeline import Pipeline, pipeline_for
from .structs import DepthMap, MapKind, RgbFrame

_CODECS = ("avc1", "mp4v")  # H.264, which every player shows, is not in every build of OpenCV
_BAR_PX = 72
_FALLBACK_FPS = 30.0
_COUNT_TOLERANCE = 2  # containers give duration x rate, which may be a frame off
Pixels = npt.NDArray[np.uint8]
Shown = tuple[int, Pixels, DepthMap]
"""Number of a frame, its picture (RGB) and its map."""


def main(argv: list[str] | None = None) -> int:
    """Convert a video; returns 0 where all went well, 1 where the video ended early, 2 where the run could not start or go on."""
    parser = argparse.ArgumentParser(prog="python3 -m depth_anything_ros.video", description=__doc__)
    parser.add_argument("input", metavar="IN", type=Path, help="a video that OpenCV reads")
    parser.add_argument("output", metavar="OUT.mp4", type=Path, help="the new video; must not exist")
    add_arguments(parser)
    args = parser.parse_args(argv)
    keep_freed_memory()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a codec that is not there is no news: another one is tried
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    temporary = args.output.with_name(f".{os.getpid()}.{args.output.name}")
    try:
        _check_paths(args.input, args.output)
        config = config_from(args)
        with Source(args.input) as source, closing(open_engine(config)) as engine:
            sink = Sink(temporary, source.fps, config.color)
            with tqdm(total=source.frame_count or None, unit="frame", disable=None) as bar:
                _convert(source, pipeline_for(engine), config, sink, bar.update)
        sink.check()
        temporary.replace(args.output)
    except KeyboardInterrupt:
        return _failed("stopped", 130)
    except (DepthAnythingError, OSError) as error:
        return _failed(str(error), 2)
    finally:
        with suppress(OSError):  # mostly it is not there
            temporary.unlink()
    print(f"{args.output}: {sink.count} frames, {source.fps:g} frames/s")
    if sink.count < source.frame_count - _COUNT_TOLERANCE:
        return _failed(f"'{args.input}' ends early: {sink.count} of its {source.frame_count} frames could be read", 1)
    return 0


def _failed(text: str, status: int) -> int:
    print(f"video: {text}", file=sys.stderr)
    return status


def _check_paths(source: Path, path: Path) -> None:
    if path.suffix != ".mp4":
        raise VideoError(f"'{path}': the new video is an .mp4, give it that ending")
    if path.exists():
        same = path.resolve() == source.resolve()
        raise VideoError(f"IN and OUT are the same, '{path}'" if same else f"'{path}' exists already; choose another name or remove it")
    if not path.parent.is_dir():
        raise VideoError(f"there is no folder '{path.parent}'")


def _convert(source: Source, pipeline: Pipeline, config: RuntimeConfig, sink: Sink, on_frame: Callable[[], object]) -> None:
    def predict(numbered: tuple[int, Pixels]) -> Shown:
        number, rgb = numbered
        prediction = pipeline(RgbFrame(rgb, stamp_ns=round((number + 1) * 1e9 / source.fps)), config)  # 0 would be no stamp
        made = prediction.depth or prediction.relative
        if made is None:
            raise VideoError(prediction.no_depth_reason)
        return number, rgb, made

    def write(frames: Iterator[Shown]) -> None:
        with sink:
            for shown in frames:
                sink.write(shown)
                on_frame()

    overlapped(source.frames(), predict, write)


class VideoError(DepthAnythingError):
    """A video cannot be read or written as asked; the message says why and what to do."""


class Source:
    """A video to read from."""

    def __init__(self, path: Path) -> None:
        """Open a video.

        Raises:
            VideoError: missing, or not a video that OpenCV reads.
        """
        if not path.is_file():
            raise VideoError(f"there is no video '{path}'")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError(f"'{path}' is not a video that OpenCV reads, or its end with the index is missing")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else _FALLBACK_FPS
        self.frame_count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def frames(self) -> Iterator[tuple[int, Pixels]]:
        """Yield number and (H, W, 3) uint8 RGB picture of each frame."""
        number = 0
        while True:
            there, bgr = self._capture.read()
            if not there:
                return
            yield number, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
            number += 1


class Sink:
    """The video in the making. Use it as a context manager, then `check` it."""

    def __init__(self, path: Path, fps: float, color: ColorConfig) -> None:
        """Remember where and how; the file is made with the first frame, whose size it gets."""
        self._path, self._fps, self._color = path, fps, color
        self._writer: cv2.VideoWriter | None = None
        self._size_hw = 0, 0
        self.count = 0

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, shown: Shown) -> None:
        """Write a frame.

        Raises:
            VideoError: no codec of OpenCV writes such a video.
        """
        number, rgb, depth_map = shown
        picture = side_by_side(rgb, depth_map, number, self._color)
        if self._writer is None:
            self._size_hw = picture.shape[0], picture.shape[1]
            self._writer = _opened_writer(self._path, self._fps, self._size_hw)
        if picture.shape[:2] != self._size_hw:
            raise VideoError(f"frame {number} has another size than the first one; split the video there")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.count += 1

    def check(self) -> None:
        """Look whether all is in the file: OpenCV's writer says nothing where it cannot write.

        Raises:
            VideoError: frames are missing.
        """
        if self.count == 0:
            raise VideoError("not one frame of the video could be read")
        capture = cv2.VideoCapture(str(self._path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if count < self.count:
            raise VideoError(f"only {count} of {self.count} frames could be written: is there space left?")


def _opened_writer(path: Path, fps: float, size_hw: tuple[int, int]) -> cv2.VideoWriter:
    for codec in _CODECS:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (size_hw[1], size_hw[0]))
        if writer.isOpened():
            return writer
    raise VideoError(f"OpenCV cannot write '{path}' with {' or '.join(_CODECS)}: is the folder writable, does this OpenCV have a video encoder?")


def side_by_side(rgb: Pixels, depth_map: DepthMap, number: int, color: ColorConfig) -> Pixels:
    """Return picture, depth and colour bar beside one another, and the number of the frame.

    Args:
        rgb: (H, W, 3) uint8.
        depth_map: of the picture, any size.
        number: of the frame, from 0.
        color: colours and their range.

    Returns:
        (H', W', 3) uint8 RGB, both sides even: encoders want that.
    """
    height, width = rgb.shape[:2]
    colored = rgb_from_map(depth_map, color.colormap, color.near_m, color.far_m)
    colored = cv2.resize(colored, (width, height), interpolation=cv2.INTER_NEAREST)
    picture = np.hstack([rgb, colored, color_bar(height, depth_map.kind, color)])
    _label(picture, f"{number:06d}", (6, 18))
    picture = picture[:, : picture.shape[1] // 2 * 2]
    return np.ascontiguousarray(picture[: height // 2 * 2])


def color_bar(height: int, kind: MapKind, color: ColorConfig) -> Pixels:
    """Return a (height, 72, 3) uint8 RGB bar, near at the bottom: metres at its marks for metric depth, near and far otherwise."""
    steps = np.linspace(0, 1, height, dtype=np.float32)[::-1, None]  # 0 near .. 1 far
    ratio = color.far_m / color.near_m
    values = color.near_m * ratio**steps if kind == "depth_m" else 1 - steps
    bar = np.zeros((height, _BAR_PX, 3), np.uint8)
    bar[:, 4:20] = rgb_from_map(DepthMap(np.ascontiguousarray(values, np.float32), kind), color.colormap, color.near_m, color.far_m)
    for part in np.linspace(0, 1, 5):
        text = f"{color.near_m * ratio**part:.3g} m" if kind == "depth_m" else {0.0: "near", 1.0: "far"}.get(part, "")
        _label(bar, text, (24, math.ceil((1 - part) * (height - 18)) + 13))
    return bar


def _label(picture: Pixels, text: str, at_xy: tuple[int, int]) -> None:
    for gray, thickness in ((0, 3), (255, 1)):  # white with a black rim: readable on anything
        cv2.putText(picture, text, at_xy, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (gray, gray, gray), thickness, cv2.LINE_AA)


if __name__ == "__main__":
    raise SystemExit(main())
