"""Concurrent trials on a CPU: one process with all cores, or one process a core, pinned to it or not."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ktrain.bench import interleaved, machine, train
from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import sizes
from ktrain.system.allocator import keep_freed_memory
from ktrain.system.process_group import join_alone

MINI, LARGER = TrainConfig(batch=8, context=128, steps=1, warmup=0), TrainConfig(batch=4, steps=1, warmup=0)
SECONDS = 8.0


def side_by_side(size: str, seconds: float) -> dict[str, Any]:
    """Returns tokens a second of all processes together; `ratios` are one process a core over the others."""
    host, cores = machine.describe(), sorted(os.sched_getaffinity(0))
    ways = {
        "a process for each core": [(1, -1)] * len(cores),
        "the same, held to its core": [(1, core) for core in cores],
        "one process with all cores": [(len(cores), -1)],
    }
    with ExitStack() as stack:
        groups = {name: [stack.enter_context(_process(size, *at)) for at in where] for name, where in ways.items()}
        for processes in groups.values():
            # Compiles before any is measured.
            _together(processes, 0.1)
        loops = {name: lambda s, p=processes: _together(p, s) for name, processes in groups.items()}
        measured = interleaved.interleave(loops, seconds)
    rows = [interleaved.row(name, values, train.UNIT) for name, values in measured.items()]
    ratios = {row.name: rows[0].median / row.median for row in rows[1:]}
    return interleaved.result(rows, ratios, {}, host, {"model": size})


@contextmanager
def _process(size: str, threads: int, core: int) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", __spec__.name, size, str(threads), str(core)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.communicate()


def _together(processes: list[subprocess.Popen[str]], seconds: float) -> float:
    """Runs all processes at once for `seconds`; returns their tokens a second, summed."""
    for process in processes:
        assert process.stdin
        print(seconds, file=process.stdin, flush=True)
    return sum(float(process.stdout.readline()) for process in processes if process.stdout)


def _child(size: str, threads: int, core: int) -> None:
    """Reads seconds from standard input, line by line; trains that long and prints the tokens a second."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(threads)
    join_alone()
    keep_freed_memory()
    setting, network = MINI if size == "mini" else LARGER, ModelConfig.model_validate({"size": size})
    vocabulary = train.VOCABULARY.get(size, train.GPT2)
    ids = torch.randint(0, vocabulary, (8 * setting.batch, setting.context))
    loop = train.MAKERS["ktrain"](setting, network, vocabulary, ids)
    for line in sys.stdin:
        print(loop(float(line)), flush=True)


def main(words: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m ktrain.bench.concurrent", description=__doc__.splitlines()[0])
    parser.add_argument("size", nargs="?", choices=sizes.SIZES, default="mini", help="of the network (mini)")
    print(interleaved.text(side_by_side(parser.parse_args(words).size, SECONDS)))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(sys.argv[1:])
