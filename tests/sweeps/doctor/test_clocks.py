import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.doctor import clocks
from sweeps.doctor.finding import FAIL, OK, WARN


@pytest.mark.parametrize(
    ("ahead", "result"), [(0.0, OK), (0.9, OK), (-3.0, WARN), (3.0, WARN), (-60.0, FAIL), (60.0, FAIL)]
)
def test_a_clock_that_is_wrong_on_one_side(ahead: float, result: str) -> None:
    measured, error = clocks.measure_skew(lambda: time.time() + ahead)
    assert measured == pytest.approx(ahead, abs=0.05) and error < 0.05
    found = clocks.judge("gpu-1", measured, error)
    assert (found.result, found.node) == (result, "gpu-1")
    assert float(found.detail.split()[0]) == pytest.approx(abs(ahead), abs=0.05)
    assert (("behind" if ahead < 0 else "ahead of") in found.detail) or not ahead


def test_our_own_clock_may_be_the_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "now", lambda: time.time() + 100)
    measured, error = clocks.measure_skew(time.time)
    assert measured == pytest.approx(-100, abs=0.05)
    assert clocks.judge("n", measured, error).detail.startswith("100.0")


def test_the_way_there_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of questions that take long, the short one counts; a long way alone is no skew."""
    clock = iter([0.0, 30.0] + [100.0, 100.002] * (clocks.SAMPLES - 1))
    monkeypatch.setattr(clocks.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(clocks, "now", lambda: 1000.0)
    answers = iter([1000.5] + [1000.001] * (clocks.SAMPLES - 1))
    measured, error = clocks.measure_skew(lambda: next(answers))
    assert measured == pytest.approx(0.0, abs=1e-9) and error == pytest.approx(0.001)


@given(ahead=st.floats(-1e4, 1e4), error=st.floats(0, 1e3))
def test_only_what_the_way_cannot_explain_is_a_fault(ahead: float, error: float) -> None:
    found = clocks.judge("n", ahead, error)
    least = abs(ahead) - error
    assert found.result == (FAIL if least > clocks.LARGE else WARN if least > clocks.SLIGHT else OK)
