"""All checks of one machine, by name, in the order in which they are told."""

from collections.abc import Mapping

from sweeps.checks import compilers, devices, environment, machine, ports, servers, stores, versions
from sweeps.checks.finding import Check, Finding, Setting, carry_out

MACHINE: Mapping[str, Check] = {
    "versions": versions.pinned,
    "gpus": devices.engine,
    "compiler": compilers.compiler,
    "build-locks": compilers.locks,
    "threads": machine.threads,
    "memory": machine.memory,
    "shared-memory": machine.shared_memory,
    "open-files": machine.open_files,
    "disk": machine.disk,
    "store": stores.store,
    "store-space": stores.space,
    "file-system": stores.file_system,
    "ports": ports.ports,
    "environment": environment.environment,
}
"""What each node is asked."""
DRIVER: Mapping[str, Check] = {"tracking": servers.tracking}
"""What only the driver needs, which alone writes to the tracking server."""
LIMITS = {
    "gpus": devices.LIMIT,
    "compiler": compilers.LIMIT,
    "build-locks": 60.0,
    "store": stores.LIMIT,
    "tracking": servers.LIMIT,
    "versions": 60.0,
}
"""Seconds for those that may take longer than `finding.SECONDS`."""


def examined(setting: Setting, checks: Mapping[str, Check] = MACHINE) -> list[Finding]:
    """What the checks find here."""
    return carry_out(checks, setting, LIMITS)
