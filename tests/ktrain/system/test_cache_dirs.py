import os
import tempfile
from pathlib import Path

import pytest

from ktrain.errors import WrongRequest
from ktrain.system import cache_dirs
from ktrain.system.cache_dirs import CACHE, LIBRARIES, SETTINGS, use_machine_caches
from ktrain.system.filesystems import Mount


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the tests themselves run with is put back."""
    for name in (CACHE, *LIBRARIES, *SETTINGS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_every_cache_is_inside_the_folder_of_this_machine(tmp_path: Path) -> None:
    os.environ[CACHE] = str(tmp_path / "node")
    assert use_machine_caches(tmp_path / "driver") == tmp_path / "node"
    assert {os.environ[name] for name in LIBRARIES} == {str(tmp_path / "node" / part) for part in LIBRARIES.values()}


def test_the_driver_has_a_default_and_a_node_another(tmp_path: Path) -> None:
    assert use_machine_caches() == tmp_path / "home" / ".cache" / "ktrain"
    # Processes that this one starts find the same.
    assert os.environ[CACHE] == str(tmp_path / "home" / ".cache" / "ktrain")
    del os.environ[CACHE]
    assert use_machine_caches(tmp_path / "driver") == tmp_path / "driver"


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    os.environ |= {"HF_HOME": "/mine", "HF_HUB_OFFLINE": "0"}
    use_machine_caches(tmp_path)
    assert os.environ["HF_HOME"] == "/mine" and os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_relative_folder_is_one_folder_wherever_a_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.environ[CACHE] = "cache"
    assert use_machine_caches() == tmp_path / "cache" and os.environ[CACHE] == str(tmp_path / "cache")


def test_a_folder_that_machines_share_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_dirs, "mount_of", lambda path: Mount(path, "nfs4", ()))
    assert use_machine_caches(tmp_path) == cache_dirs.temporary_folder()
    os.environ[CACHE] = str(tmp_path / "named")
    assert use_machine_caches(tmp_path) == tmp_path / "named"


@pytest.mark.parametrize("open_part", ["", "inductor", "triton"])
def test_a_folder_that_others_may_write_to_is_passed_over(
    tmp_path: Path, open_part: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The compiler runs code that lies there."""
    shared = tmp_path / "shared"
    (shared / open_part).mkdir(parents=True)
    (shared / open_part).chmod(0o777)
    assert use_machine_caches(shared) == tmp_path / "home" / ".cache" / "ktrain"
    (line,) = caplog.messages
    assert line.startswith(f"{shared} is not used as a cache: others can write to {shared / open_part}")
    # What is named is not passed over in silence for another.
    os.environ[CACHE] = str(shared)
    with pytest.raises(WrongRequest, match=f"^{CACHE}={shared}: others can write to .*; name a folder"):
        use_machine_caches()


def test_a_folder_that_is_not_there_yet_where_others_may_make_it_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    assert use_machine_caches(tmp_path / "shared" / ".cache") == tmp_path / "home" / ".cache" / "ktrain"


def test_in_a_folder_like_the_temporary_one_it_is_made_at_once_and_private(tmp_path: Path) -> None:
    """Nobody can rename it there, and nobody can take its name before it is used."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    folder = tmp_path / "shared" / "cache"
    assert use_machine_caches(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_folder_in_the_temporary_folder_is_private_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = cache_dirs.temporary_folder()
    assert folder.stat().st_mode & 0o777 == 0o700 and cache_dirs.temporary_folder() == folder
    folder.chmod(0o777)
    with pytest.raises(WrongRequest, match=f"^TMPDIR={tmp_path}: others can write to {folder}"):
        cache_dirs.temporary_folder()
