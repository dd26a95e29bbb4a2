import asyncio
import base64
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from debian_packages import lacking
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Metric

from analysis.measurements.names import ATTRIBUTES, GROUPS
from ktrain.readout.kinds.base import kind_of, kinds
from ktrain.training.progress import Progress
from sweeps.planning.plan import Plan
from sweeps.tracking import saved_view, views
from sweeps.tracking.live_curves import LiveCurves
from sweeps.tracking.saved_view import TAG, SavedView, ViewSection
from sweeps.tracking.sync import Tracker

Planner = Callable[..., Plan]
Publish = Callable[..., None]
SEEDS = [0, 1]


@pytest.fixture
def tracker(database: str, tiny: Callable[..., Any], request: pytest.FixtureRequest) -> Tracker:
    return Tracker.open(database, request.node.name)


@pytest.fixture
def plan(planned: Planner, tiny: Callable[..., Any], publish: Publish, tracker: Tracker, request: Any) -> Plan:
    """Two settings of two seeds, delivered, the last cell not yet done."""
    sweep = tiny(name=request.node.name)
    for cell in planned(sweep, seed=SEEDS).cells[:3]:
        for stage in cell.stages:
            publish(stage, score=0.25 if cell.cell.corpus.multi == 1 else 0.75)
    made = planned(sweep, seed=SEEDS)
    tracker.sync(made)
    return made


def named(plan: Plan) -> dict[str, str]:
    """A row for each cell, as the report names them."""
    return {
        c.key: f"bioS {'single' if c.cell.corpus.multi == 1 else f'multi{c.cell.corpus.multi}'}" for c in plan.cells
    }


def prepared(tracker: Tracker, plan: Plan) -> dict[str, views.Link]:
    return {link.name: link for link in views.prepare(tracker.uri, plan, {"": named(plan)})}


def envelopes(tracker: Tracker) -> dict[str, dict[str, Any]]:
    """What MLflow keeps of the views, by id."""
    tags = tracker.client.get_experiment(tracker.experiment).tags
    return {key.removeprefix(TAG): json.loads(text) for key, text in tags.items() if key.startswith(TAG)}


def inflated(envelope: Mapping[str, Any]) -> dict[str, Any]:
    text = zlib.decompress(base64.b64decode(envelope["state"].removeprefix("deflate;")))
    return dict(json.loads(text))


def states(tracker: Tracker) -> dict[str, dict[str, Any]]:
    return {envelope["name"]: inflated(envelope) for envelope in envelopes(tracker).values()}


def shown_runs(tracker: Tracker, state: Mapping[str, Any]) -> dict[str, Any]:
    """The runs that a view shows, by key, by its own filter and order."""
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    runs = tracker.client.search_runs([tracker.experiment], state["searchFilter"], order_by=[order])
    return {run.data.tags["ktrain.key"]: run for run in runs}


# Which runs, in which rows.


def test_a_view_shows_the_cells_of_the_plan_in_the_rows_of_the_report(tracker: Tracker, plan: Plan) -> None:
    links = prepared(tracker, plan)
    assert list(links) == ["QA finetune (mini)", "QA finetune, settings side by side (mini)"]
    saved = states(tracker)
    assert set(saved) == set(links)
    for state in saved.values():
        assert list(shown_runs(tracker, state)) == [cell.key for cell in plan.cells]
    group = saved["QA finetune (mini)"]["groupBy"]
    assert group["aggregateFunction"] == "average" and len(group["groupByKeys"]) == 1
    key = group["groupByKeys"][0]
    rows = {
        cell: run.data.tags[key["groupByData"]]
        for cell, run in shown_runs(tracker, saved["QA finetune (mini)"]).items()
    }
    assert key["mode"] == "tag" and rows == named(plan)
    assert saved["QA finetune, settings side by side (mini)"]["groupBy"] is None


def test_a_cell_that_left_the_plan_leaves_the_view_and_comes_back(
    tracker: Tracker, plan: Plan, planned: Planner
) -> None:
    prepared(tracker, plan)
    smaller = planned(plan.sweep, seed=[0])
    for made in (smaller, plan):
        prepared(tracker, made)
        assert set(shown_runs(tracker, states(tracker)["QA finetune (mini)"])) == {cell.key for cell in made.cells}


def test_a_row_that_is_named_anew_is_written_anew(tracker: Tracker, plan: Plan) -> None:
    prepared(tracker, plan)
    renamed = {key: f"{row} [corpus.people=60]" for key, row in named(plan).items()}
    views.prepare(tracker.uri, plan, {"": renamed})
    state = states(tracker)["QA finetune (mini)"]
    tag = state["groupBy"]["groupByKeys"][0]["groupByData"]
    assert {key: run.data.tags[tag] for key, run in shown_runs(tracker, state).items()} == renamed


