"""A plain text of the user's that a setting names."""

from pathlib import Path

LARGEST_TEXT = 10_000_000
"""Bytes; a sample of a text measures it as well as all of it."""


def text_file_fault(path: Path) -> str:
    """Returns what keeps a file from being a text to measure; empty if nothing."""
    try:
        if not path.is_file():
            return "no such file on this machine"
        if path.stat().st_size > LARGEST_TEXT:
            return f"has more than {LARGEST_TEXT:,} bytes; a part of it measures as well"
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "must be UTF-8"
    except OSError as e:
        return f"cannot be read: {e.strerror}"
    return "" if len(text.split()) > 1 else "is empty: it needs two words"
