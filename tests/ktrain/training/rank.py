"""One rank of a job, for `test_workers`: `rank.py RANK WORLD FOLDER` does the tasks of FOLDER/tasks.json in turn.

A task is a list of cells, the store that they go to, and the steps of stages at which the trial is killed and started
again, once each; `give_up` leaves it at that.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from ktrain import pipeline
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.model import networks
from ktrain.training.progress import Progress


class Killed(Exception):
    """Stands for whatever ends a job."""


def main(rank: int, world: int, folder: Path) -> None:
    assert "mlflow" not in sys.modules, "a worker would take longer to start"
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    # The launcher's part, as Ray does it; long enough for a busy machine, short enough not to hang for half an hour.
    store = dist.FileStore(str(folder / "rendezvous"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=3))
    torch.set_num_threads(1)
    job = json.loads((folder / "tasks.json").read_text())
    networks.SIZES["mini"] = networks.NetworkSize(**job["shape"])
    for task in job["tasks"]:
        cells = [CellConfig.model_validate(cell) for cell in task["cells"]]
        runtime = RuntimeConfig(store=task["store"], workers=world, compile=False, checkpoint_seconds=1e-9)
        for stop in task["stops"] if task["give_up"] else [*task["stops"], None]:

            def report(key: str, progress: Progress, stop: list[object] | None = stop) -> None:
                if stop is not None and key.startswith(str(stop[0])) and progress.step == stop[1]:
                    raise Killed

            try:
                pipeline.run(cells, runtime, report)
                assert stop is None, f"{stop} was not reached"
            except Killed:
                continue
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
