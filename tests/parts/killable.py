"""Work of a process of its own, to be killed at any moment.

It is forked from a server that has imported what it needs: a new interpreter takes two seconds of a core for that."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from rich.console import Console

from ktrain.config import CellConfig
from ktrain.data import corpus
from ktrain.generation.drafts import generation_tasks
from ktrain.stages import stages_of
from ktrain.store.open import open_store
from sweeps.generation.command import GenerationOptions, write_stage

_SERVER = multiprocessing.get_context("forkserver")
# Not this module: the server looks for modules without pytest's paths, and says nothing of one that it does not find.
_SERVER.set_forkserver_preload([corpus.__name__, "ktrain.generation.drafts", "sweeps.generation.command"])


def begun(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts a function of this module in a process."""
    process = _SERVER.Process(target=work, args=arguments)
    process.start()
    return process


def pipe() -> tuple[Connection, Connection]:
    """Returns the two ends, reading and writing, of a pipe for work that says when it begins."""
    return _SERVER.Pipe(duplex=False)


def write(cell: CellConfig, root: str, address: str) -> None:
    """Writes all biographies that a cell lacks with a model that an endpoint serves."""
    store = open_store(root)
    for stage, task in generation_tasks(cell).values():
        if not store.exists(stage.key):
            options = GenerationOptions(endpoint=address, batch=6, concurrency=2)
            assert write_stage(stage, task, store, options, Console(quiet=True))


def build(cell: CellConfig, root: str, begins: Connection | None = None) -> None:
    """Builds and publishes the corpus of a cell, if the store lacks it."""
    store, stage = open_store(root), stages_of(cell).corpus
    if store.fetch(stage.key) is None:
        if begins:
            begins.send(True)
        store.publish_files(stage, {".": lambda folder: corpus.build_corpus(cell.corpus, cell.seed).save(folder)})
