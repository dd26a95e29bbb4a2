"""The headline of a sweep: its main contrast in words, computed from its numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.measurements.cells import Results
from analysis.measurements.names import PROBES, QUESTIONS, majority, metric, p_probe, q_probe
from analysis.measurements.table_rows import Row, baseline, column_group, published, rows
from analysis.presentation.number_format import percent, ranged

ANSWERED = "Can a model answer questions about people it has read about but was never asked about?"
STORED = "Where does a model keep what it has read about people, so that a linear probe finds it?"


@dataclass(frozen=True)
class Measure:
    """The number that orders settings, for one kind of readout."""

    group: str
    title: str
    metric: str
    baseline: str


MEASURES = (
    *(Measure(name, title, metric(name, "mean"), majority(name, "whole", "mean")) for name, title in QUESTIONS.items()),
    Measure("q_probe", "Q-probe, first token", q_probe("first", "mean"), majority("q_probe", "first", "mean")),
    Measure(
        "p_probe",
        "P-probe at position 0, first token",
        p_probe("first", 0, "mean"),
        majority("p_probe", "first", "mean"),
    ),
)


@dataclass(frozen=True)
class Headline:
    """A headline and the remarks that it needs."""

    question: str
    """The question that these readouts answer."""
    headlines: tuple[str, ...]
    """One per column group, at least one."""
    remarks: tuple[str, ...]

    @property
    def headline(self) -> str:
        """All headlines in one line."""
        return "; ".join(self.headlines)


def find_headline(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Headline:
    """Contrasts the plainest setting with the best one, for each kind of readout, and names what is missing."""
    answers, probes = rows(results, best_of=best_of), rows(results, PROBES)
    headlines, remarks = [], []
    guesses: dict[str, list[str]] = {}
    for measure in MEASURES:
        table = [row for row in (probes if measure.group in PROBES else answers) if measure.group in row.replicates]
        if (guess := baseline(table, measure.baseline, (measure.group,))) is not None:
            guesses.setdefault(percent(guess), []).append(measure.title)
        pair = contrast(table, measure)
        if not pair:
            continue
        numbers = " vs ".join(f"{row.name} {percent(row.measured(measure.group, measure.metric))} %" for row in pair)
        headlines.append(f"{measure.title}: {numbers} on held-out people")
        if sentences := _remarks(pair, measure, paper):
            remarks.append(f"{measure.title}: {' '.join(sentences)}")
    if guesses:
        # A baseline that all readouts share needs no names.
        named = [f"{value} %" + (f" ({', '.join(of)})" if len(guesses) > 1 else "") for value, of in guesses.items()]
        remarks.append(f"Always answering with the commonest value would score {'; '.join(named)}.")
    if missing := unfinished(results):
        remarks.append(missing)
    readouts = {column_group(cell.params) for cell in results.cells}
    question = STORED if readouts and readouts <= set(PROBES) else ANSWERED
    return Headline(question, tuple(headlines) or ("No result yet",), tuple(remarks))


def unfinished(results: Results) -> str | None:
    """A sentence on how many cells have no final number, and why; `None` if all have one."""
    open_cells = [cell for cell in results.cells if not cell.done]
    kinds = Counter(cell.state.partition(":")[0] for cell in open_cells)
    reasons = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{len(open_cells)} of {len(results.cells)} cells have no final number: {reasons}." if open_cells else None


def contrast(table: Sequence[Row], measure: Measure) -> tuple[Row, ...]:
    """The row without augmentation (else the lowest) and the highest; fewer if fewer are measured."""
    values = [(row.measured(measure.group, measure.metric), k) for k, row in enumerate(table)]
    measured = [(value, k) for value, k in values if value is not None]
    if len(measured) < 2:
        return tuple(table[k] for _, k in measured)
    # A setting whose people have attributes besides the six says so at its end.
    plain = [(value, k) for value, k in measured if table[k].setting.partition(" with ")[0].endswith(" single")]
    low = min(plain or measured)
    high = max(pair for pair in measured if pair != low)
    return table[low[1]], table[high[1]]


def _remarks(pair: Sequence[Row], measure: Measure, paper: pd.DataFrame | None) -> list[str]:
    """Intervals and the paper's numbers of the settings in the headline."""
    sentences = []
    bounds = [row.bounds(measure.group, measure.metric) for row in pair]
    known = [interval for interval in bounds if interval is not None]
    if len(known) == 2:
        apart = known[0][1] < known[1][0] or known[1][1] < known[0][0]
        both = " and ".join(
            ranged(row.measured(measure.group, measure.metric), interval)
            for row, interval in zip(pair, bounds, strict=True)
        )
        sentences.append(f"{both}; the 95 % intervals {'do not ' if apart else ''}overlap.")
    theirs = [published(paper, row.setting, measure.metric) for row in pair]
    if None not in theirs:
        numbers = " and ".join(f"{percent(value)} %" for value in theirs)
        sentences.append(f"The paper, at its own scale, reports {numbers}.")
    return sentences
