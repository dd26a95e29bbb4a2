import os
from pathlib import Path

import pytest

from ktrain import caches
from ktrain.caches import FOLDERS, SETTINGS, VARIABLE, settle


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the tests themselves run with is put back."""
    for name in (VARIABLE, *FOLDERS, *SETTINGS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(caches.Path, "home", lambda: tmp_path / "home")


def test_every_cache_is_inside_the_folder_of_this_machine(tmp_path: Path) -> None:
    os.environ[VARIABLE] = str(tmp_path / "node")
    assert settle(tmp_path / "driver") == tmp_path / "node"
    assert {os.environ[name] for name in FOLDERS} == {str(tmp_path / "node" / folder) for folder in FOLDERS.values()}


def test_the_driver_has_a_default_and_a_node_another(tmp_path: Path) -> None:
    assert settle() == tmp_path / "home" / ".cache" / "ktrain"
    # Processes that this one starts find the same.
    assert os.environ[VARIABLE] == str(tmp_path / "home" / ".cache" / "ktrain")
    del os.environ[VARIABLE]
    assert settle(tmp_path / "driver") == tmp_path / "driver"


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    os.environ |= {"HF_HOME": "/mine", "HF_HUB_OFFLINE": "0"}
    settle(tmp_path)
    assert os.environ["HF_HOME"] == "/mine" and os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_relative_folder_is_one_folder_wherever_a_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.environ[VARIABLE] = "cache"
    assert settle() == tmp_path / "cache" and os.environ[VARIABLE] == str(tmp_path / "cache")
