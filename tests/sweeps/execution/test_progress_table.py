"""The table of the live view at every width of a terminal."""

import io

import pytest
from rich.console import Console
from rich.progress_bar import ProgressBar

from sweeps.execution.progress_table import BAR, COLUMNS, LABEL, progress_table

ROWS = (
    ("single-n100000-s0 size=124m steps=80000 (+35)", "pretrain", ProgressBar(9, 4, width=BAR), "51,234 / 80,000",
     "1.250", "1,123,457", "75:03:58"),
    ("multi5.permute1-n500-s0", "qa_finetune", ProgressBar(9, 4, width=BAR), "9 / 400", "10.250", "98,765", "0:22"),
    ("multi5-n500-s0", "starting again", "", "", "", "", "1:40:00"),
)  # fmt: skip


def drawn(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(progress_table(ROWS, width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_wide_terminal_shows_everything() -> None:
    lines = drawn(160)
    assert lines[0].split() == [name for name in COLUMNS if name]
    assert lines[1].startswith(str(ROWS[0][0])) and "\u2501" in lines[1]
    assert all(line.endswith(str(row[-1])) for line, row in zip(lines[1:], ROWS, strict=True))


@pytest.mark.parametrize("width", range(40, 161, 5))
def test_what_is_shown_is_whole_but_for_labels(width: int) -> None:
    header, *lines = drawn(width)
    assert len(lines) == len(ROWS) and max(map(len, lines)) <= width
    shown = [name for name in COLUMNS if name in header.split()]
    assert shown[:2] == ["cell", "step"] or shown[:3] == ["cell", "stage", "step"]
    for line, row in zip(lines, ROWS, strict=True):
        for name in shown[1:]:
            assert str(row[COLUMNS.index(name)]) in line
        label = str(row[0])
        assert line.startswith(label) or label.startswith(line.split("\u2026")[0])


def test_a_narrow_terminal_leaves_out_the_bar_first_and_the_loss_late() -> None:
    shown = {width: drawn(width)[0].split() for width in (110, 90, 70, 60)}
    assert shown == {
        110: ["cell", "stage", "step", "loss", "tok/s", "ETA"],
        90: ["cell", "stage", "step", "loss", "tok/s", "ETA"],
        70: ["cell", "step", "loss", "ETA"],
        60: ["cell", "step", "loss", "ETA"],
    }
    assert "\u2501" not in drawn(90)[1] and drawn(90)[1].index("\u2026") >= LABEL - 1
