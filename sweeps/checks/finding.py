"""What a check is asked, what it finds, and carrying out many of them at once with a limit on each."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "skipped"
RESULTS = (OK, WARN, FAIL, SKIPPED)
SECONDS = 30.0
"""How long a check may take, unless it says otherwise, also on a machine whose processors all train."""


@dataclass(frozen=True)
class Setting:
    """What a machine is asked about. `store` and `tracking` are addresses that mean the same from every folder.

    `cpus`, `gpus` and `object_store` (bytes) are what Ray hands out of this node; None outside a cluster. `services`
    names the ports of the cluster; `nodes` counts its nodes. With `mend`, what is safe to mend is mended.
    """

    store: str
    tracking: str
    nodes: int = 1
    cpus: float | None = None
    gpus: float | None = None
    object_store: float | None = None
    services: Mapping[int, str] = field(default_factory=dict)
    mend: bool = False

    @property
    def in_cluster(self) -> bool:
        """Whether Ray has told what this node has."""
        return self.cpus is not None

    @property
    def works(self) -> bool:
        """Whether trials may run here: a head without CPUs only waits for them."""
        return not self.in_cluster or bool(self.cpus or self.gpus)


@dataclass(frozen=True)
class Finding:
    """A line of the answer. Raises `ValueError` for a warning or failure that does not say what to do."""

    name: str
    result: str
    seen: str
    fix: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        if self.result not in RESULTS or (self.result in (WARN, FAIL)) != bool(self.fix):
            raise ValueError(f"{self}: warnings and failures, and no others, say what to do")

    def as_json(self) -> dict[str, str]:
        """The contract of `doctor --json`: `name`, `node`, `result`, `seen`, `fix`."""
        found = asdict(self)
        return {key: found[key] for key in ("name", "node", "result", "seen", "fix")}


Check = Callable[[Setting], Iterable[Finding]]


def ok(name: str, seen: str) -> Finding:
    """All is well."""
    return Finding(name, OK, seen)


def warn(name: str, seen: str, fix: str) -> Finding:
    """It works, and could be better."""
    return Finding(name, WARN, seen, fix)


def fail(name: str, seen: str, fix: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(name, FAIL, seen, fix)


def skipped(name: str, why: str) -> Finding:
    """Does not apply here."""
    return Finding(name, SKIPPED, why)


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def carry_out(checks: Mapping[str, Check], setting: Setting, limits: Mapping[str, float]) -> list[Finding]:
    """What all checks find, in their order; they run at once, and one over its limit in seconds is a failure.

    Threads that hang, as on a dead file server, are left behind: they keep no process alive.
    """
    found: dict[str, list[Finding]] = {}

    def run(name: str, check: Check) -> None:
        try:
            found[name] = list(check(setting))
        except Exception as e:
            seen = f"the check raises {type(e).__name__}: {first_line(e)}"
            found[name] = [fail(name, seen, "this is a fault of the check itself: report it with this line")]

    threads = {name: threading.Thread(target=run, args=item, daemon=True) for name, item in _items(checks)}
    begun = time.monotonic()
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        limit = limits.get(name, SECONDS)
        thread.join(max(0.0, begun + limit - time.monotonic()))
        if thread.is_alive():
            fix = "look at what it waits for: a network disk, a name server or a device that hangs"
            found[name] = [fail(name, f"no answer in {limit:.0f} s", fix)]
    return [finding for name in checks for finding in found[name]]


def _items(checks: Mapping[str, Check]) -> Iterable[tuple[str, tuple[str, Check]]]:
    return ((name, (name, check)) for name, check in checks.items())


def from_json(line: Mapping[str, Any]) -> Finding:
    """The finding that `as_json` wrote."""
    return Finding(**line)
