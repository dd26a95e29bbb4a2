import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from ktrain import stages
from ktrain.bios import templates
from ktrain.config import CellConfig
from ktrain.errors import WrongRequest
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import QUESTION_AXES, Stage, axes, stages_of
from ktrain.store.base import Store
from sweeps import Sweep, cli
from sweeps.execution import ray_session
from sweeps.planning import key_diff
from sweeps.planning.grid import expand
from sweeps.planning.key_diff import KeyExplanation, explain_key
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]
Publish = Callable[..., None]
DIFFERENT: dict[str, Any] = {
    "corpus.permute": 2,
    "corpus.pools.birth_years": 6,
    "model.dropout": 0.1,
    "train.steps": 70,
    "train.learning_rate": 0.5,
    "readout.steps": 30,
    "readout.people_per_class": 7,
    "seed": 3,
}


@pytest.fixture
def one(tiny: Callable[..., Sweep]) -> Callable[..., tuple[Stage, Stage, Stage]]:
    """The stages of a tiny cell with axes of the test's own."""

    def of_cell(changes: dict[str, Any] | None = None) -> tuple[Stage, Stage, Stage]:
        (cell,) = expand(tiny({}), "mini", {axis: [value] for axis, value in (changes or {}).items()})
        return stages_of(cell)

    return of_cell


@pytest.fixture
def done(one: Callable[..., tuple[Stage, ...]], publish: Publish) -> Callable[..., str]:
    """Finishes a cell; the key of its readout."""

    def finish(changes: dict[str, Any] | None = None) -> str:
        made = one(changes)
        for stage in made:
            publish(stage)
        return made[-1].key

    return finish


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    def change(kind: str, version: int) -> None:
        if kind in stages.VERSIONS:
            monkeypatch.setitem(stages.VERSIONS, kind, version)
        else:
            monkeypatch.setattr(kind_of(kind), "version", version)

    yield change


def told(found: KeyExplanation) -> list[list[str]]:
    """The differences from each neighbour as `field: there -> here`."""
    return [[f"{d.field}: {d.there} -> {d.here}" for d in n.differences] for n in found.neighbours]


# What separates.


@pytest.mark.parametrize("axis", DIFFERENT)
def test_an_axis_of_any_stage_is_named_once(done: Callable[..., str], store: Store, axis: str) -> None:
    there, here = done(), done({axis: DIFFERENT[axis]})
    found = explain_key(here, store)
    assert [n.key for n in found.neighbours] == [there]
    ((difference,),) = [n.differences for n in found.neighbours]
    assert difference.field == axis and json.loads(difference.here or "") == DIFFERENT[axis]
    (back,) = told(explain_key(there, store))
    assert back == [f"{axis}: {difference.here} -> {difference.there}"]


@pytest.mark.parametrize("kind", ["corpus", "pretrain", "qa_finetune"])
def test_a_version_of_the_code_is_named(
    done: Callable[..., str], store: Store, versions: Callable[[str, int], None], kind: str
) -> None:
    before = stages.VERSIONS[kind] if kind in stages.VERSIONS else kind_of(kind).version
    done()
    versions(kind, 9)
    assert told(explain_key(done(), store)) == [[f"version of {kind}: {before} -> 9"]]


def test_the_content_of_a_folder_is_named(done: Callable[..., str], store: Store, tmp_path: Path) -> None:
    done()
    folder = tmp_path / "templates"
    shutil.copytree(templates.BUILTIN, folder)
    same = explain_key(done({"corpus.templates_folder": str(folder)}), store)
    assert same.neighbours == ()
    with (folder / "major.txt").open("a") as file:
        file.write("{name} never finished {his} studies of {value}.\n")
    (lines,) = told(explain_key(done({"corpus.templates_folder": str(folder)}), store))
    assert len(lines) == 1 and lines[0].startswith("content of the templates (corpus.templates_folder): ")