def test_figures_of_one_sweep_have_views_of_their_own(tracker: Tracker, plan: Plan) -> None:
    rows = named(plan)
    single = {key: row for key, row in rows.items() if row == "bioS single"}
    links = views.prepare(tracker.uri, plan, {"fig3": rows, "fig 9/b": single})
    assert [link.name for link in links] == [
        "fig3: QA finetune (mini)",
        "fig3: QA finetune, settings side by side (mini)",
        "fig 9/b: QA finetune (mini)",
    ]
    saved = states(tracker)
    assert set(shown_runs(tracker, saved["fig3: QA finetune (mini)"])) == set(rows)
    assert set(shown_runs(tracker, saved["fig 9/b: QA finetune (mini)"])) == set(single)
    assert all(re.fullmatch(r"[\w.-]+", id) for id in envelopes(tracker))


# Which columns and charts.


def test_bars_are_of_the_metrics_of_the_figure_and_coordinates_of_its_axes(tracker: Tracker, plan: Plan) -> None:
    prepared(tracker, plan)
    saved = states(tracker)
    bars, axes = saved["QA finetune (mini)"], saved["QA finetune, settings side by side (mini)"]
    metrics = [card["metricKey"] for card in bars["compareRunCharts"]]
    assert metrics[:7] == [f"qa/exact_match/test/{column}" for column in ("mean", *ATTRIBUTES)]
    assert {card["type"] for card in bars["compareRunCharts"]} == {"BAR"}
    (card,) = axes["compareRunCharts"]
    assert card["type"] == "PARALLEL" and card["selectedParams"] == ["corpus.multi"]
    assert card["selectedMetrics"] == ["qa/exact_match/test/mean"]
    columns = axes["selectedColumns"]
    assert columns == [
        "params.`corpus.multi`",
        "params.`seed`",
        "metrics.`qa/exact_match/test/mean`",
        "tags.`ktrain.state`",
    ]
    assert axes["columnOrder"] == ["attributes.`Run Name`", *columns] == list(axes["columnWidths"])


def test_every_card_has_its_section_and_what_else_is_recorded_stays_closed(tracker: Tracker, plan: Plan) -> None:
    prepared(tracker, plan)
    state = states(tracker)["QA finetune (mini)"]
    opened = {s["uuid"] for s in state["compareRunSections"] if s["display"]}
    closed = {s["uuid"] for s in state["compareRunSections"] if not s["display"]}
    assert {card["metricSectionId"] for card in state["compareRunCharts"]} == opened
    assert closed == {"baseline/test", "corpus", "speed", "train"}
    ids = [card["uuid"] for card in state["compareRunCharts"]]
    assert len(ids) == len(set(ids)) and state["isAccordionReordered"]


def test_each_kind_of_readout_has_a_view_and_curves_where_there_are_some(
    tracker: Tracker, plan: Plan, planned: Planner, tiny: Callable[..., Any], publish: Publish
) -> None:
    kinds = [{"readout.kind": kind} for kind in ("qa_finetune", "p_probe", "q_probe")]
    kinds.append({"readout.kind": "mixed", "train.qa_ratio": 0.5})
    sweep = tiny({"of": {"grid_search": kinds}}, name=plan.sweep.name)
    mixed = planned(sweep).cells[-1]
    for stage in mixed.stages:
        publish(stage)
    made = planned(sweep)
    tracker.sync(made)
    rows = {cell.key: "bioS single" for cell in made.cells}

    def titles() -> list[str]:
        return [link.name.removesuffix(" (mini)") for link in views.prepare(tracker.uri, made, {"": rows})]

    assert sorted(titles()) == sorted(GROUPS.values())
    run = tracker.runs()[mixed.stages.pretrain.key].info.run_id
    tracker.client.log_batch(run, metrics=[Metric(views.CURVES[0], 0.1 * step, 0, step) for step in range(5)])
    assert "Mixed training, learning curves" in titles()
    state = states(tracker)["Mixed training, learning curves (mini)"]
    assert set(shown_runs(tracker, state)) == {mixed.stages.pretrain.key}
    assert [card["metricKey"] for card in state["compareRunCharts"]] == list(views.CURVES)
    assert {card["type"] for card in state["compareRunCharts"]} == {"LINE"}


