"""The queue under the real Ray Tune: on machines of one Ray cluster with declared GPUs, by trials that sleep."""

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import tune
from rich.console import Console

from sweeps import Sweep
from sweeps.execution import capacity, local_ray, ray_session, run
from sweeps.execution.capacity import HEAD, ClusterCapacity, NodeCapacity, ResourceRequest, measure_capacity
from sweeps.execution.scheduler import BackfillScheduler, PendingTrial
from sweeps.planning.plan import Plan

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[3]
TRIALS = 6


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[str]]:
    """A head without CPUs and two machines with one CPU and two declared GPUs each; the ids of all three nodes."""
    import ray
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    ray_session.prepare()
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    plain = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    with local_ray.confined():
        started = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, **plain})
        for _ in range(2):
            started.add_node(num_cpus=1, num_gpus=2, object_store_memory=80 * 2**20)
        with ray_session.connected(started.address):
            started.wait_for_nodes()
            yield [node["NodeID"] for node in sorted(ray.nodes(), key=lambda node: HEAD not in node["Resources"])]
        started.shutdown()
    os.environ.clear()
    os.environ.update(before)


def test_drivers_outnumber_processors_sizes_are_mixed_and_one_trial_fails(
    cluster: list[str], planned: Callable[..., Plan], tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    plan = planned(tiny({"seed": tune.grid_search(list(range(TRIALS)))}))
    names = list(plan.trials())
    sizes = [
        ResourceRequest(gpus=Fraction(1)),
        ResourceRequest(gpus=Fraction(1, 2)),
        ResourceRequest(3, gpus=Fraction(1)),
        ResourceRequest(gpus=Fraction(1, 2)),
    ]
    needs = {name: sizes[k % len(sizes)] for k, name in enumerate(names)}
    here, driver = measure_capacity()
    # Each trial that runs takes memory where its driver is.
    assert (
        measure_capacity(driver_bytes=1e18)[0].drivers == 1
        and 1 < measure_capacity(driver_bytes=1e9)[0].drivers < measure_capacity(driver_bytes=1.0)[0].drivers
    )
    assert driver == {HEAD: 0.001} and here.gpus == 4 and here.gpu_memory is None
    log = tmp_path / "log"
    log.mkdir()

    def sleep(config: dict[str, Any], *, bad: str, log: str) -> None:
        import time

        import ray
        from ray.util import placement_group, remove_placement_group

        told, begin = config["trial"], time.time()
        group = placement_group([told["worker"]] * told["workers"])
        placed = group.wait(60)
        time.sleep(0.3)
        remove_placement_group(group)
        times = {"begin": begin, "end": time.time(), "placed": placed, "node": ray.get_runtime_context().get_node_id()}
        (Path(log) / told["name"]).write_text(json.dumps(times))
        if told["name"] == bad:
            raise ValueError("as planned")

    queue = BackfillScheduler([PendingTrial(name, 1.0 + k) for k, name in enumerate(names)], here, needs.__getitem__)
    trainable = functools.partial(sleep, bad=names[5], log=str(log))
    console = Console(file=io.StringIO(), width=200)
    told = run.drive(plan, queue, trainable, driver, tmp_path / "ray", console)
    assert told[0] == "1 cell failed: ValueError: as planned"
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count(": done") == TRIALS - 1 and said.count(": failed") == 1
    runs = {name: json.loads((log / name).read_text()) for name in names}
    assert all(one["placed"] and one["node"] == cluster[0] for one in runs.values()), "drivers are on the head"
    for one in runs.values():
        live = [name for name, other in runs.items() if other["begin"] <= one["begin"] < other["end"]]
        assert here.fits([needs[name] for name in live])


def test_a_cluster_tells_what_it_can_grow_to(
    cluster: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

    monkeypatch.setattr(capacity, "BOOTSTRAP_FILE", tmp_path / "none.yaml")
    assert measure_capacity(gpu_gib=24)[0].gpu_memory == 24 * capacity.GIB and measure_capacity(9)[0].gpus == 9
    kind = {"resources": {"CPU": 8, "GPU": 4, "accelerator_type:H100": 1}, "max_workers": 5}
    types = {"head": {"resources": {"CPU": 0}}, "worker": kind}
    file = {"max_workers": 5, "head_node_type": "head", "available_node_types": types}
    (tmp_path / "grown.yaml").write_text(yaml.safe_dump(file))
    monkeypatch.setattr(capacity, "BOOTSTRAP_FILE", tmp_path / "grown.yaml")
    grown, _ = measure_capacity()
    assert grown.gpus == 20 and NodeCapacity(8, 4, None, 79 * capacity.GIB, 5) in grown.nodes
    # What the autoscaler itself reports comes first.
    group = NodeGroupConfig(resources={"CPU": 4, "GPU": 8}, max_count=8, name="gpu")
    client = GcsClient(address=_address())
    client.report_cluster_config(ClusterConfig(node_group_configs=[group]).SerializeToString())
    assert measure_capacity()[0].gpus == 64


def _address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def test_the_bench_measures_a_short_schedule(tmp_path: Path) -> None:
    words = ["bench", "schedule", "--gpus", "3", "--trials", "6", "--seconds", "4", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.cli", *words],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["trials"], found["gpus"], found["bound_seconds"]) == (6, 3, 4.0)
    assert found["ratios"]["makespan"] == pytest.approx(found["wall_seconds"] / 4) and found["wall_seconds"] >= 4
    assert [point["trials"] for point in found["memory"]] == list(range(1, 7))
    assert all(point["driver_mb"] > 20 and point["ray_mb"] > 100 for point in found["memory"])
    assert found["driver_cpu_seconds"] > 0 and 0 < found["hours"]["longest trial"] <= found["hours"]["bound"]
    assert sum(found["trials_by_gpus"].values()) == 6 and found["failed"] == []
    assert 0 < found["placed_within_seconds"] < found["wall_seconds"]


@pytest.mark.parametrize("words", [["--gpus", "0"], ["--trials", "-1"], ["--seconds", "0"]])
def test_the_bench_refuses_numbers_that_cannot_be(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from sweeps import cli

    assert cli.main(["bench", "schedule", *words]) == 2
    assert f"{words[0][2:]}={words[1]}: must be above 0" in capsys.readouterr().err


def test_room_of_nothing_holds_nothing() -> None:
    assert not ClusterCapacity(()).fits([ResourceRequest(gpus=Fraction(1))]) and not ClusterCapacity(()).fits(
        [ResourceRequest(cpus=1)]
    )
