import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from ktrain import fingerprint
from ktrain.bior import surface_forms
from ktrain.bios import pools, templates
from ktrain.data import corpus as corpora
from ktrain.data.background import UNNAMED
from ktrain.errors import WrongRequest
from ktrain.stages import stages_of
from ktrain.store.base import Store
from ktrain.store.lease import lease
from ktrain.store.open import store_at
from sweeps import Sweep
from sweeps.planning import summary
from sweeps.planning.grid import load
from sweeps.planning.plan import Plan, make

Planner = Callable[..., Plan]
BOTH = tune.grid_search(
    [
        {"train.qa_ratio": 0.0, "readout.kind": "qa_finetune"},
        {"train.qa_ratio": 0.5, "readout.kind": "mixed"},
    ]
)


def states(plan: Plan) -> list[str]:
    return [cell.state for cell in plan.cells]


def kinds(plan: Plan, state: str | None = None) -> Counter[str]:
    return Counter(p.stage.kind for p in plan.stages if state in (None, p.state))


# Sharing.


def test_cells_that_differ_in_the_readout_share_their_pretraining(planned: Planner) -> None:
    plan = planned(readout__steps=[20, 30, 40])
    assert len(plan.cells) == 6 and len({cell.key for cell in plan.cells}) == 6
    assert kinds(plan) == {"corpus": 2, "pretrain": 2, "qa_finetune": 6}
    assert [len(cells) for cells in plan.trials().values()] == [3, 3]


