"""The shell scripts' environment: what is installed where, and what happens to a .venv that is not whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
PIP = 'pip() { echo "PIP $*"; }; '


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "environment.sh", tmp_path / "scripts")
    return tmp_path


def shell(checkout, code, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("ROS_DISTRO", "PYTHONPATH", "VIRTUAL_ENV", "AMENT_PREFIX_PATH")}
    command = ["bash", "-c", f"set -euo pipefail; . scripts/environment.sh; {PIP}{code}"]
    return subprocess.run(command, cwd=checkout, env=clean | {"PYTHON": sys.executable} | environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def sourced_ros(tmp_path):
    """Return an environment in which rclpy can be imported as after sourcing ROS 2."""
    (tmp_path / "ros" / "rclpy").mkdir(parents=True)
    (tmp_path / "ros" / "rclpy" / "__init__.py").touch()
    (tmp_path / "ros" / "numpy.py").write_text("__version__ = '1.26.4'")
    return {"ROS_DISTRO": "jazzy", "PYTHONPATH": str(tmp_path / "ros")}


@pytest.mark.slow
def test_without_ros_the_wheels_are_installed(checkout):
    done = shell(checkout, "use_venv test; echo AMENT $AMENT_PREFIX_PATH")
    assert f"PIP install --quiet {checkout}[ros,test]" in done.stdout, done.stderr
    assert f"AMENT {checkout}/.venv" in done.stdout


@pytest.mark.slow
def test_sourced_ros_is_used_with_its_own_numpy(checkout, sourced_ros):
    done = shell(checkout, "use_venv; echo CONSTRAINED $(cat $PIP_CONSTRAINT)", **sourced_ros)
    assert f"PIP install --quiet {checkout}\n" in done.stdout, done.stderr
    assert "CONSTRAINED numpy==1.26.4" in done.stdout
    assert "include-system-site-packages = true" in (checkout / ".venv" / "pyvenv.cfg").read_text()


@pytest.mark.slow
def test_a_venv_that_is_not_whole_is_made_anew(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    done = shell(checkout, "use_venv; which python")
    assert done.returncode == 0, done.stderr
    assert f"{checkout}/.venv/bin/python" in done.stdout


def test_unusable_python_is_named(checkout):
    done = shell(checkout, "use_venv", PYTHON="/no/such/python")
    assert done.returncode == 1
    assert "there is no /no/such/python" in done.stderr
    (checkout / "old").write_text("#!/bin/sh\nexit 1\n")
    (checkout / "old").chmod(0o755)
    assert "old is older than Python 3.10" in shell(checkout, "use_venv", PYTHON=str(checkout / "old")).stderr


def test_machines_without_wheels_are_told_so(checkout):
    done = shell(checkout, "uname() { echo aarch64; }; use_venv")
    assert done.returncode == 1
    assert "on aarch64 install ROS 2 and source its setup.bash first" in done.stderr
