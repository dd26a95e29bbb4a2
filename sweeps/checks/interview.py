"""Asking every node of a cluster, through an actor on each.

To join a cluster can take minutes or end the process that tries, so this is a program: `joined` starts it and puts a
limit on it.
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

from sweeps.checks import clocks, ports, registry, stores, tokens, versions
from sweeps.checks.finding import FAIL, SKIPPED, Finding, Setting, first_line, from_json
from sweeps.checks.nodes import Machine, answered, machines, slots
from sweeps.checks.reach import unreachable

JOIN = 30.0
"""Seconds for a cluster to let a driver in."""
SILENT = 3
"""The exit code of this program when it did not."""
EXAMINED = 240.0
"""Seconds for all checks of a node, which have limits of their own."""


class Node:
    """What runs on a node; its methods are called from the driver."""

    def facts(self) -> dict[str, str]:
        """Versions, and whether this node's Ray asks for a token."""
        return {**versions.facts(), tokens.FACT: tokens.mode()}

    def now(self) -> float:
        """The clock of this node, in seconds since 1970."""
        return clocks.now()

    def examine(self, setting: Setting) -> list[dict[str, str]]:
        """What all checks of a machine find here."""
        return [finding.as_json() for finding in registry.examined(setting)]

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """What one of `stores.METHODS` returns here."""
        return stores.METHODS[method](*arguments)


def joined(address: str, setting: Setting, seconds: float) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The nodes of a cluster, and what they find; each may take `seconds` to answer.

    Where the cluster cannot be joined there are no nodes, and the finding says why.
    """
    host, _, port = address.rpartition(":")
    if host and (line := unreachable(host.strip("[]"), int(port))):
        return [], [_refused(f"{address}: {line}")]
    asked = {"address": address, "setting": asdict(setting), "seconds": seconds, "join": JOIN}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Once a second Ray asks whether it is let in, twenty times by default.
    environment.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    command, limit = [sys.executable, "-m", "sweeps.checks.interview"], JOIN + 6 * seconds + EXAMINED
    pipes: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    try:
        done = subprocess.run(command, input=json.dumps(asked), env=environment, timeout=limit, **pipes)
    except subprocess.TimeoutExpired:
        return [], [_refused(f"{address}: no end after {limit:.0f} s")]
    lines = done.stdout.strip().splitlines()
    if done.returncode == SILENT:
        return [], [_refused(f"what is at {address} does not answer as Ray does in {JOIN:.0f} s")]
    if done.returncode or not lines:
        return [], [why_not(address, done.stderr)]
    found = json.loads(lines[-1])
    return found["nodes"], [from_json(line) for line in found["checks"]]


def why_not(address: str, said: str) -> Finding:
    """Why the cluster does not let us in, from what Ray has said."""
    if "InvalidAuthToken" in said or "no authentication token was found" in said:
        fix = "export RAY_AUTH_MODE=token, and copy ~/.ray/auth_token from the head"
        return _refused(f"{address}: the cluster asks for its token, and none or another is here", fix)
    if "Version mismatch" in said:
        versions = " ".join(said[said.rindex("Version mismatch") :].split())[:200]
        return _refused(f"{address}: {versions}", "use the head's environment: Ray and Python must be the same")
    return _refused(f"{address}: {reason(said) or 'Ray ended without a word'}")


def reason(text: str) -> str:
    """The last error that a text names, with what it says; of a text without errors its last line."""
    errors = re.findall(r"\b[\w.]*(?:Error|Exception)\b: .*", text)
    return str(errors[-1] if errors else (text.strip().splitlines() or [""])[-1])[:200]


def _refused(seen: str, fix: str = "run `ray status` on the head; Ray's port is 6379 unless told otherwise") -> Finding:
    return Finding("nodes", FAIL, seen, fix, "cluster")


class _Cluster:
    """The nodes of a cluster that this process has joined, and the actors on them."""

    def __init__(self, setting: Setting, seconds: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._seconds, self._setting = ray, seconds, setting
        self.machines = machines(ray.nodes(), ray.get_runtime_context().gcs_address, _dashboard(ray))
        actor: Any = ray.remote(Node)
        self._actors = {
            machine.name: actor.options(
                num_cpus=0,
                max_restarts=0,
                # The head has no CPUs to give, and is asked too.
                scheduling_strategy=NodeAffinitySchedulingStrategy(machine.id, soft=False),
            ).remote()
            for machine in self.machines
        }

    def findings(self) -> list[Finding]:
        """All that can be found on a cluster. A node that does not answer is asked nothing more."""
        facts = self._call("facts", {machine.name: () for machine in self.machines}, self._seconds)
        found = [answered(machine, facts[machine.name]) for machine in self.machines]
        there = [machine for machine in self.machines if not isinstance(facts[machine.name], Exception)]
        here, names = versions.facts(), [machine.name for machine in there]
        for name in names:
            found += [replace(line, node=name) for line in versions.compared(here, facts[name])]
        found += [self._clock(name) for name in names]
        found += tokens.judged({name: facts[name][tokens.FACT] for name in names}, [m.address for m in there])
        found.append(slots(there))
        found += self._examined(there)
        if len(there) > 1:
            return found + stores.sharing(self._ask, self._setting.store, names)
        return [*found, Finding("store-sharing", SKIPPED, "one node", "", "cluster")]

    def _call(self, method: str, arguments: Mapping[str, tuple[Any, ...]], seconds: float) -> dict[str, Any]:
        """What the actors answer to one method, by node; an exception where they fail or take longer."""
        asked = {name: getattr(self._actors[name], method).remote(*args) for name, args in arguments.items()}
        ready = self._ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)[0] if asked else []
        answers: dict[str, Any] = {}
        for name, reference in asked.items():
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
            return clocks.judged(name, *clocks.skew(remote))
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
        found = []
        for name, lines in self._call("examine", {n: (s,) for n, s in settings.items()}, EXAMINED).items():
            if isinstance(lines, Exception):
                fix = "log in there and run ktrain doctor"
                found.append(Finding("nodes", FAIL, f"its checks do not end: {first_line(lines)}", fix, name))
            else:
                found += [replace(from_json(line), node=name) for line in lines]
        return found


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
    """Reads what is asked from standard input, and prints the answer as its last line."""
    import ray

    asked = json.load(sys.stdin)
    watchdog = threading.Timer(asked["join"], os._exit, (SILENT,))
    watchdog.daemon = True
    watchdog.start()
    ray.init(asked["address"], log_to_driver=False, logging_level=logging.CRITICAL)
    watchdog.cancel()
    cluster = _Cluster(Setting(**asked["setting"]), asked["seconds"])
    checks = [finding.as_json() for finding in cluster.findings()]
    print(json.dumps({"nodes": [machine.as_json() for machine in cluster.machines], "checks": checks}), flush=True)
    os._exit(0)  # To leave Ray properly would wait for a node that hangs.


if __name__ == "__main__":
    # Under its own name, by which the nodes know it.
    from sweeps.checks import interview

    interview.main()
