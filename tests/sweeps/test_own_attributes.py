"""An attribute of the user's own in plans, in what is printed, in bundles of jobs and in views of MLflow."""

import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ktrain.config import ATTRIBUTES, CellConfig
from ktrain.data.token_estimates import entry_width, tokens_per_entry
from ktrain.errors import WrongRequest
from ktrain.readout.kinds.base import kind_of, kinds
from ktrain.stages import stages_of
from ktrain.store.base import Store
from ktrain.store.open import store_at
from sweeps import Sweep, show
from sweeps.cluster import job_bundle
from sweeps.planning import cost, feasibility
from sweeps.planning.axes import with_axes
from sweeps.planning.departures import departures
from sweeps.planning.network_summary import bits_of_facts
from sweeps.planning.plan import make
from sweeps.recipes.scales import base
from sweeps.tracking import saved_view, views
from sweeps.tracking.saved_view import SavedView


@pytest.fixture
def axes(hobby: dict[str, str]) -> dict[str, Any]:
    return {f"corpus.{name}": folder for name, folder in hobby.items()}


def with_hobby(axes: dict[str, Any], kind: str = "qa_finetune") -> tuple[CellConfig, CellConfig]:
    """A cell of the miniature without the hobby, and one with it."""
    plain = base("mini", kind)
    return plain, with_axes(plain, axes)


def test_a_plan_counts_its_questions_tokens_and_bits(axes: dict[str, Any]) -> None:
    plain, one = with_hobby(axes)
    people = one.corpus.people
    assert one.trained_questions * 6 == plain.trained_questions * 7
    longer = tokens_per_entry(one.corpus) - tokens_per_entry(plain.corpus)
    assert longer == math.ceil(tokens_per_entry(plain.corpus) / 6) and entry_width(one.corpus) > entry_width(
        plain.corpus
    )
    corpora = [cost.tokens(stages_of(cell).corpus, cell) for cell in (plain, one)]
    assert corpora[1] - corpora[0] == people * (longer + 19)
    assert bits_of_facts(one.corpus) - bits_of_facts(plain.corpus) == pytest.approx(people * math.log2(4))


def test_probes_have_two_more_tasks(axes: dict[str, Any]) -> None:
    for kind in ("p_probe", "q_probe"):
        plain, one = with_hobby(axes, kind)
        described = kind_of(kind)
        assert (described.task_count(plain), described.task_count(one)) == (11, 13)
        assert described.tokens(one) * 11 * described.row_tokens(plain) == (
            described.tokens(plain) * 13 * described.row_tokens(one)
        )


def test_a_hobby_with_too_few_people_for_its_values_is_not_probed(axes: dict[str, Any], store: Store) -> None:
    """And a cell is blocked once no task is left, not once eleven are refused."""
    values = Path(axes["corpus.pools_folder"]) / "hobby.csv"
    values.write_text("value\n" + "".join(f"hobby {k}\n" for k in range(40)))
    one = with_hobby(axes, "q_probe")[1]
    refused = [line for line in feasibility.refused_tasks(one) if "hobby" in line]
    assert refused == ["whole/hobby: 250 people for 40 classes are 6.2 each, readout.people_per_class=20"]
    values.write_text("value\nchess\npottery\nsailing\n")
    feasibility.forget_files()
    one = with_axes(one, {"readout.people_per_class": 80})
    lines = feasibility.refused_tasks(one)
    assert len(lines) == 11 and not any("hobby" in line for line in lines)
    sweep = Sweep("s", {**axes, "readout.kind": "q_probe", "readout.people_per_class": 80})
    assert [cell.state for cell in make(sweep, "mini", {}, store).cells] == ["planned"]


def test_the_paper_has_no_hobby(axes: dict[str, Any]) -> None:
    plain, one = with_hobby(axes)
    (line,) = set(departures([one])) - set(departures([plain]))
    assert line == "attributes: the paper has six, here also hobby (corpus.pools_folder)"


