"""Prints plans, the states of cells, and a model's inputs with their attributes marked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
from rich.text import Text

from analysis.presentation.console_table import Column, ConsoleTable
from ktrain.bior import entries
from ktrain.bios import pools
from ktrain.bios.tokenizer import decode_inside
from ktrain.config import CellConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.data.packing import Windows
from ktrain.generation import drafts as generation_drafts
from ktrain.readout import probes
from ktrain.stages import stages_of
from ktrain.store.base import Store
from sweeps.console import COLOURS, Screen, counted, format_duration, format_hours, table_screen, text_screen
from sweeps.planning import generation_cost, reasons, summary
from sweeps.planning.axis_table import AxisDescription
from sweeps.planning.network_summary import NetworkSummary
from sweeps.planning.plan import Plan, Planned

STATES = ("planned", "running", "done", "failed", "blocked", "damaged")
"""The states that a table of parts has columns for, besides those that some cell is in."""
MANY = 100
"""Above this many cells, a plan is printed by its parts."""
PASSES = "passes over questions"
"""The header of how often a stage trains on each of its training questions."""
HELD = {"biography": "biographies", "question": "questions", "background": "background text"}


def plan(plan: Plan, *, everything: bool = False, list_departures: bool = False, wide: bool = False) -> None:
    """Prints cost, cells and stages, and counts departures from the paper, or lists them with `list_departures`.

    A plan of more than `MANY` cells is printed by its parts, unless `everything`.
    """
    console = text_screen()
    console.print(*_bill(summary.totals(plan)), "", sep="\n", highlight=False)
    many = len(plan.cells) > MANY and not everything
    tables = table_screen(wide)
    tables.print(*([_parts(plan)] if many else _cells(plan)))
    later = f"{counted(plan.waiting, 'cell')} more will be drawn from the results of these; their cost is not counted"
    for line in (*map(str, plan.searches), *([later] if plan.waiting else []), *reasons.reasons(plan)):
        console.print(f"\n{line}", highlight=False, markup=False, soft_wrap=True)
    tables.print("", _kinds(plan) if many else _stages(plan))
    if costs := generation_cost.generation_costs(plan):
        console.print("\nBiographies that a language model has to write first", style="bold")
        for line in generation_cost.describe(costs, plan.sweep.name, plan.device):
            console.print(f"  {line}", highlight=False, markup=False)
    if refused := plan.refused():
        console.print("\nProbe tasks that are refused, because their classes have too few people", style="bold")
        for line in refused:
            console.print(f"  {line}", highlight=False, markup=False)
    lines = summary.departures(plan)
    assumed = sum(line.startswith("assumed") for line in lines)
    heading = f"\n{counted(len(lines) - assumed, 'departure')} from the paper, {counted(assumed, 'assumption')}"
    console.print(heading if list_departures else f"{heading}; --departures lists them", style="bold")
    for line in lines if list_departures else ():
        console.print(f"  {line}", highlight=False, markup=False)
    if many:
        console.print("\n--cells lists every cell and stage", style="dim")


def _cells(plan: Plan) -> Iterator[ConsoleTable]:
    """Yields a table of cells for each part of the sweep, each cell in the first part that has it."""
    names = dict.fromkeys(cell.parts[0] for cell in plan.cells)
    for name in names:
        varied = plan.varied(name)
        cells = [cell for cell in plan.cells if cell.parts[0] == name]
        rows = [(cell.key, *(str(cell.axes[axis]) for axis in varied), cell.state.partition(":")[0]) for cell in cells]
        title = f"\n{name}" if plan.sweep.parts else ""
        yield _table(rows, "cell", *_headers(varied), "state", essential=("cell", "state"), title=title)


def _headers(axes: list[str]) -> list[str]:
    """Returns the last part of each axis name, or the whole name where two would read alike."""
    last = Counter(axis.rpartition(".")[2] for axis in axes)
    return [axis if last[name := axis.rpartition(".")[2]] > 1 else name for axis in axes]


def _stages(plan: Plan) -> ConsoleTable:
    rows = []
    for p in plan.stages:
        numbers = f"{p.tokens:,}", _passes([p]), f"{p.flops:.1e}", format_duration(p.seconds)
        rows.append((p.stage.key, p.stage.kind, p.state, *numbers))
    right = ("tokens", PASSES, "FLOPs", "time")
    return _table(rows, "stage", "kind", "state", right=right, essential=("stage", "state", PASSES, "time"))


def _passes(stages: Iterable[Planned]) -> str:
    """The fewest and the most passes of these stages over the questions that they train on; empty if on none."""
    passes = [p.passes for p in stages if p.passes is not None]
    bounds = (min(passes), max(passes)) if passes else ()
    written = [f"{bound:,.1f}" if bound < 10 else f"{bound:,.0f}" for bound in bounds]
    return " to ".join(dict.fromkeys(written))


def _parts(plan: Plan) -> ConsoleTable:
    """Counts the cells of each part by state; a cell of several parts counts in each, and once in the last row."""
    names = dict.fromkeys(part.name for part in plan.sweep.parts or (plan.sweep,))
    groups = {name: [cell for cell in plan.cells if name in cell.parts] for name in names}
    begun = dict.fromkeys(cell.state.partition(":")[0] for cell in plan.cells)
    shown = (*STATES, *(state for state in begun if state not in STATES))
    rows = []
    for name, cells in {**groups, "each once": list(plan.cells)}.items():
        states = Counter(cell.state.partition(":")[0] for cell in cells)
        pretrained = len({cell.stages.pretrain.key for cell in cells})
        rows.append((name, str(len(cells)), str(pretrained), *(str(states[state] or "") for state in shown)))
    return _table(rows, "part", right=("cells", "pretrainings", *shown), essential=("part", "cells", *shown))


def _kinds(plan: Plan) -> ConsoleTable:
    """Counts stages by kind, and how many there would be if every cell did its own."""
    unshared = Counter(stage.kind for cell in plan.cells for stage in cell.stages)
    rows = []
    for kind, count in unshared.items():
        mine = [p for p in plan.stages if p.stage.kind == kind]
        counts = len(mine), count, sum(p.state == "done" for p in mine)
        tokens, flops, seconds = (sum(getattr(p, name) for p in mine) for name in ("tokens", "flops", "seconds"))
        amounts = f"{tokens:.1e}", _passes(mine), f"{flops:.1e}", f"{seconds / 3600:,.1f}"
        rows.append((kind, *map(str, counts), *amounts))
    right = ("distinct", "unshared", "done", "tokens", PASSES, "FLOPs", "hours")
    return _table(rows, "stages", right=right, essential=("stages", "distinct", "done", PASSES, "hours"))


def _bill(totals: dict[str, Any]) -> Iterator[str]:
    """Yields the lines about a plan's cost."""
    device, gpus = totals["device"], totals["gpus"]
    stages, unshared = totals["stages"], totals["stages_without_sharing"]
    saved = ""
    if unshared > stages:
        times = totals["flops_without_sharing"] / max(totals["flops"], 1.0)
        saved = f"; without sharing there would be {unshared:,} stages and {times:.1f} times the FLOPs"
    done = f"{totals['stages_done']:,} done"
    yield f"{counted(totals['cells'], 'cell')}, {counted(stages, 'distinct stage')}, {done}{saved}"
    for name, suffix in {"in all": "", "to do": "_to_do", "blocked": "_blocked"}.items():
        if totals[f"stages{suffix}"]:
            pretrainings = counted(totals[f"pretrainings{suffix}"], "pretraining")
            yield (
                f"{name}: {pretrainings}, {totals[f'tokens{suffix}']:,} tokens, "
                f"{totals[f'flops{suffix}']:.1e} FLOPs, {format_hours(totals[f'seconds{suffix}'])} of one {device}, "
                f"{totals[f'bytes{suffix}'] / 1e9:,.1f} GB of disk"
            )
    devices = f"{gpus} {device}s" if gpus > 1 else f"one {device}"
    yield f"the rest takes about {format_hours(totals['wall_seconds_to_do'])} on {devices}, a trial on each"
    if (dollars := totals["dollars_to_do"]) is not None:
        yield f"the rest costs about ${dollars:,.2f}"
    for name, network in totals["networks"].items():
        yield NetworkSummary(**network).line(name)
    for windows, (lowest, highest) in totals["nameless_attribute_tokens"].items():
        share = f"{lowest:.0%}" if lowest == highest else f"{lowest:.0%} to {highest:.0%}"
        yield f"train.windows={windows}: about {share} of the attribute tokens are read without the name before them"
    yield f"{device}: {totals['flops_per_second_from']}"
    for network, speed in totals["flops_per_second_measured"].items():
        yield f"{network}: as fast as measured here, {speed / 1e12:.3g} TFLOP/s"


