"""The data path of a bag: read and decode on one thread, infer on the caller's, serialise and write on a third; every frame, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..camera import Calibration
from ..config import RuntimeConfig
from ..errors import DecodeError
from ..geometry import CloudBuilder
from ..obstacles import points_from_depth
from ..overlap import overlapped
from ..pipeline import Pipeline, pipeline_for
from ..prediction import Prediction
from ..structs import RgbFrame
from . import messages
from .cameras import Camera, add_camera_info
from .input import BagInput, BagMessage, Topic
from .output import SegmentedBag

_BATCH_MESSAGES, _BATCH_BYTES = 1000, 8 * 2**20


@dataclass(frozen=True)
class Picture:
    """One decoded image of a camera."""

    camera: Camera
    header: Any
    frame: RgbFrame
    calibration: Calibration


@dataclass
class Batch:
    """Messages that follow one another. Only the last one may be an image of a camera: then `picture` or `refusal` is set.

    Attributes:
        messages: as they lie in the input.
        picture: what the last message shows.
        refusal: why the last message, an image, cannot be used.
        prediction: what came of the picture.
    """

    messages: list[BagMessage] = field(default_factory=list)
    picture: Picture | None = None
    refusal: str = ""
    prediction: Prediction | None = None


class DepthRun:
    """Runs the pipeline over a bag."""

    def __init__(self, bag: BagInput, cameras: list[Camera], config: RuntimeConfig, pipeline: Pipeline, output: SegmentedBag) -> None:
        """Take everything that the run needs; the caller closes it.

        Args:
            bag: to read.
            cameras: whose images get depth.
            config: of the node; what is about topics and life has no effect.
            pipeline: with an open engine.
            output: to write to; the run goes on after its `progress`.
        """
        self._bag, self._cameras, self._config, self._pipeline, self._output = bag, cameras, config, pipeline, output
        # what one camera's frames have in common is nothing to another one's
        self._pipelines = {camera.image: pipeline_for(pipeline.engine) for camera in cameras}
        self._by_image = {camera.image: camera for camera in cameras}
        self._by_info: dict[str, list[Camera]] = {}
        for camera in cameras:
            self._by_info.setdefault(camera.info, []).append(camera)
        self._topics = {(topic.name, topic.msgtype): topic for topic in bag.topics}
        self._cloud_builder = CloudBuilder()

    def __call__(self, with_cloud: bool, on_progress: Callable[[int], object], warn: Callable[[str, str, str], None]) -> None:
        """Do all that is left to do.

        Args:
            with_cloud: write clouds, too.
            on_progress: called with the number of images that were done.
            warn: called with a topic, the kind of trouble with an image of it, and the reason.

        Raises:
            EngineError: the engine failed; what is finished stays, and the run can be started again.
            OSError: writing failed; likewise.
        """
        self._with_cloud, self._on_progress, self._warn = with_cloud, on_progress, warn
        overlapped(self._batches(), self._predict, self._write_all)

    # Reading

    def _batches(self) -> Iterator[Batch]:
        batch, size_bytes, skip = Batch(), 0, self._output.progress.messages
        for index, message in enumerate(self._bag.messages()):
            for camera in self._by_info.get(message.topic, ()):
                add_camera_info(camera, message.data)
            if index < skip:
                continue
            batch.messages.append(message)
            size_bytes += len(message.data)
            camera_of_image = self._by_image.get(message.topic)
            if camera_of_image is not None:
                self._decode(batch, message, camera_of_image)
            if camera_of_image is not None or len(batch.messages) >= _BATCH_MESSAGES or size_bytes >= _BATCH_BYTES:
                yield batch
                batch, size_bytes = Batch(), 0
        yield batch

    def _decode(self, batch: Batch, message: BagMessage, camera: Camera) -> None:
        try:
            image = messages.message_from_bytes(message.data, message.msgtype)
            frame = messages.rgb_frame_from_message(image)
            if not self._pipelines[camera.image].reads_raw_images:
                frame.rgb  # noqa: B018 - decoded here, beside the inference
        except DecodeError as error:
            batch.refusal = str(error)
            return
        batch.picture = Picture(camera, image.header, frame, camera.infos.calibration_for(image, frame.size_hw, self._config.camera.image))

    # Inferring

    def _predict(self, batch: Batch) -> Batch:
        if batch.picture is not None:
            picture = batch.picture
            wanted = {"relative"} if self._pipeline.no_depth_reason(self._config, picture.calibration.intrinsics) else {"depth"}
            if self._with_cloud:
                wanted.add("points")
            try:
                pipeline = self._pipelines[picture.camera.image]
                batch.prediction = pipeline(picture.frame, self._config, picture.calibration.camera, frozenset(wanted))
            except DecodeError as error:
                batch.refusal = str(error)
        return batch

    # Writing

    def _write_all(self, batches: Iterator[Batch]) -> None:
        with self._output.segments():
            for batch in batches:
                self._write(batch)

    def _write(self, batch: Batch) -> None:
        for message in batch.messages:
            self._output.write(self._topics[message.topic, message.msgtype], message.stamp_ns, message.data)
        is_image = batch.picture is not None or bool(batch.refusal)
        counts = {"messages": len(batch.messages), "images": int(is_image), "refused": int(bool(batch.refusal))}
        if batch.refusal:
            self._warn(batch.messages[-1].topic, "image copied without depth", batch.refusal)
        elif batch.picture is not None and batch.prediction is not None:
            counts |= self._write_prediction(batch.picture, batch.prediction, batch.messages[-1])
        self._output.advance(self._output.progress.plus(**counts))
        self._on_progress(int(is_image))

    def _write_prediction(self, picture: Picture, prediction: Prediction, image: BagMessage) -> dict[str, int]:
        """Write what the node would publish, in its order; returns what was written."""
        made = prediction.depth or prediction.relative
        if made is None:
            self._warn(image.topic, "no metric depth", prediction.no_depth_reason)
            return {}
        header, calibration = picture.header, picture.calibration
        info = messages.depth_camera_info(header, calibration.info, picture.frame.size_hw, made.size_hw)
        self._put(picture.camera, "camera_info", messages.CAMERA_INFO, image.stamp_ns, info)
        if prediction.depth is None:
            self._put(picture.camera, "relative", messages.IMAGE, image.stamp_ns, messages.relative_image(header, made.values))
            return {"depths": 1}
        depth = messages.depth_image(header, made.values, self._config.depth.encoding)
        self._put(picture.camera, "image", messages.IMAGE, image.stamp_ns, depth)
        if calibration.problem:
            self._warn(image.topic, "camera not calibrated", f"{calibration.problem}; depth has no cloud and no calibration{self._assumed_fov()}")
        elif self._with_cloud:
            self._put(picture.camera, "points", messages.POINT_CLOUD, image.stamp_ns, self._cloud(picture, prediction))
            return {"depths": 1, "clouds": 1}
        return {"depths": 1}

    def _assumed_fov(self) -> str:
        needs_focal_length = self._pipeline.engine.contract.output_kind == "depth_canonical_focal"
        return f", scaled for the assumed fallback_hfov_deg of {self._config.fallback_hfov_deg:g}" if needs_focal_length else ""

    def _cloud(self, picture: Picture, prediction: Prediction) -> memoryview:
        points, camera = prediction.points, picture.calibration.camera
        if points is None:
            assert camera is not None
            assert prediction.depth is not None
            depth_m, limit_m = prediction.depth.values, prediction.range_limit_m
            points = points_from_depth(self._cloud_builder, depth_m, camera, picture.frame.rgb, self._config, limit_m)
        return messages.cloud(picture.header, points)

    def _put(self, camera: Camera, name: str, msgtype: str, stamp_ns: int, data: memoryview) -> None:
        self._output.write(Topic(camera.prefix + name, msgtype), stamp_ns, data)
