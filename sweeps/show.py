"""What commands print: the plan, the state of cells, and what a model is fed with its attributes marked."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ktrain import biographies, ledger, pools, probes
from ktrain import corpus as corpora
from ktrain.config import ATTRIBUTES, Cell
from ktrain.corpus import Corpus
from ktrain.stages import chain
from ktrain.store import Store
from ktrain.windows import Windows
from sweeps import writing_cost
from sweeps.live import clock
from sweeps.plan import Plan

COLOURS = dict(zip(ATTRIBUTES, ("red", "green", "yellow", "blue", "magenta", "cyan"), strict=True))


STATES = ("planned", "running", "done", "failed", "blocked")
MANY = 100
"""Cells above which a plan is told by its parts."""
NAMED = 3
"""Cells that are named beside the reason that they have in common."""
HELD = {"biography": "biographies", "question": "questions", "background": "background text"}
TABLE_WIDTH = 144
"""Columns that a table may take: a narrower terminal wraps its lines, which loses nothing."""


class Screen(Console):
    """A console whose reader may leave early: that is for `main` to see, and no failure."""

    def on_broken_pipe(self) -> None:
        """Raises the error on, where `Console` would exit with 1."""
        raise


def wide_screen() -> Screen:
    """A console for tables."""
    return Screen(width=max(TABLE_WIDTH, Screen().width))


def plan(plan: Plan, *, everything: bool = False) -> None:
    """Cells, stages, cost and departures; of many cells, how many each part has, unless `everything` is wanted."""
    console = Screen()
    many = len(plan.cells) > MANY and not everything
    wide = wide_screen()
    wide.print(*([_parts(plan)] if many else _cells(plan)))
    for line in _reasons(plan):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    wide.print("", _kinds(plan) if many else _stages(plan))
    console.print("", *_bill(plan.totals()), sep="\n", highlight=False)
    if written := plan.writing():
        console.print("\nBiographies that a language model has to write first", style="bold")
        for line in writing_cost.told(written, plan.sweep.name, plan.device):
            console.print(f"  {line}", highlight=False, markup=False)
    if refused := plan.refused():
        console.print("\nProbe tasks that are refused, because their classes have too few people", style="bold")
        for line in refused:
            console.print(f"  {line}", highlight=False, markup=False)
    console.print("\nDepartures from the paper, and assumptions", style="bold")
    for line in plan.departures():
        console.print(f"  {line}", highlight=False, markup=False)
    if many:
        console.print("\n--cells lists every cell and stage", style="dim")


def _cells(plan: Plan) -> Iterator[Table]:
    """A table of cells, of a whole one for each part with the cells that no part before it has."""
    names = dict.fromkeys(cell.parts[0] for cell in plan.cells)
    for name in names:
        varied = plan.varied(name)
        table = _table("cell", *_headers(varied), "state")
        if plan.sweep.parts:
            table.title, table.title_justify, table.title_style = f"\n{name}", "left", "bold"
        for cell in (cell for cell in plan.cells if cell.parts[0] == name):
            table.add_row(cell.key, *(str(cell.axes[axis]) for axis in varied), cell.state.partition(":")[0])
        yield table


def _headers(axes: list[str]) -> list[str]:
    """Axes by their last name, or by all of it where two would read alike."""
    last = Counter(axis.rpartition(".")[2] for axis in axes)
    return [axis if last[name := axis.rpartition(".")[2]] > 1 else name for axis in axes]


def _reasons(plan: Plan) -> Iterator[str]:
    """Why cells are blocked or have failed: each reason once, with the cells where they are few."""
    cells: dict[str, list[str]] = {}
    for cell in plan.cells:
        if ":" in cell.state:
            cells.setdefault(cell.state, []).append(cell.key)
    for reason, keys in cells.items():
        named = f" ({', '.join(keys)})" if len(keys) <= NAMED else ""
        yield f"\n{len(keys)} {'cell is' if len(keys) == 1 else 'cells are'} {reason}{named}"


def _stages(plan: Plan) -> Table:
    table = _table("stage", "kind", "state", right=("tokens", "FLOPs", "time"))
    for p in plan.stages:
        table.add_row(p.stage.key, p.stage.kind, p.state, f"{p.tokens:,}", f"{p.flops:.1e}", clock(p.seconds))
    return table


def _parts(plan: Plan) -> Table:
    """Cells of each part by state; a cell of several parts counts in each, and once in the last line."""
    table = _table("part", right=("cells", "pretrainings", *STATES))
    names = dict.fromkeys(part.name for part in plan.sweep.parts or (plan.sweep,))
    groups = {name: [cell for cell in plan.cells if name in cell.parts] for name in names}
    for name, cells in {**groups, "each once": list(plan.cells)}.items():
        states = Counter(cell.state.partition(":")[0] for cell in cells)
        pretrained = len({cell.stages[1].key for cell in cells})
        table.add_row(name, str(len(cells)), str(pretrained), *(str(states[state] or "") for state in STATES))
    return table


def _kinds(plan: Plan) -> Table:
    """Stages by kind, with how many there would be if every cell did its own."""
    table = _table("stages", right=("distinct", "unshared", "done", "tokens", "FLOPs", "hours"))
    unshared = Counter(stage.kind for cell in plan.cells for stage in cell.stages)
    for kind, count in unshared.items():
        mine = [p for p in plan.stages if p.stage.kind == kind]
        counts = len(mine), count, sum(p.state == "done" for p in mine)
        tokens, flops, seconds = (sum(getattr(p, name) for p in mine) for name in ("tokens", "flops", "seconds"))
        table.add_row(kind, *map(str, counts), f"{tokens:.1e}", f"{flops:.1e}", f"{seconds / 3600:,.1f}")
    return table


def _bill(totals: dict[str, Any]) -> Iterator[str]:
    """What it costs, in words."""
    device, gpus = totals["device"], totals["gpus"]
    yield (
        f"{totals['cells']:,} cells, {totals['stages']:,} distinct stages, {totals['stages_done']:,} done; without "
        f"sharing there would be {totals['stages_without_sharing']:,} stages and "
        f"{totals['flops_without_sharing'] / max(totals['flops'], 1.0):.1f} times the FLOPs"
    )
    for name, about in {"in all": "", "to do": "_to_do", "blocked": "_blocked"}.items():
        if totals[f"stages{about}"]:
            yield (
                f"{name}: {totals[f'pretrainings{about}']:,} pretrainings, {totals[f'tokens{about}']:,} tokens, "
                f"{totals[f'flops{about}']:.1e} FLOPs, {_hours(totals[f'seconds{about}'])} of one {device}, "
                f"{totals[f'bytes{about}'] / 1e9:,.1f} GB of disk"
            )
    devices = f"{gpus} {device}s" if gpus > 1 else f"one {device}"
    yield f"what is to do takes about {_hours(totals['wall_seconds_to_do'])} on {devices}, a trial on each"
    yield f"{device}: {totals['flops_per_second_from']}"
    for network, speed in totals["flops_per_second_measured"].items():
        yield f"{network}: as fast as measured here, {speed / 1e12:.3g} TFLOP/s"


def _hours(seconds: float) -> str:
    """Minutes below an hour and a half, hours above."""
    return f"{seconds / 60:,.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def _table(*left: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def status(plan: Plan) -> None:
    """One line a cell, and why those that are not done will not be."""
    wide_screen().print(*_cells(plan))
    for line in _reasons(plan):
        Screen().print(line, highlight=False, markup=False, soft_wrap=True)


def fed(what: str, cell: Cell, count: int, step: int, store: Store) -> None:
    """People, entries, questions, the classes of probes, or the windows of a step.

    With the entries of bioR come drafts that were rejected, and why. Raises `WrongRequest` for text that is not there.
    """
    console = Screen(soft_wrap=True, highlight=False)
    corpus = corpora.build(cell.corpus, cell.seed, ledger.reader(store, cell))
    printers = {"people": _people, "entries": _entries, "questions": _questions, "classes": _classes}
    if what != "window":
        for text in printers[what](corpus, count):
            console.print(text)
        if what == "entries" and corpus.texts is not None:
            for text in _rejected(corpus, cell, store, count):
                console.print(text)
        return
    windows = Windows(corpus, chain(cell)[0].key, cell.train, cell.seed)
    for row, (ids, kind) in enumerate(zip(windows.rows(step)[:count], windows.kinds(step), strict=False)):
        text = corpus.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        heading = Text(f"step {step} row {row}, {HELD[kind]}", "bold")
        console.print(heading, Text(text), "", sep="\n")


def _people(corpus: Corpus, count: int) -> Iterator[Any]:
    table = _table("person", "name", "half", *(attribute.replace("_", " ") for attribute in ATTRIBUTES))
    for p in range(min(count, len(corpus.people))):
        half = "celebrity" if corpus.celebrity[p] else "train" if corpus.train[p] else "test"
        values = [corpus.people.value(p, a) for a in ATTRIBUTES]
        table.add_row(str(p), corpus.people.name(p), half, *values)
    yield table


def _entries(corpus: Corpus, count: int) -> Iterator[Text]:
    if corpus.texts is not None:
        writer = corpus.setting.writer
        who = "rules, not by a language model" if writer.backend == "rules" else f"{writer.model} ({writer.backend})"
        yield Text(f"written by {who}; {corpus.texts.acceptance:.1%} of the drafts were accepted", "italic")
    for entry in range(min(count, len(corpus.entries))):
        ids, spans = corpus.entries[entry], corpus.entries.spans[entry]
        text = Text(f"entry {entry} of person {corpus.person[entry]}, {len(ids)} tokens:", "bold")
        place = 0
        for a in np.argsort(spans[:, 0]):
            begin, end = (int(x) for x in spans[a])
            text.append(corpus.tokenizer.decode(ids[place:begin].tolist()), "not bold")
            text.append(
                corpus.tokenizer.decode(ids[begin:end].tolist()), f"not bold underline {COLOURS[ATTRIBUTES[a]]}"
            )
            place = end
        yield text.append(corpus.tokenizer.decode(ids[place:].tolist()), "not bold")


def _rejected(corpus: Corpus, cell: Cell, store: Store, count: int) -> Iterator[Text]:
    """The first drafts of bioR that were not accepted, each with the reasons."""
    drafts: Iterable[tuple[int, str, str]]
    if cell.corpus.writer.backend == "rules":
        assert corpus.texts is not None
        whole = pools.load(cell.corpus.pools_folder)
        drafts = biographies.rejected(cell.corpus, cell.seed, corpus.people, whole, corpus.texts)
    else:
        drafts = ((draft.person, draft.text, draft.why) for draft in ledger.rejected(store, cell))
    for person, text, why in islice(drafts, count):
        yield Text(f"rejected, of person {person}: {why}:", "bold red").append(text, "not bold default")


def _questions(corpus: Corpus, count: int) -> Iterator[Text]:
    for p in range(min(count, len(corpus.people))):
        half = "celebrity" if corpus.celebrity[p] else "train half" if corpus.train[p] else "test half"
        yield Text(f"person {p}, {half}", "bold")
        for a in ATTRIBUTES:
            prompt, answer = corpus.question_text(p, a)
            yield Text(f"  {prompt}").append(answer, f"underline {COLOURS[a]}")


def _classes(corpus: Corpus, count: int) -> Iterator[Any]:
    learns, tested = corpus.halves("minority")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task")
    for name in ("classes", "baseline %", "fewest people", "mean people"):
        table.add_column(name, justify="right")
    table.add_column(f"the {count} largest, in the test half")
    for task in probes.TASKS:
        found = probes.classes(corpus, task)
        asked, learned = found.counts(tested), found.counts(learns)
        largest = [f"{found.names[k].strip()} {asked[k] / asked.sum():.1%}" for k in np.argsort(-asked)[:count]]
        table.add_row(
            str(task),
            f"{len(found.names):,}",
            f"{100 * asked.max() / asked.sum():.1f}",
            f"{learned.min():,}",
            f"{learned.mean():,.1f}",
            ", ".join(largest),
        )
    yield table
    tokens = len(corpus.entries.ids) / len(corpus.entries)
    yield f"{len(corpus.entries):,} entries of {tokens:.1f} tokens; people are those of the training half"
