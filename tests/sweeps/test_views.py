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
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Metric

from analysis.names import ATTRIBUTES, GROUPS
from sweeps import saved_view, views
from sweeps.plan import Plan
from sweeps.saved_view import TAG, Section, View
from sweeps.tracking import Tracker

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


def found(tracker: Tracker, state: Mapping[str, Any]) -> dict[str, Any]:
    """The runs that a view shows, by key, by its own filter and order."""
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    runs = tracker.client.search_runs([tracker.experiment], state["searchFilter"], order_by=[order])
    return {run.data.tags["ktrain.key"]: run for run in runs}


# Which runs, in which rows.


def test_a_view_shows_the_cells_of_the_plan_in_the_rows_of_the_report(tracker: Tracker, plan: Plan) -> None:
    links = prepared(tracker, plan)
    assert list(links) == ["QA finetune (mini)", "QA finetune by axis (mini)"]
    told = states(tracker)
    assert set(told) == set(links)
    for state in told.values():
        assert list(found(tracker, state)) == [cell.key for cell in plan.cells]
    group = told["QA finetune (mini)"]["groupBy"]
    assert group["aggregateFunction"] == "average" and len(group["groupByKeys"]) == 1
    key = group["groupByKeys"][0]
    rows = {cell: run.data.tags[key["groupByData"]] for cell, run in found(tracker, told["QA finetune (mini)"]).items()}
    assert key["mode"] == "tag" and rows == named(plan)
    assert told["QA finetune by axis (mini)"]["groupBy"] is None


def test_a_cell_that_left_the_plan_leaves_the_view_and_comes_back(
    tracker: Tracker, plan: Plan, planned: Planner
) -> None:
    prepared(tracker, plan)
    smaller = planned(plan.sweep, seed=[0])
    for made in (smaller, plan):
        prepared(tracker, made)
        assert set(found(tracker, states(tracker)["QA finetune (mini)"])) == {cell.key for cell in made.cells}


def test_a_row_that_is_named_anew_is_written_anew(tracker: Tracker, plan: Plan) -> None:
    prepared(tracker, plan)
    renamed = {key: f"{row} [corpus.people=60]" for key, row in named(plan).items()}
    views.prepare(tracker.uri, plan, {"": renamed})
    state = states(tracker)["QA finetune (mini)"]
    tag = state["groupBy"]["groupByKeys"][0]["groupByData"]
    assert {key: run.data.tags[tag] for key, run in found(tracker, state).items()} == renamed


def test_figures_of_one_sweep_have_views_of_their_own(tracker: Tracker, plan: Plan) -> None:
    rows = named(plan)
    single = {key: row for key, row in rows.items() if row == "bioS single"}
    links = views.prepare(tracker.uri, plan, {"fig3": rows, "fig 9/b": single})
    assert [link.name for link in links] == [
        "fig3: QA finetune (mini)",
        "fig3: QA finetune by axis (mini)",
        "fig 9/b: QA finetune (mini)",
    ]
    told = states(tracker)
    assert set(found(tracker, told["fig3: QA finetune (mini)"])) == set(rows)
    assert set(found(tracker, told["fig 9/b: QA finetune (mini)"])) == set(single)
    assert all(re.fullmatch(r"[\w.-]+", id) for id in envelopes(tracker))


# Which columns and charts.


def test_bars_are_of_the_metrics_of_the_figure_and_coordinates_of_its_axes(tracker: Tracker, plan: Plan) -> None:
    prepared(tracker, plan)
    told = states(tracker)
    bars, axes = told["QA finetune (mini)"], told["QA finetune by axis (mini)"]
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
    run = tracker.runs()[mixed.stages[1].key].info.run_id
    tracker.client.log_batch(run, metrics=[Metric(views.CURVES[0], 0.1 * step, 0, step) for step in range(5)])
    assert "Mixed training, learning curves" in titles()
    state = states(tracker)["Mixed training, learning curves (mini)"]
    assert set(found(tracker, state)) == {mixed.stages[1].key}
    assert [card["metricKey"] for card in state["compareRunCharts"]] == list(views.CURVES)
    assert {card["type"] for card in state["compareRunCharts"]} == {"LINE"}


@pytest.mark.parametrize("kind", views.GROUPS)
def test_the_largest_view_fits_into_a_tag(kind: str) -> None:
    _, sections = views.GROUPS[kind]
    rows = {f"{k:032x}": f"bioS multi5+permute+fullname [readout.rank_embedding={k}]" for k in range(500)}
    places = (*range(6), "own", *(f"seen-{k}" for k in range(12)))
    recorded = frozenset(f"{kind}/{of}/{place}/{a}" for of in ("a", "b") for place in places for a in ATTRIBUTES)
    axes = ("corpus.multi", "corpus.permute", "corpus.fullname", "readout.rank_qv", "readout.rank_embedding")
    view = View("ktrain-" + kind, "A view", f"ktrain.view.{kind}", rows, axes, sections, recorded)
    assert len(view.tag(1_700_000_000_000)) <= saved_view.LARGEST


def test_a_view_that_does_not_fit_is_refused() -> None:
    rows = {str(k): str((k + 7) ** 50) for k in range(99)}
    with pytest.raises(ValueError, match=r"A view takes \d+ characters, and a tag holds 5000"):
        View("x", "A view", "tag", rows, (), {"a": Section("BAR", ("m",))}).tag(0)


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=20), max_size=5), st.text(max_size=20))
def test_a_state_comes_back_from_its_tag(rows: dict[str, str], name: str) -> None:
    view = View("id", name, "tag", rows, ("a",), {"b": Section("PARALLEL", ("m",), ("a",))})
    envelope = json.loads(view.tag(7))
    assert (envelope["name"], envelope["createdAt"]) == (name, 7)
    assert inflated(envelope) == json.loads(json.dumps(view.state()))


