"""Every link of the documentation points to something, and a planted dead one is named."""

import json
from pathlib import Path

import check_links
import pytest

ROOT = Path(__file__).parents[2]
PAGE = """# Page

[a file](docs/other.md), [a heading](docs/other.md#a-heading-ktrain-run), [a repeated one](docs/other.md#twice-1),
[here](#page), [elsewhere](https://example.org/nothing), ![a picture](docs/a.png), `[no link](nowhere.md)`

    [no link either](nowhere.md)
"""
OTHER = "# Other\n\n## A heading: `ktrain run`\n\n## Twice\n\n## Twice\n\n[up](../README.md#page)\n"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A repository whose links are all right."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.png").touch()
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "docs" / "other.md").write_text(OTHER)
    return tmp_path


def notebook(text: str) -> str:
    cells = [{"cell_type": kind, "source": text.splitlines(keepends=True)} for kind in ("code", "markdown")]
    return json.dumps({"cells": cells}, indent=1, ensure_ascii=False)


def test_links_of_this_repository_are_alive() -> None:
    assert check_links.dead_links(ROOT) == []


def test_links_that_are_right_are_not_named(pages: Path) -> None:
    (pages / "docs" / "book.ipynb").write_text(notebook("# Büch\n\n[up](../README.md#page), [o](other.md#twice)"))
    assert check_links.dead_links(pages) == []


@pytest.mark.parametrize(
    ("link", "named"),
    [
        ("[x](docs/gone.md)", "docs/gone.md"),
        ("[x](#gone)", "#gone"),
        ("[x](docs/other.md#gone)", "gone"),
        ("![x](docs/gone.png)", "docs/gone.png"),
        ("[x][gone]", "gone"),
    ],
)
def test_a_dead_link_is_named_with_file_and_line(pages: Path, link: str, named: str) -> None:
    (pages / "README.md").write_text(f"{PAGE}\n{link}\n")
    (line,) = check_links.dead_links(pages)
    assert line.startswith(f"README.md:{len(PAGE.splitlines()) + 2}:") and named in line


@pytest.mark.parametrize("link", ["[x](gone.md)", "[x](other.md#gone)", "[x](../README.md#gone)", "![x](gone.png)"])
def test_a_dead_link_of_a_notebook_is_named_with_its_line(pages: Path, link: str) -> None:
    text = notebook(f"# Büch\n\n{link}")
    (pages / "docs" / "book.ipynb").write_text(text)
    (line,) = check_links.dead_links(pages)
    number = 1 + max(k for k, written in enumerate(text.splitlines()) if link in written)
    assert line.startswith(f"docs/book.ipynb:{number}:") and "gone" in line


def test_a_linter_that_cannot_work_is_no_success(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_links, "RULES", "MD051 --no-such-option")
    monkeypatch.setattr(check_links, "PAGES", ("--no-such-option",))
    (pages / "--no-such-option").touch()
    with pytest.raises(RuntimeError, match="exit code 2"):
        check_links.dead_links(pages)
