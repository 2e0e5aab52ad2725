"""What the scale is measured against: the topic `reference` or `imu`, and TF. Callbacks store, the worker's thread converts."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, Imu, LaserScan, PointCloud2, Range

from .config import CameraConfig
from .config_scale import GroundConfig, ReferenceConfig, ScaleConfig
from .errors import TransformError
from .ground_scale import GroundPlane, plane_from_acceleration, plane_from_mounting, plane_from_transform
from .rays import ImageCamera
from .reference_messages import depth_from_image, points_from_message
from .reference_points import NearestInTime, Points, ReferencePixels, pixels_from_depth_image, pixels_from_points, rigid_transform
from .structs import RgbFrame
from .transforms import Transforms

KEEP_S = 1.0
"""Seconds for which messages are kept: the longest time from an image to the end of its inference."""

_TOPICS: dict[str, tuple[str, type]] = {
    "scan": ("reference", LaserScan),
    "cloud": ("reference", PointCloud2),
    "range": ("reference", Range),
    "depth_image": ("reference", Image),
    "imu": ("imu", Imu),
}


class SharedTransforms(Transforms):
    """TF for all cameras of a node: listened to while at least one of them asks for it."""

    def __init__(self, node: Node) -> None:
        """Start without users."""
        super().__init__(node)
        self._users: set[object] = set()

    def serve(self, user: object, wanted: bool) -> None:
        """Open for the first user that wants it, close after the last."""
        (self._users.add if wanted else self._users.discard)(user)
        if self._users:
            self.open()
        else:
            self.close()


class Sensors:
    """Subscribes to what the parameters ask for, and finds what belongs to an image."""

    def __init__(self, node: Node, transforms: SharedTransforms, prefix: str = "") -> None:
        """Remember the node; nothing is subscribed before `follow`. All topics begin with `prefix`."""
        self._node, self._prefix = node, prefix
        self._kind, self._subscription, self._problem = "", None, ""
        self._messages: NearestInTime[Any] = NearestInTime(KEEP_S)
        self._pinned: Any = None
        self._transforms = transforms

    def follow(self, scale: ScaleConfig) -> None:
        """Subscribe to what the parameters ask for now; called in the executor's thread, cheap where nothing changed."""
        kind = ""
        if scale.mode == "reference":
            kind = scale.reference.type
        elif scale.mode == "ground_plane" and scale.ground.source == "imu":
            kind = "imu"
        if kind != self._kind:
            self._unsubscribe()
            self._kind = kind
            if kind:
                self._subscribe(kind)
        self._transforms.serve(self, _asks_tf(scale))

    def _subscribe(self, kind: str) -> None:
        """Subscribe; what goes wrong becomes the reason why there is no scale, as nobody is there to catch it in the executor's thread."""
        topic, message_type = self._prefix + _TOPICS[kind][0], _TOPICS[kind][1]
        qos = QoSProfile(depth=10, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
        overridable = QoSOverridingOptions.with_default_policies()
        try:
            self._subscription = self._node.create_subscription(message_type, topic, self._store, qos, qos_overriding_options=overridable)
        except Exception as error:  # rclpy has a class for every way to be wrong
            self._problem = f"cannot subscribe to {topic}: {error}"

    def there_is(self, stamp_ns: int) -> Any:  # noqa: ANN401 - a message of the wanted kind
        """Return the message nearest to an image that comes now; None where there is none."""
        return self._messages.find(stamp_ns)

    def pin(self, stamp_ns: int, at_arrival: Any) -> None:  # noqa: ANN401 - of `there_is`
        """Remember the message nearest to an image that is about to be inferred: it may be forgotten when the network is done.

        Args:
            stamp_ns: of the image.
            at_arrival: what there was when the image came: that may be forgotten by now, if others had their turns before it.
        """
        kind = self._kind
        still_wanted = kind != "" and isinstance(at_arrival, _TOPICS[kind][1])
        self._pinned = self._nearest_of(stamp_ns, at_arrival if still_wanted else None)

    def _nearest(self, stamp_ns: int) -> Any:  # noqa: ANN401 - a message of the wanted kind, or None
        if self._problem:
            raise TransformError(self._problem)
        return self._nearest_of(stamp_ns, self._pinned)

    def _nearest_of(self, stamp_ns: int, other: Any) -> Any:  # noqa: ANN401 - likewise
        found = [message for message in (self._messages.find(stamp_ns), other) if message is not None]
        return min(found, key=lambda message: abs(_stamp_ns(message) - stamp_ns), default=None)

    def close(self) -> None:
        """Unsubscribe and forget everything."""
        self._unsubscribe()
        self._transforms.serve(self, False)

    def reference_pixels(self, frame: RgbFrame, camera: ImageCamera | None, reference: ReferenceConfig) -> ReferencePixels | None:
        """Return what the sensor says about an image, None where nothing arrived.

        Raises:
            DecodeError: the message is no message of such a sensor.
            TransformError: where the sensor is, or how the camera sees, is not known.
            ConfigError: TF gives a transform that is none.
        """
        message = self._nearest(frame.stamp_ns)
        if message is None:
            return None
        stamp_ns = _stamp_ns(message)
        if isinstance(message, Image):
            return pixels_from_depth_image(depth_from_image(message), stamp_ns)
        if camera is None:
            raise TransformError("where the camera sees the reference is not known: it needs a valid camera_info")
        points = points_from_message(message)
        if reference.translation_m:
            camera_T_sensor = rigid_transform(reference.translation_m, reference.quat_xyzw)
        else:
            camera_T_sensor = self._transform_or_advice(frame.frame_id, message.header.frame_id, stamp_ns)
        height, width = camera.intrinsics.size_hw

        def project(in_camera: Points) -> Points:
            return (camera.project(in_camera) + 0.5) / (width, height)  # a pixel's centre is at a whole number

        return pixels_from_points(points, camera_T_sensor, project, stamp_ns, one_surface=isinstance(message, Range))

    def _transform_or_advice(self, target: str, source: str, stamp_ns: int) -> Points:
        try:
            return self._transforms.find(target, source, stamp_ns)
        except TransformError as error:
            raise TransformError(f"{error}; or set scale.reference.translation_m and scale.reference.quat_xyzw") from error

    def ground_plane(self, frame: RgbFrame, ground: GroundConfig, mounted: CameraConfig, max_dt_s: float) -> GroundPlane | None:
        """Return the floor of an image; None while its direction is not known, as no acceleration near in time is gravity alone.

        Raises:
            TransformError: TF does not know the camera.
            ConfigError: the camera is not above the floor.
        """
        if ground.source == "parameters":
            return plane_from_mounting(mounted.height_m, mounted.pitch_deg, mounted.roll_deg)
        if ground.source == "tf":
            return plane_from_transform(self._transforms.find(ground.frame, frame.frame_id, frame.stamp_ns))
        imu = self._nearest(frame.stamp_ns)
        if imu is None or abs(_stamp_ns(imu) - frame.stamp_ns) > max_dt_s * 1e9:
            return None
        camera_T_imu = self._transforms.find(frame.frame_id, imu.header.frame_id, frame.stamp_ns)
        a = imu.linear_acceleration
        x, y, z = (float(v) for v in camera_T_imu[:3, :3] @ (a.x, a.y, a.z))
        return plane_from_acceleration(mounted.height_m, (x, y, z))

    def _store(self, message: Any) -> None:  # noqa: ANN401 - any message with a header
        self._messages.add(_stamp_ns(message), message)

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._kind, self._subscription, self._problem, self._pinned = "", None, "", None
        self._messages.clear()


def _asks_tf(scale: ScaleConfig) -> bool:
    if scale.mode == "reference":
        return scale.reference.type != "depth_image" and not scale.reference.translation_m
    return scale.mode == "ground_plane" and scale.ground.source != "parameters"


def _stamp_ns(message: Any) -> int:  # noqa: ANN401 - any message with a header
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