def _table(
    rows: Sequence[tuple[str, ...]],
    *left: str,
    right: tuple[str, ...] = (),
    essential: tuple[str, ...] | None = None,
    title: str = "",
) -> ConsoleTable:
    """A table without lines; where it does not fit, only the `essential` columns (by default all) are shown."""
    columns = [Column(name, "key", essential is None or name in essential) for name in left]
    columns += [Column(name, "number", essential is None or name in essential) for name in right]
    return ConsoleTable(title, tuple(columns), tuple(rows), framed=False)


def axes(described: Sequence[AxisDescription], scale: str) -> None:
    """Prints axes, one a line, with their meaning."""
    rows = [
        (axis.name, "" if axis.value is None else str(axis.value), axis.allowed, axis.meaning) for axis in described
    ]
    columns = (
        Column("axis", "key", essential=True),
        Column(f"at {scale}", "key", essential=True),
        Column("allowed", "words"),
        Column("meaning", "words", essential=True),
    )
    table_screen().print(ConsoleTable("", columns, tuple(rows), framed=False))


def status(plan: Plan, *, wide: bool = False) -> None:
    """Prints a line for each cell, and the reasons for which cells are blocked, were stopped or have failed."""
    table_screen(wide).print(*_cells(plan))
    for line in reasons.reasons(plan):
        Screen().print(f"\n{line}", highlight=False, markup=False, soft_wrap=True)


