"""All checks, by name, in the order of the report. A new check is a function of `CheckContext`, registered here."""

from collections.abc import Mapping

from sweeps.doctor import compilers, devices, environment, exposure, machine, ports, servers, stores, versions
from sweeps.doctor.finding import Check, CheckContext, Finding, run_concurrently

MACHINE: Mapping[str, Check] = {
    "versions": versions.pinned,
    "gpus": devices.engine,
    "compiler": compilers.compiler,
    "threads": machine.threads,
    "load": machine.load,
    "memory": machine.memory,
    "shared-memory": machine.shared_memory,
    "open-files": machine.open_files,
    "disk": machine.disk,
    "store": stores.store,
    "store-space": stores.space,
    "file-system": stores.file_system,
    "ports": ports.ports,
    "ray": exposure.ray,
    "environment": environment.environment,
}
"""Checks that every node runs."""
DRIVER: Mapping[str, Check] = {"tracking": servers.tracking}
"""Checks of the driver alone: only it writes to the tracking server."""
LIMITS = {
    "gpus": devices.LIMIT,
    "compiler": compilers.LIMIT,
    "store": stores.LIMIT,
    "tracking": servers.LIMIT,
    "versions": 60.0,
}
"""Seconds, of checks that may take longer than `finding.SECONDS`."""


def run_checks(context: CheckContext, checks: Mapping[str, Check] = MACHINE) -> list[Finding]:
    """Runs checks on this machine."""
    return run_concurrently(checks, context, LIMITS)
