import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrain.system import source_commit
from sweeps.execution import ray_session


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No answer from before, and none for later tests."""
    monkeypatch.delenv(source_commit.VARIABLE, raising=False)
    source_commit.source_commit.cache_clear()
    yield
    source_commit.source_commit.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in which `ktrain` seems to lie."""
    (tmp_path / "ktrain").mkdir()
    (tmp_path / "ktrain" / "__init__.py").write_text("")
    for words in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr("ktrain.__file__", str(tmp_path / "ktrain" / "__init__.py"))
    return tmp_path


def head(folder: Path) -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_has_a_commit(checkout: Path) -> None:
    assert source_commit.source_commit() == head(checkout)


def test_files_that_differ_are_told(checkout: Path) -> None:
    (checkout / "ktrain" / "__init__.py").write_text("edited")
    assert source_commit.source_commit() == f"{head(checkout)}-dirty"


def test_a_repository_around_an_installed_package_says_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout / "site-packages" / "ktrain" / "__init__.py"
    monkeypatch.setattr("ktrain.__file__", str(installed))
    assert source_commit.source_commit() is None and source_commit.as_environment() == {}


def test_where_git_is_missing_nothing_is_known(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_commit.source_commit() is None


def test_a_copy_of_the_code_is_told_its_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_session.settings_for_cluster()[source_commit.VARIABLE] == head(checkout)
    monkeypatch.setenv(source_commit.VARIABLE, "0123")
    source_commit.source_commit.cache_clear()
    assert source_commit.source_commit() == "0123"


def test_a_driver_that_is_a_job_does_not_say_it_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses a variable that the job was sent with, whatever its value."""
    job = {"runtime_env": {"working_dir": "gcs://code.zip", "env_vars": {source_commit.VARIABLE: "0" * 40}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert source_commit.VARIABLE not in ray_session.settings_for_cluster()
