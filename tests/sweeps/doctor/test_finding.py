import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.doctor import finding
from sweeps.doctor.finding import FAIL, OK, RESULTS, WARN, CheckContext, Finding, fail, from_json, ok, run_concurrently


@given(
    name=st.text(), result=st.sampled_from(RESULTS), seen=st.text(), fix=st.text(min_size=1), node=st.text(max_size=5)
)
def test_a_finding_survives_its_way_from_a_node(name: str, result: str, seen: str, fix: str, node: str) -> None:
    found = Finding(name, result, seen, fix if result in (WARN, FAIL) else "", node)
    assert from_json(found.as_json()) == found


@pytest.mark.parametrize(("result", "fix"), [(FAIL, ""), (WARN, ""), (OK, "do this"), ("maybe", "do this")])
def test_faults_say_what_to_do_and_nothing_else_does(result: str, fix: str) -> None:
    with pytest.raises(ValueError, match="say what to do"):
        Finding("disk", result, "seen", fix)


def test_checks_run_at_once_and_are_told_in_their_order(setting: CheckContext) -> None:
    meet = threading.Barrier(3, timeout=60)

    def check(name: str) -> finding.Check:
        def run(_: CheckContext) -> Iterator[Finding]:
            meet.wait()  # Alone, it would never come back.
            yield ok(name, "met the others")

        return run

    found = run_concurrently({name: check(name) for name in "cab"}, setting, {name: 60.0 for name in "cab"})
    assert [f.name for f in found] == ["c", "a", "b"] and {f.result for f in found} == {OK}


def test_a_check_that_hangs_is_a_failure_and_holds_up_no_other(setting: CheckContext) -> None:
    release = threading.Event()

    def hangs(_: CheckContext) -> Iterator[Finding]:
        release.wait()
        yield ok("hangs", "at last")

    found = run_concurrently(
        {"hangs": hangs, "well": lambda _: [ok("well", "done")]}, setting, {"hangs": 0.1, "well": 60.0}
    )
    release.set()
    assert [(f.name, f.result) for f in found] == [("hangs", FAIL), ("well", OK)]
    assert "no answer in 0 s" in found[0].detail


def test_a_check_that_raises_is_a_failure_that_names_the_error(setting: CheckContext) -> None:
    def raises(_: CheckContext) -> Iterator[Finding]:
        yield fail("raises", "never told", "do")
        raise ZeroDivisionError("by zero\nand more")

    (found,) = run_concurrently({"raises": raises}, setting, {})
    assert found.result == FAIL and "ZeroDivisionError: by zero" in found.detail and "\n" not in found.detail
