"""The kernels compile for robots' GPUs, by the run-time compiler that the robots use; no GPU is needed."""

import ctypes
import re
import shutil
import subprocess

import pytest

from depth_anything_ros.cuda import sources
from depth_anything_ros.errors import EngineError

KERNELS = 30
"""4 layouts x (2 interpolations x 2 types + a cloud) + 3 kinds x 2 types + 2 enlargements + cloud_xyz + picture."""


@pytest.fixture(scope="module")
def nvrtc() -> sources.Nvrtc:
    try:
        return sources.Nvrtc()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ["sm_87", "sm_89", "sm_90"])
def test_every_kernel_compiles_without_spilling_registers(nvrtc, architecture):
    cubin, log = nvrtc.compile((*sources.OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v"))
    assert cubin[:4] == b"\x7fELF"
    assert set(re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)) == {("0", "0", "0")}
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == KERNELS
    assert max(registers) <= 96, "fewer than 640 threads of an SM could run"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc, of the CUDA toolkit")
def test_nvcc_compiles_every_kernel(tmp_path):
    options = [*sources.OPTIONS, "--gpu-architecture=compute_87", "--Werror=all-warnings", "--ptx"]
    subprocess.run(["nvcc", *options, str(sources.SOURCE), "-o", str(tmp_path / "kernels.ptx")], check=True)
    ptx = (tmp_path / "kernels.ptx").read_text()
    assert ptx.count(".visible .entry") == KERNELS
    fused = [kernel.split("(")[0].strip() for kernel in ptx.split(".visible .entry")[1:] if "fma.rn.f32" in kernel]
    assert fused == ["picture"], "the logarithm is the library's; everything else rounds as the numpy stages do"


def test_compiled_kernels_are_kept_and_made_anew_for_another_source(nvrtc, tmp_path, monkeypatch):
    first = sources.compiled_kernels((8, 7), tmp_path / "new" / "folder")
    [path] = (tmp_path / "new" / "folder").iterdir()
    assert path.read_bytes()[: len(first)] == first, "other tools read it, too"
    with monkeypatch.context() as patch:
        patch.setattr(sources.Nvrtc, "compile", None)
        assert sources.compiled_kernels((8, 7), path.parent) == first
    monkeypatch.setattr(sources, "OPTIONS", ("--std=c++17",))
    assert sources.compiled_kernels((8, 7), path.parent)[:4] == first[:4] == b"\x7fELF"
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("left", [0, 5000])
def test_kept_kernels_that_power_failure_damaged_are_made_anew(nvrtc, tmp_path, left):
    first = sources.compiled_kernels((8, 7), tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    assert sources.compiled_kernels((8, 7), tmp_path) == first
    assert path.read_bytes() == whole


def test_folder_that_cannot_be_written_is_an_error_with_a_remedy(nvrtc, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EngineError, match="cannot write the compiled kernels to '.*file/below' .*; set tensorrt.cache_dir"):
        sources.compiled_kernels((8, 7), tmp_path / "file" / "below")


def test_architecture_that_the_compiler_does_not_know_is_an_error_with_its_words(nvrtc, tmp_path):
    with pytest.raises(EngineError, match=r"NVRTC \d+\.\d+ cannot compile kernels.cu with .*sm_11.*invalid value for --gpu-architecture"):
        sources.compiled_kernels((1, 1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_the_compiler_the_error_says_how_to_get_it(monkeypatch):
    def missing(path):
        raise OSError(f"{path}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(EngineError, match=r"NVRTC is not installed; .*pip install nvidia-cuda-nvrtc"):
        sources.Nvrtc()