def test_what_one_side_has_not_is_absent(
    done: Callable[..., str], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    done()
    found = explain_key(done({"corpus.couple": 2}), store)
    assert told(found) == [["corpus.couple: None -> 2"]]
    assert found.as_json()["neighbours"][0]["differences"] == [{"field": "corpus.couple", "here": 2}]
    key_diff.show(found)
    out = capsys.readouterr().out
    assert "corpus.couple: absent -> 2" in out and "absent: that stage has no such field" in out


def test_a_parent_that_is_gone_is_named_by_its_key(done: Callable[..., str], store: Store) -> None:
    there, here = done(), done({"corpus.multi": 2})
    for key in (there, here):
        parent = store.manifest(key)["config"]["parent"]
        shutil.rmtree(store.root / "stages" / parent)
    (lines,) = told(explain_key(here, store))
    assert len(lines) == 1 and lines[0].startswith('qa_finetune.parent (not in the store): "pretrain-mini-single-n60-')


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(sorted(DIFFERENT))), st.sets(st.sampled_from(sorted(DIFFERENT))))
def test_exactly_the_axes_that_differ_are_named(one: Callable[..., Any], a: set[str], b: set[str]) -> None:
    there, here = (one({axis: DIFFERENT[axis] for axis in some}) for some in (a, b))
    known = {s.key: key_diff.KnownStage(s.key, s.identity, True) for s in (*there, *here)}
    found = key_diff._differences(known, there[-1].identity, here[-1].identity)
    assert {d.field for d in found} == a ^ b and len(found) == len(a ^ b)


def test_every_axis_of_a_cell_is_in_the_identity_of_its_readout() -> None:
    """A cell is asked about by its readout; whatever is varied must be found there."""
    cell = CellConfig.model_validate({"corpus": {"couple": 2, "celebrity_fraction": 0.5}})
    corpus, pretrain, readout = stages_of(cell)
    fields = {
        field
        for stage in (corpus, pretrain, readout)
        for field, _, _ in key_diff.fingerprint.difference({}, stage.identity)
        if field not in ("kind", "version", "parent")
    }
    unnamed = {axis for axis in set(axes(cell)) - fields if not axis.startswith("corpus.writer.")}
    assert unnamed == {
        "corpus.background", "corpus.background_share", "corpus.pools_folder", "corpus.templates_folder",
        *QUESTION_AXES, "corpus.validation_share",
        "readout.people", "readout.dropout", "readout.packed", "readout.modules", "train.mask_share",
        "train.masked_answers", "train.method", "train.rank_qv", "train.forgetting_text", "model.config", "model.start",
        "model.layers", "model.heads", "model.width",
    }  # fmt: skip


# The nearest.


def test_the_nearest_differs_in_the_fewest_fields(done: Callable[..., str], store: Store) -> None:
    done({"corpus.multi": 2, "train.steps": 70, "seed": 1})
    near = done({"seed": 2})
    assert [n.key for n in explain_key(done({"seed": 1}), store).neighbours] == [near]