def test_cells_that_differ_in_training_share_their_corpus(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    plan = planned(tiny({"training": BOTH}))
    assert kinds(plan) == {"corpus": 1, "pretrain": 2, "qa_finetune": 1, "mixed": 1}
    assert len(plan.trials()) == 2


def test_a_seed_shares_nothing(planned: Planner) -> None:
    assert kinds(planned(seed=[0, 1])) == {"corpus": 4, "pretrain": 4, "qa_finetune": 4}


def test_stages_come_after_what_they_start_from(planned: Planner) -> None:
    plan = planned(readout__steps=[20, 30], seed=[0, 1])
    place = {p.stage.key: k for k, p in enumerate(plan.stages)}
    assert len(place) == len(plan.stages)
    for p in plan.stages:
        assert p.stage.parent is None or place[p.stage.parent.key] < place[p.stage.key]


def test_seeds_added_later_run_only_what_is_new(planned: Planner, publish: Callable[..., None]) -> None:
    first = planned()
    for cell in first.cells:
        for stage in cell.stages:
            publish(stage)
    plan = planned(seed=[0, 1, 2])
    assert Counter((cell.cell.seed, cell.state) for cell in plan.cells) == {
        (0, "done"): 2,
        (1, "planned"): 2,
        (2, "planned"): 2,
    }
    assert {cell.key for cell in plan.cells if cell.state == "done"} == {cell.key for cell in first.cells}
    assert {planned.cell.seed for trial in plan.trials().values() for planned in trial} == {1, 2}


def test_axes_that_vary_are_told_for_all_cells_and_for_each_part(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    other = tiny({"train.steps": tune.grid_search([60, 70]), "corpus.fullname": True}, name="other")
    plan = planned(Sweep("whole", parts=(tiny(), other)), readout__steps=[20, 30])
    assert plan.varied("tiny") == ["corpus.multi", "readout.steps"]
    assert plan.varied("other") == ["train.steps", "readout.steps"]
    assert plan.varied() == ["corpus.multi", "corpus.fullname", "train.steps", "readout.steps"]


def test_figure_3_shares_what_it_can(store: Store) -> None:
    plan = make(load("fig3"), "mini", {}, store)
    assert kinds(plan) == {"corpus": 16, "pretrain": 32, "qa_finetune": 16, "mixed": 16}
    assert len(plan.trials()) == 32 and set(states(plan)) == {"planned"}


# States.


def test_nothing_done_is_planned(planned: Planner) -> None:
    plan = planned()
    assert states(plan) == ["planned", "planned"] and kinds(plan, "to do") == kinds(plan)


def test_a_cell_is_done_when_its_readout_is(planned: Planner, publish: Callable[..., None]) -> None:
    first, second = planned().cells
    for stage in first.stages[:2]:
        publish(stage)
        assert states(planned()) == ["planned", "planned"]
    publish(first.stages.readout)
    plan = planned()
    assert states(plan) == ["done", "planned"]
    assert kinds(plan, "done") == {"corpus": 1, "pretrain": 1, "qa_finetune": 1}
    assert list(plan.trials()) == [second.stages.pretrain.key]


def test_a_model_below_the_recall_gate_blocks_its_cells_and_is_not_tried_again(
    planned: Planner, publish: Callable[..., None]
) -> None:
    first = planned().cells[0]
    publish(first.stages.corpus)
    publish(first.stages.pretrain, recalled=0.7142)
    plan = planned()
    assert states(plan) == ["blocked: recall 71.4%", "planned"]
    assert first.stages.pretrain.key not in plan.trials()
    # A lower gate is another readout, which may be taken from the same model.
    assert states(planned(readout__recall_gate=[0.7])) == ["planned", "planned"]


def test_a_model_at_the_gate_passes(planned: Planner, publish: Callable[..., None]) -> None:
    publish(planned().cells[0].stages.pretrain, recalled=0.9)
    assert states(planned())[0] == "planned"


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_failure_is_told_until_it_is_overcome_and_is_tried_again(
    planned: Planner, publish: Callable[..., None], store: Store, stage: int
) -> None:
    cell = planned().cells[1]
    (store.work_dir(cell.stages[stage].key).folder / "failure.txt").write_text("Diverged: the loss is nan at step 7")
    plan = planned()
    assert states(plan) == ["planned", "failed: Diverged: the loss is nan at step 7"]
    assert cell.stages.pretrain.key in plan.trials()
    publish(cell.stages.readout)
    assert states(planned()) == ["planned", "done"]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stage_in_living_hands_makes_its_cells_running(planned: Planner, store: Store, stage: int) -> None:
    key = planned().cells[0].stages[stage].key
    with lease(Path(store.address), key):
        assert states(planned()) == ["running", "planned"]
    assert states(planned()) == ["planned", "planned"]


def test_numbers_that_are_damaged_are_to_be_built_again(
    planned: Planner, publish: Callable[..., None], store: Store
) -> None:
    cell = planned().cells[0]
    for stage in cell.stages:
        publish(stage)
    for k, stage in reversed(list(enumerate(cell.stages))):
        path = Path(store.address) / "stages" / stage.key / "metrics.json"
        size = path.stat().st_size
        path.write_text("{}")
        plan = planned()
        first, second = states(plan)
        assert first.startswith("damaged: ") and f"{stage.key}: metrics.json has 2 bytes instead of {size}" in first
        assert second == "planned"
        assert kinds(plan, "done").total() == k and plan.trials()


def test_a_cell_is_done_without_the_stages_before_its_readout_unless_they_are_damaged(
    planned: Planner, publish: Callable[..., None], store: Store
) -> None:
    cell = planned().cells[0]
    for stage in cell.stages:
        publish(stage)
    pretrain = cell.stages.pretrain.key
    (Path(store.address) / "stages" / pretrain / "curve.json").unlink()
    finding = f"damaged: {pretrain}: curve.json is missing"
    plan = planned()
    assert states(plan) == [finding, "planned"] and len(plan.damage(plan.cells[0])) == 1
    assert plan.trials()[pretrain] == (plan.cells[0],)
    assert store.verify(pretrain)
    assert states(planned()) == [f"damaged: {pretrain}: moved to {Path(store.address)}/damaged/{pretrain}-1", "planned"]
    shutil.rmtree(Path(store.address) / "damaged")
    assert states(planned()) == ["done", "planned"]
    shutil.rmtree(Path(store.address) / "stages" / cell.stages.corpus.key)
    assert states(planned()) == ["done", "planned"]


# Cost.


def test_tokens_and_flops_of_the_paper_by_hand(store: Store) -> None:
    plan = make(Sweep("one", {}), "full", {}, store)
    corpus, pretrain, readout = plan.stages
    assert corpus.tokens == 100_000 * (73 + 6 * 17) and corpus.flops == 0.0
    assert pretrain.tokens == 80_000 * 96 * 512 == 3_932_160_000
    parameters = 50_257 * 768 + 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert pretrain.flops == pretrain.tokens * (6 * parameters + 12 * 12 * 768 * 512)
    assert 0.79e9 < pretrain.flops / pretrain.tokens < 0.81e9
    assert pretrain.seconds == pretrain.flops / (0.4 * 989e12)
    assert readout.tokens == 50_000 * 48 * 512
    # Adapters: frozen weights have no gradient.
    assert readout.flops == pytest.approx(readout.tokens * (6 * parameters + 12 * 12 * 768 * 512) * 2 / 3)
    assert summary.totals(plan)["bytes"] == corpus.tokens * 2 + 2 * 4 * parameters


def test_a_mixed_readout_trains_nothing(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    (mixed,) = [p for p in planned(tiny({"training": BOTH})).stages if p.stage.kind == "mixed"]
    assert mixed.flops == 0.0 and mixed.tokens == 60 * 6 * 19


def test_entries_multiply_the_corpus_as_the_paper_says(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    grid = {"corpus.multi": tune.grid_search([1, 2, 5]), "corpus.permute": tune.grid_search([0, 1, 3])}
    plan = planned(tiny(grid))
    tokens = {(c.cell.corpus.multi, c.cell.corpus.permute): c.stages.corpus.key for c in plan.cells}
    by_key = {p.stage.key: p.tokens for p in plan.stages}
    for (multi, permute), key in tokens.items():
        assert by_key[key] == 60 * (multi * max(permute, 1) * 79 + 6 * 19)


def test_totals_are_sums_over_distinct_stages(planned: Planner, publish: Callable[..., None]) -> None:
    for stage in planned().cells[0].stages:
        publish(stage)
    plan = planned(readout__steps=[20, 30])
    totals = summary.totals(plan)
    tokens = {"corpus": 2 * 60 * 6 * 19 + 60 * 79 + 60 * 2 * 79, "pretrain": 2 * 60 * 4 * 64}
    tokens["qa_finetune"] = 2 * (20 + 30) * 8 * 32
    assert totals["tokens"] == sum(tokens.values())
    done = 60 * (79 + 6 * 19) + 60 * 4 * 64 + 20 * 8 * 32
    assert totals["tokens_to_do"] == totals["tokens"] - done
    assert totals["flops"] == sum(p.flops for p in plan.stages)
    assert totals["flops_to_do"] == sum(p.flops for p in plan.stages if p.state == "to do") < totals["flops"]
    assert totals["seconds_to_do"] == sum(p.seconds for p in plan.stages if p.state == "to do") > 0
    assert (totals["cells"], totals["cells_done"], totals["stages"], totals["stages_done"]) == (4, 1, 8, 3)
    parameters = 600 * 128 + 4 * (12 * 128**2 + 13 * 128) + 2 * 128
    assert totals["bytes"] == 2 * tokens["corpus"] + 6 * 4 * parameters


def test_a_plan_all_done_has_nothing_to_do(planned: Planner, publish: Callable[..., None]) -> None:
    for cell in planned().cells:
        for stage in cell.stages:
            publish(stage)
    plan = planned()
    totals = summary.totals(plan)
    assert plan.trials() == {} and totals["cells_done"] == 2 and totals["stages_done"] == 6
    assert (totals["tokens_to_do"], totals["flops_to_do"], totals["seconds_to_do"]) == (0, 0, 0)


# What a program reads.


def test_the_json_of_a_plan_keeps_its_contract(planned: Planner, publish: Callable[..., None]) -> None:
    publish(planned().cells[0].stages.corpus)
    plan = planned()
    found = json.loads(json.dumps(summary.as_json(plan), allow_nan=False))
    assert set(found) == {"sweep", "scale", "cells", "stages", "totals", "departures"}
    assert (found["sweep"], found["scale"]) == ("tiny", "mini")
    assert all(set(cell) == {"key", "parts", "axes", "stages", "state", "refused"} for cell in found["cells"])
    of_stage = {"key", "kind", "state", "tokens", "flops", "seconds", "bytes", "passes_over_questions"}
    assert all(set(stage) == of_stage for stage in found["stages"])
    passes = 20 * 8 / (30 * 6)
    assert [stage["passes_over_questions"] for stage in found["stages"]] == 2 * [None, None, passes]
    keys = [stage["key"] for stage in found["stages"]]
    assert [key for cell in found["cells"] for key in cell["stages"]] == keys
    assert [stage["state"] for stage in found["stages"]] == ["done"] + 5 * ["to do"]
    assert [cell["axes"]["corpus.multi"] for cell in found["cells"]] == [1, 2]
    for cell, planned_cell in zip(found["cells"], plan.cells, strict=True):
        assert cell["axes"] == planned_cell.axes


def test_a_plan_touches_nothing(tiny: Callable[..., Sweep], tmp_path: Path) -> None:
    plan = make(tiny(), "mini", {}, store_at(tmp_path / "nowhere"))
    summary.as_json(plan), summary.departures(plan), plan.trials()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_does_not_change_a_store(planned: Planner, publish: Callable[..., None], store: Store) -> None:
    for stage in planned().cells[0].stages[:2]:
        publish(stage)
    (Path(store.address) / "stages" / planned().cells[0].stages.corpus.key / "metrics.json").write_text("damaged")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in Path(store.address).rglob("*"))
    summary.as_json(planned())
    assert sorted((str(path), path.stat().st_mtime_ns) for path in Path(store.address).rglob("*")) == before


def test_departures_name_the_axis_the_papers_value_and_ours(store: Store) -> None:
    plan = make(load("demo"), "mini", {"corpus.people": [500, 700]}, store)
    lines = summary.departures(plan)
    assert "corpus.people: the paper has 100000, here 500, 700" in lines
    assert "corpus.tokenizer: the paper has gpt2, here bpe-2048" in lines
    assert any(line.startswith("assumed: no dropout") for line in lines)
    assert not any(line.startswith(("corpus.multi", "corpus.permute", "seed")) for line in lines)


def test_full_scale_departs_in_nothing_but_assumptions(store: Store) -> None:
    lines = summary.departures(make(load("fig3"), "full", {"seed": [0, 1]}, store))
    assert lines and all(line.startswith("assumed: ") for line in lines)


# What is missing.


def test_what_is_not_there_yet_is_planned_and_blocked_with_the_reason(
    planned: Planner, tiny: Callable[..., Sweep]
) -> None:
    model = {"corpus.kind": "bioR", "corpus.writer.backend": "http"}
    rows = [model, {"corpus.background": UNNAMED}, {"corpus.multi": 2}]
    plan = planned(tiny({"row": tune.grid_search(rows)}))
    assert states(plan) == [
        "blocked: bioR by Qwen/Qwen2.5-7B-Instruct (http) is not written yet: `ktrain generate` does that",
        "blocked: corpus.background=?: name a folder of plain text with corpus.background=FOLDER",
        "planned",
    ]
    assert list(plan.trials()) == [plan.cells[2].stages.pretrain.key]
    assert [p.state for p in plan.stages] == 6 * ["blocked"] + 3 * ["to do"]
    totals = summary.totals(plan)
    assert (totals["cells_blocked"], totals["stages_blocked"], totals["stages_to_do"]) == (2, 6, 3)
    assert totals["tokens"] == totals["tokens_to_do"] + totals["tokens_blocked"]


def test_what_rules_write_is_planned_like_templates(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    plan = planned(tiny({"corpus.kind": tune.grid_search(["bioS", "bioR"])}))
    assert states(plan) == ["planned", "planned"]
    assert summary.departures(plan)[0].startswith("bioR is written by rules, not by a language model")
    assert [cell.key.startswith("bior.rules.single-n60-") for cell in plan.cells] == [False, True]
    # One tokenizer and one way to refuse probes for the same people, whoever writes about them.
    probed = planned(tiny({"corpus.kind": tune.grid_search(["bioS", "bioR"]), "readout.kind": "p_probe"}))
    assert probed.cells[0].refused == probed.cells[1].refused != ()


def test_background_text_is_read_where_it_is_named(
    planned: Planner, tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = tiny({"row": tune.grid_search([{"corpus.background": UNNAMED}, {}])})
    blocked = planned(sweep)
    (tmp_path / "text.txt").write_text("four" * 1000)
    plan = planned(sweep, corpus__background=[str(tmp_path)])
    assert states(plan) == ["planned", "planned"]
    assert plan.cells[0].key != blocked.cells[0].key and plan.cells[1].key == blocked.cells[1].key
    assert plan.stages[0].tokens == blocked.stages[0].tokens + 1000
    with pytest.raises(WrongRequest, match="no such folder"):
        planned(sweep, corpus__background=[str(tmp_path / "nowhere")])


def test_a_stage_of_a_cell_that_can_run_is_not_blocked(planned: Planner, publish: Callable[..., None]) -> None:
    cell = planned().cells[0]
    for stage in cell.stages[:2]:
        publish(stage, recalled=0.5)
    found = {p.stage.key: p.state for p in planned(readout__recall_gate=[0.9, 0.4]).stages}
    low = stages_of(cell.cell.model_copy(update={"readout": cell.cell.readout.model_copy(update={"recall_gate": 0.4})}))
    assert [found[stage.key] for stage in cell.stages] == ["done", "done", "blocked"]
    assert found[low[2].key] == "to do"


# What could not run.


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"corpus.people": [10**9]}, "corpus.people=1000000000: the pools give at most 160000000 different full names"),
        ({"corpus.pools.first_names": [401]}, "first_names"),
        ({"corpus.pools_folder": ["nowhere"]}, "nowhere"),
        ({"corpus.templates_folder": ["nowhere"]}, "nowhere"),
    ],
)
def test_what_could_not_run_is_refused_while_planning(
    tiny: Callable[..., Sweep], store: Store, axes: dict[str, list[object]], told: str
) -> None:
    with pytest.raises(WrongRequest) as caught:
        make(tiny({}), "mini", axes, store)
    assert told in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("axes", "fits"),
    [({}, True), ({"corpus.fullname": [True]}, False), ({"corpus.fullname": [True], "train.context": [256]}, True),
     ({"corpus.fullname": [True], "train.windows": ["cut"]}, True)],
)  # fmt: skip
def test_whole_windows_shorter_than_a_biography_are_refused_while_planning(
    store: Store, axes: dict[str, list[object]], fits: bool
) -> None:
    """The miniature's windows are for pronouns."""
    one = Sweep("one", {"corpus.multi": 2, "train.windows": "whole"})
    if fits:
        assert make(one, "mini", axes, store).cells
        return
    with pytest.raises(
        WrongRequest, match=r"^train\.windows=whole: the longest biography has 1\d\d tokens, train\.cont"
    ):
        make(one, "mini", axes, store)


