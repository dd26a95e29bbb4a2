import html
import io
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from head import Head
from level import gap
from mlflow import MlflowClient

import ktrain
from analysis.claims import claim_file
from analysis.claims.selection import WRITTEN
from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.store.open import open_store
from ktrain.system import retry
from sweeps import cli, report
from sweeps.execution.ray_session import Interrupted
from sweeps.planning.axes import AXES
from sweeps.planning.grid import load
from sweeps.planning.plan import Plan, make
from sweeps.tracking import local_port
from sweeps.tracking.address import default_uri
from sweeps.tracking.sync import Tracker

Run = Callable[..., tuple[int, str, str]]
FILE = """
from ray import tune
from sweeps import Sweep

sweep = Sweep(
    name="tiny",
    figure="fig3",
    grid={
        "corpus.multi": tune.grid_search([1, 2]),
        "corpus.people": 60,
        "corpus.tokenizer": "bpe-600",
        "train.steps": 60,
        "train.warmup": 10,
        "train.batch": 4,
        "train.context": 64,
        "train.windows": "cut",
        "readout.steps": 20,
        "readout.batch": 8,
    },
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a sweep of the user's own."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "tiny.py").write_text(FILE)
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs one command in this process: exit code, standard output, standard error. Ray must not start."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("COLUMNS", "200")
    environment, handlers = dict(os.environ), logging.root.handlers[:]

    def command(*words: str) -> tuple[int, str, str]:
        # As in a process of its own, where nobody has set up logging yet.
        logging.root.handlers = []
        try:
            code = cli.main(words)
        finally:
            logging.root.handlers = handlers
        return code, *capfd.readouterr()

    yield command
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def done(folder: Path, database: str, publish: Callable[..., None], store: Store) -> Plan:
    """The user's sweep with its first cell done, in the store and in its database."""
    assert store.root == folder.parent / "results"
    plan = make(load("tiny.py"), "mini", {}, store)
    for stage in plan.cells[0].stages:
        publish(stage, recalled=0.98)
    (store.root / "mlflow.db").write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    plan = make(load("tiny.py"), "mini", {}, store)
    Tracker.open(default_uri(store), "tiny").sync(plan)
    return plan


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Wrong requests.

