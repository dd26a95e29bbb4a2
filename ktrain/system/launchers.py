"""Variables of other launchers, which start no process of ours, and those that name what a machine does not have."""

import os
import socket
from collections.abc import Iterator, Mapping

PREFIXES = (
    "OMPI_", "PMI_", "PMIX_", "MV2_COMM_WORLD_", "MPI_LOCAL", "HYDRA_", "PALS_", "FLUX_TASK_", "JSM_NAMESPACE_",
    "TORCHELASTIC_", "HOROVOD_", "ACCELERATE_", "AZUREML_", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID",
    "SLURM_NTASKS", "SLURM_STEP_", "SLURM_TASKS_PER_NODE",
)  # fmt: skip
NAMES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "GROUP_RANK",
    "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
    "SM_TRAINING_ENV", "DLTS_JOB_ID",
)  # fmt: skip
"""Open MPI, MPICH, MVAPICH, PBS, Flux, LSF, Slurm, torchrun, Horovod, Accelerate and clouds set them for the processes
that they start themselves. Libraries that find them in a worker of Ray take it for another rank than it is."""


def forget_launcher() -> None:
    """Removes these variables from the environment of this process and its children. Call it before libraries that
    train are imported."""
    for name in [name for name in os.environ if name in NAMES or name.startswith(PREFIXES)]:
        del os.environ[name]


def device_faults(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What these variables name that this machine does not have, an interface or a GPU, each with how to mend it."""
    if names := variables.get("GLOO_SOCKET_IFNAME", ""):
        known = [name for _, name in socket.if_nameindex()]
        if wrong := next((name for name in names.split(",") if name not in known), None):
            line = f"GLOO_SOCKET_IFNAME={names}: there is no interface {wrong} here, only {', '.join(known)}"
            yield line, "unset GLOO_SOCKET_IFNAME"
    if variables.get("DS_ACCELERATOR") == "cuda":
        import torch

        if not torch.cuda.is_available():
            yield "DS_ACCELERATOR=cuda: no GPU can be used here", "unset DS_ACCELERATOR"