def test_a_template_with_the_value_before_the_name_is_refused_while_planning(
    tiny: Callable[..., Sweep], store: Store, tmp_path: Path
) -> None:
    shutil.copytree(templates.BUILTIN, tmp_path / "own")
    with (tmp_path / "own" / "major.txt").open("a") as file:
        file.write("In {value}, {name} took a degree.\n")
    with pytest.raises(WrongRequest, match=r"^major\.txt line 53: needs \{name\} or \{name's\} before \{value\}: 'In"):
        make(tiny({}), "mini", {"corpus.templates_folder": [str(tmp_path / "own")]}, store)


@pytest.mark.parametrize(("workers", "field"), [(3, "train.batch=4"), (8, "train.batch=4")])
def test_workers_must_divide_the_batch(tiny: Callable[..., Sweep], store: Store, workers: int, field: str) -> None:
    with pytest.raises(WrongRequest, match=f"workers={workers}: does not divide {field}"):
        make(tiny({}), "mini", {}, store, workers)
    assert len(make(tiny({}), "mini", {}, store, 4).cells) == 1


def test_workers_must_divide_the_batch_of_a_readout_that_trains(tiny: Callable[..., Sweep], store: Store) -> None:
    with pytest.raises(WrongRequest, match=r"workers=4: does not divide readout.batch=6"):
        make(tiny({"readout.batch": 6}), "mini", {}, store, 4)
    mixed = {"readout.batch": 6, "train.qa_ratio": 0.5, "readout.kind": "mixed"}
    assert len(make(tiny(mixed), "mini", {}, store, 4).cells) == 1


