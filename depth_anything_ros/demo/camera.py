"""A camera driver's stand-in: publishes `image` and `camera_info` from the rendered scene, a video or pictures.

The rendered scene also publishes its known depth, now and then, on `demo/truth`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from .. import messages
from ..geometry import intrinsics_from_hfov
from ..memory import keep_freed_memory
from ..structs import Intrinsics
from .scene import FRAMES_PER_LOOP, MovingScene

TRUTH_EVERY = 10
MAX_WIDTH_PX = 1280
TRUTH_TOPIC = "demo/truth"
Frame = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]


def scene_frames() -> tuple[Iterator[Frame], Intrinsics]:
    """Render one loop of the scene with all cores and repeat it for ever."""
    scene = MovingScene()
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        frames = list(pool.map(scene.render, range(FRAMES_PER_LOOP)))
    return cycle(frames), scene.intrinsics


def video_frames(path: Path, hfov_deg: float) -> tuple[Iterator[Frame], Intrinsics]:
    """Read a video frame by frame, from the beginning again at its end."""

    def read() -> Iterator[Frame]:
        while True:
            capture, any_frame = cv2.VideoCapture(str(path)), False
            while (got := capture.read())[0]:
                any_frame = True
                yield _rgb(got[1]), None
            capture.release()
            if not any_frame:
                raise SystemExit(f"camera: cannot read video '{path}'")

    frames = read()
    first = next(frames)
    return frames, intrinsics_from_hfov(hfov_deg, first[0].shape[:2])


def picture_frames(paths: list[Path], hfov_deg: float) -> tuple[Iterator[Frame], Intrinsics]:
    """Read pictures and repeat them for ever, each one for a second's worth of frames."""
    pictures: list[npt.NDArray[np.uint8]] = []
    for path in paths:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise SystemExit(f"camera: cannot read image '{path}'")
        pictures.append(_rgb(bgr))
    frames = cycle([(picture, None) for picture in pictures for _ in range(10)])
    return frames, intrinsics_from_hfov(hfov_deg, pictures[0].shape[:2])


def _rgb(bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a picture as RGB, no wider than a camera's: a phone's photo at 30 Hz is a gigabyte a second."""
    if bgr.shape[1] > MAX_WIDTH_PX:
        height = max(1, round(bgr.shape[0] * MAX_WIDTH_PX / bgr.shape[1]))
        bgr = cv2.resize(bgr, (MAX_WIDTH_PX, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return np.ascontiguousarray(bgr[..., ::-1])


class DemoCamera(Node):
    """Publishes frames at a steady rate."""

    def __init__(self, frames: Iterator[Frame], intrinsics: Intrinsics, rate_hz: float) -> None:
        """Create the publishers, reliable as most camera drivers are, and the timer."""
        super().__init__("demo_camera")
        self._frames, self._intrinsics = frames, intrinsics
        self._image = self.create_publisher(Image, "image", QoSProfile(depth=1))
        self._info = self.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1))
        self._truth = self.create_publisher(Image, TRUTH_TOPIC, QoSProfile(depth=5))  # few, and the recorder counts on each
        self._number = 0
        self.create_timer(1 / rate_hz, self._publish)

    def _publish(self) -> None:
        rgb, truth_m = next(self._frames)
        info = CameraInfo(height=rgb.shape[0], width=rgb.shape[1], distortion_model="plumb_bob")
        info.header.stamp, info.header.frame_id = self.get_clock().now().to_msg(), "camera_optical_frame"
        camera = self._intrinsics
        scale = rgb.shape[1] / camera.size_hw[1]  # pictures may differ in size; the field of view is the same for all
        fx, fy, cx, cy = camera.fx * scale, camera.fy * scale, rgb.shape[1] / 2, rgb.shape[0] / 2
        info.d = [0.0] * 5
        info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
        info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        self._info.publish(info)
        self._image.publish(messages.color_image(info.header, rgb))
        if truth_m is not None and self._number % TRUTH_EVERY == 0:
            self._truth.publish(messages.depth_image(info.header, truth_m, "32FC1"))
        self._number += 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the camera shows and how fast; the demonstration takes the same and passes it on."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--video", type=Path, help="play this video in a loop instead of the rendered scene")
    source.add_argument("--image", type=Path, nargs="+", help="show these pictures in turn instead of the rendered scene")
    parser.add_argument("--rate-hz", type=float, default=30.0, help="frames per second (default: 30)")
    parser.add_argument("--hfov-deg", type=float, default=60.0, help="horizontal field of view of the video or pictures (default: 60)")


def main(argv: list[str] | None = None) -> int:
    """Publish until told to stop."""
    parser = argparse.ArgumentParser(prog="python3 -m depth_anything_ros.demo.camera", description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if not (math.isfinite(args.rate_hz) and args.rate_hz > 0):
        parser.error("--rate-hz must be above 0")
    started_s = time.monotonic()
    if args.video:
        frames, intrinsics = video_frames(args.video, args.hfov_deg)
    elif args.image:
        frames, intrinsics = picture_frames(args.image, args.hfov_deg)
    else:
        frames, intrinsics = scene_frames()
    print(f"camera: ready after {time.monotonic() - started_s:.1f} s", file=sys.stderr, flush=True)
    keep_freed_memory()
    rclpy.init()
    node = DemoCamera(frames, intrinsics, args.rate_hz)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
