"""The check `ray`: whether a run's Ray gets a private folder here, and whether any Ray of this machine is open."""

from collections.abc import Iterator

import psutil

from ktrain.errors import WrongRequest
from sweeps.doctor.finding import CheckContext, Finding, fail, ok, skipped, warn
from sweeps.doctor.ports import Listener, addresses

DAEMONS = ("gcs_server", "raylet", "ray::")
"""How the names of Ray's processes begin."""


def ray(context: CheckContext) -> Iterator[Finding]:
    """`ray`: a run's Ray can have its private folder, and no Ray takes code from other machines without a token."""
    from sweeps.execution.local_ray import make_private_folder

    if context.in_cluster:
        yield skipped("ray", "of a cluster, `ports` and `token` tell")
        return
    faults = [
        fail(
            "ray",
            f"{program} (process {pid}) listens on {listener.address} port {listener.port} and asks for no token: "
            "whoever reaches it runs any code",
            f"kill {pid}, and let `ktrain run` start Ray itself, or start it with RAY_AUTH_MODE=token",
        )
        for pid, program, listener in open_daemons()
    ]
    fix = "export RAY_TMPDIR=FOLDER, with a short path on a disk that you can write to"
    try:
        folder, passed_over = make_private_folder()
        folder.rmdir()
        faults += [warn("ray", f"{line}; the files of Ray lie in {folder.parent}", fix) for line in passed_over]
    except WrongRequest as e:
        faults.append(fail("ray", str(e), fix))
    yield from faults or [ok("ray", "a run's Ray listens on loopback, asks for a token, and has a private folder")]


def open_daemons() -> Iterator[tuple[int, str, Listener]]:
    """Yields each process of Ray that other machines reach and that asks for no token, with one port of it.

    Leaves out processes of other accounts, whose environment this one may not read.
    """
    own = addresses()
    for process in psutil.process_iter(["name"]):
        if not (process.info["name"] or "").startswith(DAEMONS):
            continue
        try:
            if process.environ().get("RAY_AUTH_MODE", "").lower() == "token":
                continue
            sockets = [c.laddr for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue
        reached = (Listener(place.ip, place.port) for place in sockets)
        if listener := next((each for each in reached if each.reached_at(own)), None):
            yield process.pid, process.info["name"], listener
