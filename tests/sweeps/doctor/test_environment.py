import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

import ktrain
from sweeps.doctor import environment
from sweeps.doctor.finding import FAIL, OK, WARN, CheckContext, Finding

Lines = Callable[[Iterable[Finding]], list[tuple[str, str]]]
URI, USER, PASSWORD = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
LOGIN = {USER: "me", PASSWORD: "secret"}
LOCAL = {URI: "http://127.0.0.1:5000"}

BAD: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "misspelt": ({"KTRAIN_STOER": "/a"}, FAIL, "KTRAIN_STOER is no variable of ktrain; did you mean KTRAIN_STORE?"),
    "unknown": ({"KTRAIN_QQQQ": "1"}, FAIL, "KTRAIN_QQQQ is no variable of ktrain"),
    "near MLflow's": ({"MLFLOW_TRACKINGURI": "x"}, WARN, "did you mean MLFLOW_TRACKING_URI?"),
    "near Ray's": ({"RAY_ADRESS": "auto"}, WARN, "RAY_ADRESS means nothing; did you mean RAY_ADDRESS?"),
    "near the login": ({"MLFLOW_TRACKING_USER": "me"}, WARN, "did you mean MLFLOW_TRACKING_USERNAME?"),
    "quotes": ({"KTRAIN_STORE": '"/a"'}, FAIL, "KTRAIN_STORE has quotes or spaces"),
    "spaces": ({URI: "http://127.0.0.1:5000 "}, FAIL, "has quotes or spaces"),
    "empty": ({URI: ""}, WARN, "MLFLOW_TRACKING_URI is empty"),
    "no scheme": ({URI: "localhost:5000"}, FAIL, "must begin with http://"),
    "misspelt scheme": ({URI: "htttp://localhost:5000"}, FAIL, "did you mean http?"),
    "folder": ({URI: "/data/mlruns"}, FAIL, "must begin with http://"),
    "files": ({URI: "file:///data/mlruns"}, FAIL, "must begin with http://"),
    "relative SQLite": ({URI: "sqlite:///mlflow.db"}, FAIL, "another file in every folder"),
    "no host": ({URI: "http://:5000"}, FAIL, "has no host, or no valid port"),
    "no port": ({URI: "http://host:http"}, FAIL, "has no host, or no valid port"),
    "port too high": ({URI: "http://host:99999"}, FAIL, "has no host, or no valid port"),
    "bracket": ({URI: "http://[::1:5000"}, FAIL, "has no host, or no valid port"),
    "page": ({URI: "http://127.0.0.1:5000/#/experiments/1"}, FAIL, "is the address of a page"),
    "password in address": ({URI: "http://me:secret@127.0.0.1:5000"}, FAIL, "me:***@127.0.0.1:5000 holds a password"),
    "user alone": ({**LOCAL, USER: "me"}, FAIL, f"{USER} without {PASSWORD}"),
    "password alone": ({**LOCAL, PASSWORD: "secret"}, FAIL, f"{PASSWORD} without {USER}"),
    "token besides": ({**LOCAL, **LOGIN, "MLFLOW_TRACKING_TOKEN": "t"}, FAIL, "only one of them is sent"),
    "login for SQLite": ({URI: "sqlite:////a/b.db", **LOGIN}, WARN, "names no server"),
    "login for nothing": (LOGIN, WARN, "names no server"),
    "clear text": ({URI: "http://mlflow.example:5000", **LOGIN}, WARN, "in clear text"),
    "both ways of TLS": (
        {**LOCAL, "MLFLOW_TRACKING_INSECURE_TLS": "true", "MLFLOW_TRACKING_SERVER_CERT_PATH": "/a"},
        FAIL,
        "MLflow refuses both",
    ),
    "client": ({"RAY_ADDRESS": "ray://head:10001"}, FAIL, "is Ray Client's"),
    "dashboard": ({"RAY_ADDRESS": "http://127.0.0.1:8265"}, FAIL, "is a dashboard's"),
    "no port of Ray": ({"RAY_ADDRESS": "head"}, FAIL, "RAY_ADDRESS=head is no HOST:PORT"),
    "port of Ray": ({"RAY_ADDRESS": "head:70000"}, FAIL, "is no HOST:PORT"),
    "mode": ({"RAY_AUTH_MODE": "tokens"}, FAIL, "must be one of disabled, token; did you mean token?"),
    "no token": ({"RAY_AUTH_MODE": "token"}, FAIL, "there is no token"),
    "no file of a token": ({"RAY_AUTH_TOKEN_PATH": "/nowhere/t"}, FAIL, "RAY_AUTH_TOKEN_PATH=/nowhere/t: no such file"),
    "GPU by name": ({"CUDA_VISIBLE_DEVICES": "cuda:0"}, FAIL, "must be different numbers"),
    "GPU twice": ({"CUDA_VISIBLE_DEVICES": "0,0"}, FAIL, "must be different numbers"),
    "threads": ({"OMP_NUM_THREADS": "all"}, FAIL, "OMP_NUM_THREADS=all: must be a number from 1"),
    "no threads": ({"OMP_NUM_THREADS": "0"}, FAIL, "must be a number from 1"),
    "accelerator": ({"DS_ACCELERATOR": "gpu"}, FAIL, "DS_ACCELERATOR=gpu: must be cuda or cpu"),
    "no GPU": (
        {"DS_ACCELERATOR": "cuda", "CUDA_VISIBLE_DEVICES": "-1"},
        FAIL,
        "DS_ACCELERATOR=cuda: no GPU can be used",
    ),
    "no interface": ({"GLOO_SOCKET_IFNAME": "ib7"}, FAIL, "there is no interface ib7 here, only lo"),
    "one of two interfaces": (
        {"GLOO_SOCKET_IFNAME": "lo,ib7"},
        FAIL,
        "GLOO_SOCKET_IFNAME=lo,ib7: there is no interface",
    ),
    "first Ray Train": ({"RAY_TRAIN_V2_ENABLED": "0"}, FAIL, "Ray Train's second version"),
}
GOOD: Mapping[str, Mapping[str, str]] = {
    "nothing": {},
    "others' own": {"MLFLOW_TRACKING_AUTH": "x", "RAY_AUTH_X": "x", "NVIDIA_VISIBLE_DEVICES": "all", "HOME": "/a"},
    "a laptop": {"KTRAIN_STORE": "/data/results", "KTRAIN_CACHE": "/tmp/c", "OMP_NUM_THREADS": "2"},
    "a tunnel": {**LOCAL, **LOGIN, "CUDA_VISIBLE_DEVICES": "0,1"},
    "a server": {URI: "https://mlflow.example/team", **LOGIN, "CUDA_VISIBLE_DEVICES": ""},
    "a database": {URI: "postgresql+psycopg://mlflow@db/mlflow", "RAY_ADDRESS": "10.0.0.1:6379"},
    "a head": {"RAY_ADDRESS": "auto", "RAY_AUTH_MODE": "TOKEN", "RAY_AUTH_TOKEN": "t"},
    "no token": {"RAY_AUTH_MODE": "disabled", "CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_each_fault_is_one_line(name: str, lines: Lines) -> None:
    variables, result, words = BAD[name]
    found = list(environment.judge(variables))
    assert lines(found) == [("environment", result)] and words in found[0].detail
    assert "secret" not in found[0].detail + found[0].fix


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_is_left_alone(name: str, lines: Lines) -> None:
    assert lines(environment.judge(GOOD[name])) == [("environment", OK)]


def test_faults_add_up() -> None:
    found = list(environment.judge({"KTRAIN_STOER": "/a", "RAY_ADDRESS": "head", **LOCAL, USER: "me"}))
    assert [f.result for f in found] == [FAIL] * 3


def test_two_tokens() -> None:
    variables = {"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": "/nowhere"}
    assert [f.result for f in environment.judge(variables)] == [WARN, FAIL]


@pytest.mark.parametrize(
    "name", [".ray/auth_token", ".mlflow/credentials", ".ktrain/mlflow.env", ".config/ktrain/mlflow.secret"]
)
def test_secrets_are_for_their_owner_alone(home: Path, name: str) -> None:
    file = home / name
    file.parent.mkdir(parents=True)
    file.write_text("secret")
    file.chmod(0o600)
    assert [f.result for f in environment.judge({})] == [OK]
    for mode in (0o644, 0o640, 0o602):
        file.chmod(mode)
        (found,) = environment.judge({})
        assert found.result == FAIL and f"(mode {mode:o})" in found.detail and found.fix == f"chmod 600 {file}"
    # Into a folder that is closed nobody else comes.
    file.parent.chmod(0o700)
    assert [f.result for f in environment.judge({})] == [OK]


def test_a_named_file_of_a_token_too(home: Path) -> None:
    home.chmod(0o755)
    (home / "t").touch(0o644)
    (found,) = environment.judge({"RAY_AUTH_TOKEN_PATH": str(home / "t"), "RAY_AUTH_MODE": "token"})
    assert found.fix == f"chmod 600 {home / 't'}"


def test_the_environment_of_this_process_is_the_one_that_is_judged(
    setting: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRAIN_STOER", "/a")
    assert any("KTRAIN_STOER" in f.detail for f in environment.environment(setting))


def test_every_variable_of_this_project_is_known() -> None:
    root = Path(ktrain.__file__).parent.parent
    files = [p for package in ("ktrain", "sweeps", "analysis", "cluster") for p in (root / package).rglob("*")]
    texts = [p.read_text() for p in files if p.suffix in (".py", ".sh", ".yaml") and p.is_file()]
    assert set(re.findall(r"\bKTRAIN_[A-Z_]+\b", "\n".join(texts))) <= set(environment.OWN)
