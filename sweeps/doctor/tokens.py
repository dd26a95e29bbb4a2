"""The check `token`: whether Ray asks for one. Without it, anyone who reaches a port of the cluster runs code there."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from sweeps.doctor.finding import FAIL, OK, WARN, Finding

FACT = "auth"
ON = "token"


def mode() -> str:
    """Returns `token` or `disabled`: what this process's Ray uses, even if the environment has changed since."""
    from ray import _raylet

    core: Any = _raylet
    return ON if core.get_authentication_mode() == core.AuthenticationMode.TOKEN else "disabled"


def judge(modes: Mapping[str, str], addresses: list[str]) -> list[Finding]:
    """Returns `token`: a failure for each node that asks for none, or one pass. Nodes are at `addresses`."""
    off = [node for node, mode in modes.items() if mode != ON]
    alone = len(modes) == 1 and all(ip_address(address).is_loopback for address in addresses)
    fix = "ray get-auth-token --generate, ~/.ray/auth_token to all nodes, RAY_AUTH_MODE=token where Ray starts"
    if off and alone:
        return [Finding("token", WARN, "Ray asks for no token; only this machine reaches it", fix, off[0])]
    detail = "Ray asks for no token: whoever reaches its ports runs any code"
    return [Finding("token", FAIL, detail, fix, node) for node in off] or [
        Finding("token", OK, "Ray asks for a token on all nodes", "", "cluster")
    ]
