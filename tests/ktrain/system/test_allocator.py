"""A process that frees large tensors and asks for as many again gets them without a page fault."""

import subprocess
import sys

import pytest

from ktrain.system import allocator

FAULTS = """
import resource
import torch
from ktrain.system.allocator import keep_freed_memory

{setting}

def step():
    tensors = [torch.ones(2**19 * size) for size in (1, 2, 4)]
    return sum(tensor[0] for tensor in tensors)

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    """The page faults of twenty steps that each fill 14 MiB of new tensors."""
    code = FAULTS.format(setting=setting)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_stays_with_the_process() -> None:
    assert page_faults("keep_freed_memory()") < 100


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_without_the_setting_each_step_faults_its_pages_in_again() -> None:
    assert page_faults("") > 1_000


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_an_older_glibc_gets_the_largest_size_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[int, int] = {}

    class Older:
        def mallopt(self, parameter: int, value: int) -> int:
            if parameter == allocator.M_MMAP_THRESHOLD and value > 32 * 2**20:
                return 0
            taken[parameter] = value
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda name: Older())
    allocator.keep_freed_memory()
    assert taken == {-1: 2**30, -2: 2**26, -3: 32 * 2**20}
