"""One request to the command line, made in this process, and the judgement of its end."""

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401
import ray
import ray.tune

# Imported before a request is timed, and before a request that is stopped can leave half of a module behind.
import sweeps.report  # noqa: F401
from sweeps import cli

SECONDS, WAIT = 30, 300
"""A request hangs that computes longer, or waits longer, however busy the machine is."""
LONGEST = 3_000
"""Characters of a refusal: the longest lists every axis."""
CLEAN, REFUSED = "clean", "refused"


class Hang(BaseException):
    """The request has not ended in its time."""


class Started(BaseException):
    """The request would have started Ray, or a server."""


@dataclass(frozen=True)
class Request:
    """The words of a command line, with the files and the environment that it meets.

    `end` is what has to come of it: `refused`, or `clean` where a success is right too. `prepare` makes what text
    cannot, such as links, in the working folder.
    """

    name: str
    words: tuple[str, ...]
    end: str = CLEAN
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    prints: bool = False
    """Whether a refusal may be a list that the command was asked for, as of `ktrain cluster check`."""


@dataclass(frozen=True)
class Outcome:
    """How a request ended: its exit code, or None with the `trouble` that it ended in; what it printed."""

    request: Request
    code: int | None
    out: str
    error: str
    trouble: str = ""

    def fault(self) -> str:
        """Returns what is wrong with this end; empty if nothing is."""
        lines = self.error.splitlines()
        if self.trouble:
            return self.trouble
        if "Traceback" in self.out + self.error:
            return "a traceback is printed"
        if self.code == cli.EXIT_WRONG and self.out and self.request.prints:
            return "beside its list, a refusal prints an error" if self.error else ""
        if self.code == cli.EXIT_WRONG:
            if self.out:
                return "a refusal prints to standard output"
            if len(lines) != 1 or not lines[0].startswith("ktrain: ") or len(lines[0]) > LONGEST:
                return f"a refusal of {len(lines)} lines, {len(self.error)} characters"
            return ""
        if self.request.end == REFUSED:
            return f"not refused: exit code {self.code}"
        return "" if self.code in (0, 1) else f"exit code {self.code}"


def attempt(request: Request, folder: Path) -> Outcome:
    """Makes a request in a new working folder, which it removes afterwards. Ray and servers do not start."""
    work = folder / "work"
    work.mkdir(parents=True)
    for name, content in request.files.items():
        (work / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code, trouble = None, ""
    with _surroundings(work, request.environment), _limited() as hung, _replaced(sys, stdout=out, stderr=error):
        if request.prepare:
            request.prepare(work)
        try:
            code = cli.main(request.words)
        except Started as e:
            code = 0 if request.end == CLEAN else None
            trouble = "" if request.end == CLEAN else f"not refused: {e}"
        except BaseException as e:
            trouble = "".join(traceback.format_exception(e))
    trouble = "".join(hung) or trouble
    shutil.rmtree(work, ignore_errors=True)
    return Outcome(request, code, _text(out), _text(error), trouble)


@contextlib.contextmanager
def _surroundings(work: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Runs the block in a folder and an environment of its own, in which nothing can start."""
    here, before, handlers = os.getcwd(), dict(os.environ), logging.root.handlers[:]
    recursion = sys.getrecursionlimit()
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "KTRAIN_STORE"):
        os.environ.pop(name, None)
    os.environ |= {"COLUMNS": "200", **environment}
    os.chdir(work)
    # As in a process of its own, where nobody has set up logging yet.
    logging.root.handlers = []
    try:
        with _replaced(ray, init=_refuse("Ray")), _replaced(os, execvpe=_refuse("a server")):
            yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
        logging.root.handlers = handlers
        sys.setrecursionlimit(recursion)


@contextlib.contextmanager
def _limited() -> Iterator[list[str]]:
    """Raises `Hang` in the block after its time, and notes it in the list: a block may catch whatever is raised."""
    hung: list[str] = []

    def stop(*_: object) -> None:
        hung.append(f"hangs: no end within {SECONDS} s of computing or {WAIT} s of waiting")
        raise Hang

    limits = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAIT)}
    before = {number: signal.signal(number, stop) for number, _ in limits.values()}
    for timer, (_, seconds) in limits.items():
        signal.setitimer(timer, seconds)
    try:
        yield hung
    finally:
        for timer in limits:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _replaced(owner: Any, **values: Any) -> Iterator[None]:
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def _refuse(what: str) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise Started(f"{what} would have been started")

    return refuse


def _text(stream: io.TextIOWrapper) -> str:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