@pytest.mark.parametrize("kind", [kind.name for kind in kinds()])
def test_the_largest_view_fits_into_a_tag(kind: str) -> None:
    sections = views.bar_charts(kind_of(kind))
    rows = {f"{k:032x}": f"bioS multi5+permute+fullname [readout.rank_embedding={k}]" for k in range(500)}
    places = (*range(6), "own", *(f"seen-{k}" for k in range(12)))
    recorded = frozenset(f"{kind}/{of}/{place}/{a}" for of in ("a", "b") for place in places for a in ATTRIBUTES)
    axes = ("corpus.multi", "corpus.permute", "corpus.fullname", "readout.rank_qv", "readout.rank_embedding")
    view = SavedView("ktrain-" + kind, "A view", f"ktrain.view.{kind}", rows, axes, sections, recorded)
    assert len(view.tag(1_700_000_000_000)) <= saved_view.LARGEST


def test_a_view_that_does_not_fit_is_refused() -> None:
    rows = {str(k): str((k + 7) ** 50) for k in range(99)}
    with pytest.raises(ValueError, match=r"A view takes \d+ characters, and a tag holds 5000"):
        SavedView("x", "A view", "tag", rows, (), {"a": ViewSection("BAR", ("m",))}).tag(0)


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=20), max_size=5), st.text(max_size=20))
def test_a_state_comes_back_from_its_tag(rows: dict[str, str], name: str) -> None:
    view = SavedView("id", name, "tag", rows, ("a",), {"b": ViewSection("PARALLEL", ("m",), ("a",))})
    envelope = json.loads(view.tag(7))
    assert (envelope["name"], envelope["createdAt"]) == (name, 7)
    assert inflated(envelope) == json.loads(json.dumps(view.state()))


def test_the_pinned_mlflow_reads_every_field_that_a_view_has() -> None:
    """A view is MLflow's private format. When a new version fails here, save a view by hand and compare the fields."""
    import mlflow

    sections = {"a": ViewSection("BAR", ("m",)), "b": ViewSection("PARALLEL", ("m",), ("a",))}
    states = [SavedView("id", "A view", "tag", {"run": "row"}, ("a",), {k: sections[k]}).state() for k in sections]
    written = {"createdAt", "updatedAt", TAG.rstrip("."), "deflate;", "viewStateShareKey", "compareRunsMode"}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            written.update(name for name in value if name.isidentifier())
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(inner)

    collect(states)
    scripts = Path(mlflow.__file__).parent.glob("server/js/build/static/js/*.js")
    page = "".join(path.read_text(errors="replace") for path in scripts)
    assert len(written) > 40 and not [name for name in sorted(written) if name not in page]


# Written once, and links.


