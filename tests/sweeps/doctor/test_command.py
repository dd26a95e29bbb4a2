import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from sweeps import cli
from sweeps.doctor import command, registry
from sweeps.doctor.command import CLUSTER, Report, grouped, skipped
from sweeps.doctor.finding import FAIL, OK, RESULTS, SKIPPED, WARN, Finding, ok

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the command in this process and in a folder of its own: exit code, standard output, standard error.

    Ray must not start here.
    """

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KTRAIN_STORE", raising=False)
    environment = dict(os.environ)

    def command(*words: str) -> tuple[int, str, str]:
        code = cli.main(["doctor", *words])
        return code, *capfd.readouterr()

    yield command
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes seconds: importing PyTorch, DeepSpeed and MLflow."""
    kept = {name: check for name, check in registry.MACHINE.items() if name not in ("gpus", "compiler")}
    monkeypatch.setattr(registry, "MACHINE", kept)


def nodes(count: int) -> tuple[dict[str, Any], ...]:
    return tuple({"name": f"gpu-{k}", "address": "10.0.0.1", "head": not k} for k in range(count))


# Wrong requests.

WRONG = {
    "port": ("--address head", "address=head: is no HOST:PORT; use auto on the head, or HEAD:6379"),
    "client": ("--address ray://head:10001", "address=ray://head:10001: is Ray Client's"),
    "dashboard": ("--address http://127.0.0.1:8265", "address=http://127.0.0.1:8265: is a dashboard's"),
    "far port": ("--address head:99999", "address=head:99999: is no HOST:PORT"),
    "empty address": ("--address=", "address=: is no HOST:PORT"),
    "no time": ("--seconds 0", "seconds=0: must be above 0"),
    "no number of seconds": ("--seconds nan", "seconds=nan: must be above 0"),
    "no seconds at all": ("--seconds soon", "seconds=soon: must be a valid number"),
    "no store": ("--store=", "store=: must be a folder or an address"),
    "no such option": ("--mend", "--mend: doctor has no such option"),
    "a sweep": ("demo", "doctor: got unexpected extra argument"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_one_line_and_nothing_is_looked_at(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = WRONG[name]
    monkeypatch.setattr(registry, "run_checks", lambda *_: pytest.fail("something was looked at"))
    code, out, error = run(*words.split())
    assert (code, out) == (2, "") and error.startswith("ktrain: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# This machine alone.


def test_this_machine_is_looked_at_without_ray(run: Run) -> None:
    code, out, error = run("--json")
    report = json.loads(out)
    assert error == "" and set(report) == {"nodes", "checks"} and len(report["nodes"]) == 1
    assert set(report["nodes"][0]) == {"name", "address", "head", "cpus", "gpus"}
    for line in report["checks"]:
        assert list(line) == ["name", "node", "result", "seen", "fix"]
        assert line["result"] in RESULTS and line["seen"] and line["node"] == report["nodes"][0]["name"]
        assert bool(line["fix"]) == (line["result"] in (WARN, FAIL))
    asked = {line["name"] for line in report["checks"]}
    assert {"versions", "gpus", "engine", "compiler", "disk", "store", "ports", "environment"} <= asked
    assert {line["name"] for line in report["checks"] if line["result"] == SKIPPED} >= set(CLUSTER)
    assert code == (FAIL in {line["result"] for line in report["checks"]})


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("KTRAIN_STORE", "/proc/results", "not writable"),
        ("KTRAIN_STORE", "gopher://bucket", "store=gopher://bucket"),
        ("KTRAIN_STOER", "/a", "did you mean KTRAIN_STORE?"),
        ("MLFLOW_TRACKING_URI", "localhost:5000", "must begin with http://"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1", "nothing listens there"),
        ("RAY_ADDRESS", "head", "RAY_ADDRESS=head is no HOST:PORT"),
        ("RAY_ADDRESS", "127.0.0.1:1", "nothing listens there"),
        ("RAY_AUTH_MODE", "on", "must be one of disabled, token"),
    ],
)
def test_a_fault_is_told_and_the_rest_is_looked_at(
    name: str, value: str, words: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    code, out, error = run("--json")
    checks = json.loads(out)["checks"]
    assert code == 1 and error == ""
    assert any(words in line["seen"] for line in checks if line["result"] == FAIL)
    assert {"ok", "fail"} <= {line["result"] for line in checks}


# What is shown.

FINDINGS = (
    *(Finding("memory", OK, f"{k} GiB free", "", f"gpu-{k}") for k in range(3)),
    *(Finding("disk", OK, f"{what}: 5 GiB free", "", f"gpu-{k}") for k in range(3) for what in ("cache", "store")),
    *(Finding("token", FAIL, "no token", "use one", f"gpu-{k}") for k in range(3)),
    Finding("clock", WARN, "2 s ahead", "start chrony", "gpu-1"),
    Finding("engine", SKIPPED, "no trial runs here", "", "gpu-0"),
    *(Finding("engine", OK, "imports", "", f"gpu-{k}") for k in (1, 2)),
    *(Finding("gpus", SKIPPED, "none here", "", f"gpu-{k}") for k in range(3)),
)


def test_what_is_well_on_all_nodes_is_told_once_and_failures_last() -> None:
    assert [(f.name, f.result, names) for f, names in grouped(FINDINGS)] == [
        ("memory", OK, "3 nodes"),
        ("disk", OK, "3 nodes"),
        ("disk", OK, "3 nodes"),
        ("engine", OK, "2 nodes"),
        ("clock", WARN, "gpu-1"),
        ("token", FAIL, "gpu-0\ngpu-1\ngpu-2"),
    ]
    many = [Finding("token", FAIL, "no token", "use one", f"gpu-{k}") for k in range(64)]
    assert [names for _, names in grouped(many)] == ["64 nodes"]
    assert skipped(FINDINGS) == {"none here": ["gpus"]}


@pytest.mark.parametrize("count", [1, 3])
def test_the_table_fits_80_columns_without_colours(
    count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    long = Finding("store", FAIL, "/a" * 100 + " [bold] is not markup", "mend it " * 20, "gpu-0")
    command.show(Report(nodes(count), (*FINDINGS, long)))
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b[" not in out and "[bold]" in out
    assert lines[0].split() == ["result", "check", *(["node"] if count > 1 else []), "seen"]
    column = lines[0].index("seen")
    assert all(len(line) <= column or line[column - 1] == " " for line in lines[: lines.index("")])
    assert "-> use one" in out and out.endswith("failed: token, store; to look at: clock\n")
    assert ("gpu-2" in out) == (count > 1)


def test_colours_are_only_beside_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees no colours reads the same."""
    plain, coloured = io.StringIO(), io.StringIO()
    for file, options in ((plain, {"no_color": True}), (coloured, {"force_terminal": True})):
        console = Console(file=file, width=100, **options)
        for result, style in command.STYLES.items():
            console.print(f"[{style}]{result}[/]")
    assert set(plain.getvalue().split()) == set(RESULTS) and "\x1b[" in coloured.getvalue()


@pytest.mark.parametrize(
    ("findings", "failed", "summary"),
    [
        ((ok("memory", "x"),), False, "one machine, 1 lines; all is well"),
        ((Finding("a", WARN, "x", "y"),), False, "one machine, 1 lines; to look at: a"),
        ((Finding("a", FAIL, "x", "y"), Finding("a", WARN, "x", "y")), True, "one machine, 2 lines; failed: a"),
    ],
)
def test_warnings_fail_nothing(findings: tuple[Finding, ...], failed: bool, summary: str) -> None:
    report = Report(nodes(1), findings)
    assert report.failed == failed and command.summary(report) == summary
