"""Departures: whether recorded cells are the paper's experiment, by what was recorded with them, not by their scale."""

from collections.abc import Iterable

from analysis.measurements.cells import Cell

UNRECORDED = "the departures of some cells were not recorded"
LISTED = 3
"""Largest number of departures that a remark lists."""


def departures_of(cells: Iterable[Cell]) -> tuple[str, ...]:
    """The departures recorded with these cells; empty only if every cell with a run recorded that it has none."""
    recorded = [cell.departures for cell in cells if cell.state != "missing"]
    lines = dict.fromkeys(line for departures in recorded for line in departures or ())
    return (*lines, UNRECORDED) if None in recorded or not recorded else tuple(lines)


def departures_remark(departures: tuple[str, ...], scale: str) -> str:
    """A sentence for readers who see the paper's numbers beside ours; empty if both are the same experiment."""
    if not departures:
        return ""
    listed = "; ".join(departures[:LISTED])
    if len(departures) > LISTED:
        listed += f"; and {len(departures) - LISTED} more"
    return (
        f"Ours is at scale {scale} and departs from the paper ({listed}): not the same experiment, so compare the "
        "order of the rows, not the values."
    )
