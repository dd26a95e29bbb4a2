"""Scores: metrics, counts, intervals and predictions from answers."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ktrain.bios.people import People, majority_shares
from ktrain.data.corpus import Corpus
from ktrain.readout.evaluation import Answers
from ktrain.readout.intervals import over_people

Groups = Mapping[str, np.ndarray]
"""Groups of people by the name that their metrics have, each (people,) bool; nobody is in two."""


def asked_groups(corpus: Corpus, people: str) -> dict[str, np.ndarray]:
    """Returns the groups of people that a readout of `people` asks: `train` and `test` as in `Corpus.people_split`, and
    `validation` where some are set aside."""
    learned, tested = corpus.people_split(people)
    groups = {"train": learned, "test": tested}
    return groups | ({"validation": corpus.validation} if corpus.validation.any() else {})


def score(
    answers: Answers, groups: Groups, prefix: str
) -> tuple[dict[str, float], dict[str, int], dict[str, tuple[float, float]]]:
    """Accuracies by group and attribute, how many people each rests on, and their 95 % intervals; none of a group of
    whom nobody was asked."""
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {}
    intervals: dict[str, tuple[float, float]] = {}
    attributes = answers.attributes
    person = answers.person[:: len(attributes)]
    for measure in ("exact_match", "first_token"):
        right = (answers.exact if measure == "exact_match" else answers.first_token).reshape(-1, len(attributes))
        for group, whose in groups.items():
            people = whose[person]
            if not people.any():
                continue
            columns = {"mean": right[people], **{a: right[people][:, [i]] for i, a in enumerate(attributes)}}
            for name, table in columns.items():
                metric = f"{prefix}/{measure}/{group}/{name}"
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


def predictions(answers: Answers, corpus: Corpus, groups: Groups) -> pd.DataFrame:
    """One row a question: person, attribute, split, prompt, expected, predicted, exact, first_token."""
    asked = [answers.attributes[a] for a in answers.attribute]
    questions = [corpus.question_text(person, a) for person, a in zip(answers.person, asked, strict=True)]
    return pd.DataFrame(
        {
            "person": answers.person,
            "attribute": asked,
            "split": np.select([whose[answers.person] for whose in groups.values()], list(groups), default=""),
            "prompt": [prompt for prompt, _ in questions],
            "expected": [expected for _, expected in questions],
            "predicted": answers.predicted,
            "exact": answers.exact,
            "first_token": answers.first_token,
        }
    )
