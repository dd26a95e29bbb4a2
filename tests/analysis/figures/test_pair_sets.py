"""Set diagrams of couple data: which sets there are, what is hatched, and what the paper says beside."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, permutations

import numpy as np
import pytest

from analysis.figures import pair_sets, venn
from analysis.figures.drawing import Plot
from analysis.measurements.cells import Cell, Results
from analysis.measurements.names import ATTRIBUTES, p_probe_after
from analysis.paper import tables
from analysis.presentation.number_format import percent

TEXT = "{http://www.w3.org/2000/svg}text"


def words(plot: Plot | None) -> Counter[str]:
    assert plot is not None
    return Counter("".join(element.itertext()) for element in ET.fromstring(plot.svg).iter(TEXT))


def hatched(plot: Plot | None) -> int:
    """How many shapes are hatched."""
    assert plot is not None
    return plot.svg.count("fill: url(#")


@pytest.fixture
def couple(make: Callable[..., Cell]) -> Cell:
    """A P-probe of couple2 with another number for each set and attribute."""
    cell = make(0.5, readout="p_probe", couple=2)
    values = {
        p_probe_after("first", chosen, target): 0.2 + 0.01 * k + 0.2 * t
        for t, target in enumerate(pair_sets.PARTNERS)
        for k, chosen in enumerate(chain(*tables.sets(target).values()))
    }
    return replace(cell, metrics=values, n=dict.fromkeys(values, 123))


@pytest.mark.parametrize("target", ["birth_city", "major", "company_city"])
def test_what_can_be_seen_before_the_second_of_a_pair(target: str) -> None:
    """Against all orders of the pairs, cut at every place up to the attribute."""
    expected = set()
    for order in permutations(tables.PAIRS):
        entry = [name for pair in order for name in pair]
        expected |= {frozenset(entry[:count]) for count in range(entry.index(target) + 1)}
    kinds = tables.sets(target)
    found = [frozenset(chosen) for kind in kinds.values() for chosen in kind]
    assert set(found) == expected and len(found) == 12
    partner = pair_sets.PARTNERS[target]
    assert all((partner in chosen) == (kind == "partner") for kind, sets in kinds.items() for chosen in sets)


def test_every_set_has_its_number_and_its_kind_the_papers_range(couple: Cell) -> None:
    told = words(pair_sets.draw_pair_sets(Results("s", (couple,))))
    assert all(told[percent(value)] >= 1 for value in couple.metrics.values())
    assert told["n = 123 per number"] == 3 and told["the paper"] == 3
    # Figure 6, as read from its pictures.
    assert told["55.4\N{EN DASH}58.3"] == 1 and told["85.9"] == 1 and told["71.9\N{EN DASH}75.6"] == 1


def test_a_number_stands_in_the_ellipses_of_its_set_and_in_no_other(couple: Cell) -> None:
    plot = pair_sets.draw_pair_sets(Results("s", (couple,)))
    assert plot is not None and len(plot.figure.axes) == 3
    for axes, target in zip(plot.figure.axes, pair_sets.PARTNERS, strict=True):
        texts = {text.get_text(): text.get_position() for text in axes.texts}
        others = [name for name in ATTRIBUTES if name != target]
        labels = {
            name: next(p for t, p in texts.items() if t in (name.replace("_", sep) for sep in " \n")) for name in others
        }
        tips = np.array([venn.tip(k) for k in range(5)])
        number = {name: int(np.hypot(*(tips - place).T).argmin()) for name, place in labels.items()}
        assert sorted(number.values()) == list(range(5))
        for chosen in chain(*tables.sets(target).values()):
            place = texts[percent(couple.metrics[p_probe_after("first", chosen, target)])]
            assert venn.inside(np.array([place])) == [sum(1 << number[name] for name in chosen)]


def test_what_is_missing_is_hatched_and_what_cannot_be_is_not(couple: Cell) -> None:
    whole = pair_sets.draw_pair_sets(Results("s", (couple,)))
    assert hatched(whole) == 0
    some = {name: value for name, value in couple.metrics.items() if not name.endswith("/major")}
    assert hatched(pair_sets.draw_pair_sets(Results("s", (replace(couple, metrics=some),)))) == 12
    running = replace(couple, metrics={}, n={}, state="running")
    assert hatched(pair_sets.draw_pair_sets(Results("s", (running,)))) == 36
    assert words(pair_sets.draw_pair_sets(Results("s", (running,))))["running"] == 3


def test_a_setting_that_the_paper_has_not_stands_alone(make: Callable[..., Cell]) -> None:
    told = words(pair_sets.draw_pair_sets(Results("s", (make(0.5, readout="p_probe", couple=3),))))
    assert told["ours"] == 3 and not told["the paper"]


def test_settings_are_rows_and_other_probes_are_not(couple: Cell, probes: Results, contrast: Results) -> None:
    other = replace(couple, key="other", axes={**couple.axes, "corpus.couple": 5})
    other = replace(other, params=other.axes)
    both = words(pair_sets.draw_pair_sets(Results("s", (couple, other))))
    assert both["major, by what was seen"] == 2 and both["nothing seen"] == 12
    plain = tuple(cell for cell in probes.cells if not cell.params.get("corpus.couple"))
    assert pair_sets.draw_pair_sets(Results("s", plain)) is None and pair_sets.draw_pair_sets(contrast) is None
