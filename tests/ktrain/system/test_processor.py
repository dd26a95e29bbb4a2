"""What the operating system says of the processor."""

from pathlib import Path

import pytest

from ktrain.system import processor

X86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 {}\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\nCPU part\t: 0xd40\n"


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for cached in (processor.processor_name, processor.processor_has_bf16):
        monkeypatch.setattr(processor, cached.__name__, cached.__wrapped__)
    monkeypatch.setattr(processor, "_DESCRIPTION", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(
    ("text", "able"),
    [
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_tile amx_bf16"), True),
        (X86.format("avx512f"), False),
        (ARM.format("bf16"), True),
        (ARM.format("sve"), False),
    ],
)
def test_instructions_for_bf16_are_among_the_flags(described: Path, text: str, able: bool) -> None:
    described.write_text(text)
    assert processor.processor_has_bf16() is able


def test_the_name_is_that_of_the_model_where_the_system_has_one(described: Path) -> None:
    assert not processor.processor_has_bf16() and processor.processor_name()
    described.write_text(ARM.format(""))
    assert processor.processor_name()
    described.write_text(X86.format(""))
    assert processor.processor_name() == "AMD EPYC"
