"""Builds what the GPU tests run on: the C driver, empty TensorRT libraries, and a folder with the real bindings from the package index."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BINDINGS = {
    "10.3.0": "tensorrt_cu12_bindings==10.3.0",  # JetPack 6.2
    "10.16.1": "tensorrt_cu13_bindings==10.16.1.11",
    "11.4.0": "tensorrt_cu13_bindings==11.4.0.106",
}
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")


def compiled(target: Path, source: str | Path, *options: str) -> Path:
    """Compile a shared library; skips the test where there is no compiler."""
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip("needs gcc and nm to build what stands in for the driver")
    code = target.with_suffix(".c") if isinstance(source, str) else source
    if isinstance(source, str):
        code.write_text(source)
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", f"-Wl,-soname,{target.name}", *options, "-o", str(target), str(code)]
    subprocess.run(command, check=True, timeout=60)
    return target


def missing_symbols(library: Path) -> list[str]:
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(library)], check=True, capture_output=True, text=True, timeout=60).stdout
    return [line.split()[-1] for line in listed.splitlines()]


def cuda_include() -> list[str]:
    """Return the compiler's option for the real cuda.h, where there is one: then it checks the driver's prototypes."""
    folder = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
    return [f"-I{folder}"] if (folder / "cuda.h").exists() else []


def cuda_driver(folder: Path) -> dict[str, str]:
    """Build libcuda.so.1 and return the environment in which it is found, and pycuda: the real one where it is installed."""
    driver = compiled(folder / "libcuda.so.1", HERE / "driver.c", *cuda_include())
    spec = importlib.util.find_spec("pycuda")
    paths, preload = [str(ROOT)], [str(driver)]
    if spec is None or spec.submodule_search_locations is None:
        paths.append(str(HERE))
    else:  # it wants many functions that the runtime never calls
        (binary,) = Path(next(iter(spec.submodule_search_locations))).glob("_driver*.so")
        there = subprocess.run(["nm", "-D", "--defined-only", str(driver)], check=True, capture_output=True, text=True, timeout=60).stdout
        rest = [name for name in missing_symbols(binary) if name.startswith("cu") and not re.search(rf" {name}$", there, re.M)]
        preload.append(str(compiled(folder / "rest.so", "".join(f"int {name}(void) {{ return 801; }}\n" for name in rest))))
        paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {"LD_LIBRARY_PATH": str(folder), "LD_PRELOAD": " ".join(preload), "PYTHONPATH": os.pathsep.join(paths)}


def stage_kernels(folder: Path) -> dict[str, str]:
    """Build the kernels of the GPU stages as loops on the CPU, and return the environment that tells where they are."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to compile the kernels for the CPU")
    library = folder / "host_loops.so"
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", f"-I{ROOT / 'depth_anything_ros' / 'cuda'}"]
    subprocess.run(["g++", *flags, str(ROOT / "tests" / "cuda" / "host_loops.cpp"), "-o", str(library)], check=True, timeout=60)
    return {"STAND_IN_KERNELS": str(library)}


def tensorrt_bindings(version: str, cache: Path, folder: Path) -> dict[str, str]:
    """Fetch the bindings (about 1.3 MB, kept in `cache`), build the libraries they want, and return the environment to import `tensorrt`."""
    wheels = cache / version
    if not list(wheels.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(wheels), BINDINGS[version]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(
                f"the bindings of TensorRT {version} cannot be had for this Python and machine: {(done.stderr.strip() or '?').splitlines()[-1]}"
            )
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    names = missing_symbols(folder / "site" / "tensorrt_bindings" / "tensorrt.so")
    wanted = [name for name in names if re.search(r"INTERNAL$|PluginRegistry$|^getNvOnnx|^initLibNvInfer", name)]
    for library in LIBRARIES:
        compiled(folder / f"{library}.so.{version.split('.')[0]}", "".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    (folder / "site" / "tensorrt").mkdir()  # as the package `tensorrt` does it
    (folder / "site" / "tensorrt" / "__init__.py").write_text("from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n")
    return {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder / "site")}


def run_cases(cases: list[str], *environments: dict[str, str]) -> None:
    """Run files of this folder with pytest in a process of its own."""
    joined = dict(os.environ) | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for environment in environments:
        joined |= environment
    for name in ("LD_LIBRARY_PATH", "PYTHONPATH", "LD_PRELOAD"):
        joined[name] = (" " if name == "LD_PRELOAD" else os.pathsep).join(e[name] for e in environments if name in e)
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.stand_ins.fixtures", "-c", os.devnull, "--rootdir", str(ROOT)]
    command = [sys.executable, "-m", "pytest", *options, *(str(HERE / name) for name in cases)]
    done = subprocess.run(command, cwd=ROOT, env=joined, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout, done.stdout
    print(done.stdout.splitlines()[-1])
