"""Where a navigation developer starts: read the depth image and the point cloud of depth_anything_ros.

    python3 examples/depth_subscriber.py --ros-args -r depth/image:=/front/depth/image -r depth/points:=/front/depth/points

Uses cv_bridge and sensor_msgs_py where they are installed (every ROS 2 desktop has them), and numpy alone otherwise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, PointCloud2

try:
    from cv_bridge import CvBridge
except ImportError:
    CvBridge = None
try:
    from sensor_msgs_py import point_cloud2
except ImportError:
    point_cloud2 = None

Array = npt.NDArray[np.float32]


class DepthSubscriber(Node):
    """Says how near the nearest thing is, and how many points there are."""

    def __init__(self) -> None:
        """Subscribe; sensor data QoS: newest first, a lost message is not sent again."""
        super().__init__("depth_subscriber")
        self.create_subscription(Image, "depth/image", self._on_depth, qos_profile_sensor_data)
        self.create_subscription(PointCloud2, "depth/points", self._on_points, qos_profile_sensor_data)

    def _on_depth(self, image: Image) -> None:
        stamp = image.header.stamp  # of the camera's image: look up TF at this time, not now
        self.get_logger().info(f"{stamp.sec}.{stamp.nanosec:09d} {image.header.frame_id}: {summary(depth_from_image(image))}")

    def _on_points(self, cloud: PointCloud2) -> None:
        points = points_from_cloud(cloud)
        centre = f", middle {np.median(points, axis=0).round(2).tolist()}" if len(points) else ""
        self.get_logger().info(f"{cloud.header.frame_id}: {len(points)} points (x right, y down, z forward){centre}")


def depth_from_image(image: Image) -> Array:
    """Return (H, W) float32 metres along the optical axis of a 32FC1 or 16UC1 image: NaN = unknown, +Inf = beyond range."""
    if CvBridge is not None:
        values = CvBridge().imgmsg_to_cv2(image)
    else:
        kind = np.dtype({"32FC1": "f4", "16UC1": "u2"}[image.encoding]).newbyteorder(">" if image.is_bigendian else "<")
        rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)  # rows may be padded
        values = rows[:, : image.width * kind.itemsize].view(kind)
    if image.encoding == "32FC1":
        return values.astype(np.float32)
    metres = values.astype(np.float32) / 1000
    metres[values == 0], metres[values == 65535] = np.nan, np.inf
    return metres


def points_from_cloud(cloud: PointCloud2) -> Array:
    """Return the (N, 3) float32 points in metres that are known, in the camera's optical frame."""
    if point_cloud2 is not None:
        return point_cloud2.read_points_numpy(cloud, ["x", "y", "z"], skip_nans=True)
    offsets = {field.name: field.offset for field in cloud.fields}
    kind = np.dtype({"names": list("xyz"), "formats": ["<f4"] * 3, "offsets": [offsets[n] for n in "xyz"], "itemsize": cloud.point_step})
    points = np.frombuffer(cloud.data, kind)
    xyz = np.stack([points[name] for name in "xyz"], axis=1)
    return xyz[np.isfinite(xyz).all(axis=1)]


def summary(depth_m: Array) -> str:
    """Describe a depth image in one line. Ask `isfinite` before any arithmetic: NaN and +Inf are not numbers to average."""
    known = depth_m[np.isfinite(depth_m)]
    nearest = f"nearest {known.min():.2f} m" if known.size else "no depth"
    return f"{nearest}; {known.size} of {depth_m.size} pixels have a depth, {int(np.isposinf(depth_m).sum())} see beyond range"


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    try:
        rclpy.spin(DepthSubscriber())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
