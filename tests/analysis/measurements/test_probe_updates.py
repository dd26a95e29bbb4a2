from analysis.measurements.cells import Cell
from analysis.measurements.probe_updates import confined_note


def cell(kind: str, share: float | None) -> Cell:
    return Cell(key=kind, axes={}, params={"readout.kind": kind, "readout.token_share": share})


def test_probes_that_update_few_tokens_are_said_to() -> None:
    both = confined_note([cell("p_probe", 0.1), cell("q_probe", 0.5)])
    assert "the end token alone" in both and "P-probes" in both and "readout.token_share" in both
    assert "P-probes" not in confined_note([cell("p_probe", 0.0), cell("q_probe", 0.5)])


def test_the_papers_probes_have_no_note() -> None:
    assert confined_note([cell("p_probe", 0.0), cell("q_probe", None), cell("qa_finetune", 0.0)]) == ""
