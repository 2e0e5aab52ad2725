"""The two devices that the tests run on: the kernels compiled by g++ behind a strict fake of pycuda, and a real GPU."""

import ctypes
import gc
import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from depth_anything_ros.cuda.sources import SOURCE, compiled_kernels

from ..models import tiny_contract
from .fake_driver import FakeDriver
from .fake_engine import FakeEngine
from .pipelines import METRIC

HERE = Path(__file__).parent


@dataclass
class Device:
    """A driver and the kernels for it."""

    driver: Any
    cubin: bytes


@pytest.fixture(scope="session")
def host_library(tmp_path_factory) -> ctypes.CDLL:
    """The kernels as a library for this machine's CPU."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ to compile the kernels for the CPU")
    path = tmp_path_factory.mktemp("cuda") / "host_loops.so"
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-fPIC", "-shared", f"-I{SOURCE.parent}"]
    subprocess.run([compiler, *flags, str(HERE / "host_loops.cpp"), "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="session")
def real_device() -> Device:
    try:
        from pycuda import driver
    except ImportError as error:
        pytest.skip(f"needs pycuda (pip install pycuda, with the CUDA toolkit): {error}")
    try:
        driver.init()
        device = driver.Device(0)
    except driver.Error as error:
        pytest.skip(f"needs a CUDA GPU: {error}")
    context = device.retain_primary_context()
    context.push()
    try:
        yield Device(driver, compiled_kernels(device.compute_capability()))
    finally:
        context.pop()


GPU = [pytest.param("gpu", marks=pytest.mark.gpu)] if importlib.util.find_spec("pycuda") else []  # one skipped test says so, not hundreds


@pytest.fixture(params=["host_loops", *GPU])
def device(request) -> Device:
    if request.param == "gpu":
        return request.getfixturevalue("real_device")
    return Device(FakeDriver(request.getfixturevalue("host_library")), b"host loops")


@pytest.fixture(autouse=True)
def opencv_alone():
    """OpenCV's own arithmetic, as everywhere but in x86 wheels, where Intel's library (IPP) takes over some of it."""
    was = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(was)


@pytest.fixture
def engine(host_library):
    """Return a function that opens an engine for a contract; in the end nothing of any is left."""
    engines = []

    def make(**changes):
        dtype, memory_bytes = changes.pop("dtype", "float32"), changes.pop("memory_bytes", 2**30)
        engines.append(FakeEngine(host_library, tiny_contract(**(METRIC | changes)), dtype, memory_bytes))
        return engines[-1]

    yield make
    for opened in engines:
        opened.close()
        gc.collect()
        assert not opened.driver.live
        assert not opened.session.graphs
        assert not opened.driver.pinned
