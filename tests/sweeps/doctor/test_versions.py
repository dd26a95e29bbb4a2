from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sweeps.doctor import versions
from sweeps.doctor.finding import FAIL, OK, WARN, CheckContext, Finding

Lines = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs, as far as its metadata go, another version of a package in front of the one that is there."""

    def install(name: str, version: str) -> None:
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_what_is_installed_here_is_what_is_asked_for(setting: CheckContext) -> None:
    found = only(list(versions.pinned(setting)))
    assert found.result in (OK, WARN) and ("torch" in found.detail or "tested" in found.detail)


def test_a_package_outside_its_requirement_fails(setting: CheckContext, installed: Callable[[str, str], None]) -> None:
    installed("transformers", "4.51.0")
    found = [f for f in versions.pinned(setting) if f.result == FAIL]
    assert only(found).detail == "transformers 4.51.0, needed is transformers<6,>=5.23"
    assert only(found).fix == f"pip install 'transformers=={versions.pins()['transformers']}'"


def test_a_package_that_is_missing_fails() -> None:
    found = only(list(versions.judge({"scipy": "missing"}, {"scipy": Requirement("scipy>=1.17")}, {})))
    assert (found.result, found.fix) == (FAIL, "pip install 'scipy>=1.17'")


def test_a_version_that_is_allowed_but_not_tested_is_a_warning() -> None:
    asked = {"scipy": Requirement("scipy>=1.17"), "numpy": Requirement("numpy>=2")}
    found = versions.judge({"scipy": "1.18.0", "numpy": "2.4"}, asked, {"scipy": "1.17.1", "numpy": "2.4.0"})
    assert only(list(found)).detail == "scipy 1.18.0 (tested: 1.17.1)"


def test_a_build_for_cpus_is_the_same_version() -> None:
    found = {"python": "3.11.7"} | dict.fromkeys(versions.SHOWN, "2.13.0+cpu")
    asked = {"torch": Requirement("torch==2.13.0")}
    assert only(list(versions.judge(found, asked, {"torch": "2.13.0"}))).result == OK
    assert {f.result for f in versions.compared(found | ID, found | ID | {"torch": "2.13.0+cu130"})} == {OK}


def test_every_requirement_of_the_project_is_compared() -> None:
    asked = versions.requirements()
    assert {"torch", "ray", "deepspeed", "mlflow", "packaging"} <= set(asked) <= set(versions.facts())
    assert asked["ray"].specifier.contains(versions.pins()["ray"])


ID = {"code": "0123", "ktrain": "0.1.0"}


@pytest.mark.parametrize(
    ("there", "name", "seen"),
    [
        ({"ray": "2.59.0"}, "same-versions", "ray 2.59.0 (driver: 2.60.0)"),
        ({"python": "3.12.1"}, "same-versions", "python 3.12.1 (driver: 3.11.7)"),
        ({"ktrain": "0.0.9"}, "same-versions", "ktrain 0.0.9 (driver: 0.1.0)"),
        ({"code": "ffff"}, "same-code", "code ffff (driver: 0123)"),
        ({"ray": "missing"}, "same-versions", "ray missing (driver: 2.60.0)"),
    ],
)
def test_a_node_that_differs_is_told_with_both_sides(there: dict[str, str], name: str, seen: str) -> None:
    here = {"python": "3.11.7", "ray": "2.60.0", **ID}
    found = {f.name: f for f in versions.compared(here, here | there)}
    assert (found[name].result, found[name].detail) == (FAIL, seen)
    assert [f.result for f in found.values()].count(FAIL) == 1


def test_a_patch_of_python_may_differ() -> None:
    here = {"python": "3.11.7", **ID}
    assert {f.result for f in versions.compared(here, here | {"python": "3.11.9"})} == {OK}


def test_a_node_of_an_older_version_may_lack_facts() -> None:
    found = {
        f.name: f.detail for f in versions.compared({"python": "3.11.7", "ray": "2.60.0", **ID}, {"python": "3.11"})
    }
    assert "ray unknown" in found["same-versions"] and "code unknown" in found["same-code"]


def test_the_code_is_its_files_and_not_what_python_made_of_them(tmp_path: Path) -> None:
    file = tmp_path / "ktrain" / "data" / "pool.csv"
    file.parent.mkdir(parents=True)
    file.write_text("a")
    first = versions.code(tmp_path)
    (tmp_path / "ktrain" / "__pycache__").mkdir()
    (tmp_path / "ktrain" / "__pycache__" / "x.pyc").write_text("b")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x").write_text("b")
    assert versions.code(tmp_path) == first
    file.write_text("b")
    second = versions.code(tmp_path)
    file.rename(file.with_name("other.csv"))
    assert len({first, second, versions.code(tmp_path)}) == 3
