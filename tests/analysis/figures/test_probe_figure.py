"""The figure of probes: what is blank, what is hatched, and what is told."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from analysis.figures import probe_figure
from analysis.measurements.cells import Cell, Results
from analysis.measurements.names import p_probe
from analysis.paper import tables

CELLS = {"q": 6 + 5, "first": 36, "whole": 30}
TEXT = "{http://www.w3.org/2000/svg}text"


def words(svg: str) -> Counter[str]:
    return Counter("".join(element.itertext()) for element in ET.fromstring(svg).iter(TEXT))


def hatched(svg: str) -> int:
    """How many cells are filled with the hatch pattern."""
    return svg.count("fill: url(#h")


def test_every_number_is_drawn_once(make: Callable[..., Cell]) -> None:
    q = words(probe_figure.draw_probes(Results("s", (make(0.2, readout="q_probe", multi=5),))).svg)
    assert [q[f"{value:.1f}"] for value in (20.0, 21.0, 25.0)] == [1, 2, 2]
    assert q["3.0"] == CELLS["q"] and q["Q-probe"] == 1 and q["bioS multi5"] == 1
    assert q["accuracy on held-out people (%), n = 250 per number"] == 1


def test_what_has_been_passed_is_blank_in_a_fixed_order(make: Callable[..., Cell]) -> None:
    fixed = probe_figure.draw_probes(Results("s", (make(0.5, readout="p_probe"),))).svg
    # At position i, 6 - i first tokens are ahead, and 5 whole attributes at positions 0 and 1.
    assert [words(fixed)[f"{50 + 2 * i}.0"] for i in range(6)] == [6 + 5, 5 + 5, 4 + 4, 3 + 3, 2 + 2, 1 + 1]
    assert hatched(fixed) == 0
    permuted = probe_figure.draw_probes(Results("s", (make(0.5, readout="p_probe", permute=1),))).svg
    assert [words(permuted)[f"{50 + 2 * i}.0"] for i in range(6)] == [11] * 6


def test_what_should_be_there_and_is_not_is_hatched(make: Callable[..., Cell]) -> None:
    for permute, missing in ((0, 21 + 20), (1, 36 + 30)):
        blocked = make(state="blocked: recall 71 %", readout="p_probe", permute=permute)
        svg = probe_figure.draw_probes(Results("s", (blocked,))).svg
        assert words(svg)["blocked: recall 71 %"] == 2
        # The baseline is unknown too.
        assert hatched(svg) == missing + 36 + 30
    cell = make(0.5, readout="p_probe", permute=1)
    kept = {name: value for name, value in cell.metrics.items() if name != p_probe("whole", 3, "university")}
    assert hatched(probe_figure.draw_probes(Results("s", (replace(cell, metrics=kept),))).svg) == 1


def test_the_papers_panels_stand_beside(probes: Results) -> None:
    svg = probe_figure.draw_probes(probes, tables.beside("fig5")).svg
    assert svg == probe_figure.draw_probes(probes, tables.beside("fig5")).svg
    found = words(svg)
    for title in ("Q-probe", "P-probe, first token", "P-probe, whole attribute"):
        assert found[f"{title}: the paper"] == 1
    assert "69.1" in found, "bioS single, company city at position 4"
    without = words(probe_figure.draw_probes(probes, tables.figure("fig3")).svg)
    assert not any("the paper" in word for word in without)


def test_answers_are_not_in_it(probes: Results, contrast: Results) -> None:
    both = Results("s", probes.cells + contrast.cells)
    assert probe_figure.draw_probes(both).svg == probe_figure.draw_probes(probes).svg
