"""`ktrain doctor`: checks machine, store, tracking server and cluster, and says how to mend what is wrong."""

import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from rich.markup import escape
from rich.table import Table
from typer import Option

from ktrain.errors import WrongRequest
from ktrain.store.open import store_at
from sweeps.doctor import cluster, environment, registry, stores
from sweeps.doctor.finding import FAIL, OK, RESULTS, SKIPPED, WARN, CheckContext, Finding
from sweeps.execution.cluster_address import LOCAL, address_fault
from sweeps.options import EXIT_DONE, EXIT_FAILED, AsJson, StoreAddress

SECONDS = 60.0
STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red", SKIPPED: "dim"}
NAMED = 4
"""How many nodes with the same fault the table names; JSON names all."""
CLUSTER = ("same-versions", "same-code", "clock", "token", "drivers", "store-sharing")
"""Checks that only a cluster can be given."""


@dataclass(frozen=True)
class Report:
    """The nodes that were checked, and all findings, each with its node."""

    nodes: tuple[Mapping[str, Any], ...]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(finding.result == FAIL for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Returns what `doctor --json` prints."""
        return {"nodes": list(self.nodes), "checks": [finding.as_json() for finding in self.findings]}


def examine(store: str, address: str, *, seconds: float = SECONDS) -> Report:
    """Runs all checks: on this machine, or with an address on every node of a cluster and on its driver, here.

    If the cluster cannot be joined, that is a finding, and only this machine is checked.
    """
    context = CheckContext(store=stores.address(store), tracking=_tracking(store))
    if address in ("", LOCAL):
        return _this_machine(context)
    nodes, findings = cluster.examine_cluster(address, context, seconds)
    if not nodes:
        here = _this_machine(context)
        return Report(here.nodes, (*findings, *here.findings))
    driver = {"environment": environment.environment, **registry.DRIVER}
    own = registry.run_checks(replace(context, nodes=len(nodes)), driver)
    return Report(tuple(nodes), (*findings, *(replace(finding, node="driver") for finding in own)))


def _this_machine(context: CheckContext) -> Report:
    name = socket.gethostname()
    findings = registry.run_checks(context, {**registry.MACHINE, **registry.DRIVER})
    findings += [Finding(check, SKIPPED, "one machine: give a cluster's --address") for check in CLUSTER]
    here = {"name": name, "address": "127.0.0.1", "head": True, "cpus": None, "gpus": None}
    return Report((here,), tuple(replace(finding, node=name) for finding in findings))


def doctor(
    store: StoreAddress = "results",
    address: Annotated[
        str | None,
        Option("--address", help="A cluster: auto on its head, or HEAD:6379; without it, RAY_ADDRESS or this machine."),
    ] = None,
    seconds: Annotated[float, Option("--seconds", help="How long a node may take to answer.")] = SECONDS,
    as_json: AsJson = False,
) -> int:
    """Check machine, store, tracking server and cluster, and say how to mend what is wrong."""
    if not seconds > 0:
        raise WrongRequest(f"seconds={seconds:g}: must be above 0")
    if not store.strip():
        raise WrongRequest("store=: must be a folder or an address")
    if address is not None and (wrong := address_fault(address)):
        raise WrongRequest(f"address={address}: {wrong[0]}; {wrong[1]}")
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address_fault(address or LOCAL):
        address = ""  # The check `environment` reports it.
    report = examine(store, address, seconds=seconds)
    print(json.dumps(report.as_json(), indent=1)) if as_json else show(report)
    return EXIT_FAILED if report.failed else EXIT_DONE


def show(report: Report) -> None:
    """Prints a table with a line for each finding: passes of several nodes in one line, skipped checks below."""
    from sweeps.console import Screen

    console, alone = Screen(highlight=False), len(report.nodes) == 1
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("result", "check", *([] if alone else ["node"]), "seen"):
        table.add_column(name, overflow="fold", ratio=1 if name == "seen" else None)
    for finding, names in grouped(report.findings):
        word = finding.result.upper() if finding.result == FAIL else finding.result
        text = escape(finding.detail) + (f"\n[bold]->[/] {escape(finding.fix)}" if finding.fix else "")
        row = (f"[{STYLES[finding.result]}]{word}[/]", finding.name, escape(names), text)
        table.add_row(*(row[:2] + row[3:] if alone else row))
    console.print(table, "", sep="\n")
    for why, left_out in skipped(report.findings).items():
        console.print(f"skipped ({escape(why)}): {', '.join(left_out)}", style=STYLES[SKIPPED])
    console.print(summary(report))


def grouped(findings: Iterable[Finding]) -> list[tuple[Finding, str]]:
    """Returns the findings that are not skipped, failures last, each with the text for its nodes.

    A check that passes on several nodes is one finding with their number; so is a fault that several share, with names.
    """
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in sorted(findings, key=lambda each: RESULTS.index(each.result)):
        # `disk` has several lines, which differ before the colon.
        part = finding.detail.partition(":")[0] if finding.name == "disk" else ""
        if finding.result != SKIPPED:
            groups.setdefault((finding.name, part if finding.result == OK else finding.detail), []).append(finding)
    return [(group[0], _names(group)) for group in groups.values()]


def _names(group: list[Finding]) -> str:
    if len(group) > 1 and (group[0].result == OK or len(group) > NAMED):
        return f"{len(group)} nodes"
    return "\n".join(finding.node for finding in group)


def skipped(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Returns the checks that were skipped on every node, by reason."""
    findings = list(findings)
    done = {finding.name for finding in findings if finding.result != SKIPPED}
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        if finding.name not in done:
            done.add(finding.name)
            reasons.setdefault(finding.detail, []).append(finding.name)
    return reasons


def summary(report: Report) -> str:
    """Returns one line: how many nodes and findings there are, and which checks fail or warn."""
    failed = list(dict.fromkeys(f.name for f in report.findings if f.result == FAIL))
    warned = list(dict.fromkeys(f.name for f in report.findings if f.result == WARN and f.name not in failed))
    many = f"{len(report.nodes)} nodes" if len(report.nodes) > 1 else "one machine"
    parts = [f"failed: {', '.join(failed)}"] if failed else []
    parts += [f"to look at: {', '.join(warned)}"] if warned else []
    return f"{many}, {len(report.findings)} lines; {'; '.join(parts) or 'all is well'}"


def _tracking(store: str) -> str:
    """Returns `MLFLOW_TRACKING_URI`, else SQLite beside a store that is a folder, else an empty string."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    from sweeps.tracking import address

    local = stores.folder(stores.address(store))
    return address.database_beside(store_at(local)) if local else ""
