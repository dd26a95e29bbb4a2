"""Runs the checks on every node of a cluster, through an actor on each.

Joining a cluster can take minutes or end the process that tries. So this module is also a program, which
`examine_cluster` starts with a time limit.
"""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import urlsplit

from ktrain.errors import WrongRequest
from sweeps.doctor import clocks, ports, registry, stores, tokens, versions
from sweeps.doctor.finding import FAIL, SKIPPED, CheckContext, Finding, first_line, from_json
from sweeps.doctor.nodes import Machine, driver_finding, machines, node_finding
from sweeps.execution.cluster_address import answering_address

JOIN = 30.0
"""Seconds that a cluster may take to let a driver in."""
SILENT = 3
"""The exit code of this program when the cluster did not let it in."""
EXAMINED = 240.0
"""Seconds for all checks of a node together; each check has a limit of its own."""


class Node:
    """The actor on a node, whose methods the driver calls."""

    def facts(self) -> dict[str, str]:
        """Returns the versions on this node, and whether its Ray asks for a token."""
        return {**versions.facts(), tokens.FACT: tokens.mode()}

    def now(self) -> float:
        """Returns the seconds since 1970 by this node's clock."""
        return clocks.now()

    def examine(self, context: CheckContext) -> list[dict[str, str]]:
        """Runs all checks of a machine here."""
        return [finding.as_json() for finding in registry.run_checks(context)]

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Calls one of `stores.METHODS` here."""
        return stores.METHODS[method](*arguments)


def examine_cluster(address: str, context: CheckContext, seconds: float) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Returns the nodes of a cluster, and the findings on them; each node may take `seconds` to answer.

    If the cluster cannot be joined, there are no nodes, and the one finding says why.
    """
    try:
        place = answering_address(address)
    except WrongRequest as e:
        return [], [_refused(str(e))]
    request = {"address": place, "context": asdict(context), "seconds": seconds, "join": JOIN}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Ray retries once a second, twenty times by default.
    environment.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    command, limit = [sys.executable, "-m", "sweeps.doctor.cluster"], JOIN + 6 * seconds + EXAMINED
    pipes: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    try:
        done = subprocess.run(command, input=json.dumps(request), env=environment, timeout=limit, **pipes)
    except subprocess.TimeoutExpired:
        return [], [_refused(f"{address}: no end after {limit:.0f} s")]
    lines = done.stdout.strip().splitlines()
    if done.returncode == SILENT:
        return [], [_refused(f"what is at {address} does not answer as Ray does in {JOIN:.0f} s")]
    if done.returncode or not lines:
        return [], [explain_refusal(address, done.stderr)]
    answer = json.loads(lines[-1])
    return answer["nodes"], [from_json(line) for line in answer["checks"]]


def explain_refusal(address: str, said: str) -> Finding:
    """Returns why the cluster does not let us in, from what Ray has printed."""
    if "InvalidAuthToken" in said or "no authentication token was found" in said:
        fix = "export RAY_AUTH_MODE=token, and copy ~/.ray/auth_token from the head"
        return _refused(f"{address}: the cluster asks for its token, and none or another is here", fix)
    if "Version mismatch" in said:
        versions = " ".join(said[said.rindex("Version mismatch") :].split())[:200]
        return _refused(f"{address}: {versions}", "use the head's environment: Ray and Python must be the same")
    return _refused(f"{address}: {reason(said) or 'Ray ended without a word'}")


def reason(text: str) -> str:
    """Returns the last error in a text, with its message; of a text without errors, its last line."""
    errors = re.findall(r"\b[\w.]*(?:Error|Exception)\b: .*", text)
    return str(errors[-1] if errors else (text.strip().splitlines() or [""])[-1])[:200]


def _refused(
    detail: str, fix: str = "run `ray status` on the head; Ray's port is 6379 unless told otherwise"
) -> Finding:
    return Finding("nodes", FAIL, detail, fix, "cluster")


