"""Keeps requests to this machine away from proxies, which would read the tokens and passwords in them."""

import ipaddress
import os

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "[::1]")
"""This machine, in the spellings that clients compare hosts with."""
NAMES = ("no_proxy", "NO_PROXY")
"""Clients read one of them or the other."""


def never_proxied() -> None:
    """Adds loopback to the hosts that no client of this process and of its children reaches through a proxy.

    What the user has set stays, and holds for clients of either spelling of the variable.
    """
    hosts = [host.strip() for name in NAMES for host in os.environ.get(name, "").split(",")]
    joined = ",".join(dict.fromkeys([*filter(None, hosts), *LOOPBACK]))
    for name in NAMES:
        os.environ[name] = "*" if "*" in hosts else joined


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host.casefold().rstrip(".") == "localhost" or host.casefold().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
