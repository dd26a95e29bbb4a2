"""What a check gets (`CheckContext`) and returns (`Finding`), and running many at once with a time limit on each."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "skipped"
RESULTS = (OK, WARN, FAIL, SKIPPED)
SECONDS = 30.0
"""The default time limit of a check, long enough for a machine whose cores all train."""


@dataclass(frozen=True)
class CheckContext:
    """What a check has to know. `store` and `tracking` are absolute addresses.

    `cpus`, `gpus` and `object_store` (bytes) are what Ray hands out of this node, or None outside a cluster. `services`
    names the services at the cluster's ports; `nodes` counts its nodes.
    """

    store: str
    tracking: str
    nodes: int = 1
    cpus: float | None = None
    gpus: float | None = None
    object_store: float | None = None
    services: Mapping[int, str] = field(default_factory=dict)

    @property
    def in_cluster(self) -> bool:
        """Whether this machine is a node of a Ray cluster."""
        return self.cpus is not None

    @property
    def works(self) -> bool:
        """Whether trials may run here. A head without CPUs runs none."""
        return not self.in_cluster or bool(self.cpus or self.gpus)


@dataclass(frozen=True)
class Finding:
    """One line of the report. Raises `ValueError` unless exactly warnings and failures have a `fix`."""

    name: str
    result: str
    detail: str
    fix: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        if self.result not in RESULTS or (self.result in (WARN, FAIL)) != bool(self.fix):
            raise ValueError(f"{self}: warnings and failures, and no others, say what to do")

    def as_json(self) -> dict[str, str]:
        """Returns a check of `doctor --json`: `name`, `node`, `result`, `seen`, `fix`."""
        return {"name": self.name, "node": self.node, "result": self.result, "seen": self.detail, "fix": self.fix}


Check = Callable[[CheckContext], Iterable[Finding]]


def ok(name: str, detail: str) -> Finding:
    """Returns a pass."""
    return Finding(name, OK, detail)


def warn(name: str, detail: str, fix: str) -> Finding:
    """Returns a warning: it works, and could be better."""
    return Finding(name, WARN, detail, fix)


def fail(name: str, detail: str, fix: str) -> Finding:
    """Returns a failure: it does not work, or is not safe."""
    return Finding(name, FAIL, detail, fix)


def skipped(name: str, why: str) -> Finding:
    """Returns a check that does not apply here."""
    return Finding(name, SKIPPED, why)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def run_concurrently(checks: Mapping[str, Check], context: CheckContext, limits: Mapping[str, float]) -> list[Finding]:
    """Runs all checks at once and returns their findings in order; a check that exceeds its limit (seconds) fails.

    A thread that hangs, as on a dead file server, is abandoned. It is a daemon, so it keeps no process alive.
    """
    findings: dict[str, list[Finding]] = {}

    def run(name: str, check: Check) -> None:
        try:
            findings[name] = list(check(context))
        except Exception as e:
            detail = f"the check raises {type(e).__name__}: {first_line(e)}"
            findings[name] = [fail(name, detail, "this is a fault of the check itself: report it with this line")]

    threads = {name: threading.Thread(target=run, args=(name, checks[name]), daemon=True) for name in checks}
    begun = time.monotonic()
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        limit = limits.get(name, SECONDS)
        thread.join(max(0.0, begun + limit - time.monotonic()))
        if thread.is_alive():
            fix = "look at what it waits for: a network disk, a name server or a device that hangs"
            findings[name] = [fail(name, f"no answer in {limit:.0f} s", fix)]
    return [finding for name in checks for finding in findings[name]]


def from_json(line: Mapping[str, Any]) -> Finding:
    """Returns the finding that `as_json` wrote."""
    return Finding(line["name"], line["result"], line["seen"], line["fix"], line["node"])