# Probes.


@pytest.mark.parametrize(("kind", "batch", "row"), [("p_probe", 50, 88), ("q_probe", 200, 12)])
def test_a_probe_is_eleven_tasks_with_the_papers_hyperparameters(store: Store, kind: str, batch: int, row: int) -> None:
    plan = make(Sweep("one", {"readout.kind": kind}), "full", {}, store)
    assert plan.stages[2].tokens == 30_000 * batch * row * 11
    readout = plan.cells[0].cell.readout
    assert (readout.steps, readout.batch, readout.weight_decay, readout.learning_rate) == (30_000, batch, 0.3, 1e-3)
    assert (readout.decay, readout.final_learning_rate, readout.epsilon, readout.rank_qv) == ("linear", 0.0, 1e-6, 0)
    assert readout.rank_embedding == {"p_probe": 2, "q_probe": 16}[kind]
    assert not plan.refused() and plan.cells[0].state == "planned"
    assert not any(line.startswith("readout.") for line in summary.departures(plan))


def test_probes_of_too_few_people_are_blocked_with_the_numbers(store: Store) -> None:
    plan = make(Sweep("one", {"readout.kind": "q_probe"}), "mini", {"corpus.people": [100]}, store)
    (cell,) = plan.cells
    assert cell.state.startswith("blocked: not enough people: ") and "readout.people_per_class=" in cell.state
    assert len(cell.refused) == len(plan.refused()) == 11 and not plan.trials()
    assert "whole/major: 50 people for 25 classes are 2.0 each" in plan.refused()[8]


