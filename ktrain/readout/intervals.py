"""Intervals of accuracies. The unit is the person: six questions about one person are not independent."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri


def over_people(right: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of `right` (people, questions), bool.

    One question each: Wilson's score interval. Several: the normal interval of the people's means, which is Wilson's
    with the effective number of people that the spread between people implies; so it stays inside 0 and 1.
    """
    people, questions = right.shape
    return over_examples([(right.ravel(), np.repeat(np.arange(people), questions))], level)


def over_examples(parts: Sequence[tuple[np.ndarray, np.ndarray]], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of the means of `parts`, each (right, person) with one example or several of a person.

    As in `over_people`, with the spread between people of the ratio estimator in place of that of their means.
    """
    means = [float(right.mean()) for right, _ in parts]
    mean = float(np.mean(means))
    _, owner = np.unique(np.concatenate([person for _, person in parts]), return_inverse=True)
    residual = np.concatenate(
        [(right - m) / (len(right) * len(parts)) for (right, _), m in zip(parts, means, strict=True)]
    )
    n = float(owner.max() + 1)
    spread = float((np.bincount(owner, weights=residual) ** 2).sum()) * n / max(1.0, n - 1)
    alone = mean * (1 - mean)
    # People who all answer alike leave no spread but that of rounding; they count as one example each, not as endless.
    if len(owner) > n and spread * len(owner) > 1e-12 * alone:
        n = min(float(len(owner)), alone / spread)
    z = float(ndtri(0.5 + level / 2))
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)
