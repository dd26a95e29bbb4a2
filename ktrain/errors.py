"""The two ways in which a request can end badly before or during compute."""

import difflib
from collections.abc import Iterable


class WrongRequest(ValueError):
    """The request cannot be carried out as asked: one line for the user, exit code 2, nothing started."""


class GuardFailure(RuntimeError):
    """A named guard found that the data or the model would make the result meaningless."""

    def __init__(self, guard: str, finding: str) -> None:
        self.guard, self.finding = guard, finding
        super().__init__(f"guard {guard}: {finding}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.guard, self.finding)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean X?` with the closest of `allowed`, or an empty string where nothing is close."""
    match = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.4)
    return f"; did you mean {match[0]}?" if match else ""
