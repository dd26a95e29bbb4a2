"""Heat maps of anything: where titles, cells and labels come to stand."""

from matplotlib.text import Text

from analysis.figures.drawing import Plot
from analysis.figures.heat_map import CELL, Entry, Group, Line, Panel, draw_heat_maps

GROUP = Group("answers", ("mean", "major"), (2.0, 1.0))


def panel(title: str, note: str = "", lines: int = 2) -> Panel:
    made = [Line(f"row {k}", ((Entry(0.5, "half", bold=True), Entry(None)),), ("running",)) for k in range(lines)]
    return Panel(title, note, (GROUP,), tuple(made), corner="corner")


def texts(plot: Plot) -> dict[str, list[Text]]:
    found: dict[str, list[Text]] = {}
    for axes in plot.figure.axes:
        for text in axes.texts:
            found.setdefault(text.get_text(), []).append(text)
    return found


def height(text: Text) -> float:
    """In inches from the top of the figure."""
    return float((text.figure.bbox.height - text.get_transform().transform(text.get_position())[1]) / text.figure.dpi)


def test_titles_beside_each_other_stand_at_one_height_and_labels_once() -> None:
    found = texts(draw_heat_maps([[panel("ours", "a long note " * 20), panel("the paper", "short")]], "two"))
    assert abs(height(found["ours"][0]) - height(found["the paper"][0])) < 1e-6
    assert len(found["row 0"]) == len(found["corner"]) == 1
    (note,) = [text for text in found if text.startswith("a long note")]
    assert note.count("\n") > 2 and len(max(note.split("\n"), key=len)) < 60
    assert len(found["half"]) == 4 and len(found["running"]) == 4


def test_nothing_is_wider_than_the_figure_and_panels_do_not_meet() -> None:
    plot = draw_heat_maps(
        [[panel("a title that is far wider than its panel is", lines=1), panel("another")], [panel("below")]], "x"
    )
    boxes = [axes.get_position() for axes in plot.figure.axes]
    width = plot.figure.get_figwidth()
    title = 43 * 0.083
    assert boxes[0].x0 * width + title < boxes[1].x0 * width and boxes[1].x1 < 1
    assert boxes[2].y1 < min(boxes[0].y0, boxes[1].y0) and boxes[2].y0 > 0
    assert abs((boxes[2].x1 - boxes[2].x0) * width - 3 * CELL) < 1e-6


def test_missing_cells_are_hatched_and_blank_ones_are_nothing() -> None:
    line = Line("row", ((None, Entry(None)), (Entry(0.25), None)))
    plot = draw_heat_maps([[Panel("t", "", (GROUP, GROUP), (line,))]], "x")
    patches = [patch for axes in plot.figure.axes for patch in axes.patches]
    assert [bool(patch.get_hatch()) for patch in patches] == [True, False]
    # The second group starts after three cells and half a cell of space, and its first column is two wide.
    assert patches[0].get_x() == 2 and patches[1].get_x() == 3.5 + 0.015 and patches[1].get_width() == 2 - 0.03
    assert "25.0" in texts(plot)


def test_no_panel_is_no_error() -> None:
    assert draw_heat_maps([], "nothing").svg.startswith("<?xml")
