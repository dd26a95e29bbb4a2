"""Scores: metrics, counts, intervals and predictions from answers."""

import numpy as np
import pandas as pd

from ktrain.bios.people import People, majority_shares
from ktrain.config import ATTRIBUTES
from ktrain.data.corpus import Corpus
from ktrain.readout.evaluation import Answers
from ktrain.readout.intervals import over_people

Halves = tuple[np.ndarray, np.ndarray]


def score(
    answers: Answers, halves: Halves, prefix: str
) -> tuple[dict[str, float], dict[str, int], dict[str, tuple[float, float]]]:
    """Accuracies by half and attribute, how many people each rests on, and their 95 % intervals.

    `halves` is `Corpus.halves`: who was trained on, and who was not.
    """
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {}
    intervals: dict[str, tuple[float, float]] = {}
    person = answers.person[:: len(ATTRIBUTES)]
    for measure in ("exact_match", "first_token"):
        right = (answers.exact if measure == "exact_match" else answers.first_token).reshape(-1, len(ATTRIBUTES))
        for half, whose in zip(("train", "test"), halves, strict=True):
            people = whose[person]
            if not people.any():
                continue
            columns = {"mean": right[people], **{a: right[people][:, [i]] for i, a in enumerate(ATTRIBUTES)}}
            for name, table in columns.items():
                metric = f"{prefix}/{measure}/{half}/{name}"
                metrics[metric] = float(table.mean())
                counts[metric] = len(table)
                intervals[metric] = over_people(table)
    return metrics, counts, intervals


def baseline(people: People, held_out: np.ndarray) -> dict[str, float]:
    """What the commonest value of each attribute scores on the people `held_out` (people,) bool, by metric name."""
    shares = majority_shares(people, held_out)
    return {"baseline/test/mean": float(np.mean(list(shares.values()))), **{
        f"baseline/test/{attribute}": value for attribute, value in shares.items()
    }}  # fmt: skip


def predictions(answers: Answers, corpus: Corpus, halves: Halves) -> pd.DataFrame:
    """One row a question: person, attribute, split, prompt, expected, predicted, exact, first_token."""
    questions = [corpus.question_text(p, ATTRIBUTES[a]) for p, a in zip(answers.person, answers.attribute, strict=True)]
    return pd.DataFrame(
        {
            "person": answers.person,
            "attribute": [ATTRIBUTES[a] for a in answers.attribute],
            "split": np.where(halves[0][answers.person], "train", "test"),
            "prompt": [prompt for prompt, _ in questions],
            "expected": [expected for _, expected in questions],
            "predicted": answers.predicted,
            "exact": answers.exact,
            "first_token": answers.first_token,
        }
    )