def test_only_tasks_with_too_few_people_are_refused(store: Store) -> None:
    """Ten majors have enough people where twenty-five cities have not."""
    grid = {"readout.kind": "q_probe", "readout.people_per_class": 20, "corpus.pools.majors": 10}
    (cell,) = make(Sweep("one", grid), "mini", {"corpus.people": [400]}, store).cells
    assert cell.state == "planned"
    assert "whole/birth_city" in " ".join(cell.refused) and "whole/major" not in " ".join(cell.refused)


@pytest.mark.parametrize(("people", "blocked"), [("minority", True), ("celebrity", False)])
def test_probes_count_the_people_whom_they_learn_from(store: Store, people: str, blocked: bool) -> None:
    """Of 100 people 50 are learned from, of celebrities all 900."""
    grid = {"readout.kind": "q_probe", "corpus.celebrity_fraction": 0.9, "readout.people": people}
    (cell,) = make(Sweep("one", grid), "mini", {"corpus.people": [100]}, store).cells
    assert cell.state.startswith("blocked: not enough people") == blocked == bool(cell.refused)


def test_departures_compare_each_kind_with_the_paper_of_its_kind(store: Store) -> None:
    both = {"readout.kind": tune.grid_search(["qa_finetune", "p_probe"])}
    lines = summary.departures(make(Sweep("one", both), "full", {"readout.steps": [30_000]}, store))
    assert "readout.steps (qa_finetune): the paper has 50000, here 30000" in lines
    assert not any("(p_probe)" in line for line in lines)
    assert any(line.startswith("assumed: P-probes: an EOS before the entry") for line in lines)
    assert not any("Q-probes" in line for line in lines)


