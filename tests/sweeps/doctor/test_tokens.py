import os
import subprocess
import sys

import pytest

from sweeps.doctor import tokens
from sweeps.doctor.finding import FAIL, OK, WARN


@pytest.mark.parametrize(
    ("modes", "addresses", "result", "nodes"),
    [
        ({"a": "token", "b": "token"}, ["10.0.0.1", "10.0.0.2"], [OK], ["cluster"]),
        ({"a": "token", "b": "disabled"}, ["10.0.0.1", "10.0.0.2"], [FAIL], ["b"]),
        ({"a": "disabled", "b": "disabled"}, ["127.0.0.1", "127.0.0.1"], [FAIL, FAIL], ["a", "b"]),
        ({"a": "disabled"}, ["10.0.0.1"], [FAIL], ["a"]),
        ({"a": "disabled"}, ["127.0.0.1"], [WARN], ["a"]),
    ],
)
def test_a_cluster_that_asks_for_no_token_is_open_to_all(
    modes: dict[str, str], addresses: list[str], result: list[str], nodes: list[str]
) -> None:
    found = tokens.judge(modes, addresses)
    assert ([f.result for f in found], [f.node for f in found]) == (result, nodes)


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_the_mode_is_what_ray_does_and_not_what_the_environment_came_to_say(mode: str) -> None:
    code = "import os, ray; os.environ.clear(); from sweeps.doctor import tokens; print(tokens.mode())"
    environment = {**os.environ, "RAY_AUTH_MODE": mode}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == mode
