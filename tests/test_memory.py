import platform
import subprocess
import sys

import pytest

CODE = """
import numpy as np, resource
from depth_anything_ros.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(4_000_000, np.uint8)
before = faults()
for _ in range(50):
    np.ones(4_000_000, np.uint8)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")
def test_kept_memory_is_not_cleared_by_the_kernel_for_every_frame():
    faults = [
        int(subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True).stdout) for keep in (0, 1)
    ]
    assert faults[1] < 100
    assert faults[0] > 10 * max(faults[1], 1) or faults[0] < 100  # an allocator that keeps memory by itself is fine, too
