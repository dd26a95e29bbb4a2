"""Console tables fit the width they are printed at, and break inside no number and no word."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis.presentation.console_table import HIDDEN, Column, ConsoleTable

TABLE = ConsoleTable(
    "Answers (%) [/red]",
    (
        Column("setting", "words", essential=True),
        Column("mean [95 %]", essential=True),
        *(Column(f"attribute\n{k}") for k in range(6)),
        Column("state", "words", essential=True),
    ),
    (
        ("majority baseline", "6.2", *["6.0"] * 6, ""),
        ("bioS multi5+permute+fullname [train.steps=900]", "84.7 [78.2, 91.2]", *["84.0"] * 6, "blocked: recall 71.0%"),
    ),
    quiet=(0,),
)


def printed(table: ConsoleTable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 110, 200])
def test_no_line_is_longer_than_the_console_and_no_number_is_broken(width: int) -> None:
    lines = printed(TABLE, width)
    assert max(map(len, lines)) <= width
    assert any("84.7 [78.2, 91.2]" in line for line in lines)
    assert any("[/red]" in line for line in lines), "what looks like markup is text"
    text = " ".join(" ".join(lines).split())
    assert all(word in text for word in ("multi5+permute+fullname", "[train.steps=900]", "blocked:", "71.0%"))


def test_where_all_columns_do_not_fit_the_essential_ones_stay() -> None:
    wide, narrow = printed(TABLE, 200), printed(TABLE, 80)
    assert any("attribute" in line for line in wide) and not any(HIDDEN in line for line in wide)
    assert not any("attribute" in line for line in narrow) and any(HIDDEN in line for line in narrow)


@given(st.integers(60, 220), st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_a_number_stays_whole_at_every_width(width: int, numbers: list[int]) -> None:
    columns = (Column("name", "words", essential=True), Column("first", essential=True))
    others = tuple(Column(f"number {k}") for k in range(len(numbers)))
    row = ("a name of several words", "1,234.5 [1.0, 2.0]", *(f"{number:,}" for number in numbers))
    lines = printed(ConsoleTable("", columns + others, (row,)), width)
    assert max(map(len, lines)) <= width and any("1,234.5 [1.0, 2.0]" in line for line in lines)
    shown = [number for number in numbers if any(f"{number:,}" in line for line in lines)]
    assert shown == numbers or any(HIDDEN in line for line in lines)


KEYS = ("qa-finetune-mini-multi5.permute1-n500-564e1b88", "pretrain-mini-single-n500-51397e03")
STAGES = ConsoleTable(
    "",
    (
        Column("stage", "key", essential=True),
        Column("kind", "key"),
        Column("passes over questions", essential=True),
        Column("FLOPs"),
        Column("time", essential=True),
    ),
    ((KEYS[0], "qa_finetune", "17", "5.3e+12", "1:35"), (KEYS[1], "pretrain", "", "3.9e+13", "11:38")),
    framed=False,
)


def test_headers_are_wrapped_between_words_before_a_column_is_left_out() -> None:
    assert printed(STAGES, 110)[0].endswith("passes over questions    FLOPs   time")
    lines = printed(STAGES, 90)
    assert [line.split() for line in lines[:3]] == [
        ["passes"], ["over"], ["stage", "kind", "questions", "FLOPs", "time"]
    ]  # fmt: skip
    assert lines[3].split() == [KEYS[0], "qa_finetune", "17", "5.3e+12", "1:35"]
    lines = printed(STAGES, 70)
    assert lines[3].split() == [KEYS[0], "17", "1:35"] and lines[-1] == HIDDEN


@pytest.mark.parametrize("width", [30, 45, 60])
def test_where_nothing_fits_keys_are_folded_and_numbers_stay_whole(width: int) -> None:
    lines = printed(STAGES, width)
    assert max(map(len, lines)) <= width
    assert {"17", "1:35", "11:38"} <= {word for line in lines for word in line.split()}
    folded = "".join(line.split()[0] for line in lines[3:] if line and line != HIDDEN)
    assert folded.startswith("".join(KEYS))
