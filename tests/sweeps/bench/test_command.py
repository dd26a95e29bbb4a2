"""`ktrain bench`: what cannot be measured is refused in one line, before anything is."""

import pytest

from sweeps import cli
from sweeps.bench import command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "--seconds", "0"), "seconds=0: must be above 0"),
        (("corpus", "--seconds", "-1"), "seconds=-1: must be above 0"),
        (("fleet", "--scale", "large"), "scale=large: must be one of mini, small, medium, full"),
        (("trial", "--seconds", "nan"), "seconds=nan: must be above 0"),
        (("coprus",), "trial, schedule, profile; did you mean corpus?"),
    ],
)
def test_a_wrong_request_costs_one_line(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_measured", lambda *_: pytest.fail("it was measured"))
    assert cli.main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_the_reference_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert cli.main(["bench", "train"]) == 2
    assert "pip install 'ktrain[bench]'" in capsys.readouterr().err


def test_what_is_found_is_shown_as_a_table_or_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_measured", lambda *asked: ({"asked": asked[0]}, "a table"))
    assert cli.main(["bench", "corpus"]) == 0
    assert capsys.readouterr().out == "a table\n"
    assert cli.main(["bench", "evaluate", "--json"]) == 0
    assert capsys.readouterr().out == '{\n "asked": "evaluate"\n}\n'
