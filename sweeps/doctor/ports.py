"""The check `ports`: who can reach the services of this machine."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import psutil

from sweeps.doctor.finding import CheckContext, Finding, fail, ok, warn

DASHBOARD, CLIENT, MLFLOW, POSTGRES, GCS = "Ray dashboard", "Ray client", "MLflow", "PostgreSQL", "Ray GCS"
SERVICES = {8265: DASHBOARD, 10001: CLIENT, 5000: MLFLOW, 5432: POSTGRES, 6379: GCS}
"""Default ports."""
MEANS = {
    DASHBOARD: ("whoever reaches it runs any code on all nodes", "start Ray with --dashboard-host=127.0.0.1"),
    CLIENT: ("whoever reaches it runs any code on all nodes", "start Ray with RAY_AUTH_MODE=token on every node"),
    MLFLOW: ("whoever reaches it may try to read and delete results", "start it with --host 127.0.0.1"),
}
"""Services for loopback only: what happens if others reach them, and how to close them."""
TUNNEL = "; then ssh -N -L {port}:127.0.0.1:{port} HEAD"


@dataclass(frozen=True)
class Listener:
    """A TCP port that accepts connections, its address, and its program if this account may know it."""

    address: str
    port: int
    program: str = ""

    def reached_at(self, own: Iterable[str]) -> list[IPv4Address | IPv6Address]:
        """Returns the addresses at which other machines reach it; `own` are those of this machine."""
        here = _plain(self.address)
        reached = [_plain(address) for address in own] if here.is_unspecified else [here]
        if here == IPv4Address("0.0.0.0"):
            reached = [address for address in reached if address.version == 4]
        return [address for address in reached if not (address.is_loopback or address.is_link_local)]


def ports(context: CheckContext) -> Iterator[Finding]:
    """`ports`: none of the cluster's services is reachable from where it should not be."""
    return judge(listeners(), addresses(), {**SERVICES, **context.services})


def judge(listeners: Iterable[Listener], own: Iterable[str], services: Mapping[int, str]) -> Iterator[Finding]:
    """Yields a failure for each service that is open too far, or one pass; `own` are the addresses of this machine.

    The dashboard and MLflow belong on loopback, and so does Ray's client port without the token. Ports between nodes
    may be at private addresses, where the firewall decides.
    """
    faults, listening, own = [], [], list(own)
    for listener in sorted(set(listeners), key=lambda each: (each.port, each.address)):
        service = services.get(listener.port)
        if service is None:
            continue
        reached = listener.reached_at(own)
        public = [address for address in reached if address.is_global]
        what = f"{service} ({listener.program})" if listener.program else service
        place = f"{what} on {listener.address} port {listener.port}"
        listening.append(f"{service} {listener.port}")
        # Ray always opens its client's port. With the token it is as closed as the ports between nodes.
        if reached and service in MEANS and not (service == CLIENT and _guarded()):
            means, close = MEANS[service]
            faults.append(_open(service, f"{place}: {means}", close + TUNNEL.format(port=listener.port)))
        elif public:
            close = f"let only the cluster's own network in (security group, firewall), or listen at {_private(own)}"
            faults.append(fail("ports", f"{place}, which is public ({public[0]})", close))
    yield from faults or [ok("ports", ", ".join(listening) or "none of the cluster's services listens here")]


def listeners() -> list[Listener]:
    """Returns all TCP ports of this machine, or of its container, that accept connections."""
    connections = (c for c in psutil.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN)
    return [Listener(c.laddr.ip, c.laddr.port, _program(c.pid)) for c in connections]


def addresses() -> list[str]:
    """Returns the IP addresses of this machine."""
    families = {2, 10, 30}
    return [
        a.address.partition("%")[0]
        for interface in psutil.net_if_addrs().values()
        for a in interface
        if int(a.family) in families
    ]


def _open(service: str, detail: str, fix: str) -> Finding:
    if "KUBERNETES_SERVICE_HOST" in os.environ and _guarded() and service == DASHBOARD:
        # KubeRay's operator calls a pod's dashboard from outside the pod.
        return warn("ports", f"{detail}, with the token", "let a NetworkPolicy admit KubeRay's operator alone")
    return fail("ports", detail, fix)


def _guarded() -> bool:
    """Whether Ray asks for its token."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def _private(own: Iterable[str]) -> str:
    plain = (_plain(address) for address in own)
    return next((str(a) for a in plain if a.is_private and not (a.is_loopback or a.is_link_local)), "127.0.0.1")


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Parses an address; an IPv4 address written as IPv6 becomes IPv4."""
    parsed = ip_address(address)
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed


def _program(pid: int | None) -> str:
    try:
        return psutil.Process(pid).name() if pid else ""
    except psutil.Error:
        return ""
