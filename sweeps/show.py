"""What commands print: the plan, the state of cells, and what a model is fed with its attributes marked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ktrain import corpus as corpora
from ktrain import probes
from ktrain.config import ATTRIBUTES, Cell
from ktrain.corpus import Corpus
from ktrain.stages import chain
from ktrain.windows import Windows
from sweeps.live import clock
from sweeps.plan import Plan

COLOURS = dict(zip(ATTRIBUTES, ("red", "green", "yellow", "blue", "magenta", "cyan"), strict=True))


HELD = {"biography": "biographies", "question": "questions", "background": "background text"}


class Screen(Console):
    """A console whose reader may leave early: that is for `main` to see, and no failure."""

    def on_broken_pipe(self) -> None:
        """Raises the error on, where `Console` would exit with 1."""
        raise


def plan(plan: Plan) -> None:
    """Cells, stages, cost and departures."""
    console = Screen()
    varied = plan.varied()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", *varied, "state"):
        table.add_column(name, overflow="fold")
    for cell in plan.cells:
        table.add_row(cell.key, *(str(cell.axes[axis]) for axis in varied), cell.state)
    console.print(table)
    stages = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "kind", "state"):
        stages.add_column(name, overflow="fold")
    for name in ("tokens", "FLOPs", "time"):
        stages.add_column(name, justify="right")
    for p in plan.stages:
        stages.add_row(p.stage.key, p.stage.kind, p.state, f"{p.tokens:,}", f"{p.flops:.1e}", clock(p.seconds))
    console.print("", stages)
    totals = plan.totals()
    unit = "core" if plan.scale == "mini" else "H100 at 40 % of its peak"
    console.print(
        f"\n{totals['cells']} cells, {totals['stages']} distinct stages, {totals['stages_done']} done; to do: "
        f"{totals['tokens_to_do']:,} tokens, {totals['flops_to_do']:.1e} FLOPs, about "
        f"{clock(totals['seconds_to_do'])} on one {unit}; {totals['bytes'] / 1e6:,.0f} MB of disk in all",
        highlight=False,
    )
    if refused := plan.refused():
        console.print("\nProbe tasks that are refused, because their classes have too few people", style="bold")
        for line in refused:
            console.print(f"  {line}", highlight=False, markup=False)
    console.print("\nDepartures from the paper, and assumptions", style="bold")
    for line in plan.departures():
        console.print(f"  {line}", highlight=False, markup=False)


def status(plan: Plan) -> None:
    """One line a cell."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    varied = plan.varied()
    for name in ("cell", *varied, "state"):
        table.add_column(name, overflow="fold")
    for cell in plan.cells:
        table.add_row(cell.key, *(str(cell.axes[axis]) for axis in varied), cell.state)
    Screen().print(table)


def fed(what: str, cell: Cell, count: int, step: int) -> None:
    """People, entries, questions, the classes of probes, or the windows of a step."""
    console = Screen(soft_wrap=True, highlight=False)
    corpus = corpora.build(cell.corpus, cell.seed)
    printers = {"people": _people, "entries": _entries, "questions": _questions, "classes": _classes}
    if what != "window":
        for text in printers[what](corpus, count):
            console.print(text)
        return
    windows = Windows(corpus, chain(cell)[0].key, cell.train, cell.seed)
    for row, (ids, kind) in enumerate(zip(windows.rows(step)[:count], windows.kinds(step), strict=False)):
        text = corpus.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        heading = Text(f"step {step} row {row}, {HELD[kind]}", "bold")
        console.print(heading, Text(text), "", sep="\n")


def _people(corpus: Corpus, count: int) -> Iterator[Any]:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("person", "name", "half", *ATTRIBUTES):
        table.add_column(name.replace("_", " "))
    for p in range(min(count, len(corpus.people))):
        half = "celebrity" if corpus.celebrity[p] else "train" if corpus.train[p] else "test"
        values = [corpus.people.value(p, a) for a in ATTRIBUTES]
        table.add_row(str(p), corpus.people.name(p), half, *values)
    yield table


def _entries(corpus: Corpus, count: int) -> Iterator[Text]:
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


def _questions(corpus: Corpus, count: int) -> Iterator[Text]:
    for p in range(min(count, len(corpus.people))):
        yield Text(f"person {p}, {'train' if corpus.train[p] else 'test'} half", "bold")
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
