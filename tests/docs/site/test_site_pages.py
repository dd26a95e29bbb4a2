"""The site has README.md as its front page and no dead link, and asks no other host for anything."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import site_pages

ROOT = Path(__file__).parents[3]
README = """# Front

[a](docs/a.md#part), [us](CONTRIBUTING.md), [licence](NOTICE), [book](docs/book.ipynb), ![p](docs/p.png)
[away](https://example.org/a.md), [here](#front), [gone](docs/gone.md), `c[0](a)`
"""
PAGE = "# A\n\n[front](../README.md#front), [setup](../cluster/b.yaml), [self](#a)\n\n| `a\\|b` | a\\|b |\n|---|---|\n"


@pytest.fixture
def pages(tmp_path: Path) -> Mapping[str, str]:
    """The pages of a small repository."""
    cells = [
        {"cell_type": "markdown", "source": ["# The book\n", "\n", "Of [a](a.md)."]},
        {"cell_type": "code", "source": ["print(1)\n", "print(2)"]},
    ]
    files = {
        "README.md": README,
        "CONTRIBUTING.md": "# Us\n\n[a](docs/a.md)\n",
        "NOTICE": "```\nnotice\n",
        "cluster/b.yaml": "a: 1\n",
        "docs/a.md": PAGE,
        "docs/p.png": "",
        "docs/book.ipynb": json.dumps({"cells": cells}),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return site_pages.build_pages(tmp_path)


def test_the_front_page_is_the_readme_with_links_that_work_there(pages: Mapping[str, str]) -> None:
    front = "[a](a.md#part), [us](contributing.md), [licence](source/NOTICE.md), [book](book.md), ![p](p.png)"
    assert pages["index.md"].splitlines()[2] == front
    assert pages["index.md"].splitlines()[3] == README.splitlines()[3]
    assert "(a.md)" in pages["contributing.md"]


def test_links_to_other_files_of_the_repository_lead_to_pages_with_their_text(pages: Mapping[str, str]) -> None:
    assert "[front](index.md#front), [setup](source/cluster/b.yaml.md), [self](#a)" in pages["a.md"]
    assert pages["source/cluster/b.yaml.md"] == "# cluster/b.yaml\n\n`````yaml\na: 1\n`````\n"
    assert sorted(pages) == [
        "a.md",
        "book.md",
        "contributing.md",
        "index.md",
        "source/NOTICE.md",
        "source/cluster/b.yaml.md",
    ]


def test_a_notebook_is_a_page_with_its_code(pages: Mapping[str, str]) -> None:
    title, _, note, *_ = pages["book.md"].splitlines()
    assert title == "# The book" and "docs/book.ipynb" in note
    assert "Of [a](a.md)." in pages["book.md"] and "```python\nprint(1)\nprint(2)\n```" in pages["book.md"]


def test_pipes_in_code_of_tables_are_pipes(pages: Mapping[str, str]) -> None:
    assert "| `a|b` | a\\|b |" in pages["a.md"]


class Loaded(HTMLParser):
    """Collects what a page loads without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.add(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.addresses.add(given.get("href") or "")


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: make docs installs it")
def test_the_site_builds_strictly_and_is_complete_without_a_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--config-file", str(ROOT / "docs/site/mkdocs.yml")],
        capture_output=True,
        text=True,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    pages = sorted(tmp_path.rglob("*.html"))
    menu = set(re.findall(r"[\w.]+\.md", (ROOT / "docs/site/mkdocs.yml").read_text().partition("\nnav:")[2]))
    made = {path.relative_to(tmp_path).as_posix() for path in pages}
    assert {f"{name.removesuffix('.md')}.html" for name in menu} <= made
    assert len(menu) == len(site_pages.FRONT) + len([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")])
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.addresses and not [a for a in parser.addresses if re.match(r"(\w+:)?//", a)], page
        if page.name != "404.html":  # Its addresses start at the root of a server.
            local = {address.partition("?")[0] for address in parser.addresses if address}
            assert all((page.parent / address).is_file() for address in local), page
    assert "What reproduces" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="cluster.html#a-run-on-your-own-machine"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("*.py"))
