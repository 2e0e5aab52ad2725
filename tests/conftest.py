"""Shared fixtures. ROS tests use real rclpy on a domain of their own, this machine only."""

import os

import pytest

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)  # ports of higher domains are in the range of outgoing connections


@pytest.fixture
def rig():
    """Return a function that starts a depth node and a peer to talk to it; both end with the test."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
    from .rig import Rig

    rigs = []

    def start(**kwargs) -> Rig:
        connect = kwargs.pop("connect", True)
        rigs.append(Rig(**kwargs))
        if connect and rigs[-1].node.health.state == "active":
            rigs[-1].wait_connected()
        return rigs[-1]

    yield start
    for started in rigs:
        started.close()
