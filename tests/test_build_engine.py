"""The command that builds ahead of time, where there is no TensorRT; what it builds is in `test_tensorrt.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

from depth_anything_ros import build_engine
from depth_anything_ros.config import PARAMETERS

from .models import write_tiny_model

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for name in ("tensorrt_engine", "tensorrt_build", "tensorrt_execution"):
        monkeypatch.delitem(sys.modules, f"depth_anything_ros.engines.{name}", raising=False)


def test_without_tensorrt_it_says_how_to_get_it(tmp_path, capsys):
    assert build_engine.main([str(write_tiny_model(tmp_path / "m.onnx"))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("build_engine: engine 'tensorrt' is not available: ")
    assert "pip install tensorrt pycuda (Jetson: apt install python3-libnvinfer); see docs/tensorrt.md" in error


def test_bad_values_are_refused_by_the_parameters_own_check(tmp_path, capsys):
    assert build_engine.main([str(tmp_path / "m.onnx"), "--optimisation-level", "9"]) == 2
    assert "tensorrt.optimisation_level: 9 is outside 0 .. 5" in capsys.readouterr().err


def test_every_parameter_of_the_engine_is_an_option():
    shown = subprocess.run([sys.executable, "-m", "depth_anything_ros.build_engine", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in (name for name in PARAMETERS if name.startswith("tensorrt.")):
        assert "--" + name.split(".")[1].replace("_", "-") in shown.stdout
    assert "--self-check" in shown.stdout
