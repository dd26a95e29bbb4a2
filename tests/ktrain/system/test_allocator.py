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
    tensors = [torch.ones(12 * 2**20) for _ in range(2)]
    return sum(tensor[0] for tensor in tensors)

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    """The page faults of twenty steps that each fill two new tensors of 48 MiB."""
    code = FAULTS.format(setting=setting)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_stays_with_the_process() -> None:
    """The heap may still grow once; by default every step faults all its pages in again."""
    before = page_faults("")
    # Twenty times two times twenty-four pages, should they be huge ones.
    assert before >= 960
    assert page_faults("keep_freed_memory()") < before / 4


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
