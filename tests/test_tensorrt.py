"""The TensorRT engine without a GPU: our code against the real Python bindings of three versions, on a driver written for the tests.

What this shows: that every name, enum and signature exists, and what our code does with each answer. What only a GPU can show: that engines are
built, how fast they are, and that their numbers are right; see docs/tensorrt.md.
"""

import pytest

from .stand_ins.workshop import BINDINGS, cuda_driver, run_cases, stage_kernels, tensorrt_bindings


@pytest.mark.slow
@pytest.mark.parametrize("version", BINDINGS)
def test_engine_against_the_real_bindings(version, tmp_path, request):
    cache = request.config.cache.mkdir("tensorrt_bindings")
    for name in ("cuda", "tensorrt"):
        (tmp_path / name).mkdir()
    bindings = tensorrt_bindings(version, cache, tmp_path / "tensorrt")
    cases = ["tensorrt_build_cases.py", "tensorrt_run_cases.py", "tensorrt_frames_cases.py"]
    run_cases(cases, cuda_driver(tmp_path / "cuda"), bindings, stage_kernels(tmp_path / "cuda"))
