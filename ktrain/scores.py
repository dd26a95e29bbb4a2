"""Scores: metrics, counts, intervals and predictions from answers."""

import numpy as np
import pandas as pd

from ktrain.config import ATTRIBUTES
from ktrain.corpus import Corpus
from ktrain.evaluation import Answers
from ktrain.interval import over_people
from ktrain.people import majority


def score(
    answers: Answers, corpus: Corpus, prefix: str
) -> tuple[dict[str, float], dict[str, int], dict[str, tuple[float, float]]]:
    """Accuracies by half and attribute, how many people each rests on, and their 95 % intervals."""
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {}
    intervals: dict[str, tuple[float, float]] = {}
    halves = {"train": corpus.train, "test": ~corpus.train}
    for measure in ("exact_match", "first_token"):
        right = (answers.exact if measure == "exact_match" else answers.first_token).reshape(-1, len(ATTRIBUTES))
        for half, people in halves.items():
            if not people.any():
                continue
            columns = {"mean": right[people], **{a: right[people][:, [i]] for i, a in enumerate(ATTRIBUTES)}}
            for name, table in columns.items():
                metric = f"{prefix}/{measure}/{half}/{name}"
                metrics[metric] = float(table.mean())
                counts[metric] = len(table)
                intervals[metric] = over_people(table)
    return metrics, counts, intervals


def baseline(corpus: Corpus) -> dict[str, float]:
    """What the commonest value of each attribute scores on the test half, by metric name."""
    shares = majority(corpus.people, ~corpus.train)
    return {"baseline/test/mean": float(np.mean(list(shares.values()))), **{
        f"baseline/test/{attribute}": value for attribute, value in shares.items()
    }}  # fmt: skip


def predictions(answers: Answers, corpus: Corpus) -> pd.DataFrame:
    """One row a question: person, attribute, split, prompt, expected, predicted, exact, first_token."""
    asked = [corpus.question_text(p, ATTRIBUTES[a]) for p, a in zip(answers.person, answers.attribute, strict=True)]
    return pd.DataFrame(
        {
            "person": answers.person,
            "attribute": [ATTRIBUTES[a] for a in answers.attribute],
            "split": np.where(corpus.train[answers.person], "train", "test"),
            "prompt": [prompt for prompt, _ in asked],
            "expected": [expected for _, expected in asked],
            "predicted": answers.predicted,
            "exact": answers.exact,
            "first_token": answers.first_token,
        }
    )
