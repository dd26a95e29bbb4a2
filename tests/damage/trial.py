"""Damages a copy of a finished store, and looks at what every command says of it."""

import contextlib
import io
import json
import logging
import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrain.store.open import store_at
from sweeps import cli
from tests.damage.damages import Damage
from tests.damage.finished import Finished

SECONDS = 60
"""After this long, a command hangs."""


class Hangs(Exception):
    """A command has not ended in time."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    output: str
    errors: str


def run(finished: Finished, store: Path, *words: str) -> Said:
    """Runs a command on a store in this process. Raises whatever it raises, and `Hangs`."""
    output, errors, handler = io.StringIO(), io.StringIO(), logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("ktrain")
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stdout(_Binary(output)), contextlib.redirect_stderr(errors), _limit(SECONDS):
            os.environ["MLFLOW_TRACKING_URI"] = finished.uri
            code = cli.main([*words, "--store", str(store)])
    finally:
        logger.removeHandler(handler)
        del os.environ["MLFLOW_TRACKING_URI"]
    return Said(code, output.getvalue(), errors.getvalue() + handler.stream.getvalue())


class _Binary(io.TextIOBase):
    """Standard output to which bytes can be written too."""

    def __init__(self, text: io.StringIO) -> None:
        self._text, self.buffer = text, self

    def write(self, content: Any) -> int:
        return self._text.write(content.decode() if isinstance(content, bytes) else content)


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def hang(*_: object) -> None:
        raise Hangs(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def cells(finished: Finished, store: Path) -> dict[str, dict[str, Any]]:
    """What `ktrain results` says of each cell."""
    said = run(finished, store, "results", str(finished.sweep), "--format", "json")
    assert said.code == 0, said
    return {cell["key"]: cell for cell in json.loads(said.output)["cells"]}


def judge(finished: Finished, sound: dict[str, dict[str, Any]], damage: Damage, folder: Path) -> list[str]:
    """Inflicts a damage on a copy of the store, and returns what is wrong with what the commands say; none if all is
    well. `sound` are the cells of the undamaged store."""
    store = finished.copy(folder)
    damage.inflict(store)
    touched = {key for key, cell in sound.items() if any(damage.key in where for where in cell["stages"].values())}
    wrong: list[str] = []
    try:
        if not damage.subtle:
            wrong += _glance(finished, store, damage)
            wrong += _shown(cells(finished, store), sound, touched)
        said = run(finished, store, "verify")
        if said.code != 1 or damage.key not in said.errors:
            wrong.append(f"verify does not notice it: {said}")
        if damage.key in store_at(store).present() or not (store / "damaged" / f"{damage.key}-1").exists():
            wrong.append("verify does not move the stage aside")
        if run(finished, store, "verify").code:
            wrong.append("verify finds damage in other stages, too")
        wrong += _glance(finished, store, damage)
        wrong += _shown(cells(finished, store), sound, touched)
    except Exception:
        wrong.append(traceback.format_exc())
    return wrong


def _glance(finished: Finished, store: Path, damage: Damage) -> list[str]:
    said = run(finished, store, "status", str(finished.sweep))
    told = "damaged" in said.output and damage.key in said.output.replace("\n", "")
    return [] if said.code == 0 and told else [f"status does not name it: {said}"]


def _shown(now: dict[str, dict[str, Any]], sound: dict[str, dict[str, Any]], touched: set[str]) -> list[str]:
    """Numbers that are shown of cells with a damaged stage, and changes of the others."""
    wrong = [f"{key} has numbers: {now[key]}" for key in touched if now[key]["metrics"] or now[key]["state"] == "done"]
    wrong += [f"{key} is not as before" for key in sound.keys() - touched if _numbers(now[key]) != _numbers(sound[key])]
    return wrong


def _numbers(cell: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != "stages"}
