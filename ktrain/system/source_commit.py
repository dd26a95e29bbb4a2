"""The commit of the code that runs."""

import os
import subprocess
from functools import cache
from pathlib import Path

import ktrain

VARIABLE = "KTRAIN_COMMIT"
"""How a driver passes the commit on to processes that have the code without its repository."""
DIRTY = "-dirty"
"""What follows the commit where files differ from it."""
_DESCRIBE = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


@cache
def source_commit() -> str | None:
    """Returns the commit of this code, with `-dirty` where files differ from it; None where the code is no checkout."""
    return os.environ.get(VARIABLE) or _of_checkout(Path(ktrain.__file__).parents[1])


def as_environment() -> dict[str, str]:
    """Returns the variable that tells processes with a copy of this code its commit; nothing if there is none."""
    return {VARIABLE: commit} if (commit := source_commit()) else {}


def _of_checkout(root: Path) -> str | None:
    # An installed package may lie within the repository of something else, whose commit says nothing.
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            _DESCRIBE,
            cwd=root,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
