"""Every axis is listed with what it allows and what it means; other names of an axis are understood."""

import pytest

from ktrain.errors import WrongRequest
from sweeps.planning.axes import ALIASES, AXES, check_axis
from sweeps.planning.axis_table import describe_axes
from sweeps.recipes.scales import SCALES

MINI = SCALES["mini"]


def test_all_axes_are_listed_once_in_order() -> None:
    listed = describe_axes("", MINI)
    assert tuple(axis.name for axis in listed) == AXES
    assert [axis.name for axis in listed if not axis.meaning] == []


def test_an_axis_has_its_limits_its_value_and_its_meaning() -> None:
    by_name = {axis.name: axis for axis in describe_axes("", MINI)}
    assert by_name["train.steps"].allowed == "integer at least 1" and by_name["train.steps"].value == MINI.train.steps
    assert by_name["train.windows"].allowed == "cut, whole" and "cuts the stream" in by_name["train.windows"].meaning
    assert by_name["readout.rank_embedding"].allowed == "integer or full"
    assert by_name["train.qa_ratio"].allowed == "number at least 0.0 and below 1.0"
    assert by_name["corpus.fullname"].allowed == "true, false" and by_name["corpus.pools_folder"].allowed == "text"


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("corpus.celebrity.", {"corpus.celebrity.multi", "corpus.celebrity.permute", "corpus.celebrity.fullname"}),
        ("steps", {"train.steps", "readout.steps"}),
        ("seed", {"seed"}),
    ],
)
def test_a_prefix_or_a_part_chooses(prefix: str, names: set[str]) -> None:
    assert {axis.name for axis in describe_axes(prefix, MINI)} == names


def test_a_prefix_of_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(WrongRequest, match=r"axes tarin: no axis begins so; did you mean train\?"):
        describe_axes("tarin", MINI)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "train.learning_rate or readout.learning_rate"),
        ("train.lr", "train.learning_rate"),
        ("readout.wd", "readout.weight_decay"),
        ("M", "corpus.multi"),
        ("model", "model.family or model.size"),
        ("qa_ratio", "train.qa_ratio"),
        ("steps", "train.steps or readout.steps"),
        ("corpus.mutli", "corpus.multi"),
    ],
)
def test_what_was_meant_is_named(name: str, meant: str) -> None:
    with pytest.raises(WrongRequest) as refused:
        check_axis(name)
    assert str(refused.value) == f"axis {name}: no such axis; did you mean {meant}? (`ktrain axes` lists all)"


def test_every_other_name_leads_to_axes_and_is_none_itself() -> None:
    assert {axis for axes in ALIASES.values() for axis in axes} <= set(AXES) and not set(ALIASES) & set(AXES)
