"""Which attributes a corpus has, and which files of a pools folder cannot be one."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ktrain.bios.templates import COLUMNS
from ktrain.config import ATTRIBUTES, CorpusConfig
from ktrain.config.attributes import MOST_OWN, POOL_FILES, TAKEN, own_attributes


def test_a_corpus_has_the_six_and_then_those_of_its_pools_folder(hobby: dict[str, str]) -> None:
    (Path(hobby["pools_folder"]) / "club.csv").write_text("value\na\nb\nc\n")
    assert CorpusConfig().attributes == ATTRIBUTES
    assert CorpusConfig.model_validate(hobby).attributes == (*ATTRIBUTES, "club", "hobby")


def test_pools_and_files_of_other_kinds_are_no_attributes(tmp_path: Path) -> None:
    for name in [*(f"{pool}.csv" for pool in POOL_FILES), "city.txt", "PROVENANCE.md", ".hobby.csv", "hobby.csv.bak"]:
        (tmp_path / name).write_text("value\n")
    (tmp_path / "folder.csv").mkdir()
    assert own_attributes(str(tmp_path)) == own_attributes(None) == own_attributes(str(tmp_path / "none")) == ()


def test_names_with_a_meaning_are_taken() -> None:
    """A column of that name would be another one; of the six, a pool has another name than its attribute."""
    assert {*COLUMNS} <= TAKEN | {*ATTRIBUTES}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Hobby.csv", "small letters"),
        ("hobby.CSV", "small letters"),
        ("my-hobby.csv", "small letters"),
        ("2nd.csv", "small letter first"),
        ("hobby .csv", "small letters"),
        ("hobbi\u00e9.csv", "small letters"),
        ("h\nx.csv", "small letters"),
        ("a" * 31 + ".csv", "30 at most"),
        ("Universitys.csv", "did you mean universities?"),
        ("birth_city.csv", "has its values in birth_cities.csv"),
        ("company_city.csv", "has its values in companies.csv"),
        ("birth_date.csv", "needs no pool"),
        ("month.csv", "another meaning"),
        ("mean.csv", "another meaning"),
    ],
)
def test_a_file_that_cannot_be_an_attribute_is_named(hobby: dict[str, str], name: str, why: str) -> None:
    (Path(hobby["pools_folder"]) / name).write_text("value\na\nb\nc\n")
    with pytest.raises(ValidationError) as refused:
        CorpusConfig.model_validate(hobby)
    message = refused.value.errors()[0]["msg"]
    assert message.startswith(f"Value error, pools_folder={hobby['pools_folder']}: ") and why in message
    assert "\n" not in message


def test_there_are_at_most_four(hobby: dict[str, str]) -> None:
    for k in range(MOST_OWN):
        (Path(hobby["pools_folder"]) / f"club{k}.csv").write_text("value\na\nb\nc\n")
    with pytest.raises(ValidationError, match=r"at most 4 attributes besides the six, not club0\.csv, .*hobby\.csv"):
        CorpusConfig.model_validate(hobby)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "bioR"}, "the attribute hobby, which needs kind=bioS"),
        ({"couple": 2}, "the attribute hobby, which needs couple=0"),
        (
            {"templates_folder": None},
            r"the attribute hobby, which needs corpus\.templates_folder with a file hobby\.txt",
        ),
        (
            {"questions_folder": None},
            r"the attribute hobby, which needs corpus\.questions_folder with a file hobby\.txt",
        ),
    ],
)
def test_what_an_attribute_needs_is_said(hobby: dict[str, str], changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=f"pools_folder=.*: brings {why}"):
        CorpusConfig.model_validate(hobby | changes)
