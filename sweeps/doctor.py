"""`ktrain doctor`: checks machine, store, tracking server and cluster, and says how to mend what is wrong."""

import argparse
import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.markup import escape
from rich.table import Table

from ktrain.errors import WrongRequest
from ktrain.store import Store
from sweeps.checks import environment, interview, registry, stores
from sweeps.checks.finding import FAIL, OK, RESULTS, SKIPPED, WARN, Finding, Setting

SECONDS = 60.0
STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red", SKIPPED: "dim"}
NAMED = 4
"""How many nodes with the same fault are named in the table; JSON names all."""
CLUSTER = ("same-versions", "same-code", "clock", "token", "drivers", "store-sharing")
"""What takes a cluster to check."""


@dataclass(frozen=True)
class Report:
    """The nodes that were asked, and all findings, each with its node."""

    nodes: tuple[Mapping[str, Any], ...]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether something has to be mended."""
        return any(finding.result == FAIL for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The contract of `doctor --json`."""
        return {"nodes": list(self.nodes), "checks": [finding.as_json() for finding in self.findings]}


def add(commands: Any) -> None:
    """The command `doctor`."""
    text = "check machine, store, tracking server and cluster, and say how to mend what is wrong"
    doctor = commands.add_parser("doctor", help=text, description=text)
    store = os.environ.get("KTRAIN_STORE") or "results"
    doctor.add_argument("--store", default=store, help="folder or address of results (default: results)")
    doctor.add_argument("--address", help="of a cluster, auto or HEAD:6379 (default: RAY_ADDRESS, or this machine)")
    doctor.add_argument("--seconds", type=float, default=SECONDS, help="for a node to answer (default: 60)")
    doctor.add_argument("--fix", action="store_true", help="remove build locks whose builders were killed")
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    doctor.set_defaults(handler=_doctor)


def examine(store: str, address: str, *, seconds: float = SECONDS, mend: bool = False) -> Report:
    """All checks: of this machine, or with an address of every node of a cluster, and of its driver here.

    A cluster that cannot be joined is a finding, and this machine is then looked at alone.
    """
    setting = Setting(store=stores.address(store), tracking=_tracking(store), mend=mend)
    if address in ("", "local"):
        return _alone(setting)
    asked, found = interview.joined(address, setting, seconds)
    if not asked:
        here = _alone(setting)
        return Report(here.nodes, (*found, *here.findings))
    driver = {"environment": environment.environment, **registry.DRIVER}
    own = registry.examined(replace(setting, nodes=len(asked)), driver)
    return Report(tuple(asked), (*found, *(replace(finding, node="driver") for finding in own)))


def _alone(setting: Setting) -> Report:
    name = socket.gethostname()
    found = registry.examined(setting, {**registry.MACHINE, **registry.DRIVER})
    found += [Finding(check, SKIPPED, "one machine: give a cluster's --address") for check in CLUSTER]
    here = {"name": name, "address": "127.0.0.1", "head": True, "cpus": None, "gpus": None}
    return Report((here,), tuple(replace(finding, node=name) for finding in found))


def _doctor(arguments: argparse.Namespace) -> int:
    if not arguments.seconds > 0:
        raise WrongRequest(f"seconds={arguments.seconds:g}: must be above 0")
    if not arguments.store.strip():
        raise WrongRequest("store=: must be a folder or an address")
    if arguments.address is not None and (wrong := environment.wrong_address(arguments.address)):
        raise WrongRequest(f"address={arguments.address}: {wrong[0]}; {wrong[1]}")
    address = arguments.address or os.environ.get("RAY_ADDRESS", "")
    if environment.wrong_address(address or "local"):
        address = ""  # The line on the environment says what is wrong with it.
    report = examine(arguments.store, address, seconds=arguments.seconds, mend=arguments.fix)
    print(json.dumps(report.as_json(), indent=1)) if arguments.json else show(report)
    return int(report.failed)


def show(report: Report) -> None:
    """A table with a line for each finding; what is well on several nodes is told once, what was left out below."""
    from sweeps.show import Screen

    console, alone = Screen(highlight=False), len(report.nodes) == 1
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("result", "check", *([] if alone else ["node"]), "seen"):
        table.add_column(name, overflow="fold", ratio=1 if name == "seen" else None)
    for finding, names in folded(report.findings):
        word = finding.result.upper() if finding.result == FAIL else finding.result
        text = escape(finding.seen) + (f"\n[bold]->[/] {escape(finding.fix)}" if finding.fix else "")
        row = (f"[{STYLES[finding.result]}]{word}[/]", finding.name, escape(names), text)
        table.add_row(*(row[:2] + row[3:] if alone else row))
    console.print(table, "", sep="\n")
    for why, left_out in skipped(report.findings).items():
        console.print(f"skipped ({escape(why)}): {', '.join(left_out)}", style=STYLES[SKIPPED])
    console.print(summary(report))


def folded(findings: Iterable[Finding]) -> list[tuple[Finding, str]]:
    """Findings that are not skipped, with their nodes, failures last.

    What is well on several nodes is one of them, with their number; so is a fault that several have, with their names.
    """
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in sorted(findings, key=lambda each: RESULTS.index(each.result)):
        # Of a check with several lines, what comes before a colon tells them apart.
        part = finding.seen.partition(":")[0] if finding.name == "disk" else ""
        if finding.result != SKIPPED:
            groups.setdefault((finding.name, part if finding.result == OK else finding.seen), []).append(finding)
    return [(group[0], _names(group)) for group in groups.values()]


def _names(group: list[Finding]) -> str:
    if len(group) > 1 and (group[0].result == OK or len(group) > NAMED):
        return f"{len(group)} nodes"
    return "\n".join(finding.node for finding in group)


def skipped(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """The checks that were left out on every node, by the reason."""
    findings = list(findings)
    done = {finding.name for finding in findings if finding.result != SKIPPED}
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        if finding.name not in done:
            done.add(finding.name)
            reasons.setdefault(finding.seen, []).append(finding.name)
    return reasons


def summary(report: Report) -> str:
    """How many nodes and checks there were, and the names of those that fail or warn."""
    failed = list(dict.fromkeys(f.name for f in report.findings if f.result == FAIL))
    warned = list(dict.fromkeys(f.name for f in report.findings if f.result == WARN and f.name not in failed))
    many = f"{len(report.nodes)} nodes" if len(report.nodes) > 1 else "one machine"
    told = [f"failed: {', '.join(failed)}"] if failed else []
    told += [f"to look at: {', '.join(warned)}"] if warned else []
    return f"{many}, {len(report.findings)} lines; {'; '.join(told) or 'all is well'}"


def _tracking(store: str) -> str:
    """`MLFLOW_TRACKING_URI`, or SQLite beside a store that is a folder; empty where there is neither."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    from sweeps import tracking

    local = stores.folder(stores.address(store))
    return tracking.default_uri(Store.at(local)) if local else ""
