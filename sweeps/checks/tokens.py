"""Whether Ray asks for a token: without one, whoever reaches a port of the cluster runs code on it."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from sweeps.checks.finding import FAIL, OK, WARN, Finding

FACT = "auth"
ON = "token"


def mode() -> str:
    """`token` or `disabled`: what Ray does in this process, whatever the environment says by now."""
    from ray import _raylet

    core: Any = _raylet
    return ON if core.get_authentication_mode() == core.AuthenticationMode.TOKEN else "disabled"


def judged(modes: Mapping[str, str], addresses: list[str]) -> list[Finding]:
    """`token`, a line for each node that asks for none, or one for all; nodes are at `addresses`."""
    off = [node for node, found in modes.items() if found != ON]
    alone = len(modes) == 1 and all(ip_address(address).is_loopback for address in addresses)
    fix = "ray get-auth-token --generate, ~/.ray/auth_token to all nodes, RAY_AUTH_MODE=token where Ray starts"
    if off and alone:
        return [Finding("token", WARN, "Ray asks for no token; only this machine reaches it", fix, off[0])]
    seen = "Ray asks for no token: whoever reaches its ports runs any code"
    return [Finding("token", FAIL, seen, fix, node) for node in off] or [
        Finding("token", OK, "Ray asks for a token on all nodes", "", "cluster")
    ]
