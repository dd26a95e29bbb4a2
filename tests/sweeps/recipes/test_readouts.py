import itertools
from typing import Any

import pytest

from ktrain.config import CellConfig
from sweeps import Sweep
from sweeps.planning.grid import expand
from sweeps.recipes import readouts
from sweeps.recipes.readouts import (
    Readout,
    finetuned,
    gbert_finetuned,
    gbert_mixed,
    grid,
    mixed,
    mixed_at,
    p_probe,
    q_control,
)
from sweeps.recipes.scales import MINIATURES, SCALES


def cells(scale: str, row: str, *readouts: Readout, **options: Any) -> list[CellConfig]:
    return expand(Sweep("g", grid((row,), *readouts, **options)), scale, {})


def test_every_row_meets_every_readout() -> None:
    found = expand(Sweep("g", grid(("bioS single", "bioS multi2"), mixed_at(0.1, 0.2), p_probe)), "full", {})
    told = [(cell.corpus.multi, cell.train.qa_ratio, cell.readout.kind) for cell in found]
    assert told == [(m, *how) for m in (1, 2) for how in ((0.1, "mixed"), (0.2, "mixed"), (0.0, "p_probe"))]


@pytest.mark.parametrize(
    ("row", "options", "network"),
    [
        ("bioS single", {}, ("124m", 80_000, 1e-3)),
        ("bioS single", {"size": "682m"}, ("682m", 200_000, 1e-3)),
        ("bioR single", {}, ("302m", 150_000, 1e-3)),
        ("bioR single", {"size": "682m"}, ("682m", 200_000, 1e-3)),
        ("bioR single", {"family": "llama"}, ("302m", 150_000, 1e-3)),
        ("bioS single", {"family": "gbert"}, ("124m", 150_000, 3e-4)),
    ],
)
def test_networks_have_the_papers_size_steps_and_rate_and_medium_a_quarter_of_the_steps(
    row: str, options: dict[str, str], network: tuple[str, int, float]
) -> None:
    for scale, share in (("full", 1), ("medium", 4)):
        (cell,) = cells(scale, row, p_probe if options.get("family") != "gbert" else q_control, **options)
        size, steps, rate = network
        assert (cell.model.size, cell.train.steps, cell.train.learning_rate) == (size, steps // share, rate)
        assert cell.train.steps == SCALES[scale].train.steps or network[:2] != ("124m", 80_000)


@pytest.mark.parametrize(
    ("row", "readout", "options", "steps"),
    [
        ("bioS single", finetuned, {}, 5_400),
        ("bioS single", mixed, {}, 10_800),
        ("bioS single+CEL", finetuned, {}, 16_200),
        ("bioS multi5+permute", gbert_finetuned, {"family": "gbert"}, 43_200),
        ("bioS multi5+permute", gbert_mixed, {"family": "gbert"}, 43_200),
        ("bioS single", finetuned, {"family": "llama", "size": "682m"}, 5_400),
    ],
)
def test_a_miniature_has_its_own_steps_in_proportion_to_its_people(
    row: str, readout: Readout, options: dict[str, str], steps: int
) -> None:
    for people, (scale, longer) in itertools.product((500, 1000), MINIATURES.items()):
        (cell,) = cells(scale, row, readout, people=people, **options)
        taken = longer * steps * people // 500
        assert (cell.corpus.people, cell.train.steps, cell.model.size) == (people, taken, "mini")
        assert cell.train.learning_rate == 2e-3
        assert cell.train.qa_ratio == {mixed: 0.5, gbert_mixed: 0.2}.get(readout, 0.0)
        if cell.readout.kind == "qa_finetune":
            asked = 2 if cell.readout.people == "celebrity" else 1
            assert cell.readout.steps == 400 * asked * people // 500


def test_one_change_of_steps_reaches_every_cell_of_its_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(readouts.STEPS, "mixed", 7_000)
    assert [cell.train.steps for cell in cells("mini", "bioS single", mixed, finetuned)] == [7_000, 5_400]


def test_every_scale_cuts_its_windows_as_the_paper_does() -> None:
    assert {cell.train.windows for cell in SCALES.values()} == {"cut"}


def test_free_text_takes_twice_the_steps_at_mini() -> None:
    for row, steps in {"bioS single": [10_800, 5_400], "bioR single": [21_600, 10_800]}.items():
        assert [cell.train.steps for cell in cells("mini", row, mixed, finetuned)] == steps


def test_probes_of_the_wider_networks_have_larger_ranks() -> None:
    ranks = [cells("full", row, readouts.q_probe, q_control) for row in ("bioS single", "bioR single")]
    assert [[cell.readout.rank_embedding for cell in found] for found in ranks] == [[16, 64], [32, 128]]