@pytest.mark.parametrize(
    ("lost", "line"),
    [
        ("questions", "corpus.questions_folder={folder}: hobby.txt is missing"),
        ("templates", "corpus.templates_folder={folder}: hobby.txt is missing"),
        ("pools", "hobby.csv in {folder}: every row needs the columns value"),
    ],
)
def test_a_folder_that_lacks_it_is_refused_while_planning(
    axes: dict[str, Any], store: Store, lost: str, line: str
) -> None:
    folder = Path(axes[f"corpus.{lost}_folder"])
    (file,) = folder.iterdir()
    file.write_text("value\n") if lost == "pools" else file.unlink()
    with pytest.raises(WrongRequest) as refused:
        make(Sweep("s", {}), "mini", {axis: [value] for axis, value in axes.items()}, store)
    assert str(refused.value) == line.format(folder=folder)


def test_a_setting_that_lacks_a_folder_is_refused_while_expanding(axes: dict[str, Any]) -> None:
    del axes["corpus.questions_folder"]
    with pytest.raises(
        WrongRequest, match=r"^corpus\.pools_folder=.*: brings the attribute hobby, which needs corpus\.q"
    ):
        with_axes(base("mini", "qa_finetune"), axes)


def test_it_is_shown_with_the_others(
    axes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "Screen", lambda **options: Console(**options | {"width": 500}))
    few = {"corpus.people": 8, "corpus.tokenizer": "bpe-600"}
    one = with_axes(base("mini", "qa_finetune"), axes | few)
    texts = {}
    for what in ("people", "entries", "questions", "classes"):
        show.show_inputs(what, one, 2, 0, store_at("nowhere"))
        texts[what] = capsys.readouterr().out
    assert "hobby" in texts["people"].splitlines()[0]
    assert texts["questions"].count("What is the hobby of ") == 2
    assert "first/hobby" in texts["classes"] and "whole/hobby" in texts["classes"]
    assert any(text in texts["entries"] for text in ("spent free evenings on", "favourite pastime was"))


def test_a_job_takes_the_folders_along(axes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same keys there: built-in files stand beside those of the attribute."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text('from sweeps import Sweep\nsweep = Sweep("mine", {})\n')
    short = {axis: [str(Path(folder).relative_to(tmp_path))] for axis, folder in axes.items()}
    with job_bundle.pack_job("mine.py", "mini", short) as root:
        own = {
            str(path.relative_to(root))
            for kind in ("pools", "templates", "questions")
            for path in (root / kind).iterdir()
        }
    assert own == {"pools/hobby.csv", "templates/hobby.txt", "questions/hobby.txt"}


@pytest.mark.parametrize("kind", [kind.name for kind in kinds()])
def test_a_view_has_a_bar_of_it_beside_those_of_the_six(kind: str) -> None:
    plain, more = views.bar_charts(kind_of(kind)), views.bar_charts(kind_of(kind), ["club", "hobby"])
    assert plain.keys() == more.keys()
    for title, section in plain.items():
        own = more[title].metrics[len(section.metrics) :]
        assert more[title].metrics[: len(section.metrics)] == section.metrics
        last = section.metrics[-1]
        own_names = [last.replace("company_city", name) for name in ("club", "hobby")]
        assert list(own) == (own_names if last.endswith("/company_city") else [])
    assert any(name.endswith("/hobby") for section in more.values() for name in section.metrics)


@pytest.mark.parametrize("kind", [kind.name for kind in kinds()])
def test_the_largest_view_with_four_of_them_fits_into_a_tag(kind: str) -> None:
    own = [f"attribute_{k}_of_thirty_letters" for k in range(4)]
    rows = {f"{k:032x}": f"bioS multi5+permute+fullname [readout.rank_embedding={k}]" for k in range(500)}
    recorded = frozenset(f"{kind}/{of}/{place}/{a}" for of in "ab" for place in range(22) for a in (*ATTRIBUTES, *own))
    axes = ("corpus.multi", "corpus.permute", "corpus.fullname", "readout.rank_qv", "readout.rank_embedding")
    sections = views.bar_charts(kind_of(kind), own)
    view = SavedView("ktrain-" + kind, "A view", f"ktrain.view.{kind}", rows, axes, sections, recorded)
    assert len(view.tag(1_700_000_000_000)) <= saved_view.LARGEST