def show_inputs(what: str, cell: CellConfig, count: int, step: int, store: Store) -> None:
    """Prints people, entries, questions, the classes of probes, or the windows of a training step.

    Entries of bioR are followed by rejected drafts with the reasons. Raises `WrongRequest` for text that is not there.
    """
    console = Screen(soft_wrap=True, highlight=False)
    corpus = corpora.build_corpus(cell.corpus, cell.seed, generation_drafts.draft_reader(store, cell))
    printers = {"people": _people, "entries": _entries, "questions": _questions, "classes": _classes}
    if what != "window":
        for text in printers[what](corpus, count):
            console.print(text)
        if what == "entries" and corpus.texts is not None:
            for text in _rejected(corpus, cell, store, count):
                console.print(text)
        return
    windows = Windows(corpus, stages_of(cell).corpus.key, cell.train, cell.seed)
    for row, (ids, kind) in enumerate(zip(windows.rows(step)[:count], windows.kinds(step), strict=False)):
        text = corpus.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        heading = Text(f"step {step} row {row}, {HELD[kind]}", "bold")
        console.print(heading, Text(text), "", sep="\n")


def _people(corpus: Corpus, count: int) -> Iterator[Any]:
    rows = []
    for p in range(min(count, len(corpus.people))):
        half = _half(corpus, p)
        values = [corpus.people.value(p, a) for a in corpus.attributes]
        rows.append((str(p), corpus.people.name(p), half, *values))
    yield _table(rows, "person", "name", "half", *(attribute.replace("_", " ") for attribute in corpus.attributes))


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
            text.append(decode_inside(corpus.tokenizer, ids[place:begin].tolist()), "not bold")
            text.append(decode_inside(corpus.tokenizer, ids[begin:end].tolist()), f"not bold underline {COLOURS[a]}")
            place = end
        yield text.append(decode_inside(corpus.tokenizer, ids[place:].tolist()), "not bold")


def _rejected(corpus: Corpus, cell: CellConfig, store: Store, count: int) -> Iterator[Text]:
    """Yields the first rejected drafts of bioR, each with the reasons."""
    drafts: Iterable[tuple[int, str, str]]
    if cell.corpus.writer.backend == "rules":
        assert corpus.texts is not None
        whole = pools.load(cell.corpus.pools_folder)
        drafts = entries.rejected_drafts(cell.corpus, cell.seed, corpus.people, whole, corpus.texts)
    else:
        drafts = ((draft.person, draft.text, draft.why) for draft in generation_drafts.rejected_drafts(store, cell))
    for person, text, why in islice(drafts, count):
        yield Text(f"rejected, of person {person}: {why}:", "bold red").append(text, "not bold default")


def _questions(corpus: Corpus, count: int) -> Iterator[Text]:
    for p in range(min(count, len(corpus.people))):
        half = _half(corpus, p)
        yield Text(f"person {p}, {half} half" if half in ("train", "test") else f"person {p}, {half}", "bold")
        wordings = range(len(corpus.wordings[corpus.attributes[0]]))
        for (a, attribute), wording in product(enumerate(corpus.attributes), wordings):
            prompt, answer = corpus.question_text(p, attribute, wording)
            unseen = "  (asked, not trained on)" if wording and wording == corpus.asked_wording else ""
            yield Text(f"  {prompt}").append(answer, f"underline {COLOURS[a]}").append(unseen, "dim")


def _half(corpus: Corpus, person: int) -> str:
    if corpus.celebrity[person]:
        return "celebrity"
    return "train" if corpus.train[person] else "validation" if corpus.validation[person] else "test"


def _classes(corpus: Corpus, count: int) -> Iterator[Any]:
    learners, tested = corpus.people_split("minority")
    largest_shown = f"the {count} largest, in the test half"
    rows = []
    for task in probes.tasks(corpus.attributes):
        classes = probes.classes(corpus, task)
        in_test, in_training = classes.counts(tested), classes.counts(learners)
        largest = [f"{classes.names[k].strip()} {in_test[k] / in_test.sum():.1%}" for k in np.argsort(-in_test)[:count]]
        baseline = f"{100 * in_test.max() / in_test.sum():.1f}"
        fewest, mean = f"{in_training.min():,}", f"{in_training.mean():,.1f}"
        rows.append((str(task), f"{len(classes.names):,}", baseline, fewest, mean, ", ".join(largest)))
    numbers = tuple(Column(name, essential=True) for name in ("classes", "baseline %", "fewest people", "mean people"))
    columns = (Column("task", "key", essential=True), *numbers, Column(largest_shown, "words", essential=True))
    yield ConsoleTable("", columns, tuple(rows), framed=False)
    tokens = len(corpus.entries.ids) / len(corpus.entries)
    yield f"{len(corpus.entries):,} entries of {tokens:.1f} tokens; people are those of the training half"
