from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrain.errors import WrongRequest
from sweeps.execution.capacity import GIB, ClusterCapacity, NodeCapacity, ResourceRequest, _node, _widened, workers_of

THIRD = Fraction(3333, 10_000)


def gpu(workers: int = 1, share: Fraction = Fraction(1)) -> ResourceRequest:
    return ResourceRequest(workers, gpus=share)


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        ([gpu()] * 4, True),
        ([gpu()] * 5, False),
        ([gpu(2), gpu(2)], True),
        ([gpu(3), gpu(2)], False),
        # Shares of one size lie side by side; of two sizes, each has GPUs of its own.
        ([gpu(share=THIRD)] * 12, True),
        ([gpu(share=THIRD)] * 13, False),
        ([gpu(3), gpu(share=Fraction(1, 2)), gpu(share=Fraction(1, 2))], True),
        ([gpu(3), gpu(share=Fraction(1, 2)), gpu(share=Fraction(1, 4))], False),
    ],
)
def test_gpus_are_counted_whole_and_shares_by_whole_gpus(needs: list[ResourceRequest], fits: bool) -> None:
    assert ClusterCapacity((NodeCapacity(gpus=2), NodeCapacity(gpus=1, count=2))).fits(needs) is fits


def test_on_processors_a_worker_is_whole_on_one_machine_and_in_its_memory() -> None:
    room = ClusterCapacity((NodeCapacity(cpus=5, memory=8 * GIB), NodeCapacity(cpus=3, memory=1 * GIB, count=2)))
    assert room.workers(ResourceRequest(cpus=2)) == 2 + 2 * 1
    assert (
        room.workers(ResourceRequest(cpus=2, memory=GIB)) == 4
        and room.workers(ResourceRequest(cpus=1, memory=2 * GIB)) == 4
    )
    assert room.fits([ResourceRequest(cpus=2)] * 4) and not room.fits([ResourceRequest(cpus=2)] * 5)
    assert not room.fits([ResourceRequest(cpus=6)]), "no machine has so many"


def test_there_are_no_more_trials_than_places_for_their_drivers() -> None:
    room = ClusterCapacity((NodeCapacity(gpus=8),), drivers=2)
    assert room.fits([gpu()] * 2) and not room.fits([gpu()] * 3)


@given(shares=st.lists(st.integers(1, 8), max_size=30), width=st.integers(1, 8))
def test_what_is_held_has_a_place_on_gpus_of_its_own_size(shares: list[int], width: int) -> None:
    needs = [gpu(share=Fraction(10_000 // k, 10_000)) for k in shares]
    gpus = sum(-(-shares.count(k) // k) for k in set(shares))
    assert ClusterCapacity((NodeCapacity(gpus=width),)).fits(needs) is (gpus <= width)


def test_the_smallest_gpu_counts_because_a_worker_may_come_to_any() -> None:
    assert (
        ClusterCapacity(
            (NodeCapacity(gpus=1, gpu_memory=80), NodeCapacity(gpus=4, gpu_memory=24), NodeCapacity(cpus=4))
        ).gpu_memory
        == 24
    )
    assert ClusterCapacity((NodeCapacity(gpus=1, gpu_memory=80), NodeCapacity(gpus=4))).gpu_memory is None
    assert (
        ClusterCapacity((NodeCapacity(cpus=2),)).gpu_memory is None
        and ClusterCapacity((NodeCapacity(cpus=2),)).gpus == 0
    )


@pytest.mark.parametrize(
    ("resources", "labels", "gib"),
    [
        ({"GPU": 8, "accelerator_type:H100": 1}, {}, 79),
        ({"GPU": 1}, {"ray.io/accelerator-type": "A100-80G"}, 79),
        ({"GPU": 1}, {"ray.io/accelerator-type": "NVIDIA-A10G"}, 22),
        ({"GPU": 1}, {"ray.io/accelerator-type": "nvidia-tesla-t4"}, 14),
        ({"GPU": 1}, {"ray.io/accelerator-type": "Abacus"}, None),
        ({"GPU": 1}, {}, None),
        ({"CPU": 1}, {"ray.io/accelerator-type": "H100"}, None),
    ],
)
def test_a_gpu_that_is_not_there_yet_is_known_by_its_name(
    resources: dict[str, float], labels: dict[str, str], gib: float | None
) -> None:
    assert _node(resources, labels).gpu_memory == (gib and gib * GIB)


def test_a_cluster_file_tells_what_the_cluster_can_grow_to() -> None:
    file = {
        "max_workers": 10,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0, "driver_slot": 1000}},
            "plain": {"resources": {"CPU": 16}, "max_workers": 100},
            "large": {"resources": {"CPU": 96, "GPU": 8, "accelerator_type:H100": 1}, "max_workers": 3},
            "small": {"resources": {"CPU": 8, "GPU": 1}, "labels": {"ray.io/accelerator-type": "L4"}, "max_workers": 4},
            "none": {"resources": {"GPU": 8}, "max_workers": 0},
        },
    }
    assert workers_of(file) == [
        NodeCapacity(96, 8, None, 79 * GIB, 3),
        NodeCapacity(8, 1, None, 22 * GIB, 4),
        NodeCapacity(16, 0, None, None, 3),
    ]


def test_gpus_that_only_the_user_knows_of_are_as_large_as_the_smallest_there() -> None:
    there = [NodeCapacity(cpus=4), NodeCapacity(cpus=4, gpus=2, gpu_memory=24 * GIB)]
    assert _widened(there, 8)[-1] == NodeCapacity(gpus=1, gpu_memory=24 * GIB, count=6)
    assert ClusterCapacity(tuple(_widened([NodeCapacity(cpus=4)], 8))).gpus == 8
    with pytest.raises(WrongRequest, match=r"gpus-max=1: there are 2 GPUs already"):
        _widened(there, 1)


def test_ray_is_told_of_a_worker_what_it_holds() -> None:
    assert ResourceRequest(cpus=2).resources == {"CPU": 2}
    assert ResourceRequest(cpus=2, memory=5).resources == {"CPU": 2, "memory": 5}
    assert ResourceRequest(4, gpus=Fraction(1), memory=5).resources == {"GPU": 1.0}
    assert gpu(share=THIRD).resources == {"GPU": 0.3333}
