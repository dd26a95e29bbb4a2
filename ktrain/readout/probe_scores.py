"""Scores of probes: accuracies by place and task, what was already read, counts, intervals and predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ktrain.config import ATTRIBUTES
from ktrain.readout.intervals import over_examples
from ktrain.readout.probes import Classes, ProbeTask, Rows

Scores = tuple[dict[str, float], dict[str, int], dict[str, tuple[float, float]]]
"""Metrics, how many people each rests on, and 95 % intervals."""


@dataclass(frozen=True)
class ProbePredictions:
    """What the probes of one stage say of `rows`, all of people of the test half: (rows, P) class by task."""

    rows: Rows
    classes: Mapping[ProbeTask, Classes]
    predicted: Mapping[ProbeTask, np.ndarray]


def score(probed: ProbePredictions, held_out: np.ndarray, prefix: str) -> Scores:
    """Accuracies on held-out people; a task is counted at places up to its attribute, never after it.

    P-probes: `<prefix>/<measure>/<place>/<attribute>`, `/own/` for the place right before the attribute and `seen/`
    by the set of attributes already read; Q-probes: `<prefix>/<measure>/<attribute>`. `mean` leaves the birth date out.
    The baselines are those of the people `held_out` (people,) bool.
    """
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {}
    intervals: dict[str, tuple[float, float]] = {}
    groups: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for task, path, right, person in _parts(probed):
        name = f"{prefix}/{path}/{task.attribute}"
        metrics[name], counts[name] = float(right.mean()), len(np.unique(person))
        intervals[name] = over_examples([(right, person)])
        if task.attribute != "birth_date" and not path.startswith("seen"):
            groups.setdefault(f"{prefix}/{path}/mean", []).append((right, person))
    for name, parts in groups.items():
        # Each attribute counts alike, whatever number of rows it has.
        metrics[name] = float(np.mean([right.mean() for right, _ in parts]))
        counts[name], intervals[name] = len(np.unique(parts[0][1])), over_examples(parts)
    return metrics | _baselines(probed, held_out), counts, intervals


def _parts(probed: ProbePredictions) -> Iterator[tuple[ProbeTask, str, np.ndarray, np.ndarray]]:
    """Task, path of the metric, what was right (examples,) and whose examples they are."""
    rows = probed.rows
    for task, predicted in probed.predicted.items():
        right = predicted == probed.classes[task].labels[rows.person][:, None]
        valid = rows.valid(task)
        if not (rows.entry >= 0).any():
            yield task, task.measure, right[valid], rows.person
            continue
        for place in range(valid.shape[1]):
            if (at := valid[:, place]).any():
                yield task, f"{task.measure}/{place}", right[at, place], rows.person[at]
        own = rows.sentence[:, rows.attributes.index(task.attribute)]
        if (tested := valid.any(axis=1)).any():
            yield task, f"{task.measure}/own", right[tested, own[tested]], rows.person[tested]
        read = seen(rows)
        for code in np.unique(read[valid]):
            at_row, at_place = np.nonzero(valid & (read == code))
            path = f"seen/{task.measure}/{named(int(code), rows.attributes)}"
            yield task, path, right[at_row, at_place], rows.person[at_row]


def seen(rows: Rows) -> np.ndarray:
    """Which attributes were read before each place, (rows, P), as a sum of 2 ** index of the attribute."""
    before = rows.sentence[:, None, :] < np.arange(rows.places.shape[1])[:, None]
    return np.asarray((before * 2 ** np.arange(len(rows.attributes))).sum(-1))


def named(code: int, attributes: Sequence[str] = ATTRIBUTES) -> str:
    """A set of `attributes` as `birth_date-major`, or `none`; MLflow takes no plus in a name."""
    return "-".join(a for i, a in enumerate(attributes) if code >> i & 1) or "none"


def _baselines(probed: ProbePredictions, held_out: np.ndarray) -> dict[str, float]:
    """What the commonest class of each task scores on the held-out people."""
    baselines = {}
    for task, classes in probed.classes.items():
        counts = classes.counts(held_out)
        baselines[f"baseline/{task.measure}/{task.attribute}"] = float(counts.max() / counts.sum())
    for measure in ("first", "whole"):
        names = [f"baseline/{task.measure}/{task.attribute}" for task in probed.classes if task.measure == measure]
        if values := [baselines[name] for name in names if not name.endswith("/birth_date")]:
            baselines[f"baseline/{measure}/mean"] = float(np.mean(values))
    return baselines


def predictions(probed: ProbePredictions) -> pd.DataFrame:
    """One row an example: person, entry, position, task, seen, expected, predicted; entry -1 is no entry but a name."""
    rows, read, parts = probed.rows, seen(probed.rows), []
    sets = np.array([named(code, rows.attributes) for code in range(2 ** len(rows.attributes))])
    for task, predicted in probed.predicted.items():
        names = np.array(probed.classes[task].names)
        row, place = np.nonzero(rows.valid(task))
        frame = {
            "person": rows.person[row],
            "entry": rows.entry[row],
            "position": place,
            "task": str(task),
            "expected": names[probed.classes[task].labels[rows.person[row]]],
            "predicted": names[predicted[row, place]],
        }
        if (rows.entry >= 0).any():
            frame["seen"] = sets[read[row, place]]
        parts.append(pd.DataFrame(frame))
    return pd.concat(parts, ignore_index=True)
