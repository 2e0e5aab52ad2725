"""Which topics of a bag are cameras, which camera_info is theirs, and what their outputs are called."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..camera import CameraInfoBuffer
from ..errors import DecodeError
from .input import BagError, BagInput, Topic
from .messages import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, message_from_bytes, rgb_frame_from_message

OUTPUTS = ("image", "camera_info", "points", "relative")
"""Last part of the names of the output topics, as the node calls them."""


@dataclass(frozen=True)
class Camera:
    """One image topic.

    Attributes:
        image: name of the image topic.
        msgtype: of the images.
        info: name of its camera_info topic; empty where the bag has none.
        prefix: what the names of its outputs begin with, such as `/camera/depth/`.
        infos: the camera_info messages so far; at first the bag's first one, so that the first image has one, too.
    """

    image: str
    msgtype: str
    info: str
    prefix: str
    infos: CameraInfoBuffer = field(default_factory=CameraInfoBuffer)


def choose_cameras(bag: BagInput, wanted: Sequence[str], output_name: str) -> tuple[list[Camera], list[str]]:
    """Return the cameras to use, and notes on image topics that are left out.

    Args:
        bag: to choose from.
        wanted: names of image topics; empty = every one whose first image can be decoded, and of a picture that was recorded both
            raw and compressed, the raw one.
        output_name: the name under the camera's namespace that the outputs get, `depth` as the node has it.

    Raises:
        BagError: there is nothing to use, a name is wrong, or output topics would coincide.
    """
    images = [topic for topic in bag.topics if topic.msgtype in (IMAGE, COMPRESSED_IMAGE)]
    unknown = set(wanted) - {topic.name for topic in images}
    if unknown or not images:
        asked = f"no image topic {', '.join(sorted(unknown))}" if unknown else "no image topic"
        raise BagError(f"{asked} in the bag; it has:\n{_listing(bag.topics)}")
    chosen, notes = ([topic for topic in images if topic.name in wanted], []) if wanted else _usable(bag, images)
    if not chosen:
        raise BagError("no image of the bag can be used:\n" + "\n".join(notes))
    infos = {topic.name for topic in bag.topics if topic.msgtype == CAMERA_INFO}
    cameras = [_camera(topic, infos, output_name) for topic in chosen]
    _check_names(cameras, {topic.name for topic in bag.topics})
    for camera in cameras:
        first = next(bag.messages({camera.info}), None) if camera.info else None
        if first is not None:
            add_camera_info(camera, first.data)
    return cameras, notes


def add_camera_info(camera: Camera, data: bytes) -> None:
    """Store a camera_info; one that cannot be read is left out, as if it had not been recorded."""
    try:
        camera.infos.add(message_from_bytes(data, CAMERA_INFO))
    except DecodeError:
        return


def _usable(bag: BagInput, images: list[Topic]) -> tuple[list[Topic], list[str]]:
    chosen, notes = [], []
    bases = {topic.name for topic in images if topic.msgtype == IMAGE}
    for topic in images:
        if topic.msgtype == COMPRESSED_IMAGE and _base(topic) in bases:
            notes.append(f"{topic.name}: left out, {_base(topic)} has the same pictures")
            continue
        first = next(bag.messages({topic.name}), None)
        if first is None:
            notes.append(f"{topic.name}: left out, it has no messages")
            continue
        try:
            rgb_frame_from_message(message_from_bytes(first.data, topic.msgtype))
            chosen.append(topic)
        except DecodeError as error:
            notes.append(f"{topic.name}: left out, {error}")
    return chosen, notes


def _base(topic: Topic) -> str:
    return topic.name.removesuffix("/compressed") if topic.msgtype == COMPRESSED_IMAGE else topic.name


def _camera(topic: Topic, infos: Collection[str], output_name: str) -> Camera:
    namespace = _base(topic).rpartition("/")[0]
    info = f"{namespace}/camera_info"
    camera = Camera(topic.name, topic.msgtype, info if info in infos else "", f"{namespace}/{output_name}/")
    camera.infos.image_topic = topic.name
    return camera


def _check_names(cameras: list[Camera], taken: Collection[str]) -> None:
    for index, camera in enumerate(cameras):
        twin = next((other for other in cameras[:index] if other.prefix == camera.prefix), None)
        if twin is not None:
            raise BagError(f"{twin.image} and {camera.image} would both write {camera.prefix}image: choose one with --topics")
        present = [camera.prefix + name for name in OUTPUTS if camera.prefix + name in taken]
        if present:
            raise BagError(f"the bag already has {', '.join(present)}: give the new topics another name than 'depth' with --output-name")


def _listing(topics: list[Topic]) -> str:
    return "\n".join(f"  {topic.name} ({topic.msgtype}, {topic.message_count} messages)" for topic in topics) or "  nothing"
