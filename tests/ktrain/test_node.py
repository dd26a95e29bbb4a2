import os
from pathlib import Path

import pytest

from ktrain import node
from ktrain.mounts import Mount
from ktrain.node import CACHE, LIBRARIES, SETTINGS, keep_caches


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the tests themselves run with is put back."""
    for name in (CACHE, *LIBRARIES, *SETTINGS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_every_cache_is_inside_the_folder_of_this_machine(tmp_path: Path) -> None:
    os.environ[CACHE] = str(tmp_path / "node")
    assert keep_caches(tmp_path / "driver") == tmp_path / "node"
    assert {os.environ[name] for name in LIBRARIES} == {str(tmp_path / "node" / part) for part in LIBRARIES.values()}


def test_the_driver_has_a_default_and_a_node_another(tmp_path: Path) -> None:
    assert keep_caches() == tmp_path / "home" / ".cache" / "ktrain"
    # Processes that this one starts find the same.
    assert os.environ[CACHE] == str(tmp_path / "home" / ".cache" / "ktrain")
    del os.environ[CACHE]
    assert keep_caches(tmp_path / "driver") == tmp_path / "driver"


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    os.environ |= {"HF_HOME": "/mine", "HF_HUB_OFFLINE": "0"}
    keep_caches(tmp_path)
    assert os.environ["HF_HOME"] == "/mine" and os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_relative_folder_is_one_folder_wherever_a_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.environ[CACHE] = "cache"
    assert keep_caches() == tmp_path / "cache" and os.environ[CACHE] == str(tmp_path / "cache")


def test_a_folder_that_machines_share_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "mount", lambda path: Mount(path, "nfs4", ()))
    assert keep_caches(tmp_path) == node.temporary()
    os.environ[CACHE] = str(tmp_path / "named")
    assert keep_caches(tmp_path) == tmp_path / "named"
