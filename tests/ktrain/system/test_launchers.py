"""Numbers of other launchers never reach what trains, and what a machine does not have is named."""

import os

import pytest
import torch

from ktrain import ray_job
from ktrain.system.launchers import device_faults, forget_launcher
from sweeps.execution import ray_session

FOREIGN = {
    "OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "PMI_RANK": "3", "PMIX_RANK": "3", "RANK": "3",
    "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "other", "SLURM_PROCID": "3", "TORCHELASTIC_RUN_ID": "x",
    "MV2_COMM_WORLD_RANK": "3", "LOCAL_SIZE": "8",
}  # fmt: skip
KEPT = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "OMP_NUM_THREADS": "1", "RANKING": "x"}


@pytest.mark.parametrize("start", [forget_launcher, ray_job.ready, ray_session.prepare])
def test_the_variables_of_launchers_are_removed(start: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # A copy, because the functions change more than the test sets.
    monkeypatch.setattr(os, "environ", os.environ.copy() | FOREIGN | KEPT)
    assert callable(start)
    start()
    assert not FOREIGN.keys() & os.environ.keys() and os.environ.items() >= KEPT.items()


def test_what_this_machine_does_not_have_is_named() -> None:
    assert list(device_faults({})) == [] == list(device_faults({"GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu"}))
    for names in ("ib7", "lo,ib7", "eth99,lo"):
        ((line, fix),) = device_faults({"GLOO_SOCKET_IFNAME": names})
        assert (
            line.startswith(f"GLOO_SOCKET_IFNAME={names}: there is no interface ") and fix == "unset GLOO_SOCKET_IFNAME"
        )
    if not torch.cuda.is_available():
        assert list(device_faults({"DS_ACCELERATOR": "cuda"})) == [
            ("DS_ACCELERATOR=cuda: no GPU can be used here", "unset DS_ACCELERATOR")
        ]
