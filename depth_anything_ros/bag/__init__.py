"""Recorded bags offline: `python3 -m depth_anything_ros.bag`. Needs rosbags, not ROS."""
