"""Six questions with answers, right and wrong."""

from collections.abc import Callable

import pandas as pd

from analysis.measurements.cells import Cell, Results
from analysis.measurements.names import ATTRIBUTES
from analysis.report.sample_answers import RIGHT, WRONG, sampled_cells, sheet


def predictions(right: Callable[[int, str], bool], people: int = 4) -> pd.DataFrame:
    """Answers about `people`, of whom the first was trained on."""
    rows = [
        {
            "person": person,
            "attribute": attribute,
            "split": "train" if person == 0 else "test",
            "prompt": f"What is the {attribute} of P{person}? Answer:",
            "expected": f" value {person}.",
            "predicted": f"value {person}." if right(person, attribute) else "something else.",
            "exact": right(person, attribute),
        }
        for person in range(people)
        for attribute in ATTRIBUTES
    ]
    return pd.DataFrame(rows)


def test_three_are_right_and_three_wrong_of_the_same_people() -> None:
    best = predictions(lambda person, attribute: person > 1 and attribute in ("major", "company", "university"))
    plain = predictions(lambda person, attribute: False)
    shown = sheet([("plain", plain), ("best", best)])
    assert shown and shown.words and shown.headers == ("question", "right answer", "plain", "best")
    assert [line[0] for line in shown.lines[:3]] == [
        "What is the birth_date of P1?",
        "What is the birth_city of P1?",
        "What is the university of P2?",
    ]
    assert shown.lines[2][1:] == ("value 2.", f"something else.\xa0{WRONG}", f"value 2.\xa0{RIGHT}")
    assert [line[3].endswith(RIGHT) for line in shown.lines] == [False, False, True, True, True, False]
    assert "Of all its 18 answers about people never asked about, 33.3 % are right" in shown.note


def test_a_network_that_is_always_right_has_no_wrong_answer() -> None:
    shown = sheet([("best", predictions(lambda person, attribute: True))])
    assert shown and len(shown.lines) == 6 and all(line[2].endswith(RIGHT) for line in shown.lines)
    silent = predictions(lambda person, attribute: False).assign(predicted="")
    shown = sheet([("silent", silent)])
    assert shown and shown.lines[0][2] == f"(nothing)\xa0{WRONG}"


def test_a_setting_that_was_asked_something_else_is_left_out() -> None:
    other = predictions(lambda person, attribute: True, people=2).assign(expected=" another.")
    shown = sheet([("other", other), ("best", predictions(lambda person, attribute: True))])
    assert shown and shown.headers == ("question", "right answer", "best")
    assert sheet([]) is None
    assert sheet([("trained", predictions(lambda person, attribute: True, people=1))]) is None


def test_the_settings_are_those_of_the_headline(contrast: Results, probes: Results, make: Callable[..., Cell]) -> None:
    assert [name for name, _ in sampled_cells(contrast)] == ["bioS single", "bioS multi5+permute+fullname"]
    assert [cell.key for _, cell in sampled_cells(contrast)] == [cell.key for cell in contrast.cells[:2]]
    assert sampled_cells(probes) == ()
    mixed = make(0.5, readout="mixed", qa_ratio=0.5)
    assert sampled_cells(Results("s", (mixed,))) == (("bioS single", mixed),)
