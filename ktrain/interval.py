"""Intervals of accuracies. The unit is the person: six questions about one person are not independent."""

import numpy as np
from scipy import stats


def over_people(right: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of `right` (people, questions), bool.

    One question each: Wilson's score interval. Several: the normal interval of the people's means, which is Wilson's
    with the effective number of people that the spread between people implies; so it stays inside 0 and 1.
    """
    people = right.mean(axis=1)
    mean, n = float(people.mean()), float(len(people))
    spread = float(people.var(ddof=1)) if len(people) > 1 else 0.0
    if right.shape[1] > 1 and spread > 0:
        n = mean * (1 - mean) / (spread / len(people))
    z = float(stats.norm.ppf(0.5 + level / 2))
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)
