"""What is refused before a job is sent, and what goes with it; jobs themselves run in `tests/cluster`."""

import http.server
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

import ktrain
from ktrain.errors import WrongRequest
from sweeps import cli
from sweeps.cluster import head_client, job_bundle, jobs
from sweeps.planning.grid import expand, load

DATA = Path(ktrain.__file__).parent / "data" / "assets"
MINE = """
from ray import tune
from sweeps import Sweep
sweep = Sweep("mine", {"corpus.multi": tune.grid_search([1, 2])%s})
"""


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a sweep, results, history and secrets, of which only the sweep is for a cluster."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "KTRAIN_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "here"
    for name in ("results/stages", ".git"):
        (folder / name).mkdir(parents=True)
    for name in ("results/stages/model", ".git/HEAD", ".env", "keys.env"):
        (folder / name).write_text("secret")
    (folder / "mine.py").write_text(MINE % "")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a wrong request costs."""

    def of(*words: str) -> str:
        assert cli.main(words) == 2
        shown = capsys.readouterr()
        (line,) = shown.err.splitlines()
        assert not shown.out and "Traceback" not in line
        return line

    return of


@contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """The address of a server that gives one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def closed() -> str:
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("submit dem", "sweep dem: no such sweep or file; there are"),
        ("submit none.py", "sweep none.py: no such sweep or file"),
        ("submit mine.py corpus.mult=2", "axis corpus.mult: no such axis; did you mean corpus.multi?"),
        ("submit mine.py corpus.multi=few", "corpus.multi=few: "),
        ("submit mine.py corpus.multi", "corpus.multi: an axis is set as axis=v1,v2"),
        ("submit mine.py --scale mimi", "scale=mimi: must be one of mini, small, medium, full; did you mean mini?"),
        ("submit mine.py --workers 0", "workers=0, threads=1: must be at least 1"),
        ("submit mine.py --workers 7", "workers=7: does not divide train.batch="),
        ("submit mine.py --checkpoint-seconds 0", "checkpoint-seconds=0: must be above 0"),
        ("submit mine.py --sotre s3://b/x", "--sotre: submit has no such option"),
        ("submit mine.py --store elsewhere", "store=elsewhere: the nodes do not see it; must be s3://, gs://, az://"),
        ("submit mine.py --store ftp://host/x", "store=ftp://host/x: the nodes do not see it"),
        ("submit mine.py --cluster none.yaml", "cluster=none.yaml: no such file"),
        ("submit mine.py --cluster a.yaml --address http://127.0.0.1:1", "give one of them"),
        ("submit mine.py --address nowhere", "address=nowhere: must be http://127.0.0.1:PORT"),
        ("submit mine.py --address ray://127.0.0.1:10001", "must be http://127.0.0.1:PORT"),
        ("submit mine.py --address http://198.51.100.7:8265", "the token would cross the network unprotected"),
        ("submit mine.py corpus.pools_folder=/none", "/none"),
        ("logs nosuch", "sweep nosuch: no such sweep or file"),
        ("cancel mine.py --address nowhere", "address=nowhere: must be"),
        ("status mine.py --address nowhere", "address=nowhere: must be"),
    ],
)
def test_a_wrong_request_costs_one_line_and_sends_nothing(words: str, line: str, said: Callable[..., str]) -> None:
    assert line in said(*words.split())


@pytest.mark.parametrize("command", ["submit", "logs", "cancel", "status"])
def test_a_head_that_does_not_answer_is_reported(command: str, said: Callable[..., str]) -> None:
    address = closed()
    assert f"address={address}: no head of a cluster answers there" in said(command, "mine.py", "--address", address)


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (
            401,
            b"Unauthorized",
            "the cluster requires its token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token",
        ),
        (403, b"Forbidden", "the cluster has another token than this machine"),
        (200, b"<html>", "the server there is not a dashboard of Ray"),
        (200, ["1"], "the server there is not a dashboard of Ray"),
        (404, {}, "the server there is not a dashboard of Ray"),
        (200, {"ray_version": "2.9.0"}, f"the cluster runs Ray 2.9.0, here is {ray.__version__}"),
    ],
)
def test_what_answers_must_be_a_cluster_of_ours(
    status: int, body: object, line: str, said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, body) as address:
        assert line in said("submit", "mine.py", "--address", address)
        # The environment names a head as the option does.
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
        assert line in said("cancel", "mine.py")


def test_a_token_is_looked_for_where_ray_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert head_client._token() == ""
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(parents=True)
    path.write_text("one\n")
    assert head_client._token() == "one"
    (tmp_path / "two").write_text("two")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "two"))
    assert head_client._token() == "two"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(WrongRequest, match=r"RAY_AUTH_TOKEN_PATH=.*none: not readable"):
        head_client._token()
    (tmp_path / "bytes").write_bytes(b"\xff")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "bytes"))
    with pytest.raises(WrongRequest, match=r"RAY_AUTH_TOKEN_PATH=.*bytes: not readable: 'utf-8' codec"):
        head_client._token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "three")
    assert head_client._token() == "three"


