"""Three faults in their short forms: `python -m tests.faults` as a user calls it, and what it says.

The command has all of them. Each of these three holds what others do too: two processes do one stage, a store refuses
writes, nodes come and go while the tracking server is away.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ("clock-jump", "disk-full", "everything")

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.faults", *SHORT, "--away", "3", "--steps", "2500", "--json"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "RAY_ADDRESS": ""}, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return {outcome["scenario"]: outcome for outcome in json.loads(done.stdout)}


@pytest.mark.parametrize("name", SHORT)
def test_it_ends_as_if_nothing_had_been(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    if outcomes[name]["state"] == "not here":
        pytest.skip(outcomes[name]["end"])
    assert outcomes[name]["state"] == "well", outcomes[name]["end"]
    assert outcomes[name]["events"]


def test_a_scenario_that_does_not_exist_is_an_error() -> None:
    command = [sys.executable, "-m", "tests.faults", "nodes-remved"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "nodes-remved: there are nodes-removed, " in done.stderr
