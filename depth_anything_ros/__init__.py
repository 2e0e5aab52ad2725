"""Depth Anything as a ROS 2 perception node: camera images in, metric depth and point clouds out."""

__version__ = "0.1.0"
