"""Why cells of a plan have no result, and what to do about it."""

from collections.abc import Collection, Iterable, Iterator

from sweeps.planning.plan import Plan, PlannedCell

STATES = ("blocked", "failed", "damaged", "stopped early", "paused")
"""The states of cells without a result that have a reason."""
NAMED = 3
"""Up to this many cells are named beside the reason that they share."""
BELOW_GATE = "blocked: recall "
REMEDIES = {
    BELOW_GATE: "more train.steps, or readout.recall_gate=0 to ask all the same",
    "blocked: not enough people": "more corpus.people",
}
"""What to do about a cell, by the beginning of its state; other states say it themselves."""


def with_remedy(state: str) -> str:
    """Returns the state of a cell, followed by what to do about it."""
    remedy = next((text for start, text in REMEDIES.items() if state.startswith(start)), "")
    return f"{state}; {remedy}" if remedy else state


def reasons(plan: Plan, states: Collection[str] = STATES) -> Iterator[str]:
    """Yields a line for each reason for which cells are in one of `states`: what to do, and up to `NAMED` cells."""
    cells: dict[str, list[str]] = {}
    for cell in plan.cells:
        state, colon, _ = cell.state.partition(":")
        if colon and state in states:
            cells.setdefault(cell.state, []).append(cell.key)
    for reason, keys in cells.items():
        named = f" ({', '.join(keys)})" if len(keys) <= NAMED else ""
        yield f"{len(keys)} {'cell is' if len(keys) == 1 else 'cells are'} {with_remedy(reason)}{named}"


def blocked_lines(cells: Iterable[PlannedCell]) -> list[str]:
    """Returns the distinct reasons for which some of these cells are blocked, with what to do."""
    return list(dict.fromkeys(with_remedy(cell.state) for cell in cells if cell.blocked))
