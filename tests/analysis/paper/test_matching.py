"""Ours beside the paper's: the right cell, the best as the paper takes it, and never two settings as one."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from analysis.measurements.cells import Axis, Cell, Results, group_replicates
from analysis.paper import tables
from analysis.paper.matching import ABSENT, MatchedValue, candidates_by_place, match
from analysis.paper.paper_value import PaperValue

MEAN = "QA mean acc"
LORA: dict[str, Axis] = {"readout.method": "lora", "readout.rank_embedding": 128}
TABLES = ("fig1a", "fig3", "fig8", "fig9", "fig12", "fig17")


def matched(results: Results, figure: str, column: str = MEAN) -> dict[str, MatchedValue]:
    found = match(group_replicates(results), tables.numbers(figure))
    return {m.row: m for m in found if m.paper.column == column}


def with_readout(cell: Cell, mean: float, key: str, **axes: Axis) -> Cell:
    more = {f"readout.{name}": value for name, value in axes.items()}
    metrics = {**cell.metrics, "qa/exact_match/test/mean": mean}
    return replace(cell, key=key, axes={**cell.axes, **more}, params={**cell.params, **more}, metrics=metrics)


@pytest.mark.parametrize("figure", tables.figures())
def test_the_papers_own_numbers_match_themselves(figure: str, regenerate: Callable[..., Results]) -> None:
    found = match(group_replicates(regenerate(figure)), tables.numbers(figure))
    assert [m.paper for m in found] == list(tables.numbers(figure))
    for m in found:
        if m.paper.row == "baseline":
            assert m.ours == pytest.approx(0.05) and not m.keys
        else:
            assert m.ours == m.paper.value and m.difference == pytest.approx(0) and m.complete
            assert len(m.keys) == m.seeds == 1 and m.n == 250 and not m.suffix


def test_all_figures_at_once_match_no_cell_twice(regenerate: Callable[..., Results]) -> None:
    results = regenerate(*TABLES, "fig10", "fig2", "fig11")
    replicate_groups = group_replicates(results)
    for figure in TABLES:
        for m in match(replicate_groups, tables.numbers(figure)):
            assert not m.suffix, "cells of Figures 2, 10 and 11 are no further rows of the others"
            if "mean" in m.paper.column and m.paper.row != "baseline":
                # The paper made some runs twice, with results up to 1.1 points apart.
                assert m.difference == pytest.approx(0, abs=0.0111), (figure, m.paper.row)
    fifth = {
        m.paper.column: m for m in match(replicate_groups, tables.numbers("fig10")) if m.row == "bioS multi5+permute"
    }
    assert fifth["0.1"].ours == 0.966 and fifth["0.9"].ours == 0.939, "each ratio has its own cell"


def test_the_paper_compares_two_adapters_and_so_do_we(make: Callable[..., Cell]) -> None:
    cell = make(0.2)
    ranks = {8: 0.3, 16: 0.4, 32: 0.9}
    cells = [
        with_readout(cell, mean, f"r{r}", **{"method": "lora", "rank_embedding": 128, "rank_qv": r})
        for r, mean in ranks.items()
    ]
    three = matched(Results("s", tuple(cells)), "fig3")["bioS single"]
    assert (three.ours, three.compared, three.keys) == (0.4, 2, ("r16",)), "rank 32 is not among the paper's"
    only = matched(Results("s", tuple(cells[2:])), "fig3")["bioS single"]
    assert (only.ours, only.compared) == (0.9, 1), "where the paper's ranks are not, others stand for them"
    half = replace(cells[1], state="running", metrics={}, interval={}, n={})
    still = matched(Results("s", (cells[0], half, cells[2])), "fig3")["bioS single"]
    assert (still.ours, still.compared, still.complete) == (0.3, 1, False) and "running" in still.state


def test_rows_are_compared_by_the_same_ways_of_finetuning(make: Callable[..., Cell]) -> None:
    plain, rich = make(0.1), make(0.7, multi=5)
    full = [
        with_readout(cell, mean, f"full{mean}", method="full", rank_qv=4) for cell, mean in ((plain, 0.1), (rich, 0.7))
    ]
    grid = [with_readout(plain, 0.1 * r, f"lora{r}", method="lora", rank_qv=r, rank_embedding=128) for r in (2, 4)]
    found = matched(Results("s", (*full, *grid)), "fig3")
    assert (found["bioS single"].ours, found["bioS single"].compared) == (0.1, 1)
    assert found["bioS multi5"].ours == 0.7
    alone = matched(Results("s", (full[0], *grid)), "fig3")["bioS single"]
    assert (alone.ours, alone.compared) == (pytest.approx(0.4), 2), "adapters before the rest, where all rows have some"


def test_further_axes_are_further_rows(make: Callable[..., Cell]) -> None:
    cells = (
        make(0.1),
        make(0.3, people=1000),
        make(0.5, people=1000, seed=1),
        make(0.8, readout="mixed", qa_ratio=0.8),
    )
    found = match(group_replicates(Results("s", cells)), tables.numbers("fig3"))
    rows = {(m.row, m.paper.column): m for m in found if m.paper.row == "bioS single"}
    small, large = "bioS single [corpus.people=500]", "bioS single [corpus.people=1000]"
    assert {row for row, _ in rows} == {small, large}
    assert rows[small, MEAN].ours == pytest.approx(0.1)
    assert rows[large, MEAN].ours == pytest.approx(0.4) and rows[large, MEAN].seeds == 2
    assert rows[large, MEAN].interval is not None and rows[large, MEAN].keys == (cells[1].key, cells[2].key)
    assert rows[small, "MIX mean acc"].ours == pytest.approx(0.8) and rows[large, "MIX mean acc"].state == ABSENT
    others = [m for m in found if m.paper.row == "bioS multi5"]
    assert others and all((m.ours, m.state, m.suffix) == (None, ABSENT, "") for m in others)


def test_the_best_of_each_further_row_is_its_own(make: Callable[..., Cell]) -> None:
    cells = [
        with_readout(
            make(0.1, people=people), mean, f"{people} {rank}", method="lora", rank_embedding=128, rank_qv=rank
        )
        for people, rank, mean in ((500, 8, 0.4), (500, 16, 0.3), (1000, 8, 0.5), (1000, 16, 0.6))
    ]
    found = matched(Results("s", tuple(cells)), "fig3")
    best = {m.row: (m.ours, m.compared, m.keys) for m in found.values() if m.paper.row == "bioS single"}
    assert best == {
        "bioS single [corpus.people=500]": (0.4, 2, ("500 8",)),
        "bioS single [corpus.people=1000]": (0.6, 2, ("1000 16",)),
    }


def test_gberts_ratios_are_one_row_and_gpt2s_are_two(make: Callable[..., Cell]) -> None:
    def mixed(family: str) -> list[Cell]:
        cells = [make(mean, readout="mixed", qa_ratio=ratio) for mean, ratio in ((0.2, 0.3), (0.3, 0.5))]
        return [
            replace(
                c,
                key=f"{family}{k}",
                axes={**c.axes, "model.family": family},
                params={**c.params, "model.family": family},
            )
            for k, c in enumerate(cells)
        ]

    results = Results("s", (*mixed("gbert"), *mixed("gpt2")))
    best = matched(results, "fig9", "MIX mean acc")
    assert (best["bioS single"].ours, best["bioS single"].compared) == (pytest.approx(0.3), 2)
    two = {row for row in matched(results, "fig3", "MIX mean acc") if row.startswith("bioS single [")}
    assert two == {"bioS single [train.qa_ratio=0.3]", "bioS single [train.qa_ratio=0.5]"}


def test_what_is_not_there_says_why(make: Callable[..., Cell]) -> None:
    cells = (make(state="blocked: recall 71 %"), make(0.5, multi=5, readout="q_probe", rank_embedding=16))
    lacking = replace(cells[1], metrics={n: v for n, v in cells[1].metrics.items() if n != "q_probe/first/major"})
    results = Results("s", (cells[0], lacking))
    blocked = matched(results, "fig7")["bioS single"]
    assert (blocked.ours, blocked.interval, blocked.state, blocked.complete) == (
        None,
        None,
        "blocked: recall 71 %",
        False,
    )
    refused = matched(results, "fig7", "Q-first major")["bioS multi5"]
    assert (refused.ours, refused.state) == (None, "not measured")
    assert matched(results, "fig7", "Q-first univ")["bioS multi5"].ours == pytest.approx(0.52)


def test_a_baseline_is_of_the_cells_that_are_shown(make: Callable[..., Cell]) -> None:
    cell = make(0.2)
    other = replace(make(0.4, multi=5), metrics={**make(0.4).metrics, "baseline/test/mean": 0.09})
    llama = replace(cell, axes={**cell.axes, "model.family": "llama"}, params={**cell.params, "model.family": "llama"})
    results = Results("s", (cell, other, replace(llama, key="l", metrics={"baseline/test/mean": 0.5})))
    assert matched(results, "fig3")["baseline"].ours == pytest.approx(0.08)


def test_places_hold_all_candidates(regenerate: Callable[..., Results]) -> None:
    numbers: tuple[PaperValue, ...] = tables.numbers("fig12a")
    found = candidates_by_place(group_replicates(regenerate("fig12a")), numbers)
    assert len(found) == 7 * 2 and set(found) == {number.place for number in numbers}
    assert all(len(replicate_groups) == (6 if at[2] == "baseline" else 1) for at, replicate_groups in found.items())
