import os
import stat
import threading
from pathlib import Path

import pytest

from ktrain.errors import WrongRequest
from sweeps.services import credentials


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account without any file yet."""
    for name in os.environ:
        if name.startswith(("MLFLOW_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "ktrain"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_for_their_owner_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        first, key = credentials.login(), credentials.session_key()
    finally:
        os.umask(before)
    assert (credentials.login(), credentials.session_key()) == (first, key)
    assert first.name == "admin" and len(first.password) >= 24 and first.source == str(folder / "mlflow.env")
    assert key not in first.password and len(key) >= 32
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {"mlflow.env": 0o600, "mlflow.secret": 0o600}


def test_a_shell_takes_the_file_over(folder: Path) -> None:
    login = credentials.login()
    told = os.popen(f". {folder}/mlflow.env; echo $MLFLOW_TRACKING_USERNAME:$MLFLOW_TRACKING_PASSWORD").read()
    assert told == f"admin:{login.password}\n"


def test_the_environment_goes_first_and_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_USERNAME", "boss")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "correct horse")
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "key")
    assert credentials.login() == credentials.Login("boss", "correct horse", "MLFLOW_AUTH_ADMIN_PASSWORD")
    assert credentials.session_key() == "key" and not folder.exists()


def test_two_first_starts_at_once_agree() -> None:
    found: list[credentials.Login] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(credentials.login())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


@pytest.mark.parametrize("name", ["mlflow.env", "mlflow.secret"])
def test_a_secret_that_others_may_read_is_refused(folder: Path, name: str) -> None:
    credentials.login()
    credentials.session_key()
    (folder / name).chmod(0o640)
    with pytest.raises(WrongRequest, match=rf"{name}: others may read it \(mode 640\).*chmod 600"):
        credentials.login() if name == "mlflow.env" else credentials.session_key()


def test_a_secret_that_is_no_text_is_named(folder: Path) -> None:
    credentials.login()
    credentials.session_key()
    for name, read in {"mlflow.env": credentials.login, "mlflow.secret": credentials.session_key}.items():
        (folder / name).write_bytes(b"\xff")
        with pytest.raises(WrongRequest, match=f"{name}: is no text; remove it"):
            read()


def test_a_login_without_a_password_is_refused(folder: Path) -> None:
    credentials.write(folder / "mlflow.env", "MLFLOW_TRACKING_USERNAME=admin\n")
    with pytest.raises(WrongRequest, match=r"mlflow.env: has no lines MLFLOW_TRACKING_USERNAME=... and"):
        credentials.login()


def test_the_file_of_passwords_is_the_named_one_or_that_of_the_head(folder: Path, tmp_path: Path) -> None:
    assert credentials.passfile({}) is None
    credentials.write(folder / "pgpass", "x")
    credentials.write(tmp_path / "mine", "y")
    assert credentials.passfile({}) == folder / "pgpass"
    assert credentials.passfile({"PGPASSFILE": str(tmp_path / "mine")}) == tmp_path / "mine"
    with pytest.raises(WrongRequest, match="PGPASSFILE=/nowhere: no such file"):
        credentials.passfile({"PGPASSFILE": "/nowhere"})
    (folder / "pgpass").chmod(0o604)
    with pytest.raises(WrongRequest, match="others may read it"):
        credentials.passfile({})
