"""A kind of readout from a file outside the packages, through plan, trial, MLflow, `results` and the report.

`test_local_ray.py` runs it with workers of Ray.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_kind
from mlflow import MlflowClient
from toy_kind import NAME

from analysis.figures import draw
from analysis.measurements import recorded
from analysis.report import kind_table, table
from ktrain import pipeline, readout_registry
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.model import networks
from ktrain.stages import stages_of
from ktrain.store.open import open_store
from sweeps.planning import grid
from sweeps.planning.plan import Plan, make
from sweeps.tracking.sync import Tracker
from sweeps.tracking.views import prepare


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No kind of a test's own stays registered."""
    yield
    for known in (readout_registry._kinds, readout_registry._sources):
        known.pop(NAME, None)  # type: ignore[attr-defined]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return toy_kind.write(tmp_path)


@pytest.fixture
def done(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Its sweep, run in this process."""
    monkeypatch.setitem(networks.SIZES, "mini", networks.NetworkSize(2, 2, 64))
    store = open_store(tmp_path / "results")
    planned = make(grid.load(str(file)), "mini", {}, store)
    assert [c.state for c in planned.cells] == ["planned"]
    runtime = RuntimeConfig(store=str(tmp_path / "results"), compile=False)
    pipeline.run([c.cell for c in planned.cells], runtime, lambda key, progress: False)
    return make(planned.sweep, "mini", {}, store)


def test_it_is_planned_costed_and_refused_like_any_other(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'p_probe' or 'q_probe'"):
        CellConfig.model_validate({"readout": {"kind": NAME}})
    planned = make(grid.load(str(file)), "mini", {}, open_store(tmp_path / "results"))
    (cell,) = planned.cells
    assert cell.stages.readout.key.startswith("recall-by-attribute-mini-single-n60-")
    (stage,) = [p for p in planned.stages if p.stage.kind == NAME]
    assert stage.tokens > 0 and stage.flops == 0.0 and stage.bytes == 0
    assert stages_of(cell.cell).readout.identity["version"] == 1


def test_it_goes_through_trial_mlflow_results_and_report(done: Plan, database: str) -> None:
    (cell,) = done.cells
    assert cell.state == "done"
    tracker = Tracker.open(database, done.sweep.name)
    tracker.sync(done)
    results = recorded.load_results(database, done.sweep.name, {c.key: c.axes for c in done.cells})
    (measured,) = results.cells
    mean = measured.metrics[f"{NAME}/mean"]
    assert 0.0 <= mean <= 1.0 and measured.n[f"{NAME}/mean"] == 60
    assert [kind.name for kind in results.other_kinds] == [NAME]
    (told,) = json.loads(str(table.render(results, "json")))["cells"]
    assert told["metrics"][f"{NAME}/major"] == measured.metrics[f"{NAME}/major"]
    text = str(table.render(results, "table"))
    assert "Recall by attribute: attribute tokens recalled (%)" in text and f"{100 * mean:.1f}" in text
    assert "QA finetune" not in text
    (sheet,) = kind_table.sheets(results)
    assert sheet.headers[:2] == ("setting", "mean [95 %]")
    (drawing,) = draw.draw_figures(results, question="Which?")
    assert drawing.name == NAME and f"{NAME}/mean" in drawing.csv and "Recall by attribute" in drawing.svg
    (link,) = prepare(database, done, {"": {cell.key: "bioS single"}})
    assert link.name == "Recall by attribute (mini)"


def test_the_papers_kinds_are_described_as_the_analysis_shows_them(database: str, done: Plan) -> None:
    from analysis.measurements.names import GROUPS
    from ktrain.readout.kinds.base import kinds

    titles = {kind.metric_prefix: kind.title for kind in kinds() if kind.name in readout_registry.BUILT_IN}
    assert titles == GROUPS
    tracker = Tracker.open(database, "described")
    tracker.sync(done)
    kept = MlflowClient(database).get_experiment(tracker.experiment).tags["ktrain.readout_kinds"]
    assert [kind["name"] for kind in json.loads(kept)] == [*readout_registry.BUILT_IN, NAME]


def test_another_process_gets_it_by_its_text(file: Path) -> None:
    grid.load(str(file))
    sources = readout_registry.sources()
    assert [source.name for source in sources] == [NAME]
    runtime = RuntimeConfig(readout_kinds=sources)
    program = (
        "import sys; from ktrain import readout_registry; from ktrain.config import CellConfig, RuntimeConfig\n"
        "runtime = RuntimeConfig.model_validate_json(sys.stdin.read())\n"
        "readout_registry.restore(runtime.readout_kinds)\n"
        f"print(CellConfig.model_validate({{'readout': {{'kind': '{NAME}', 'method': 'full'}}}}).readout.kind)\n"
        "assert 'torch' not in sys.modules\n"
    )
    file.unlink()
    words = [sys.executable, "-c", program]
    ended = subprocess.run(words, input=runtime.model_dump_json(), text=True, capture_output=True)
    assert (ended.returncode, ended.stdout) == (0, f"{NAME}\n"), ended.stderr


def test_a_built_in_kind_keeps_its_name() -> None:
    from ktrain.readout.kinds.base import ReadoutKind

    with pytest.raises(ValueError, match="readout kind mixed: is built in"):

        @readout_registry.register
        class Mine(ReadoutKind):
            name = "mixed"
            title = "Mine"