def packed(name: str, **overrides: list[str]) -> set[str]:
    """The files of a sweep's bundle."""
    with job_bundle.pack_job(
        name, "mini", {axis.replace("__", "."): values for axis, values in overrides.items()}
    ) as root:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_bundle_holds_the_code_and_the_sweep_and_nothing_else_of_the_users() -> None:
    files = packed("mine.py")
    assert {
        "mine.py",
        "ktrain/ray_job.py",
        "sweeps/cli.py",
        "analysis/claims/claims.toml",
        "ktrain/data/assets/gpt2/r50k_base.tiktoken",
    } <= files
    own = {file for file in files if file.split("/")[0] not in job_bundle.PACKAGES}
    assert own == {"mine.py"}
    assert not any("__pycache__" in file or file.endswith(".env") for file in files)
    assert not {file for file in packed("demo") if file.split("/")[0] not in job_bundle.PACKAGES}


def test_folders_that_axes_name_go_along_with_the_files_that_count(user: Path) -> None:
    shutil.copytree(DATA / "pools", user / "data" / "pools")
    (user / "data" / "pools" / "keys.env").write_text("secret")
    files = packed("mine.py", corpus__pools_folder=["data/pools"])
    assert "data/pools/companies.csv" in files and "data/pools/keys.env" not in files
    (user / "mine.py").write_text(MINE % ', "corpus.pools_folder": "data/pools"')
    assert "data/pools/companies.csv" in packed("mine.py")
    (user / "mine.py").write_text(MINE % f', "corpus.pools_folder": "{user}/data/pools"')
    with pytest.raises(WrongRequest, match="is not on the cluster; name it by a path from"):
        packed("mine.py")
    with pytest.raises(WrongRequest, match="so it cannot go with the job"):
        packed("mine.py", corpus__pools_folder=[str(DATA / "pools")])


def test_the_config_of_a_network_goes_along(user: Path, tmp_path: Path) -> None:
    (user / "nets" / "a").mkdir(parents=True)
    for path in (user / "nets" / "a" / "config.json", user / "nets" / "b.json", user.parent / "c.json"):
        path.write_text('{"model_type": "qwen3"}')
    family = {"model__family": ["hf"]}
    files = packed("mine.py", model__config=["nets/a", "nets/b.json", '{"model_type": "llama"}'], **family)
    assert {file for file in files if "nets" in file} == {"nets/a/config.json", "nets/b.json"}
    for outside in (str(user / "nets" / "b.json"), "../c.json", f"../{user.name}/nets/b.json"):
        with pytest.raises(WrongRequest, match="so that it goes with the job"):
            packed("mine.py", model__config=[outside], **family)


def test_a_bundle_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_bundle, "LARGEST", 1_000_000)
    with pytest.raises(WrongRequest, match="MB; at most 1 MB can go with a job"):
        packed("mine.py")


def test_a_sweep_that_reads_other_files_is_refused(user: Path) -> None:
    (user / "many.txt").write_text("3")
    (user / "mine.py").write_text(
        "import os\n" + MINE.replace("[1, 2]", "[1, 2] if os.path.exists('many.txt') else [1]") % ""
    )
    with pytest.raises(WrongRequest, match="reads files that do not go with the job"):
        packed("mine.py")


def test_a_sweep_gives_the_same_cells_from_its_bundle(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user / "deep").mkdir()
    shutil.move("mine.py", "deep/mine.py")
    here = expand(load("deep/mine.py"), "mini", {"seed": ["0", "1"]})
    with job_bundle.pack_job("deep/mine.py", "mini", {"seed": ["0", "1"]}) as root:
        assert (bundled_name := job_bundle.below("deep/mine.py", user)) == "deep/mine.py"
        monkeypatch.chdir(root)
        assert expand(load(bundled_name), "mini", {"seed": ["0", "1"]}) == here
        monkeypatch.chdir(user)
    # One that lies elsewhere stands at the top.
    assert job_bundle.below("/elsewhere/mine.py", user) == "mine.py"


def test_a_job_runs_what_run_would_with_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = cli._command().commands["submit"]

    def entrypoint(*words: str) -> str:
        with submit.make_context("submit", ["mine.py", *words]) as context:
            return job_bundle.command([context.params["sweep"], *jobs.run_words(context)])

    known = '--store="${KTRAIN_STORE:?has no value on the head: its cluster file sets it}"'
    assert entrypoint() == f"exec python -m sweeps.cli run mine.py {known}"
    words = "corpus.multi=1,2 seed=0,1 --scale full --store s3://b/x --workers 2 --checkpoint-seconds 9.5 --no-compile"
    assert entrypoint(*words.split(), "--cluster", "c.yaml") == f"exec python -m sweeps.cli run mine.py {words}"
    monkeypatch.setenv("KTRAIN_STORE", "results of this machine")
    assert entrypoint() == f"exec python -m sweeps.cli run mine.py {known}"
    # And what the shell would take for more than a word is one word.
    assert "'corpus.background=a b;c'" in entrypoint("corpus.background=a b;c")


def test_submit_takes_all_that_run_takes() -> None:
    run, submit = (cli._command().commands[name].params for name in ("run", "submit"))
    shown = [(option.opts, option.default, option.help) for option in submit]
    assert shown[:-2] == [(option.opts, option.default, option.help) for option in run]
    assert [option.opts for option in submit[-2:]] == [["--address"], ["--cluster"]]


def test_ids_of_jobs_may_stand_in_an_address() -> None:
    assert jobs._prefix("mine", "full") == "ktrain-mine-full-"
    assert jobs._prefix("My sweep.2 + more", "mini") == "ktrain-My-sweep-2-more-mini-"


@pytest.mark.parametrize("store", ["s3://b/x", "gs://b", "az://c/x", "/srv/ktrain"])
def test_stores_that_all_nodes_may_see(store: str) -> None:
    assert jobs.shared(store) == store
