"""The ledger of a text stage: drafts in parts as they are written, and all of them in order when everyone has one.

A part is one file with all drafts of a block of people; it is there whole or not at all, so that whoever is killed
loses the blocks in hand and nothing else. What is sealed does not depend on how the work was cut into blocks.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ktrain.biographies import Written
from ktrain.config import Cell, Writer
from ktrain.scribe import Draft, Task
from ktrain.stages import Stage, texts
from ktrain.store import Place, Store
from ktrain.verifier import COPY

SHARD = 20_000
"""Drafts of a sealed file."""
ACCEPTED, REJECTED, RUNS = "accepted", "rejected", "runs.jsonl"
_DRAFT = {
    "person": pa.int32(), "m": pa.int16(), "attempt": pa.int16(), "text": pa.string(), "why": pa.string(),
    "seed": pa.int64(), "prompt_tokens": pa.int32(), "tokens": pa.int32(),
}  # fmt: skip
_WRITER = {
    "backend": pa.string(), "model": pa.string(), "revision": pa.string(), "prompt": pa.string(), "words": pa.int32(),
    "temperature": pa.float64(), "top_p": pa.float64(), "max_tokens": pa.int32(),
}  # fmt: skip
SCHEMA = pa.schema(_DRAFT | _WRITER)
"""Of all files: a draft, and how it was asked for."""


@dataclass(frozen=True)
class Ledger:
    """The drafts of a task at the place of its stage's work."""

    place: Place
    task: Task

    def keep(self, drafts: Sequence[Draft]) -> None:
        """Adds a block of drafts in one step."""
        if not drafts:
            return
        path = self.place.folder / f"part-{drafts[0].person:08d}-{drafts[0].attempt:05d}.parquet"
        unfinished = path.with_suffix(".part")
        pq.write_table(_table(drafts, self.task.writer), unfinished)
        os.replace(unfinished, path)
        self.place.keep()

    def note(self, run: Mapping[str, Any]) -> None:
        """Adds what a run took: seconds, tokens, cost. It differs from run to run and is no part of what is written."""
        with (self.place.folder / RUNS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
        self.place.keep()

    def drafts(self) -> list[Draft]:
        """All that is kept, by person and attempt, each once."""
        names = list(_DRAFT)
        tables = [pq.read_table(path, columns=names) for path in sorted(self.place.folder.glob("part-*.parquet"))]
        found = {(d["person"], d["attempt"]): Draft(**d) for table in tables for d in table.to_pylist()}
        return [found[key] for key in sorted(found)]

    def todo(self, drafts: Iterable[Draft]) -> list[tuple[int, int]]:
        """People of whom no draft is accepted, each with the next attempt."""
        following = dict.fromkeys(range(self.task.people), 0)
        for draft in drafts:
            if not draft.why:
                following.pop(draft.person, None)
            elif draft.person in following:
                following[draft.person] = draft.attempt + 1
        return list(following.items())

    def seal(self, store: Store, stage: Stage) -> None:
        """Publishes the stage; everyone has an accepted draft."""
        drafts = self.drafts()
        assert not self.todo(drafts), stage.key

        def fill(folder: Path) -> None:
            for name, mine in ((ACCEPTED, [d for d in drafts if not d.why]), (REJECTED, [d for d in drafts if d.why])):
                for k, begin in enumerate(range(0, len(mine), SHARD)):
                    table = _table(mine[begin : begin + SHARD], self.task.writer)
                    pq.write_table(table, folder / f"{name}-{k:05d}.parquet")
            told = tally(drafts)
            (folder / "metrics.json").write_text(json.dumps(told.metrics, indent=1))
            (folder / "reasons.json").write_text(json.dumps(told.reasons, indent=1))
            if (self.place.folder / RUNS).is_file():
                shutil.copy(self.place.folder / RUNS, folder / RUNS)

        store.finish(stage.key, stage.identity, stage.kind, fill)
        store.clear_work(stage.key)


@dataclass(frozen=True)
class Tally:
    """What some drafts come to: counts by name, and how many were rejected for each reason, the commonest first."""

    drafts: int = 0
    accepted: int = 0
    copies: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """As they are kept."""
        named = {name: value for name, value in asdict(self).items() if name != "reasons"}
        return {f"text/{name}": value for name, value in named.items()} | {"text/acceptance": self.acceptance}

    @property
    def acceptance(self) -> float:
        """Share of the drafts that were accepted."""
        return self.accepted / max(1, self.drafts)

    def __add__(self, other: "Tally") -> "Tally":
        sums = {name: getattr(self, name) + getattr(other, name) for name in asdict(self) if name != "reasons"}
        reasons = dict(self.reasons)
        for why, count in other.reasons.items():
            reasons[why] = reasons.get(why, 0) + count
        return Tally(**sums, reasons=dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))))


def tally(drafts: Sequence[Draft]) -> Tally:
    """Counts drafts; a reason is that of an attribute without what was found, such as `company: missing`."""
    reasons: dict[str, int] = {}
    for draft in drafts:
        for why in {": ".join(part.split(": ")[:2]) for part in draft.why.split("; ") if part}:
            reasons[why] = reasons.get(why, 0) + 1
    counts = {
        "drafts": len(drafts),
        "accepted": sum(not d.why for d in drafts),
        "copies": sum(COPY in d.why for d in drafts),
        "prompt_tokens": sum(d.prompt_tokens for d in drafts),
        "tokens": sum(d.tokens for d in drafts),
    }
    return Tally(**counts, reasons=dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))))


def tasks(cell: Cell) -> dict[str, tuple[Stage, Task]]:
    """The text stages of a cell by key, each with what is to be written; none where no model writes."""
    return {stage.key: (stage, Task(cell.corpus, cell.seed, group, m)) for stage, group, m in texts(cell)}


def reader(store: Store, cell: Cell) -> Callable[[str, int], list[Written]] | None:
    """What gives `corpus.build` the texts of a cell; None where no model writes, or not all is written yet."""
    stages = {(group, m): stage for stage, group, m in texts(cell)}
    if not stages or not all(store.exists(stage.key) for stage in stages.values()):
        return None

    def read(group: str, m: int) -> list[Written]:
        folder = store.find(stages[group, m].key)
        assert folder is not None, stages[group, m].key
        rows = _rows(folder, ACCEPTED)
        return [Written(row["text"], row["attempt"] + 1) for row in rows]

    return read


def rejected(store: Store, cell: Cell) -> list[Draft]:
    """The drafts of a cell's texts that were not accepted, as far as there are any."""
    found = []
    for stage, _, _ in texts(cell):
        folder = store.find(stage.key) if store.exists(stage.key) else None
        names = list(_DRAFT)
        found += [Draft(**{name: row[name] for name in names}) for row in _rows(folder, REJECTED)] if folder else []
    return found


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(f"{name}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def _table(drafts: Sequence[Draft], writer: Writer) -> pa.Table:
    told = writer.model_dump()
    columns = {name: [getattr(draft, name) for draft in drafts] for name in _DRAFT}
    return pa.table(columns | {name: [told[name]] * len(drafts) for name in _WRITER}, schema=SCHEMA)
