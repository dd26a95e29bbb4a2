from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ktrain import job, training
from ktrain.training import Progress


class Rank:
    """One rank's reporter with a clock of its own, and what it reports to Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, agree: Callable[[bool], bool]) -> None:
        self.now, self.told = 100.0, list[tuple[str, int]]()
        self._patch = monkeypatch
        monkeypatch.setattr(training, "agree", lambda answer: (agree(answer),))
        self._report = job._reporter(watched=False)

    def hear(self, key: str, step: int, steps: int, after: float) -> None:
        """A line of a curve, so many seconds after the one before it."""
        self.now += after
        self._patch.setattr(job, "time", SimpleNamespace(monotonic=lambda: self.now))
        self._patch.setattr(job, "ray", SimpleNamespace(train=SimpleNamespace(report=self._take)))
        self._report(key, Progress(step, steps, 1.0, 1e-3, 10, 2.0))

    def _take(self, line: dict[str, Any]) -> None:
        assert line["tokens_per_second"] == 5.0 and line["loss"] == 1.0
        self.told.append((line["stage"], line["step"]))


def mine(answer: bool) -> bool:
    return answer


def test_lines_that_come_fast_are_reported_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for step in range(1, 13):
        rank.hear("a", step, 20, after=0.25)
    assert rank.told == [("a", 1), ("a", 5), ("a", 9)]


def test_slow_lines_are_all_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for step in range(1, 4):
        rank.hear("a", step, 20, after=1.5)
    assert rank.told == [("a", 1), ("a", 2), ("a", 3)]


def test_the_last_line_of_each_stage_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for stage in "ab":
        for step in range(1, 5):
            rank.hear(stage, step, 4, after=0.01)
    assert rank.told == [("a", 1), ("a", 4), ("b", 4)]


def test_ranks_whose_clocks_differ_report_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def first(answer: bool) -> bool:
        asked.append(answer)
        return answer

    lines = [(stage, step) for stage in "ab" for step in range(1, 11)]
    zero = Rank(monkeypatch, first)
    for stage, step in lines:
        zero.hear(stage, step, 10, after=0.4)
    answers = iter(asked)
    one = Rank(monkeypatch, lambda _: next(answers))
    for stage, step in lines:
        one.hear(stage, step, 10, after=0.7)
    assert one.told == zero.told and 2 < len(one.told) < len(lines)
    assert next(answers, None) is None