# The whole paper.


def test_the_plan_of_the_paper_reads_each_file_once_and_learns_no_tokenizer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand cells must not take a thousand times the work of one."""
    calls: Counter[str] = Counter()

    def counted(module: object, name: str) -> None:
        real = getattr(module, name)

        def call(*values: Any, **options: Any) -> Any:
            calls[name] += 1
            return real(*values, **options)

        monkeypatch.setattr(module, name, call)

    counted(fingerprint, "sha256")
    counted(pools, "load")
    counted(corpora, "tokenizer_of")
    fingerprint._once.cache_clear()
    plan = make(load("paper"), "full", {}, store)
    assert len(plan.cells) == 968 and len({stage.key for cell in plan.cells for stage in cell.stages}) == 1210
    assert 0 < calls["sha256"] <= len([*pools.files(), *templates.files(), *surface_forms.files()])
    assert calls["load"] <= 20 and not calls["tokenizer_of"]
    assert json.dumps(summary.as_json(plan))


def test_a_plan_does_not_wait_for_pytorch() -> None:
    code = (
        "import sys, sweeps.planning.plan, sweeps.show\n"
        + "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ({"train.context": [16]}, r"the longest question has \d+ tokens, train\.context=16; "),
        (
            {"corpus.people": [8], "train.context": [1024]},
            r"all questions together have \d+ tokens, train\.context=1024; ",
        ),
    ],
)
def test_questions_that_cannot_be_packed_are_refused_before_a_run(
    tiny: Callable[..., Sweep], store: Store, axes: dict[str, Any], line: str
) -> None:
    with pytest.raises(WrongRequest, match=rf"^readout\.packed=true: {line}"):
        make(tiny(), "mini", {"readout.packed": [True], **axes}, store)
    assert make(tiny(), "mini", axes, store).cells


def test_an_adaptive_search_draws_on_what_the_store_has(
    planned: Planner, tiny: Callable[..., Sweep], publish: Callable[..., None]
) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -c constraints.txt -e '.[optuna]'")
    drawn = tiny({"train.learning_rate": tune.loguniform(1e-4, 1e-2)})
    searched = replace(drawn, samples=12, searcher="optuna", metric="recall/attribute_tokens")
    first = planned(searched)
    assert (len(first.cells), first.waiting) == (8, 4)
    for number, cell in enumerate(first.cells):
        # One network recalls too little to be read out: a failure, for the searcher.
        publish(cell.stages.pretrain, recalled=0.92 + number / 100 if number else 0.5)
        if number:
            publish(cell.stages.readout)
    then = planned(searched)
    assert (len(then.cells), then.waiting, len(then.trials())) == (12, 0, 4)
    assert [cell.key for cell in then.cells[:8]] == [cell.key for cell in first.cells]
    assert [cell.key for cell in planned(searched).cells] == [cell.key for cell in then.cells]
    assert then.searches[0].cells == 12 and "8 at random, then by Optuna 4 at a time" in str(then.searches[0])