def test_a_second_time_writes_nothing(tracker: Tracker, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    links = prepared(tracker, plan)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("written again")

    for name in ("log_batch", "set_tag", "delete_tag", "set_experiment_tag", "create_experiment"):
        monkeypatch.setattr(MlflowClient, name, refuse)
    assert prepared(tracker, plan) == links and len(links) == 2


def test_the_menu_has_them_in_order_and_views_saved_by_hand_are_left_alone(tracker: Tracker, plan: Plan) -> None:
    mine = SavedView("123", "mine", "tag", {}, (), {"a": ViewSection("BAR", ("m",))}).tag(1)
    tracker.client.set_experiment_tag(tracker.experiment, TAG + "123", mine)
    links = prepared(tracker, plan)
    saved = sorted(envelopes(tracker).values(), key=lambda view: -view["createdAt"])
    assert [view["name"] for view in saved] == [*links, "mine"]
    assert tracker.client.get_experiment(tracker.experiment).tags[TAG + "123"] == mine
    listed = views.links(tracker.uri)[plan.sweep.name]
    assert listed[0] == views.Link(
        "all runs", f"/#/experiments/{tracker.experiment}/runs?workflowType=machine_learning"
    )
    assert listed[1:] == tuple(links.values())


def test_a_link_names_the_view(tracker: Tracker, plan: Plan) -> None:
    (link, _) = prepared(tracker, plan).values()
    fragment = urllib.parse.urlsplit(link.path).fragment
    page, query = fragment.split("?")
    assert page == f"/experiments/{tracker.experiment}/runs"
    assert urllib.parse.parse_qs(query)["viewStateShareKey"][0] in envelopes(tracker)
    assert link.pages("sqlite:////a/mlflow.db", 5001) == {link.name: f"http://127.0.0.1:5001{link.path}"}
    assert link.line("http://example.org:8/").endswith(f" http://example.org:8{link.path}")


def test_a_server_that_fails_costs_a_warning_and_the_links(
    tracker: Tracker, plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("gone\nfor good")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", gone)
    assert prepared(tracker, plan) == {}
    assert [record.message for record in caplog.records] == ["no comparison views: gone"]


def test_a_server_that_is_not_there_costs_the_same(plan: Plan, port: int, caplog: pytest.LogCaptureFixture) -> None:
    assert views.prepare(f"http://127.0.0.1:{port}", plan, {"": named(plan)}) == ()
    (record,) = (record for record in caplog.records if record.name == "ktrain.views")
    assert record.message.startswith("no comparison views: ") and len(record.message.splitlines()) == 1


# In a browser.

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --remote-debugging-port=0 --window-size=1400,1800"""
SHOWN = """JSON.stringify({
    text: document.body.innerText,
    runs: [...document.querySelectorAll('.ag-row')].flatMap(e => e.innerText.split('\\n')),
    bars: [...document.querySelectorAll('.js-plotly-plot')].map(e => e.querySelectorAll('.trace.bars .point').length),
    lines: [...document.querySelectorAll('.js-plotly-plot')].map(e => e.querySelectorAll('.scatter path.point').length),
    coordinates: [...document.querySelectorAll('.parcoords .label')].map(e => e.textContent),
})"""
"""What a page shows, evaluated in it."""


async def look(browser: str, folder: Path, pages: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """What each page shows as soon as it shows what is waited for, or after a minute, whatever it shows then."""
    process = subprocess.Popen([browser, *FLAGS.split(), f"--user-data-dir={folder}"], stderr=subprocess.DEVNULL)
    try:
        port_file = folder / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (port_file.is_file() and port_file.read_text().count("\n")) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}") as session:
            return {address: await _watched(session, address, until) for address, until in pages.items()}
    finally:
        process.terminate()
        process.wait(30)


async def _watched(session: aiohttp.ClientSession, address: str, until: Callable[[Any], bool]) -> Any:
    async with session.put(f"/json/new?{urllib.parse.quote(address, safe='')}") as answer:
        tab = await answer.json(content_type=None)
    shown: Any = {}
    async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            await devtools.send_json({"id": 1, "method": "Runtime.evaluate", "params": {"expression": SHOWN}})
            result = (await devtools.receive_json())["result"]["result"]
            shown = json.loads(result["value"]) if "value" in result else {}
            if shown and until(shown):
                break
            await asyncio.sleep(0.2)
    return shown


@pytest.mark.browser
def test_the_links_open_the_expected_runs_and_charts(
    tmp_path: Path, tracker: Tracker, plan: Plan, serving: Callable[..., AbstractContextManager[object]], port: int
) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        pytest.skip(lacking(f"none of {', '.join(BROWSERS)} is installed", "chromium"))
    bars, axes = prepared(tracker, plan).values()
    training = plan.cells[3].stages.pretrain
    live = LiveCurves(tracker, plan)
    for step in range(1, 41):
        live.add(training.key, Progress(step, 60, 8.0 / step, 1e-3, 9 * step, step / 10))
    live.send()
    run = tracker.runs()[training.key].info.run_id
    shown: dict[str, Callable[[Any], bool]] = {
        bars.path: lambda page: len(page["bars"]) >= 2,
        axes.path: lambda page: bool(page["coordinates"]),
        saved_view.runs_path(tracker.experiment): lambda page: "matching runs" in page["text"] and page["runs"],
        f"/#/experiments/{tracker.experiment}/runs/{run}/model-metrics": lambda page: page["lines"] == [40, 40],
    }
    home = f"http://127.0.0.1:{port}"
    with serving(Path(tracker.uri.removeprefix("sqlite:///")), port):
        pages = asyncio.run(look(browser, tmp_path / "profile", {home + path: until for path, until in shown.items()}))
    settings, coordinates, everything, curve = pages.values()
    assert "4 matching runs" in settings["text"] and "4 matching runs" in coordinates["text"]
    assert "QA finetune (mini)" in settings["text"] and "qa/exact_match/test/mean" in settings["text"]
    assert [line for line in settings["runs"] if "bioS" in line] == ["Group: bioS single", "Group: bioS multi2"]
    assert settings["bars"][:1] == [2] and {"0.25", "0.75"} <= set(settings["text"].splitlines())
    keys = {cell.key for cell in plan.cells}
    assert "QA finetune, settings side by side (mini)" in coordinates["text"] and keys <= set(coordinates["runs"])
    assert coordinates["coordinates"] == ["corpus.multi", "qa/exact_match/test/mean"]
    # Stages are folded into their cells, one that trains among them.
    assert {line for line in everything["runs"] if line in keys or " · " in line} == keys
    assert "Model registry" in everything["text"] and "Sessions" not in everything["text"]
    assert "pretrain · bioS multi2 · s1" in curve["text"] and curve["lines"] == [40, 40]
