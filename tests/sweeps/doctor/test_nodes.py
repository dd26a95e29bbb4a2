from typing import Any

import pytest

from sweeps.doctor.finding import FAIL, OK, WARN
from sweeps.doctor.nodes import Machine, driver_finding, machines, node_finding
from sweeps.doctor.ports import DASHBOARD, GCS


def node(host: str, id: str, *, alive: bool = True, head: bool = False, **resources: float) -> dict[str, Any]:
    return {
        "Alive": alive,
        "NodeID": id,
        "NodeManagerHostname": host,
        "NodeManagerAddress": "10.0.0.1",
        "NodeManagerPort": 7001,
        "ObjectManagerPort": 7002,
        "Resources": resources | ({"node:__internal_head__": 1.0} if head else {}),
    }


def machine(head: bool = False, cpus: float = 8.0, slots: float = 0.0) -> Machine:
    name = "head" if head else "gpu-1"
    return Machine(name, "ab", "10.0.0.1", head, cpus, 1.0, 0.0, slots, {})


def test_nodes_that_live_with_the_head_first_and_names_of_their_own() -> None:
    found = machines(
        [
            node("gpu", "aaaaaa", GPU=8.0, CPU=96.0, object_store_memory=1e9),
            node("gpu", "bbbbbb"),
            node("z", "cccccc", head=True, driver_slot=1000.0),
            node("gone", "dddddd", alive=False),
        ],
        "10.0.0.1:6379",
        8265,
    )
    assert [m.name for m in found] == ["z", "gpu/aaaa", "gpu/bbbb"]
    assert found[0].services == {7001: "Ray node manager", 7002: "Ray object manager", 6379: GCS, 8265: DASHBOARD}
    assert found[1].services == {7001: "Ray node manager", 7002: "Ray object manager"}
    assert (found[1].gpus, found[1].cpus, found[1].object_store, found[0].slots) == (8.0, 96.0, 1e9, 1000.0)
    assert found[0].as_json() == {"name": "z", "address": "10.0.0.1", "head": True, "cpus": 0.0, "gpus": 0.0}


def test_a_cluster_without_dashboard() -> None:
    (found,) = machines([node("z", "cccccc", head=True)], "10.0.0.1:6379", None)
    assert DASHBOARD not in found.services.values()


def test_a_node_that_answers() -> None:
    found = node_finding(machine(head=True, cpus=0), {"python": "3.11"})
    assert (found.result, found.detail, found.node) == (OK, "head, 0 CPUs, 1 GPUs, 10.0.0.1", "head")


@pytest.mark.parametrize(
    ("error", "words", "fix"),
    [
        (TimeoutError("no answer in 60 s"), "no answer in 60 s", "ray stop"),
        (RuntimeError("ModuleNotFoundError: No module named 'sweeps'"), "No module named", "install this commit"),
    ],
)
def test_a_node_that_does_not(error: Exception, words: str, fix: str) -> None:
    found = node_finding(machine(), error)
    assert found.result == FAIL and words in found.detail and fix in found.fix and found.node == "gpu-1"


@pytest.mark.parametrize(
    ("found", "result", "words"),
    [
        ([machine(head=True, cpus=0, slots=1000), machine()], OK, "1000 slots"),
        ([machine(head=True, cpus=0), machine()], WARN, "no node has driver_slot"),
        ([machine(head=True, slots=1000), machine()], WARN, "trials run on the head"),
        ([machine(head=True, slots=1000)], OK, "1000 slots"),
    ],
)
def test_where_drivers_of_trials_wait(found: list[Machine], result: str, words: str) -> None:
    line = driver_finding(found)
    assert line.result == result and words in line.detail
