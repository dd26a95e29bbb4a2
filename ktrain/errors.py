"""The errors that a user can cause, and the hint at what was meant."""

import difflib
from collections.abc import Iterable


class WrongRequest(ValueError):
    """The request cannot be carried out: one line for the user, exit code 2, nothing starts."""


class GuardFailure(RuntimeError):
    """A named guard finds that data or model would make the result meaningless."""

    def __init__(self, guard: str, finding: str) -> None:
        self.guard, self.finding = guard, finding
        super().__init__(f"guard {guard}: {finding}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.guard, self.finding)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns `; did you mean X?` with the closest of `allowed`, or an empty string if none is close."""
    if len(name) > 100:
        return ""  # Comparing takes a time that grows with the square of the length.
    match = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.4)
    return f"; did you mean {match[0]}?" if match else ""


def shorten(value: object, length: int = 100) -> str:
    """Returns the text of any value for a message: one line of at most `length` characters, all of them printable.

    The type stands for a value that has no text, because making it raises.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    text = " ".join(text[: 10 * length].split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def is_text(text: str) -> bool:
    """Whether a text can be written to a file and to a database: it has no NUL and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
