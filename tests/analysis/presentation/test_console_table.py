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
    assert shown == numbers or not any(f"number {k}" in line for line in lines for k in range(len(numbers)))
