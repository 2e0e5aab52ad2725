"""TF through tf2_ros, where that is installed: the package itself does not need it."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.time import Time

from .errors import TransformError
from .reference_points import Points, rigid_transform


class Transforms:
    """Listens to TF while it is open. The executor's thread opens and closes it, the worker's thread asks."""

    def __init__(self, node: Node) -> None:
        """Remember the node; nothing is subscribed before `open`."""
        self._node = node
        self._tf: tuple[Any, Any, Any] | None = None
        self._missing = ""

    def open(self) -> None:
        """Subscribe, unless that was done; a missing tf2_ros is told by `find`."""
        if self._tf is not None or self._missing:
            return
        try:
            import tf2_ros
        except ImportError as error:
            self._missing = f"TF needs tf2_ros, which cannot be imported ({error}): install it (apt: ros-$ROS_DISTRO-tf2-ros)"
            return
        buffer = tf2_ros.Buffer()
        self._tf = tf2_ros, buffer, tf2_ros.TransformListener(buffer, self._node)

    def close(self) -> None:
        """Unsubscribe and forget all transforms."""
        if self._tf is not None:
            self._tf[2].unregister()
        self._tf = None

    def find(self, target: str, source: str, stamp_ns: int) -> Points:
        """Return target_T_source (4, 4) float64, metres, at a time.

        Raises:
            TransformError: tf2_ros is not installed, or TF has no such transform for that time. Nothing stands for the identity.
        """
        if self._tf is None:
            raise TransformError(f"no transform from '{source}' to '{target}': {self._missing or 'TF is not listened to yet'}")
        tf2_ros, buffer, _ = self._tf
        try:
            found = buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns)).transform
        except (tf2_ros.TransformException, ValueError) as error:  # rclpy's Time refuses stamps below 0
            raise TransformError(f"no transform from '{source}' to '{target}' in TF: {error}") from error
        t, q = found.translation, found.rotation
        return rigid_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
