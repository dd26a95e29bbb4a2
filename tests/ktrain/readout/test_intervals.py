import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrain.readout.intervals import over_people

light = settings(max_examples=200, deadline=None)


def counted(right: int, people: int) -> np.ndarray:
    """One question each, `right` of them answered."""
    return (np.arange(people) < right)[:, None]


@pytest.mark.parametrize(
    ("right", "people", "low", "high"),
    [
        (7, 10, 0.396778, 0.892209),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (1, 100, 0.001767, 0.054486),
        (50, 100, 0.403832, 0.596168),
        (0, 1, 0.0, 0.793451),
    ],
)
def test_one_question_each_gives_wilsons_interval(right: int, people: int, low: float, high: float) -> None:
    assert over_people(counted(right, people)) == pytest.approx((low, high), abs=1e-6)


def test_the_level_widens_the_interval() -> None:
    assert over_people(counted(7, 10), level=0.9) == pytest.approx((0.441700, 0.873123), abs=1e-6)
    assert over_people(counted(7, 10), level=0.99) == pytest.approx((0.320025, 0.920434), abs=1e-6)


@pytest.mark.parametrize("people", [1, 2, 7, 40])
@pytest.mark.parametrize("questions", [3, 5, 6])
def test_people_who_all_answer_alike_count_as_one_example_each(people: int, questions: int) -> None:
    """One of five right each: sums such as 0.8 - 4 * 0.2 leave a spread of rounding, which must not count."""
    right = np.repeat(np.arange(questions)[None, :] == 1, people, axis=0)
    assert over_people(right) == pytest.approx(_wilson(1 / questions, people), abs=1e-9)


def test_answers_cannot_count_as_more_than_their_number() -> None:
    right = np.array([[True, False, False, False, False, False]] * 39 + [[True, True, False, False, False, False]])
    assert over_people(right) == pytest.approx(_wilson(right.mean(), right.size), abs=1e-9)


@light
@given(st.integers(1, 40), st.integers(1, 6), st.data())
def test_the_interval_holds_the_mean_and_stays_within_0_and_1(people: int, questions: int, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=people * questions, max_size=people * questions))
    right = np.array(bits).reshape(people, questions)
    low, high = over_people(right)
    assert 0.0 <= low <= right.mean() + 1e-12 and right.mean() - 1e-12 <= high <= 1.0
    assert high - low > 0.0


@light
@given(st.integers(0, 40), st.integers(2, 40))
def test_six_answers_that_agree_count_as_little_more_than_one(right: int, people: int) -> None:
    """Agreeing answers give the interval of single ones, up to the n - 1 of the estimated spread."""
    right = min(right, people)
    clustered = over_people(np.repeat(counted(right, people), 6, axis=1))
    alone = over_people(counted(right, people))
    assert clustered[1] - clustered[0] >= alone[1] - alone[0] - 1e-12
    if 0 < right < people:
        assert clustered == pytest.approx(_wilson(right / people, people - 1), abs=1e-9)


def _wilson(p: float, n: float) -> tuple[float, float]:
    z = 1.959963984540054
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def test_agreeing_answers_give_a_wider_interval_than_independent_ones() -> None:
    rng = np.random.default_rng(0)
    independent = rng.random((3000, 6)) < 0.7
    agreeing = np.repeat(counted(2100, 3000), 6, axis=1)
    widths = [high - low for low, high in map(over_people, (independent, agreeing))]
    # The square root of six between no and full agreement.
    assert widths[1] / widths[0] == pytest.approx(6**0.5, rel=0.05)
    assert over_people(independent) == pytest.approx(_wilson(independent.mean(), 18_000), abs=0.0005)


def test_who_answers_does_not_matter_but_that_it_is_one_person_does() -> None:
    rng = np.random.default_rng(1)
    right = rng.random((50, 6)) < rng.random((50, 1))
    assert over_people(right) == pytest.approx(over_people(right[rng.permutation(50)]))
    shuffled = rng.permuted(right.reshape(-1)).reshape(50, 6)
    assert np.diff(over_people(right)) > 1.3 * np.diff(over_people(shuffled))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """People differ: each answers with a probability of their own, 0.8 on average."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(1500):
        low, high = over_people(rng.random((80, 6)) < rng.beta(1.6, 0.4, size=(80, 1)))
        covered += low <= 0.8 <= high
    assert covered / 1500 == pytest.approx(0.95, abs=0.02)
