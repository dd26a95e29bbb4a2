"""The processor, as the operating system describes it: read without loading PyTorch."""

import functools
import platform
from pathlib import Path

_DESCRIPTION = Path("/proc/cpuinfo")


@functools.cache
def processor_name() -> str:
    """Returns the name of the processor's model, or of its architecture where the system does not name the model."""
    return next(iter(_fields("model name")), platform.processor() or platform.machine())


@functools.cache
def processor_has_bf16() -> bool:
    """Returns whether the processor has instructions for products of bf16 numbers, on x86 (AVX512-BF16, AMX) or Arm."""
    features = {feature for line in (*_fields("flags"), *_fields("Features")) for feature in line.split()}
    return not features.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _fields(name: str) -> list[str]:
    """The values of a field, one for each core."""
    lines = _DESCRIPTION.read_text().splitlines() if _DESCRIPTION.is_file() else []
    return [text.partition(":")[2].strip() for text in lines if text.partition(":")[0].strip() == name]
