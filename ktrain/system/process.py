"""Identifies processes uniquely across machines, containers and reboots."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process; no other process, on any machine at any time, has the same fields.

    `namespace` is the namespace of process ids: containers on one machine may share host name and boot, but not this.
    `boot` and `namespace` are empty and `started` (clock ticks since boot) is None where there is no /proc.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int | None

    @classmethod
    def current(cls) -> "Process":
        """Returns this process. Not cached, because a fork is another process."""
        boot, namespace = "", ""
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        with suppress(OSError):
            namespace = "".join(c for c in os.readlink("/proc/self/ns/pid") if c.isdigit())
        pid = os.getpid()
        return cls(socket.gethostname(), boot, namespace, pid, _state(pid)[1])

    def surely_dead(self) -> bool:
        """Whether it ran in our process namespace and has ended; false for a process that is not visible from here."""
        me = Process.current()
        near = (self.host, self.boot, self.namespace) == (me.host, me.boot, me.namespace)
        return near and ended(self.pid, self.started)


def ended(pid: int, started: int | None) -> bool:
    """Whether no process `pid` that started at `started` (clock ticks since boot; None: unknown) runs here any more."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # It runs, as another user.
    state, began = _state(pid)
    # A zombie answers to signals until its parent collects it, but does nothing more.
    return state in ("Z", "X") or (None not in (began, started) and began != started)


def _state(pid: int) -> tuple[str, int | None]:
    """Returns the state letter and the start in clock ticks since boot from /proc; "" and None where unknown."""
    try:
        # The command's name comes first and may contain spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", None
