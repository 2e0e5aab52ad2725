"""kernels.cu -> machine code of one GPU architecture, by NVRTC, kept on disk.

NVRTC comes with the CUDA toolkit and with JetPack, needs neither a host compiler nor a GPU, and compiles in the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import EngineError

SOURCE = Path(__file__).parent / "kernels.cu"
HEADERS = tuple(SOURCE.with_name(name) for name in ("arguments.h", "image.h", "floats.h", "pixels.h", "kernels.h"))
OPTIONS = ("--std=c++17", "--fmad=false")
"""Fused multiply-add would round once where the numpy twins round twice."""
DIGEST_BYTES = 32
HOW_TO_GET = "it is part of the CUDA toolkit and of JetPack (libnvrtc.so); without those: pip install nvidia-cuda-nvrtc"


def default_cache_dir() -> Path:
    """Return where compiled kernels are kept: below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "depth_anything_ros" / "cuda"


def compiled_kernels(compute_capability: tuple[int, int], cache_dir: Path | None = None) -> bytes:
    """Return the kernels as a cubin, from the cache where it is there.

    Args:
        compute_capability: of the device, such as (8, 7) for Orin.
        cache_dir: folder of the cache, made where it is missing; None: `default_cache_dir`.

    Raises:
        EngineError: NVRTC is missing, does not know this architecture, or its result cannot be kept.
    """
    nvrtc = Nvrtc()
    options = (*OPTIONS, f"--gpu-architecture=sm_{compute_capability[0]}{compute_capability[1]}")
    parts = [path.read_bytes() for path in (SOURCE, *HEADERS)] + [" ".join(options).encode(), repr(nvrtc.version).encode()]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    path = (cache_dir or default_cache_dir()) / f"kernels-{digest}.cubin"
    cubin = _kept(path)
    if not cubin:
        cubin, _ = nvrtc.compile(options)
        _keep(path, cubin)
    return cubin


def _kept(path: Path) -> bytes:
    """Return what `_keep` wrote; empty where it did not, or where the file is damaged: power fails."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    cubin, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    return cubin if hashlib.sha256(cubin).digest() == digest else b""


def _keep(path: Path, cubin: bytes) -> None:
    """Write a cubin and its SHA-256 behind it, which readers of cubins do not mind."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(cubin + hashlib.sha256(cubin).digest())
        temporary.replace(path)
    except OSError as error:
        raise EngineError(f"cannot write the compiled kernels to '{path.parent}' ({error.strerror}); set tensorrt.cache_dir") from error


class Nvrtc:
    """NVIDIA's run-time compiler."""

    def __init__(self) -> None:
        """Load the library; raises EngineError where there is none."""
        self._library = _load()
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = major.value, minor.value

    def compile(self, options: tuple[str, ...]) -> tuple[bytes, str]:
        """Compile the kernels.

        Args:
            options: as nvcc takes them; the architecture is an sm_XX.

        Returns:
            The cubin, and what the compiler said.

        Raises:
            EngineError: it did not compile; the message is the compiler's.
        """
        program = ctypes.c_void_p()
        headers = (ctypes.c_char_p * len(HEADERS))(*(path.read_bytes() for path in HEADERS))
        names = (ctypes.c_char_p * len(HEADERS))(*(path.name.encode() for path in HEADERS))
        self._call("nvrtcCreateProgram", ctypes.byref(program), SOURCE.read_bytes(), SOURCE.name.encode(), len(HEADERS), headers, names)
        try:
            flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._library.nvrtcCompileProgram(program, len(options), flags)
            log = self._result("ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            if status:
                raise EngineError(f"NVRTC {self.version[0]}.{self.version[1]} cannot compile {SOURCE.name} with {' '.join(options)}: {log}")
            return self._result("CUBIN", program), log
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _result(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def _call(self, name: str, *args: object) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise EngineError(f"{name} failed: {self._library.nvrtcGetErrorString(status).decode()}")


def _load() -> ctypes.CDLL:
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise EngineError(f"the run-time compiler NVRTC is not installed; {HOW_TO_GET}")


def _candidates() -> Iterator[str]:
    """Yield where the library may be: the loader's path, the toolkit, NVIDIA's packages from PyPI."""
    yield from ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")
    yield str(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "lib64" / "libnvrtc.so")
    packages = importlib.util.find_spec("nvidia")
    for folder in (packages and packages.submodule_search_locations) or ():
        yield from (str(path) for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")))