WRONG = {
    "unknown axis": ("run demo corpus.mutli=2", "axis corpus.mutli: no such axis; did you mean corpus.multi?"),
    "wrong type": ("run demo corpus.multi=many", "corpus.multi=many: must be a valid integer"),
    "out of range": ("run demo corpus.multi=0", "corpus.multi=0: must be greater than or equal to 1"),
    "not a number": ("run demo train.learning_rate=nan", "train.learning_rate=nan"),
    "more people than names": ("run demo corpus.people=999999999", "corpus.people=999999999: the pools give at most"),
    "QA ratio without questions": (
        "run demo train.qa_ratio=0.5 corpus.question_share=0",
        "train.qa_ratio=0.5: corpus.question_share leaves no question",
    ),
    "asks what was never asked": ("run demo readout.kind=mixed", "readout.kind=mixed: needs train.qa_ratio > 0"),
    "unwritable store": ("run tiny.py --store tiny.py/results", "store=tiny.py/results: not writable: "),
    "read-only store": ("run tiny.py --store /proc/results", "store=/proc/results: not writable: "),
    "store that is a file": ("run tiny.py --store tiny.py", "store=tiny.py: is a file, where a folder must be"),
    "unwritable store of a report": ("report tiny.py --store tiny.py/results", "not writable"),
    "store elsewhere": ("run demo --store hdfs://host/results", "store=hdfs://host/results: must be a folder or"),
    "file that raises": ("run raises.py", "sweep raises.py: the file raises ZeroDivisionError in line 2: "),
    "file that leaves": ("run leaves.py", "sweep leaves.py: the file raises SystemExit in line 2: 0"),
    "file without a sweep": ("plan empty.py", "sweep empty.py: the file defines no `sweep = Sweep(...)`"),
    "no such file": ("run nowhere.py", "sweep nowhere.py: no such sweep or file; there are bior, claims, demo, fig1, "),
    "no such sweep": ("status figg3", "did you mean fig3?"),
    "figure without data": ("plan fig4", "sweep fig4: Figure 4 is an illustration without data; there are bior"),
    "no such GPU": ("plan demo --gpu h10", "gpu=h10: must be one of h100, "),
    "no GPUs": ("plan demo --gpus 0", "gpus=0: must be at least 1"),
    "no price": ("plan demo --price-per-gpu-hour -1", "price-per-gpu-hour=-1: must be above 0"),
    "no speed": ("plan demo --tokens-per-second 0", "tokens-per-second=0: must be above 0"),
    "background that is not there": ("plan fig8 corpus.background=nowhere", "/nowhere: no such folder"),
    "no such scale": ("plan demo --scale huge", "scale=huge: must be one of mini, small, medium, full"),
    "no such scale to measure": ("bench train --scale huge", "scale=huge"),
    "no such command": ("pln demo", "command=pln: must be one of plan, run, "),
    "a command almost typed": ("reslts demo", "bench, cluster; did you mean results?"),
    "no command of a group": ("cluster", "cluster: must be followed by one of check"),
    "no such command of a group": ("cluster chekc", "command=chekc: must be one of check; did you mean check?"),
    "no sweep": ("run", "sweep: is missing: A sweep of this project, such as demo or fig3"),
    "no such option": ("run demo --fast", "--fast: run has no such option"),
    "an option almost typed": ("run demo --worker 2", "--worker: run has no such option; did you mean --workers?"),
    "no such option of all": ("--verison", "--verison: ktrain has no such option; did you mean --version?"),
    "an option's value": ("run demo --workers two", "workers=two: must be a valid integer\n"),
    "an option without a value": ("run demo --scale", "--scale: needs a value: mini, small, medium or full"),
    "a flag with a value": ("plan demo --json=yes", "--json: takes no value"),
    "a word too many": ("ui demo", "ui: got unexpected extra argument"),
    "no value": ("plan demo seed=", "seed=: an axis is set as axis=v1,v2"),
    "no axis": ("plan demo seed", "seed: an axis is set as axis=v1,v2"),
    "no workers": ("run demo --workers 0", "workers=0"),
    "no threads": ("run demo --threads 0", "threads=0"),
    "workers that divide no batch": ("run demo --workers 4", "workers=4: does not divide train.batch="),
    "no time between resume points": ("run demo --checkpoint-seconds 0", "checkpoint-seconds=0: must be above 0"),
    "no number of seconds": ("run demo --checkpoint-seconds nan", "checkpoint-seconds=nan: must be above 0"),
    "more threads than any machine has": ("run demo --threads 99999999", "threads=99999999: must be workers at most "),
    "endless time between resume points": (
        "run demo --checkpoint-seconds inf",
        "checkpoint-seconds=inf: must be above",
    ),
    "GPUs below none": ("run demo --gpus-max -1", "gpus-max=-1: must be at least 0"),
    "no number of GiB": ("run demo --gpu-memory nan", "gpu-memory=nan: must be above 0"),
    "more GPUs than there are": (f"plan demo --gpus {'9' * 400}", "9...9999"),
    "no such port": ("ui --port 99999", "port=99999: must be from 1 to 65535"),
    "an axis twice": ("plan demo seed=0 seed=1", "several values are one word, seed=0,1"),
    "more cells than anybody means": (f"plan demo seed={','.join(map(str, range(60_000)))}", "--many-cells allows it"),
    "several settings": ("show people seed=0,1", "show takes one setting"),
    "nothing to show": ("show people -n 0", "n from 1"),
    "a step after the last": ("show window --step 9999999", "step below"),
    "a thing that is not shown": (
        "show entry",
        "what=entry: must be one of people, entries, questions, ",
    ),
    "no such format": (
        "results demo --format jsn",
        "format=jsn: must be one of table, csv, json, parquet; did you mean js",
    ),
    "unwritable output": (
        "results tiny.py --output tiny.py/out.csv --format csv",
        "output=tiny.py/out.csv: not writable",
    ),
    "nothing to look at": ("ui --store nowhere", "store=nowhere: no results there yet"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_costs_one_line_and_leaves_nothing(run: Run, folder: Path, name: str) -> None:
    (folder / "raises.py").write_text("x = 0\ny = 1 / x\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "empty.py").write_text("x = 0\n")
    before = contents(folder)
    words, told = WRONG[name]
    code, out, error = run(*words.split())
    assert code == 2 and out == ""
    assert error.startswith("ktrain: ") and error.endswith("\n") and len(error.splitlines()) == 1
    assert told in error and "Traceback" not in error
    assert contents(folder) == before


@pytest.mark.parametrize("command", ["run", "results", "report"])
def test_a_tracking_server_that_does_not_answer_costs_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    begin = time.monotonic()
    code, out, error = run(command, "tiny.py")
    assert time.monotonic() - begin < 20
    assert code == 2 and out == ""
    assert error.startswith(f"ktrain: MLFLOW_TRACKING_URI={uri}: does not answer: ") and len(error.splitlines()) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001", "head"])
def test_an_address_without_ray_costs_one_line_before_mlflow_hears_of_the_sweep(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    code, out, error = run("run", "tiny.py")
    assert (code, out) == (2, "") and error.startswith(f"ktrain: RAY_ADDRESS={address}")
    assert len(error.splitlines()) == 1 and not list(folder.rglob("mlflow.db"))


@pytest.mark.parametrize("command", ["run", "results", "report"])
def test_a_login_that_is_refused_costs_one_line_before_any_compute(
    run: Run, head: Head, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name, value in {**head.login, "MLFLOW_TRACKING_PASSWORD": "wrong"}.items():
        monkeypatch.setenv(name, value)
    code, out, error = run(command, "tiny.py")
    assert (code, out) == (2, "") and len(error.splitlines()) == 1
    assert error.startswith(f"ktrain: MLFLOW_TRACKING_URI={head.uri}: refuses MLFLOW_TRACKING_USERNAME=admin; ")


def test_a_finished_sweep_goes_to_the_server_of_the_head(
    run: Run, head: Head, monkeypatch: pytest.MonkeyPatch, done: Plan, publish: Callable[..., None]
) -> None:
    for stage in done.cells[1].stages:
        publish(stage, recalled=0.98)
    for name, value in head.login.items():
        monkeypatch.setenv(name, value)
    code, out, error = run("run", "tiny.py", "--store", "../results")
    assert (code, error) == (0, "") and "bioS multi2" in out
    links = [line.rpartition(" ")[2] for line in out.splitlines() if "(mini)" in line]
    assert len(links) == 2 and all(link.startswith(f"{head.uri}/#/experiments/") for link in links)
    assert f"MLflow  {head.uri}\n" in out
    page = html.unescape((done.store.root / "reports" / "tiny" / "report.html").read_text())
    assert all(f'<a href="{link}">' in page for link in links)
    code, out, error = run("ui")
    assert (code, error) == (0, "") and out.startswith(f"MLflow is served at {head.uri}\ntiny\n")
    assert all(link in out for link in links)
    with head.postgres.connect(head.database) as connection:
        assert gap(connection, make(load("tiny.py"), "mini", {}, done.store)) == []


def test_a_process_of_its_own_says_no_more(folder: Path) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{closed_port()}"}
    command = [sys.executable, "-m", "sweeps.cli", "run", "tiny.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("ktrain: MLFLOW_TRACKING_URI=")


def test_an_error_of_ours_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise KeyError("ours")

    monkeypatch.setattr("sweeps.planning.grid.load", broken)
    with pytest.raises(KeyError, match="ours"):
        run("plan", "demo")


def test_ctrl_c_is_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweeps.planning.grid.load", stopped)
    code, out, error = run("plan", "demo")
    assert (code, out) == (130, "") and "stopped" in error and len(error.splitlines()) == 1


# A store in object storage.


@pytest.fixture
def away(s3: str, done: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of `done`, in object storage, with its database as the tracking server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_uri(store))
    monkeypatch.setenv("KTRAIN_STORE", s3)
    there = open_store(s3)
    for key in store.complete():
        about, files = store.manifest(key), store.fetch(key)
        there.publish_files(Stage(about["kind"], key, about["config"]), {name: files / name for name in about["files"]})
    return there


def test_every_command_reads_object_storage(run: Run, away: Store, done: Plan, folder: Path) -> None:
    before = contents(folder)
    assert run("status", "tiny.py")[:2] == run("status", "tiny.py", "--store", "../results")[:2]
    told, local = (json.loads(run("plan", "tiny.py", "--json", *words)[1]) for words in ((), ("--store", "../results")))
    assert told == local and [cell["state"] for cell in told["cells"]] == ["done", "planned"]
    key = done.cells[0].stages.pretrain.key
    why = ("why", key, "--sweep", "tiny.py", "--json")
    assert json.loads(run(*why)[1]) == json.loads(run(*why, "--store", "../results")[1])
    assert contents(folder) == before
    found = json.loads(run("results", "tiny.py", "--format", "json")[1])["cells"]
    assert found[0]["metrics"]["qa/exact_match/test/mean"] == 0.75
    code, out, error = run("report", "tiny.py")
    assert (code, error) == (0, "") and "75.0" in out
    assert (folder / "results" / "reports" / "tiny" / "report.html").read_text().startswith("<!")


def test_what_is_done_already_is_told_to_the_tracking_server(run: Run, away: Store, done: Plan) -> None:
    tracker = Tracker.open(os.environ["MLFLOW_TRACKING_URI"], "elsewhere")
    plan = make(load("tiny.py"), "mini", {}, away)
    tracker.sync(plan)
    runs = tracker.runs()
    assert len(runs) == 5
    stages = json.loads(runs[done.cells[0].key].data.tags["ktrain.stages"])
    assert stages["pretrain"].startswith(f"{away.address}/data/{done.cells[0].stages.pretrain.key}~")
    history = tracker.client.get_metric_history(runs[done.cells[0].stages.pretrain.key].info.run_id, "train/loss")
    assert [point.value for point in history] == [3.0, 1.5, 1.0, 0.75]


def test_object_storage_needs_a_tracking_server_and_an_answer(
    run: Run, away: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: str) -> str:
        code, out, error = run(*words)
        assert (code, out) == (2, "") and len(error.splitlines()) == 1
        return error

    with monkeypatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI")
        for words in (("run", "tiny.py"), ("results", "tiny.py"), ("report", "tiny.py"), ("ui",)):
            told = f"ktrain: store={away.address}: set MLFLOW_TRACKING_URI to a tracking server"
            assert refused(*words).startswith(told)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    for command in ("plan", "status", "run", "results", "report"):
        told = f"ktrain: store={away.address}: does not answer (HTTP error: "
        assert refused(command, "tiny.py").startswith(told)


def test_a_report_is_written_with_credentials_that_only_read(run: Run, away: Store, proxy: Any) -> None:
    proxy.before = lambda method, *_: None if method == "GET" else 403
    code, out, error = run("report", "tiny.py")
    assert (code, error) == (0, "") and "75.0" in out


def test_object_storage_that_goes_away_ends_in_one_line(
    run: Run, away: Store, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 0.2)
    proxy.before = lambda method, path, _: 503 if "prefix=" in path and "stages" in path else None
    code, out, error = run("plan", "tiny.py")
    assert (code, out) == (1, "")
    *_, last = error.splitlines()
    assert "listing stages: 503 Service Unavailable Fault, tried for" in last and last.endswith("what is done is kept")
    assert "Traceback" not in error


# What a command says.


def test_help_lists_every_command_under_its_heading(run: Run) -> None:
    code, out, error = run("--help")
    assert (code, error) == (0, "") and run() == run("-h") == (code, out, error)
    headings = [*cli.COMMANDS, "Options"]
    starts = {heading: out.index(f" {heading} ─") for heading in headings}
    for heading, handlers in cli.COMMANDS.items():
        panel = out[starts[heading] :].partition("╰")[0]
        assert all(f"│ {name} " in panel for name in handlers)
    assert not any(f"│ {alias} " in out for alias in cli.ALIASES)


@pytest.mark.parametrize("name", [*(name for names in cli.COMMANDS.values() for name in names), *cli.ALIASES])
def test_every_command_has_help_of_one_sentence(run: Run, name: str) -> None:
    code, out, error = run(name, "--help")
    assert (code, error) == (0, "") and out.split()[:3] == ["Usage:", "ktrain", name]
    sentence = " ".join(out.partition("╭")[0].split("\n", 2)[2].split())
    assert sentence.endswith(".") and sentence.count(". ") == 0


def test_the_cluster_group_has_help(run: Run) -> None:
    for words in (("cluster", "--help"), ("cluster", "check", "--help")):
        code, out, error = run(*words)
        assert (code, error) == (0, "") and "before anything is billed" in out


def test_former_names_of_commands_go_on_working(run: Run) -> None:
    for former, name in (("write", "generate"), ("drain-watch", "watch-preemption")):
        assert run(former, "--every") == (2, "", run(name, "--every")[2].replace(name, former))
    assert run("write", "demo") == run("generate", "demo")
    refusal = "ktrain: every=0: must be above 0 and below 60 seconds\n"
    assert run("drain-watch", "--every", "0") == run("watch-preemption", "--every", "0") == (2, "", refusal)


def test_the_version(run: Run) -> None:
    assert run("--version") == (0, f"ktrain {ktrain.__version__}\n", "")


def completed(words: str, folder: Path) -> list[str]:
    """What a shell offers to complete a command line with."""
    count = len(words.split(" ")) - 1
    asked = {"_KTRAIN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.cli"], env=os.environ | asked, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and not done.stderr
    return done.stdout.split()


def test_a_shell_completes_commands_options_sweeps_axes_and_scales(folder: Path) -> None:
    assert completed("ktrain pl", folder) == ["plan"]
    assert completed("ktrain plan dem", folder) == ["demo"]
    assert completed("ktrain plan demo corpus.mul", folder) == ["corpus.multi="]
    assert completed("ktrain run demo --scale s", folder) == ["small"]
    assert completed("ktrain run demo --no-c", folder) == ["--no-compile"]
    assert completed("ktrain results demo --format p", folder) == ["parquet"]


def test_the_script_of_the_completion_is_printed(folder: Path) -> None:
    shell = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "sweeps.cli", "--show-completion", "bash"]
    done = subprocess.run(command, env=shell, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "_KTRAIN_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["plan", "demo"], ["status", "demo"]])
def test_help_and_plans_do_not_wait_for_heavy_libraries(folder: Path, words: list[str]) -> None:
    heavy = ["torch", "transformers", "mlflow", "deepspeed", "matplotlib"]
    if "--help" in words:
        heavy += ["ray", "pandas"]
    code = f"import sys\nfrom sweeps import cli\ncli.main({words})\n"
    code += f"print('loaded:', *(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_plan_and_status_touch_nothing(run: Run, folder: Path) -> None:
    before = contents(folder.parent)
    for words in (("plan", "tiny.py"), ("plan", "tiny.py", "--json"), ("status", "tiny.py"), ("status", "fig3")):
        code, out, error = run(*words)
        assert code == 0 and out and error == ""
    assert contents(folder.parent) == before


def test_the_plan_of_a_file_is_told_to_programs(run: Run) -> None:
    code, out, error = run("plan", "tiny.py", "--scale", "small", "seed=0,1", "--json")
    found = json.loads(out)
    assert (code, error) == (0, "")
    assert set(found) == {"sweep", "scale", "cells", "stages", "totals", "departures", "paper"}
    assert (found["sweep"], found["scale"], len(found["cells"])) == ("tiny", "small", 4)
    rows = {(row["row"], row["readout"]): row["cells"] for row in found["paper"]}
    keys = {cell["key"]: cell["axes"]["corpus.multi"] for cell in found["cells"]}
    assert len(rows) == 2 * 17 and {keys[key] for key in rows["bioS multi2", "QA finetune"]} == {2}
    assert len(rows["bioS single", "QA finetune"]) == 2 and rows["bioS multi5", "QA finetune"] == []


def test_the_bill_is_for_the_devices_that_are_named(run: Run) -> None:
    words = ("--gpu", "a100", "--gpus", "2", "--tokens-per-second", "1e5")
    totals = json.loads(run("plan", "tiny.py", "--json", *words)[1])["totals"]
    assert (totals["device"], totals["gpus"]) == ("A100", 2) and "100,000 tokens" in totals["flops_per_second_from"]
    assert 0 < totals["wall_seconds_to_do"] < totals["seconds_to_do"] and totals["dollars_to_do"] is None
    priced = json.loads(run("plan", "tiny.py", "--json", *words, "--price-per-gpu-hour", "2")[1])["totals"]
    assert priced["dollars_to_do"] == pytest.approx(2 * priced["seconds_to_do"] / 3600)
    here = json.loads(run("plan", "tiny.py", "--json")[1])["totals"]
    assert here["device"] == "core" and here["gpus"] == len(os.sched_getaffinity(0))


def test_axes_may_stand_before_and_after_options(run: Run) -> None:
    first = json.loads(run("plan", "demo", "seed=0,1", "corpus.people=400", "--json")[1])
    assert first == json.loads(run("plan", "demo", "--json", "seed=0,1", "corpus.people=400")[1])
    assert first == json.loads(run("plan", "demo", "seed=0,1", "--json", "corpus.people=400")[1])
    assert {cell["axes"]["corpus.people"] for cell in first["cells"]} == {400} and len(first["cells"]) == 4


def test_a_status_is_one_line_a_cell(run: Run, done: Plan) -> None:
    code, out, _ = run("status", "tiny.py", "--store", "../results")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["state", "done", "planned"]


@pytest.mark.parametrize("what", ["people", "entries", "questions", "classes", "window"])
def test_what_a_model_is_fed_is_shown(run: Run, what: str) -> None:
    axes = ["corpus.people=60", "corpus.tokenizer=bpe-600", "corpus.multi=2", "train.context=192"]
    code, out, error = run("show", what, *axes, "-n", "2", *(["--step", "3"] if what == "window" else []))
    assert (code, error) == (0, "")
    told = {"people": "birth date", "entries": "entry 1 of person", "questions": "person 1", "window": "step 3 row 1"}
    told["classes"] = "whole/company_city"
    assert told[what] in out


def test_entries_of_free_text_are_shown(run: Run) -> None:
    by_axis = run("show", "entries", "corpus.kind=bioR", "corpus.people=60", "-n", "1")
    assert run("show", "entries", "--kind", "bioR", "corpus.people=60", "-n", "1") == by_axis
    assert by_axis[0] == 0 and by_axis[1].startswith("written by rules, not by a language model")
    code, _, error = run("show", "entries", "--kind", "bioX")
    assert code == 2 and "corpus.kind=bioX: must be 'bioS' or 'bioR'" in error


# Results.


def test_results_are_told_in_every_format(run: Run, done: Plan, folder: Path) -> None:
    words = ("results", "tiny.py", "--store", "../results", "--format")
    code, out, error = run(*words, "table")
    assert (code, error) == (0, "") and "bioS single" in out and "75.0" in out and "planned" in out
    found = json.loads(run(*words, "json")[1])["cells"]
    assert [cell["key"] for cell in found] == [cell.key for cell in done.cells]
    assert found[0]["axes"] == done.cells[0].axes and found[0]["metrics"]["qa/exact_match/test/mean"] == 0.75
    assert {"key", "axes", "metrics", "n", "stages"} <= set(found[0])
    assert (Path(found[0]["stages"]["pretrain"]) / "manifest.json").is_file()
    frame = pd.read_csv(io.StringIO(run(*words, "csv")[1]))
    assert list(frame["qa/exact_match/test/mean"].dropna()) == [0.75] and list(frame["state"]) == ["done", "planned"]
    code, out, _ = run(*words, "parquet", "--output", "out.parquet")
    assert (code, out) == (0, "")
    assert list(pd.read_parquet(folder / "out.parquet")["key"]) == [cell.key for cell in done.cells]


def test_results_before_any_run_are_planned_cells(run: Run, folder: Path) -> None:
    before = contents(folder)
    code, out, error = run("results", "tiny.py")
    assert (code, error) == (0, "") and out.count("planned") == 2
    assert contents(folder) == before


def test_a_second_run_of_a_finished_sweep_starts_nothing(
    run: Run, done: Plan, publish: Callable[..., None], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cluster may be gone by now.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for stage in done.cells[1].stages:
        publish(stage, recalled=0.98)
    for _ in range(2):
        code, out, error = run("run", "tiny.py", "--store", "../results")
        assert (code, error) == (0, "")
        assert "bioS single" in out and "bioS multi2" in out
        assert f"MLflow  ktrain ui --store {store.root}\n" in out and out.endswith("\n2 of 2 cells done\n")
    assert (store.root / "reports" / "tiny" / "report.html").read_text().startswith("<!")
    written = {path.name for path in (store.root / "reports" / "tiny").iterdir()}
    assert written >= {"figure.svg", "figure.png", "figure.csv", "fig3.csv"}
    tracker = Tracker.open(default_uri(store), "tiny")
    assert len(tracker.client.search_runs([tracker.experiment])) == 8


def test_a_run_says_from_the_start_what_it_does(run: Run, monkeypatch: pytest.MonkeyPatch, done: Plan) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Interrupted

    monkeypatch.setattr("sweeps.run_sweep.run", refuse)
    code, out, error = run("run", "tiny.py", "--store", "../results")
    assert (code, out) == (130, "")
    header, last = error.splitlines()
    cores = len(os.sched_getaffinity(0))
    devices = f"{cores} cores" if cores > 1 else "one core"
    assert header == f"tiny at scale mini: 1 of 2 cells to do, about 1 minute on {devices}; store {done.store.root}"
    assert last.startswith("ktrain: stopped")
    # On a terminal it speaks before it has read anything.
    monkeypatch.setattr("sweeps.planning.grid.load", refuse)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "reading tiny.py, its store and MLflow" in run("run", "tiny.py", "--store", "../results")[2]


def test_a_model_below_the_gate_is_not_tried_again_and_the_run_says_what_to_do(
    run: Run, done: Plan, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    publish(done.cells[1].stages.pretrain, recalled=0.71)
    code, out, error = run("run", "tiny.py", "--store", "../results")
    assert code == 1 and "blocked: recall 71.0%" in " ".join(out.split())
    line = "1 cell is blocked: recall 71.0%; more train.steps, or readout.recall_gate=0 to ask all the same"
    assert error == f"{line} ({done.cells[1].key})\n", "a line that can be copied is not broken"
    assert line in run("status", "tiny.py", "--store", "../results")[1]


def test_a_report_is_written_from_what_there_is(run: Run, done: Plan, store: Store) -> None:
    code, out, error = run("report", "tiny.py", "--store", "../results")
    assert (code, error) == (0, "")
    page = store.root / "reports" / "tiny" / "report.html"
    assert str(page) in out and page.is_file() and "bioS single" in page.read_text().replace("<wbr>", "")
    assert out.startswith("Claims of the paper") and "full finetuning answers nothing else" in out
    assert 0 < page.read_text().index('id="verdicts"') < page.read_text().index('id="figures"')
    told = json.loads((page.parent / "claims.json").read_text())
    parts = [part for claim in told["claims"] for part in claim["parts"] if part["covered"]]
    # It answers too few of its own questions, and more of the others than a model that extracts nothing.
    assert [part["verdict"] for part in parts] == ["fails", "fails"] and "Costs" in page.read_text()


def test_a_sweep_whose_stages_another_one_has_finished_is_done_everywhere(
    run: Run, done: Plan, folder: Path, store: Store
) -> None:
    (folder / "shared.py").write_text(FILE.replace('"tiny"', '"shared"'))
    out = run("status", "shared.py", "--store", "../results")[1]
    assert [line.split()[-1] for line in out.splitlines()] == ["state", "done", "planned"]
    code, out, error = run("results", "shared.py", "--store", "../results", "--format", "csv")
    assert (code, error) == (0, "") and list(pd.read_csv(io.StringIO(out))["state"]) == ["done", "planned"]
    tracker = Tracker.open(default_uri(store), "shared")
    assert not tracker.runs(), "results write nothing"
    code, out, error = run("report", "shared.py", "--store", "../results")
    assert (code, error) == (0, "") and "75.0" in out and "shared" in out
    runs = tracker.runs()
    assert len(runs) == 5 and runs[done.cells[0].key].data.tags["ktrain.state"] == "done"
    page = (store.root / "reports" / "shared" / "report.html").read_text()
    assert "1 of 2 cells have no final number: 1 planned" in page


def test_the_claims_know_the_axes() -> None:
    known = set(AXES)
    selections = [s for claim in claim_file.load_claims() for part in claim.part for s in (part.value, part.minus)]
    told = {axis for selection in selections if isinstance(selection, claim_file.Selection) for axis in selection.cells}
    assert told and told | set(WRITTEN) <= known


def test_a_report_links_to_the_comparison_views(run: Run, done: Plan, store: Store) -> None:
    code, out, error = run("report", "tiny.py", "--store", "../results")
    assert (code, error) == (0, "")
    told = [line.split()[-1] for line in out.splitlines() if "(mini)" in line]
    assert len(told) == 2 and all(link.startswith("http://127.0.0.1:5000/#/experiments/") for link in told)
    page = html.unescape((store.root / "reports" / "tiny" / "report.html").read_text())
    assert all(f'<a href="{link}">' in page for link in told)


def test_a_whole_has_views_of_each_part(
    run: Run, done: Plan, folder: Path, publish: Callable[..., None], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = 'Sweep("one", sweep.grid), Sweep("two", {**sweep.grid, "corpus.permute": tune.grid_search([0, 1])})'
    (folder / "whole.py").write_text(f'{FILE}\nsweep = Sweep("whole", parts=({parts}))\n')
    plan = make(load("whole.py"), "mini", {}, store)
    Tracker.open(default_uri(store), "whole").sync(plan)
    named = ["one: QA finetune (mini)", "one: QA finetune, settings side by side (mini)"]
    named += [name.replace("one", "two") for name in named]
    out = run("report", "whole.py", "--store", "../results")[1]
    assert [line.split("  ")[1] for line in out.splitlines() if "(mini)" in line] == named
    monkeypatch.setattr(report, "LISTED", 3)
    out = run("report", "whole.py", "--store", "../results")[1]
    assert out.endswith(f"MLflow  ktrain ui --store {store.root} (4 comparison views)\n")
    page = (store.root / "reports" / "whole" / "report.html").read_text()
    assert all(f">{name}</a>" in page for name in named)


def test_a_server_that_takes_no_views_costs_a_line(run: Run, done: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("read only")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    code, out, error = run("report", "tiny.py", "--store", "../results")
    assert (code, error) == (0, "ktrain: no comparison views: read only\n") and "(mini)" not in out


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[..., list[str]]:
    """The command by which `ktrain ui` serves MLflow in place of itself."""
    begun: list[list[str]] = []
    monkeypatch.setattr(os, "execvpe", lambda name, command, environment: begun.append(command))

    def serve(*words: str) -> list[str]:
        with pytest.raises(TypeError):
            # The real one never comes back.
            run("ui", "--store", "../results", *words)
        return begun.pop()

    return serve


def test_ui_serves_the_database_of_the_store_and_tells_the_views(
    run: Run, done: Plan, served: Callable[..., list[str]], port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    run("report", "tiny.py", "--store", "../results")
    command = served("--port", str(port))
    assert f"sqlite:///{done.store.root}/mlflow.db" in command and str(port) in command and "127.0.0.1" in command
    first, *others = capfd.readouterr().out.splitlines()
    # The database has the experiments of other tests too.
    links = others[others.index("tiny") + 1 :][:3]
    assert first.startswith(f"MLflow at http://127.0.0.1:{port} ")
    assert [" ".join(link.split()[:-1]) for link in links] == [
        "all runs",
        "QA finetune (mini)",
        "QA finetune, settings side by side (mini)",
    ]
    assert all(f"http://127.0.0.1:{port}/#/experiments/" in link for link in links)


def test_links_have_the_port_that_ui_took(
    run: Run,
    done: Plan,
    served: Callable[..., list[str]],
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(local_port, "PORT", port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        taken = int(served()[-1])
        assert taken > port and f"http://127.0.0.1:{taken} " in capfd.readouterr().out
        code, out, error = run("ui", "--store", "../results", "--port", str(port))
        assert (code, out) == (2, "") and error.startswith(f"ktrain: port={port}: something else listens there; ")
    out = run("report", "tiny.py", "--store", "../results")[1]
    assert out.count(f"  http://127.0.0.1:{taken}/#/experiments/") == 2
    page = (done.store.root / "reports" / "tiny" / "report.html").read_text()
    assert f"http://127.0.0.1:{taken}/#/" in page and ":5000/" not in page
    assert served()[-1] == str(taken), "bookmarks stay right"


def test_ui_points_to_the_server_that_is_used(run: Run, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    code, out, error = run("ui")
    assert (code, out) == (0, f"MLflow is served at http://127.0.0.1:{port}\n")
    assert len(error.splitlines()) == 1 and "no links to comparison views" in error


@pytest.mark.parametrize("words", ["plan fig3 --json", "status demo"])
def test_a_reader_that_leaves_is_no_failure(folder: Path, words: str) -> None:
    command = [sys.executable, "-m", "sweeps.cli", *words.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(120) == 0
