"""A file is written whole or not at all, and nothing else is left in its folder."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ktrain.system.atomic_write import atomic_write, follow_umask


@pytest.mark.parametrize("content", ["text", b"text", lambda path: path.write_text("text")])
def test_a_file_is_replaced(tmp_path: Path, content: object) -> None:
    path = tmp_path / "folder" / "file.json"
    for _ in range(2):
        atomic_write(path, content)  # type: ignore[arg-type]
        assert path.read_text() == "text" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def fail(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        atomic_write(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_path_through_a_thousand_folders_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        atomic_write(tmp_path.joinpath(*["x"] * 1900), "text")
    assert not list(tmp_path.iterdir())


def test_the_first_of_many_writers_wins_where_the_existing_file_is_kept(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [f"{k}" * 1000 for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: atomic_write(path, content, mode=0o600, keep_existing=True), contents))
    first = path.read_text()
    atomic_write(path, "late", keep_existing=True)
    assert path.read_text() == first in contents and list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_that_libraries_write_for_their_owner_alone_follow_the_umask(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "model").mkdir()
        for name in ("a", "model/b"):
            (tmp_path / name).touch(0o600)
        (tmp_path / "run").touch(0o700)
        follow_umask(tmp_path)
        follow_umask(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"a": mode, "b": mode, "run": 0o700 | mode}