class _Cluster:
    """The nodes of a cluster that this process has joined, and the actors on them."""

    def __init__(self, context: CheckContext, seconds: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._seconds, self._setting = ray, seconds, context
        self.machines = machines(ray.nodes(), ray.get_runtime_context().gcs_address, _dashboard(ray))
        actor: Any = ray.remote(Node)
        self._actors = {
            machine.name: actor.options(
                num_cpus=0,
                max_restarts=0,
                # The head has no CPUs to give, and is checked too.
                scheduling_strategy=NodeAffinitySchedulingStrategy(machine.id, soft=False),
            ).remote()
            for machine in self.machines
        }

    def findings(self) -> list[Finding]:
        """Returns the findings on all nodes. A node that does not answer the first call gets no further ones."""
        facts = self._call("facts", {machine.name: () for machine in self.machines}, self._seconds)
        findings = [node_finding(machine, facts[machine.name]) for machine in self.machines]
        there = [machine for machine in self.machines if not isinstance(facts[machine.name], Exception)]
        here, names = versions.facts(), [machine.name for machine in there]
        for name in names:
            findings += [replace(line, node=name) for line in versions.compared(here, facts[name])]
        findings += [self._clock(name) for name in names]
        findings += tokens.judge({name: facts[name][tokens.FACT] for name in names}, [m.address for m in there])
        findings.append(driver_finding(there))
        findings += self._examined(there)
        if len(there) > 1:
            return findings + stores.sharing(self._ask, self._setting.store, names)
        return [*findings, Finding("store-sharing", SKIPPED, "one node", "", "cluster")]

    def _call(self, method: str, arguments: Mapping[str, tuple[Any, ...]], seconds: float) -> dict[str, Any]:
        """Calls one method of the actors; returns their answers by node, an exception for one that fails or is late."""
        calls = {name: getattr(self._actors[name], method).remote(*args) for name, args in arguments.items()}
        ready = self._ray.wait(list(calls.values()), num_returns=len(calls), timeout=seconds)[0] if calls else []
        answers: dict[str, Any] = {}
        for name, reference in calls.items():
            try:
                late = TimeoutError(f"no answer in {seconds:.0f} s")
                answers[name] = self._ray.get(reference) if reference in ready else late
            except Exception as e:
                answers[name] = RuntimeError(reason(str(e)))
        return answers

    def _ask(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        return self._call("ask", {name: (method, args) for name, args in arguments.items()}, self._seconds)

    def _clock(self, name: str) -> Finding:
        def remote() -> float:
            return float(self._ray.get(self._actors[name].now.remote(), timeout=self._seconds))

        try:
            return clocks.judge(name, *clocks.measure_skew(remote))
        except Exception as e:
            return Finding("clock", FAIL, f"no answer: {first_line(e)}", "see the line `nodes` of this node", name)

    def _examined(self, there: list[Machine]) -> list[Finding]:
        settings = {}
        for m in there:
            settings[m.name] = replace(
                self._setting,
                nodes=len(self.machines),
                cpus=m.cpus,
                gpus=m.gpus,
                object_store=m.object_store,
                services={**_tracking(self._setting.tracking), **m.services},
            )
        findings = []
        for name, lines in self._call("examine", {n: (s,) for n, s in settings.items()}, EXAMINED).items():
            if isinstance(lines, Exception):
                fix = "log in there and run ktrain doctor"
                findings.append(Finding("nodes", FAIL, f"its checks do not end: {first_line(lines)}", fix, name))
            else:
                findings += [replace(from_json(line), node=name) for line in lines]
        return findings


def _tracking(uri: str) -> dict[int, str]:
    """The port of a tracking server, wherever it listens."""
    with contextlib.suppress(ValueError):
        if uri.startswith("http") and (port := urlsplit(uri).port):
            return {port: ports.MLFLOW}
    return {}


def _dashboard(ray: Any) -> int | None:
    port = (ray._private.worker.get_dashboard_url() or "").rpartition(":")[2]
    return int(port) if port.isdigit() else None


def main() -> None:
    """Reads the request from standard input, and prints the answer as JSON in its last line."""
    import ray

    request = json.load(sys.stdin)
    watchdog = threading.Timer(request["join"], os._exit, (SILENT,))
    watchdog.daemon = True
    watchdog.start()
    ray.init(request["address"], log_to_driver=False, logging_level=logging.CRITICAL)
    watchdog.cancel()
    cluster = _Cluster(CheckContext(**request["context"]), request["seconds"])
    checks = [finding.as_json() for finding in cluster.findings()]
    print(json.dumps({"nodes": [machine.as_json() for machine in cluster.machines], "checks": checks}), flush=True)
    os._exit(0)  # `ray.shutdown` would wait for a node that hangs.


if __name__ == "__main__":
    # The nodes import the module by this name; `__main__` means another one there.
    from sweeps.doctor import cluster

    cluster.main()