def test_ties_are_all_told_and_a_few_are_shown(
    done: Callable[..., str], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {done({"seed": seed}) for seed in range(6)}
    found = explain_key(min(keys), store)
    assert {n.key for n in found.neighbours} == keys - {min(keys)}
    assert [n.key for n in found.neighbours] == sorted(keys - {min(keys)})
    key_diff.show(found)
    out = capsys.readouterr().out
    assert out.count("seed:") == 3 and "2 more differ in as many fields" in out


def test_other_kinds_are_no_neighbours(one: Callable[..., Any], publish: Publish, store: Store) -> None:
    for stage in one()[:2]:
        publish(stage)
    assert explain_key(one()[1].key, store).neighbours == ()


# A plan besides the store.


def test_a_planned_cell_is_compared_with_what_is_done(
    planned: Planner, tiny: Callable[..., Sweep], done: Callable[..., str], store: Store
) -> None:
    there = done({"corpus.multi": 4})
    plan = planned(tiny({"corpus.multi": 1}), readout__steps=[20, 21])
    found = explain_key(plan.cells[0].key, store, plan)
    # Its sibling in the plan is nearer, but that is no reason to run.
    assert (found.state, found.compared) == ("planned", plan.cells[0].stages.readout.key)
    assert [n.key for n in found.neighbours] == [there] and told(found) == [["corpus.multi: 4 -> 1"]]
    assert [state for _, state in found.chain] == ["to do", "to do", "to do"]


def test_what_is_done_is_compared_with_the_plan_too(
    planned: Planner, tiny: Callable[..., Sweep], done: Callable[..., str], store: Store
) -> None:
    here = done()
    found = explain_key(here, store, planned(tiny({"corpus.multi": 3})))
    assert told(found) == [["corpus.multi: 3 -> 1"]] and not found.neighbours[0].done


def test_where_nothing_of_a_kind_is_done_the_stage_before_it_is_compared(
    planned: Planner, done: Callable[..., str], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(store.root / "stages" / done({"train.steps": 61}))
    plan = planned()
    cell = plan.cells[0]
    found = explain_key(cell.key, store, plan)
    assert found.compared == cell.stages.pretrain.key and told(found) == [["train.steps: 61 -> 60"]]
    key_diff.show(found)
    assert f"compared is {cell.stages.pretrain.key}" in capsys.readouterr().out


def test_a_stage_whose_parents_are_done_and_that_is_the_first_of_its_kind_has_no_reason(
    planned: Planner, publish: Publish, done: Callable[..., str], store: Store
) -> None:
    plan = planned()
    for stage in plan.cells[0].stages[:2]:
        publish(stage)
    shutil.rmtree(store.root / "stages" / done({"seed": 5}))
    found = explain_key(plan.cells[0].key, store, plan)
    assert found.neighbours == () and [state for _, state in found.chain] == ["done", "done", "to do"]


def test_a_failure_is_a_reason(planned: Planner, store: Store) -> None:
    pretrain = planned().cells[0].stages.pretrain
    store.note_failure(pretrain.key, "Diverged: the loss is nan at step 6")
    plan = planned()
    found = explain_key(plan.cells[0].key, store, plan)
    assert found.state == "failed: Diverged: the loss is nan at step 6"
    assert found.chain[1] == (pretrain.key, found.state)


def test_a_damaged_stage_is_not_done(done: Callable[..., str], store: Store) -> None:
    here, there = done(), done({"seed": 1})
    (store.root / "stages" / there / "metrics.json").write_text("{}")
    assert explain_key(here, store).neighbours == ()


# Keys.


def test_a_key_may_be_shortened(done: Callable[..., str], store: Store) -> None:
    key = done()
    assert explain_key(key[:-2], store) == explain_key(key, store)
    other = done({"seed": 1})
    with pytest.raises(WrongRequest, match="key=qa-: 2 keys begin so: "):
        explain_key("qa-", store)
    assert explain_key(other, store).key == other


def test_an_unknown_key_is_told_with_the_nearest(done: Callable[..., str], planned: Planner, store: Store) -> None:
    key = done()
    with pytest.raises(WrongRequest, match=rf"key=x{key}: not in the store .*--sweep.*; did you mean {key}\?"):
        explain_key(f"x{key}", store)
    with pytest.raises(WrongRequest, match=r"key=0000: not in the store .*, nor in the plan of tiny$"):
        explain_key("0000", store, planned())


# The command.


@pytest.fixture
def command(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr(key_diff, "Screen", lambda **options: Console(**options | {"width": 200}))
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(ray_session, "prepare", lambda: None)

    def told(*words: str) -> tuple[int, str, str]:
        code = cli.main(["why", *words, "--store", str(store.root)])
        return code, *capsys.readouterr()

    return told


def test_one_aligned_line_for_each_field(done: Callable[..., str], command: Callable[..., Any]) -> None:
    there, here = done(), done({"readout.people_per_class": 100, "seed": 10, "corpus.permute": 2})
    code, out, error = command(here)
    assert (code, error) == (0, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == f"{here}: done"
    assert lines[lines.index(f"from {there} (done):") + 1 :] == [
        "  corpus.permute:           0  -> 2",
        "  seed:                     0  -> 10",
        "  readout.people_per_class: 20 -> 100",
    ]


def test_the_answer_is_told_to_programs(done: Callable[..., str], command: Callable[..., Any]) -> None:
    there, here = done(), done({"seed": 1})
    code, out, _ = command(here, "--json")
    found = json.loads(out)
    assert code == 0 and (found["key"], found["state"], found["compared"]) == (here, "done", here)
    assert [stage["state"] for stage in found["stages"]] == ["done"] * 3
    assert found["neighbours"] == [
        {"key": there, "done": True, "differences": [{"field": "seed", "there": 0, "here": 1}]}
    ]


def test_the_plan_of_a_sweep_makes_its_cells_known(command: Callable[..., Any]) -> None:
    code, out, error = command("single-n300-s7", "seed=7", "--sweep", "demo")
    assert (code, error) == (0, "") and "single-n300-s7-" in out and "planned" in out
    assert "there is no other qa_finetune to compare it with" in out
    assert command("single-n300-s7", "--sweep", "demo", "--scale", "small")[0] == 2
    code, _, error = command("single", "seed=7")
    assert code == 2 and error == "ktrain: seed=7: axes are those of a sweep, which --sweep names\n"
