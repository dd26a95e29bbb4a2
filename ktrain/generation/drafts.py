"""Drafts of a text stage: kept in part files while they are written, published in order when everyone has one.

A part file holds all drafts of a block of people and appears atomically, so a killed run loses only the blocks in
progress. The published files do not depend on how the work was divided into blocks.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ktrain.bior.entries import WrittenText
from ktrain.bior.verifier import COPY
from ktrain.config import CellConfig, WriterConfig
from ktrain.generation.generator import Draft, GenerationTask
from ktrain.stages import Stage, texts
from ktrain.store.base import FileContent, Store, WorkDir
from ktrain.store.regular_files import read_bytes
from ktrain.system.atomic_write import atomic_write

SHARD = 20_000
"""Drafts per published file."""
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
"""Columns of all files: a draft, and the settings of its writer."""


@dataclass(frozen=True)
class DraftStore:
    """The drafts of a task in the work folder of its stage."""

    work_dir: WorkDir
    task: GenerationTask

    def append(self, drafts: Sequence[Draft]) -> None:
        """Adds a block of drafts as one part file, atomically."""
        if not drafts:
            return
        path = self.work_dir.folder / f"part-{drafts[0].person:08d}-{drafts[0].attempt:05d}.parquet"
        atomic_write(path, partial(self._write_shard, drafts))
        self.work_dir.upload_async()

    def log_run(self, run: Mapping[str, Any]) -> None:
        """Logs seconds, tokens and cost of a run, which differ between runs and are not part of the drafts."""
        with (self.work_dir.folder / RUNS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
        self.work_dir.upload_async()

    def drafts(self) -> list[Draft]:
        """All drafts so far, sorted by person and attempt, without duplicates."""
        folder, names = self.work_dir.folder, list(_DRAFT)
        parts = [pa.BufferReader(read_bytes(path, folder)) for path in sorted(folder.glob("part-*.parquet"))]
        tables = [pq.read_table(part, columns=names) for part in parts]
        drafts = {(d["person"], d["attempt"]): Draft(**d) for table in tables for d in table.to_pylist()}
        return [drafts[key] for key in sorted(drafts)]

    def pending(self, drafts: Iterable[Draft]) -> list[tuple[int, int]]:
        """People without an accepted draft, each with the next attempt."""
        next_attempt = dict.fromkeys(range(self.task.people), 0)
        for draft in drafts:
            if not draft.why:
                next_attempt.pop(draft.person, None)
            elif draft.person in next_attempt:
                next_attempt[draft.person] = draft.attempt + 1
        return list(next_attempt.items())

    def publish(self, store: Store, stage: Stage) -> None:
        """Publishes the stage; everyone must have an accepted draft."""
        drafts = self.drafts()
        assert not self.pending(drafts), stage.key
        stats = draft_stats(drafts)
        files: dict[str, FileContent] = {"metrics.json": stats.metrics, "reasons.json": stats.reasons}
        by_verdict = {ACCEPTED: [d for d in drafts if not d.why], REJECTED: [d for d in drafts if d.why]}
        for name, chosen in by_verdict.items():
            for k, begin in enumerate(range(0, len(chosen), SHARD)):
                files[f"{name}-{k:05d}.parquet"] = partial(self._write_shard, chosen[begin : begin + SHARD])
        if (self.work_dir.folder / RUNS).is_file():
            files[RUNS] = self.work_dir.folder / RUNS
        store.publish_files(stage, files)
        store.clear_work(stage.key)

    def _write_shard(self, drafts: Sequence[Draft], path: Path) -> None:
        pq.write_table(_table(drafts, self.task.writer), path)


@dataclass(frozen=True)
class DraftStats:
    """Counts over some drafts; `reasons` counts rejections by reason, the commonest first."""

    drafts: int = 0
    accepted: int = 0
    copies: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The counts as metrics of the stage."""
        named = {name: value for name, value in asdict(self).items() if name != "reasons"}
        return {f"text/{name}": value for name, value in named.items()} | {"text/acceptance": self.acceptance}

    @property
    def acceptance(self) -> float:
        """Share of the drafts that were accepted."""
        return self.accepted / max(1, self.drafts)

    def __add__(self, other: "DraftStats") -> "DraftStats":
        sums = {name: getattr(self, name) + getattr(other, name) for name in asdict(self) if name != "reasons"}
        return DraftStats(**sums, reasons=_commonest_first(Counter(self.reasons) + Counter(other.reasons)))


def draft_stats(drafts: Sequence[Draft]) -> DraftStats:
    """Counts drafts; a reason names an attribute and a kind, such as `company: missing`."""
    reasons: Counter[str] = Counter()
    for draft in drafts:
        reasons.update({": ".join(part.split(": ")[:2]) for part in draft.why.split("; ") if part})
    counts = {
        "drafts": len(drafts),
        "accepted": sum(not d.why for d in drafts),
        "copies": sum(COPY in d.why for d in drafts),
        "prompt_tokens": sum(d.prompt_tokens for d in drafts),
        "tokens": sum(d.tokens for d in drafts),
    }
    return DraftStats(**counts, reasons=_commonest_first(reasons))


def _commonest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def generation_tasks(cell: CellConfig) -> dict[str, tuple[Stage, GenerationTask]]:
    """The text stages of a cell by key, each with its task; empty if no language model writes for the cell."""
    return {stage.key: (stage, GenerationTask(cell.corpus, cell.seed, group, m)) for stage, group, m in texts(cell)}


def draft_reader(store: Store, cell: CellConfig) -> Callable[[str, int], list[WrittenText]] | None:
    """Reads the texts of a cell for `build_corpus`; None if no model writes for it or texts are still missing."""
    stages = {(group, m): stage for stage, group, m in texts(cell)}
    if not stages or not all(store.exists(stage.key) for stage in stages.values()):
        return None

    def read(group: str, m: int) -> list[WrittenText]:
        folder = store.fetch(stages[group, m].key)
        assert folder is not None, stages[group, m].key
        rows = _rows(folder, ACCEPTED)
        return [WrittenText(row["text"], row["attempt"] + 1) for row in rows]

    return read


def rejected_drafts(store: Store, cell: CellConfig) -> list[Draft]:
    """The rejected drafts of a cell's published texts."""
    drafts = []
    for stage, _, _ in texts(cell):
        folder = store.fetch(stage.key) if store.exists(stage.key) else None
        if folder is not None:
            drafts += [Draft(**{name: row[name] for name in _DRAFT}) for row in _rows(folder, REJECTED)]
    return drafts


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(f"{name}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def _table(drafts: Sequence[Draft], writer: WriterConfig) -> pa.Table:
    settings = writer.model_dump()
    columns = {name: [getattr(draft, name) for draft in drafts] for name in _DRAFT}
    return pa.table(columns | {name: [settings[name]] * len(drafts) for name in _WRITER}, schema=SCHEMA)
