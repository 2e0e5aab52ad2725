"""A room as a node sees it: the map that a model makes of it, and what sensors beside the camera measure."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import CameraInfo, Image, Imu, LaserScan, PointCloud2, PointField, Range

from depth_anything_ros.geometry import intrinsics_from_hfov
from depth_anything_ros.messages import fill_data
from depth_anything_ros.rays import ImageCamera

from .raytraced import Room, depth_m, scan, world_t_camera, world_t_sensor
from .rig import rgb_image

IMAGE_HW, NETWORK_HW = (240, 320), (288, 384)
PINHOLE = intrinsics_from_hfov(80.0, IMAGE_HW)
CAMERA = ImageCamera(PINHOLE, "pinhole", (0.0,) * 8)
ROOM = Room(boxes=[((1.5, -0.8, 0), (2.0, 0.2, 1.2)), ((3.5, 0.9, 0), (4.2, 1.6, 1.4))])
CAMERA_XYZ, LASER_XYZ = (0.0, 0.0, 1.0), (0.1, 0.05, 0.8)
TRANSLATION_M, QUAT_XYZW = [-0.05, 0.2, 0.1], [0.5, -0.5, 0.5, 0.5]
"""Of the laser in the camera's optical frame: CAMERA_XYZ and LASER_XYZ, both level and looking along x."""
LASER = {"translation_m": TRANSLATION_M, "quat_xyzw": QUAT_XYZW}
ANGLES = np.linspace(-1.2, 1.2, 481)


def truth_m(size_hw, pitch_deg=0.0, position=CAMERA_XYZ, room=ROOM):
    """Return the exact depth map (H, W) of the camera's view."""
    return depth_m(room, world_t_camera(position, pitch_deg), size_hw, PINHOLE)


def black_image(stamp_ns) -> Image:
    return rgb_image(np.zeros((*IMAGE_HW, 3), np.uint8), stamp_ns)


def info_of(image) -> CameraInfo:
    info = CameraInfo(header=image.header, height=image.height, width=image.width)
    info.k = [PINHOLE.fx, 0.0, PINHOLE.cx, 0.0, PINHOLE.fy, PINHOLE.cy, 0.0, 0.0, 1.0]
    info.p = [PINHOLE.fx, 0.0, PINHOLE.cx, 0.0, 0.0, PINHOLE.fy, PINHOLE.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def _stamped(message, stamp_ns, frame_id="laser"):
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    message.header.frame_id = frame_id
    return message


def laser_scan(stamp_ns, ranges=None) -> LaserScan:
    ranges = scan(ROOM, world_t_sensor(LASER_XYZ), ANGLES) if ranges is None else ranges
    step = float(ANGLES[1] - ANGLES[0])
    message = LaserScan(angle_min=-1.2, angle_max=1.2, angle_increment=step, range_min=0.05, range_max=20.0, ranges=[float(r) for r in ranges])
    return _stamped(message, stamp_ns)


def cloud(stamp_ns, names="xyz") -> PointCloud2:
    ranges = scan(ROOM, world_t_sensor(LASER_XYZ), ANGLES)
    points = np.column_stack([ranges * np.cos(ANGLES), ranges * np.sin(ANGLES), 0 * ranges]).astype(np.float32)
    fields = [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate(names)]
    message = PointCloud2(height=1, width=len(points), fields=fields, point_step=12, row_step=12 * len(points))
    fill_data(message, points)
    return _stamped(message, stamp_ns)


def range_ahead(stamp_ns) -> Range:
    """A narrow cone straight ahead: it meets the nearer box alone."""
    message = Range(field_of_view=math.radians(3), min_range=0.05, max_range=20.0)
    message.range = float(scan(ROOM, world_t_sensor(LASER_XYZ), np.zeros(1))[0])
    return _stamped(message, stamp_ns)


def depth_image(stamp_ns, size_hw=(120, 160), encoding="16UC1") -> Image:
    truth = truth_m(size_hw)
    values = np.rint(truth * 1000).astype(np.uint16) if encoding == "16UC1" else truth
    message = Image(height=size_hw[0], width=size_hw[1], encoding=encoding, step=size_hw[1] * values.itemsize)
    fill_data(message, values)
    return _stamped(message, stamp_ns, "cam")


def imu(stamp_ns, pitch_deg) -> Imu:
    """At rest, mounted level behind a camera that looks down by pitch_deg: in a frame turned with the camera (x forward, z up)."""
    p = math.radians(pitch_deg)
    return _stamped(Imu(linear_acceleration=Vector3(x=-9.80665 * math.sin(p), y=0.0, z=9.80665 * math.cos(p))), stamp_ns, "imu_link")
