from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.doctor import devices
from sweeps.doctor.finding import FAIL, OK, SKIPPED, WARN, CheckContext, Finding

GIB = 2**30
H100 = {"name": "NVIDIA H100", "total": 80 * GIB, "free": 79 * GIB, "bf16": True}
SEEN: dict[str, Any] = {"build": "13.0", "error": None, "gpus": [H100, H100], "bf16": False, "engine": None}


@pytest.fixture
def broken_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a PyTorch that does something else in front of the one that is installed."""

    def write(code: str) -> None:
        (tmp_path / "torch.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    return write


def judge(seen: dict[str, Any], there: int = 2, declared: float | None = 2.0) -> dict[str, Finding]:
    setting = CheckContext("s", "t", cpus=None if declared is None else 8.0, gpus=declared)
    return {finding.name: finding for finding in devices.judge(SEEN | seen, there, setting)}


def test_this_machine_can_train(setting: CheckContext) -> None:
    found = {finding.name: finding for finding in devices.engine(setting)}
    assert found["engine"].result == OK and found["gpus"].result in (OK, WARN, SKIPPED)
    assert found["bf16"].result == OK


def test_a_torch_that_does_not_import_is_told_with_its_reason(
    setting: CheckContext, broken_torch: Callable[[str], None]
) -> None:
    broken_torch("raise OSError('libcudart.so.13: cannot open shared object file')")
    (found,) = devices.engine(setting)
    assert (
        found.result == FAIL and "libcudart.so.13: cannot open" in found.detail and "pip install torch==" in found.fix
    )


def test_a_driver_that_hangs_is_killed(
    setting: CheckContext, broken_torch: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_torch("import threading; threading.Event().wait()")
    monkeypatch.setattr(devices, "LIMIT", 0.5)
    (found,) = devices.engine(setting)
    assert found.result == FAIL and "took longer than" in found.detail and "nvidia-smi" in found.fix


def test_a_node_without_work_is_not_asked(setting: CheckContext, broken_torch: Callable[[str], None]) -> None:
    broken_torch("raise OSError")
    assert {f.result for f in devices.engine(replace(setting, cpus=0.0, gpus=0.0))} == {SKIPPED}


def test_gpus_that_are_all_there() -> None:
    assert {f.result for f in judge({}).values()} == {OK}
    assert "H100 80 GiB" in judge({})["gpus"].detail
    assert judge({}, declared=1.0)["gpus"].detail.endswith("of which Ray hands out 1")


@pytest.mark.parametrize(
    ("seen", "there", "declared", "result", "words"),
    [
        ({"gpus": [H100]}, 2, 2.0, FAIL, "Ray hands out 2, PyTorch sees 1"),
        ({"gpus": []}, 8, None, FAIL, "the machine has 8, PyTorch sees 0"),
        ({"build": None, "gpus": []}, 2, 2.0, FAIL, "PyTorch is a build for CPUs"),
        ({"error": "The NVIDIA driver on your system is too old", "gpus": []}, 2, 2.0, FAIL, "driver on your system"),
        ({"gpus": [H100, H100 | {"free": 3 * GIB}]}, 2, 2.0, WARN, "GPU 1: 3 GiB free"),
        ({"build": None, "gpus": []}, 0, 0.0, SKIPPED, "none here"),
    ],
)
def test_gpus_that_are_not(seen: dict[str, Any], there: int, declared: float | None, result: str, words: str) -> None:
    found = judge(seen, there, declared)["gpus"]
    assert found.result == result and words in found.detail


def test_hidden_gpus_are_told_with_what_hides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert judge({"gpus": [H100]})["gpus"].detail.endswith("(CUDA_VISIBLE_DEVICES=1)")


@pytest.mark.parametrize(
    ("seen", "detail"),
    [
        ({"gpus": [], "build": None, "bf16": True}, "the processor computes in bf16"),
        ({"gpus": [], "build": None, "bf16": False}, "the processor has no bf16 instructions: what asks for bf16 is"),
        ({"gpus": [H100, H100 | {"bf16": False}]}, "the GPU has no bf16 instructions: what asks for bf16 is"),
    ],
)
def test_it_is_said_in_what_products_are_taken(seen: dict[str, Any], detail: str) -> None:
    finding = judge(seen, 0, None)["bf16"]
    assert finding.result == OK and finding.detail.startswith(detail)


def test_an_engine_that_does_not_import_fails() -> None:
    found = judge({"engine": "MissingCUDAException: CUDA_HOME does not exist"})["engine"]
    assert found.result == FAIL and "CUDA_HOME" in found.detail
