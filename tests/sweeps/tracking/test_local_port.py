import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrain.errors import WrongRequest
from sweeps.tracking import local_port
from sweeps.tracking.local_port import choose_port, last_port, note_port


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def taken(port: int) -> Iterator[int]:
    """A port at which something listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield port


def test_the_next_port_is_taken_where_one_is_not_free(uri: str, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_port, "PORT", taken)
    chosen = choose_port(uri, None)
    assert chosen > taken
    with pytest.raises(WrongRequest, match=f"port={taken}: something else listens there; {chosen} is free"):
        choose_port(uri, taken)
    monkeypatch.setattr(local_port, "TRIED", 1)
    with pytest.raises(WrongRequest, match=f"port={taken}: it is taken"):
        choose_port(uri, None)


def test_a_database_keeps_its_port(uri: str, port: int, tmp_path: Path) -> None:
    assert last_port(uri) == 5000
    note_port(uri, port)
    assert last_port(uri) == port == choose_port(uri, None)
    for damaged in ("", "many", "0", "99999"):
        (tmp_path / "mlflow.port").write_text(damaged)
        assert last_port(uri) == 5000
    note_port("postgresql://host/mlflow", port)
    assert last_port("postgresql://host/mlflow") == 5000
    note_port("sqlite:////proc/mlflow.db", port)
