from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from analysis.measurements.cells import Cell, Results
from analysis.measurements.compact_frame import compact
from analysis.measurements.other_kinds import OtherKind

Make = Callable[..., Cell]


def test_a_row_has_the_numbers_that_people_want(contrast: Results) -> None:
    frame = compact(contrast).set_index("setting")
    assert 28 <= len(frame.columns) <= 36 and not any("/" in column for column in frame.columns)
    best = frame.loc["bioS multi5+permute+fullname"]
    assert (best["readout"], best["seed"], best["people"], best["multi"], best["fullname"]) == ("qa", 0, 500, 5, True)
    assert (best["mean"], best["low"], best["high"]) == pytest.approx((0.784, 0.754, 0.814)) and best["n"] == 1500
    assert best["company_city"] == pytest.approx(0.809) and best["baseline"] == 0.07 and best["recall"] == 0.991
    assert best["model"] == "pretrain-1" and best["answers"] is None
    blocked = frame.loc["bioS multi5"]
    assert blocked["state"] == "blocked: recall 71 %" and pd.isna(blocked["mean"]) and blocked["recall"] == 0.71
    assert frame.loc["bioS single+permute2", "state"] == "missing"


def test_each_kind_of_readout_has_its_own_main_number(make: Make) -> None:
    own = OtherKind("own", "My own", "mine", ("right", "fast"), "share")
    mine = replace(make(0.1, readout="own"), metrics={"mine/right": 0.5}, interval={"mine/right": (0.4, 0.6)})
    cells = (make(0.3, readout="mixed", qa_ratio=0.5), make(0.4, readout="q_probe"), make(0.2, readout="p_probe"), mine)
    frame = compact(Results("many", cells, (own,))).set_index("readout")
    assert frame["mean"].to_dict() == pytest.approx({"mixed": 0.3, "q_probe": 0.4, "p_probe": 0.2, "own": 0.5})
    assert frame["baseline"].to_dict() == pytest.approx(
        {"mixed": 0.07, "q_probe": 0.03, "p_probe": 0.03, "own": float("nan")}, nan_ok=True
    )
    assert frame.loc["own", "high"] == 0.6 and frame.loc["q_probe", "major"] == pytest.approx(0.43)
    assert frame.loc["mixed", "qa_ratio"] == 0.5


def test_an_axis_of_ones_own_is_a_column(make: Make) -> None:
    cells = [make(0.3, **{"train.learning_rate": rate, "model.dropout": 0.0}) for rate in (1e-3, 2e-3)]
    cells.append(make(0.3, readout="q_probe", rank_embedding=16))
    frame = compact(Results("own", tuple(cells)))
    assert list(frame["train.learning_rate"].dropna()) == [1e-3, 2e-3]
    assert not {"model.dropout", "readout.rank_embedding"} & set(frame.columns), "kinds of readout differ anyway"
