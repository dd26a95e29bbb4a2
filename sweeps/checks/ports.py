"""Who can reach what listens on this machine."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import psutil

from sweeps.checks.finding import Finding, Setting, fail, ok, warn

DASHBOARD, CLIENT, MLFLOW, POSTGRES, GCS = "Ray dashboard", "Ray client", "MLflow", "PostgreSQL", "Ray GCS"
SERVICES = {8265: DASHBOARD, 10001: CLIENT, 5000: MLFLOW, 5432: POSTGRES, 6379: GCS}
"""What listens where unless it is told otherwise."""
MEANS = {
    DASHBOARD: ("whoever reaches it runs any code on all nodes", "start Ray with --dashboard-host=127.0.0.1"),
    CLIENT: ("whoever reaches it runs any code on all nodes", "start Ray with RAY_AUTH_MODE=token on every node"),
    MLFLOW: ("whoever reaches it may try to read and delete results", "start it with --host 127.0.0.1"),
}
"""What it means that others reach a service that is meant for its own machine, and how to close it."""
TUNNEL = "; then ssh -N -L {port}:127.0.0.1:{port} HEAD"


@dataclass(frozen=True)
class Listener:
    """A TCP port that takes connections, the address that it does so at, and the program where that may be known."""

    address: str
    port: int
    program: str = ""

    def reached_at(self, own: Iterable[str]) -> list[IPv4Address | IPv6Address]:
        """The addresses other than loopback at which others reach it; `own` are those of this machine."""
        here = _plain(self.address)
        found = [_plain(address) for address in own] if here.is_unspecified else [here]
        if here == IPv4Address("0.0.0.0"):
            found = [address for address in found if address.version == 4]
        return [address for address in found if not (address.is_loopback or address.is_link_local)]


def ports(setting: Setting) -> Iterator[Finding]:
    """`ports`: none of the cluster's services can be reached from where it should not be."""
    return judged(listeners(), addresses(), {**SERVICES, **setting.services})


def judged(found: Iterable[Listener], own: Iterable[str], services: Mapping[int, str]) -> Iterator[Finding]:
    """A line for each service that is open too far, or one for all; `own` are the addresses of this machine.

    The dashboard and MLflow belong on loopback, and so does Ray's client port where no token is asked for; what nodes
    need of each other may be at private addresses, where the firewall decides.
    """
    wrong, seen, own = [], [], list(own)
    for listener in sorted(set(found), key=lambda each: (each.port, each.address)):
        service = services.get(listener.port)
        if service is None:
            continue
        reached = listener.reached_at(own)
        public = [address for address in reached if address.is_global]
        what = f"{service} ({listener.program})" if listener.program else service
        place = f"{what} on {listener.address} port {listener.port}"
        seen.append(f"{service} {listener.port}")
        # Ray opens its client's port in any case; with the token it is as closed as those between the nodes.
        if reached and service in MEANS and not (service == CLIENT and _guarded()):
            means, close = MEANS[service]
            wrong.append(_open(service, f"{place}: {means}", close + TUNNEL.format(port=listener.port)))
        elif public:
            close = f"let only the cluster's own network in (security group, firewall), or listen at {_private(own)}"
            wrong.append(fail("ports", f"{place}, which is public ({public[0]})", close))
    yield from wrong or [ok("ports", ", ".join(seen) or "none of the cluster's services listens here")]


def listeners() -> list[Listener]:
    """All TCP ports of this machine, or of its container, that take connections."""
    found = (c for c in psutil.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN)
    return [Listener(c.laddr.ip, c.laddr.port, _program(c.pid)) for c in found]


def addresses() -> list[str]:
    """The addresses of this machine."""
    families = {2, 10, 30}
    found = (each for each in psutil.net_if_addrs().values())
    return [a.address.partition("%")[0] for each in found for a in each if int(a.family) in families]


def _open(service: str, seen: str, fix: str) -> Finding:
    if "KUBERNETES_SERVICE_HOST" in os.environ and _guarded() and service == DASHBOARD:
        # KubeRay asks the dashboard of a pod from outside of it.
        return warn("ports", f"{seen}, with the token", "let a NetworkPolicy admit KubeRay's operator alone")
    return fail("ports", seen, fix)


def _guarded() -> bool:
    """Whether Ray asks for its token."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def _private(own: Iterable[str]) -> str:
    found = (_plain(address) for address in own)
    return next((str(a) for a in found if a.is_private and not (a.is_loopback or a.is_link_local)), "127.0.0.1")


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address; IPv4 written as IPv6 is IPv4."""
    found = ip_address(address)
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _program(pid: int | None) -> str:
    try:
        return psutil.Process(pid).name() if pid else ""
    except psutil.Error:
        return ""
