import os
import subprocess
import sys
from pathlib import Path

import pytest

from ktrain.errors import WrongRequest
from ktrain.system.home_folder import VARIABLES, expand_home, expanded
from sweeps.cluster import head_client
from sweeps.execution import ray_session
from sweeps.services import credentials


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"HOME": str(tmp_path)})
    for name in VARIABLES:
        os.environ.pop(name, None)
    return tmp_path


@pytest.mark.parametrize("name", VARIABLES)
def test_a_home_is_expanded_and_other_values_stay(home: Path, name: str) -> None:
    for value, wanted in {
        "~/a b": f"{home}/a b",
        "~": str(home),
        "~nobody-at-all/x": "~nobody-at-all/x",
        "/a/~": "/a/~",
        "s3://bucket/~x": "s3://bucket/~x",
        "": "",
    }.items():
        os.environ[name] = value
        expand_home()
        assert os.environ[name] == wanted


def test_what_is_not_set_stays_so() -> None:
    before = dict(os.environ)
    expand_home()
    assert os.environ == before


def test_every_command_expands_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    passwords, token = home / "passwords", home / "token"
    for file in (passwords, token):
        file.touch(0o600)
    token.write_text("secret\n")
    os.environ |= {"PGPASSFILE": "~/passwords", "RAY_AUTH_TOKEN_PATH": "~/token", "KTRAIN_ARTIFACTS": "~/runs"}
    os.environ.pop("RAY_AUTH_TOKEN", None)
    ray_session.prepare()
    assert credentials.passfile(os.environ) == passwords and head_client._token() == "secret"
    assert os.environ["KTRAIN_ARTIFACTS"] == str(home / "runs")


def test_ray_reads_the_token_of_a_home(home: Path) -> None:
    """Ray's own loader takes the path as it is."""
    (home / "token").touch(0o600)
    (home / "token").write_text("f" * 64)
    code = (
        "from ktrain.system.home_folder import expand_home; expand_home()\n"
        "from ray._raylet import AuthenticationTokenLoader as loader; print(loader.instance().has_token())"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "~/token"}
    environment.pop("RAY_AUTH_TOKEN", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_a_cluster_file_in_the_home(home: Path) -> None:
    with pytest.raises(WrongRequest, match=rf"^cluster={home}/none.yaml: no such file$"):
        head_client.tunnel("~/none.yaml").__enter__()


def test_a_home_below_a_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~nobody-at-all/x")
    with pytest.raises(
        WrongRequest, match=r"^HOME=~nobody-at-all/x: must be the path of a folder, not one below a home$"
    ):
        expand_home()


def test_the_home_of_nobody_is_a_path_like_any_other(home: Path) -> None:
    assert expanded("~/a") == home / "a"
    assert expanded("~nobody-at-all/x") == Path("~nobody-at-all/x")
