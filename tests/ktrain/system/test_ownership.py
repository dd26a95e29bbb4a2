import os
from pathlib import Path

import pytest

from ktrain.system.ownership import writable_by_others

OTHER = 65_534


def test_a_folder_of_this_account_alone_is_trusted(tmp_path: Path) -> None:
    # The tests' own folder lies in /tmp, where everybody may write and nobody may rename what is not theirs.
    assert writable_by_others(tmp_path) == ""
    tmp_path.chmod(0o755)
    assert writable_by_others(tmp_path) == ""


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o707, 0o703])
def test_a_folder_that_others_may_write_to_is_not(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    assert writable_by_others(tmp_path) == f"others can write to {tmp_path} (mode {mode:04o})"


def test_a_folder_on_the_way_that_others_may_rename_is_not(tmp_path: Path) -> None:
    inner = tmp_path / "open" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o777)
    assert writable_by_others(inner) == f"others can write to {inner.parent} (mode 0777)"
    inner.parent.chmod(0o1777)
    assert writable_by_others(inner) == ""
    # A link in such a folder may lead elsewhere by the time it is used.
    link = tmp_path / "shared" / "link"
    link.parent.mkdir()
    link.symlink_to(inner)
    link.parent.chmod(0o777)
    assert str(link.parent) in writable_by_others(link)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
def test_a_folder_of_another_account_is_not(tmp_path: Path) -> None:
    os.chown(tmp_path, OTHER, OTHER)
    assert writable_by_others(tmp_path).startswith(f"{tmp_path} belongs to ")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
def test_a_group_of_more_than_this_account_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    assert writable_by_others(tmp_path) == ""
    os.chown(tmp_path, 0, OTHER)
    assert "others can write to" in writable_by_others(tmp_path)
