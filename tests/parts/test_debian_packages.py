"""The last line of a run of tests names the packages that would have run what was skipped."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import postgres
import pytest
from debian_packages import lacking, summary

ROOT = Path(__file__).parents[2]
POSTGRES, BROWSER = lacking("no server", "postgresql"), lacking("no browser", "chromium")
TOOLS = lacking("no tools", "iproute2", "postgresql")


@pytest.fixture
def last_lines(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> list[str]:
    """What the tests' own hook writes at the end of a run with the skips of the parameter."""
    lines: list[str] = []
    skips = [SimpleNamespace(longrepr=("test_x.py", 3, f"Skipped: {reason}")) for reason in request.param]
    stats = {"skipped": skips} if skips else {}
    reporter = SimpleNamespace(stats=stats, write_line=lambda line, **_: lines.append(line))
    plugins, own = pytestconfig.pluginmanager.get_plugins(), str(ROOT / "tests" / "conftest.py")
    (hook,) = (plugin.pytest_terminal_summary for plugin in plugins if getattr(plugin, "__file__", "") == own)
    hook(reporter)
    return lines


SKIPS = [POSTGRES, POSTGRES, BROWSER, TOOLS, "needs root", "no rights to mount a disk"]


@pytest.mark.parametrize("last_lines", [SKIPS], indirect=True)
def test_each_package_is_named_with_its_tests(last_lines: list[str]) -> None:
    assert last_lines == [
        "skipped for want of Debian packages: 4 tests (postgresql 3, chromium 1, iproute2 1); "
        "apt-get install postgresql chromium iproute2"
    ]


@pytest.mark.parametrize("last_lines", [[], ["needs root", "needs pip install x"]], indirect=True)
def test_where_no_package_is_lacking_nothing_is_said(last_lines: list[str]) -> None:
    assert last_lines == []


def test_a_skip_for_want_of_a_server_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(postgres.Missing) as missing:
        postgres.programs()
    assert summary([str(missing.value)]).endswith("1 tests (postgresql 1); apt-get install postgresql")


def test_every_package_that_is_installed_for_tests_is_named_by_a_skip() -> None:
    listed = re.findall(r'^(?:needed=")?([a-z0-9-]+):/', (ROOT / ".ci" / "packages").read_text(), re.M)
    sources = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    skips = [source for source in sources if "from debian_packages import lacking" in source]
    assert len(listed) == 6 and all(any(f'"{package}"' in source for source in skips) for package in listed)