# Written once, and links.


def test_a_second_time_writes_nothing(tracker: Tracker, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    links = prepared(tracker, plan)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("written again")

    for name in ("log_batch", "set_tag", "delete_tag", "set_experiment_tag", "create_experiment"):
        monkeypatch.setattr(MlflowClient, name, refuse)
    assert prepared(tracker, plan) == links and len(links) == 2


def test_the_menu_has_them_in_order_and_views_saved_by_hand_are_left_alone(tracker: Tracker, plan: Plan) -> None:
    mine = View("123", "mine", "tag", {}, (), {"a": Section("BAR", ("m",))}).tag(1)
    tracker.client.set_experiment_tag(tracker.experiment, TAG + "123", mine)
    links = prepared(tracker, plan)
    told = sorted(envelopes(tracker).values(), key=lambda view: -view["createdAt"])
    assert [view["name"] for view in told] == [*links, "mine"]
    assert tracker.client.get_experiment(tracker.experiment).tags[TAG + "123"] == mine
    listed = views.links(tracker.uri)[plan.sweep.name]
    assert [(link.name, link.path) for link in listed] == [(link.name, link.path) for link in links.values()]


def test_a_link_names_the_view_and_the_comparison_names_its_runs(tracker: Tracker, plan: Plan) -> None:
    (link, _) = prepared(tracker, plan).values()
    fragment = urllib.parse.urlsplit(link.path).fragment
    page, query = fragment.split("?")
    assert page == f"/experiments/{tracker.experiment}/runs"
    assert urllib.parse.parse_qs(query)["viewStateShareKey"][0] in envelopes(tracker)
    query = urllib.parse.parse_qs(link.compare.split("?")[1])
    runs = {run.info.run_id for key, run in tracker.runs().items() if key in {cell.key for cell in plan.cells}}
    assert set(json.loads(query["runs"][0])) == runs and json.loads(query["experiments"][0]) == [tracker.experiment]
    pages = link.pages("sqlite:////a/mlflow.db", 5001)
    assert list(pages.values()) == [f"http://127.0.0.1:5001{link.path}", f"http://127.0.0.1:5001{link.compare}"]
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
SEEN = """JSON.stringify({
    text: document.body.innerText,
    runs: [...document.querySelectorAll('.ag-row')].flatMap(e => e.innerText.split('\\n')),
    bars: [...document.querySelectorAll('.js-plotly-plot')].map(e => e.querySelectorAll('.trace.bars .point').length),
    coordinates: [...document.querySelectorAll('.parcoords .label')].map(e => e.textContent),
})"""
"""What a page shows, evaluated in it."""


async def look(browser: str, folder: Path, pages: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """What each page shows as soon as it shows what is waited for, or after a minute, whatever it shows then."""
    process = subprocess.Popen([browser, *FLAGS.split(), f"--user-data-dir={folder}"], stderr=subprocess.DEVNULL)
    try:
        told = folder / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (told.is_file() and told.read_text().count("\n")) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{told.read_text().splitlines()[0]}") as session:
            return {address: await _watched(session, address, until) for address, until in pages.items()}
    finally:
        process.terminate()
        process.wait(30)


async def _watched(session: aiohttp.ClientSession, address: str, until: Callable[[Any], bool]) -> Any:
    async with session.put(f"/json/new?{urllib.parse.quote(address, safe='')}") as answer:
        tab = await answer.json(content_type=None)
    seen: Any = {}
    async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            await devtools.send_json({"id": 1, "method": "Runtime.evaluate", "params": {"expression": SEEN}})
            result = (await devtools.receive_json())["result"]["result"]
            seen = json.loads(result["value"]) if "value" in result else {}
            if seen and until(seen):
                break
            await asyncio.sleep(0.2)
    return seen


@pytest.mark.browser
def test_the_links_open_the_expected_runs_and_charts(
    tmp_path: Path, tracker: Tracker, plan: Plan, serving: Callable[..., AbstractContextManager[object]], port: int
) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    bars, axes = prepared(tracker, plan).values()
    shown: dict[str, Callable[[Any], bool]] = {
        bars.path: lambda page: len(page["bars"]) >= 2,
        axes.path: lambda page: bool(page["coordinates"]),
        bars.compare: lambda page: "Run Name:" in page["text"],
    }
    home = f"http://127.0.0.1:{port}"
    with serving(Path(tracker.uri.removeprefix("sqlite:///")), port):
        pages = asyncio.run(look(browser, tmp_path / "profile", {home + path: until for path, until in shown.items()}))
    settings, coordinates, comparison = pages.values()
    assert "4 matching runs" in settings["text"] and "4 matching runs" in coordinates["text"]
    assert "QA finetune (mini)" in settings["text"] and "qa/exact_match/test/mean" in settings["text"]
    assert [line for line in settings["runs"] if "bioS" in line] == ["Group: bioS single", "Group: bioS multi2"]
    assert settings["bars"][:1] == [2] and {"0.25", "0.75"} <= set(settings["text"].splitlines())
    keys = {cell.key for cell in plan.cells}
    assert "QA finetune by axis (mini)" in coordinates["text"] and keys <= set(coordinates["runs"])
    assert coordinates["coordinates"][:1] == ["corpus.multi"]
    assert "Comparing 4 Runs from 1 Experiment" in comparison["text"]
    assert all(key in comparison["text"] for key in keys)
