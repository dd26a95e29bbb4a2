"""Which tokens probes have updated: in a miniature fewer than in the paper, which its tables and figures say."""

from collections.abc import Iterable

from analysis.measurements.cells import Cell, ReplicateGroup
from analysis.measurements.names import PROBES

SHARE = "readout.token_share"
_UPDATED = {
    "q_probe": "Q-probes that of the end token alone",
    "p_probe": "P-probes that of the tokens that many people's biographies have (with one wording, about a hundred)",
}


def confined_note(cells: Iterable[Cell | ReplicateGroup]) -> str:
    """A sentence that says so of the probes among these cells whose `readout.token_share` is set; empty if of none."""
    confined = {str(cell.params.get("readout.kind")) for cell in cells if float(cell.params.get(SHARE) or 0)}
    updated = [_UPDATED[kind] for kind in PROBES if kind in confined]
    if not updated:
        return ""
    return (
        "The paper's probes update the embedding of every token; with this few people such a probe memorises them, so "
        f"here {', and '.join(updated)} ({SHARE})."
    )
