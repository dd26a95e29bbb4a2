"""Feasibility: what would fail after minutes is found before a run, and tasks with too few people are refused."""

import logging
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from ktrain.bios import people, pools, question_wordings, templates
from ktrain.config import CellConfig
from ktrain.data import corpus as corpora
from ktrain.data.packed_questions import check_fits
from ktrain.data.packing import longest_fits
from ktrain.data.token_estimates import QUESTION_WIDTH, entry_width, tokens_per_question, vocabulary_size
from ktrain.errors import WrongRequest
from ktrain.readout.kinds.base import kind_of

log = logging.getLogger("ktrain.plan")

MARGIN = 1.15
"""The longest biography may be this many times as long as a typical longest one before a plan measures it."""
_refusals: dict[Hashable, tuple[str, ...]] = {}
"""The refused tasks of cells, by what they follow from."""


def check_all(cells: Iterable[CellConfig], workers: int) -> None:
    """Checks cells, those that agree on everything that `check` reads once, and warns about ambiguous pools.

    Raises `WrongRequest` for the first cell that could not run.
    """
    distinct = {_checked_fields(cell): cell for cell in cells}
    for folder in {cell.corpus.pools_folder for cell in distinct.values() if cell.corpus.pools_folder}:
        for line in pools.load(folder).nested_values():
            log.warning("%s: %s; an answer may be taken for the other", folder, line)
    for cell in distinct.values():
        check(cell, workers)


def check(cell: CellConfig, workers: int = 1) -> None:
    """Raises `WrongRequest` for pools, templates, people or batches that would fail minutes into a run."""
    drawn = pools.shrink(pools.load(cell.corpus.pools_folder), cell.corpus.pools)
    templates.load(cell.corpus.templates_folder, drawn.attributes)
    question_wordings.wordings(cell.corpus)
    if cell.corpus.people + cell.corpus.celebrities > drawn.name_count:
        # Fails with the message of a run.
        people.draw_people(drawn, cell.corpus.people, cell.seed, cell.corpus.celebrities)
    for name, batch in batches(cell).items():
        if batch % workers:
            raise WrongRequest(f"workers={workers}: does not divide {name}.batch={batch}")
    if cell.model.family == "hf":
        # Here, because a plan of other networks does not wait for PyTorch.
        from ktrain.model import hf_request

        longest = max(cell.train.context, entry_width(cell.corpus), QUESTION_WIDTH)
        hf_request.check_cell(cell, vocabulary_size(cell.corpus), longest)
    _check_windows(cell)
    _check_packed_questions(cell)


def _check_windows(cell: CellConfig) -> None:
    """Raises `WrongRequest` if whole windows are shorter than a biography.

    That takes the texts, and writing these takes seconds: it is done only where they may not fit. Texts that a language
    model has still to write are checked before training.
    """
    if cell.train.windows == "cut" or MARGIN * entry_width(cell.corpus) <= cell.train.context:
        return
    if not corpora.missing_inputs(cell.corpus):
        entries = corpora.build_corpus(cell.corpus, cell.seed).entries
        longest_fits(np.diff(entries.offsets), "biography", cell.train.context)


def _check_packed_questions(cell: CellConfig) -> None:
    """Raises `WrongRequest` if packed questions do not fit into a row, or do not fill one."""
    if not _may_not_pack(cell):
        return
    # Questions do not depend on how biographies are written.
    corpus = corpora.build_corpus(cell.corpus.model_copy(update={"kind": "bioS", "background": None}), cell.seed)
    trained = corpus.trained_questions(corpus.people_split(cell.readout.people)[0])
    check_fits(np.diff(corpus.questions.offsets)[trained], cell.train.context)


def _may_not_pack(cell: CellConfig) -> bool:
    """Whether a cell trains on packed questions, of which so few or so long ones may not pack that a plan measures."""
    readout, context = cell.readout, cell.train.context
    if not readout.packed or not kind_of(readout.kind).reads("packed", readout):
        return False
    total = cell.trained_questions * tokens_per_question(cell.corpus)
    return context < MARGIN * QUESTION_WIDTH or total < MARGIN * context


def _checked_fields(cell: CellConfig) -> tuple[Any, ...]:
    corpus = cell.corpus
    asked = corpus.questions_folder, corpus.question_wordings, corpus.question_unseen
    folders = corpus.pools_folder, corpus.pools, corpus.templates_folder, *asked
    windows = (corpus, cell.seed, cell.train.context) if cell.train.windows == "whole" else ()
    packed = (corpus, cell.seed, cell.train.context, cell.readout.people) if _may_not_pack(cell) else ()
    network = (cell.model, cell.readout, cell.train.context, corpus) if cell.model.family == "hf" else ()
    return *folders, network, corpus.people, corpus.celebrities, *batches(cell).items(), windows, packed


def batches(cell: CellConfig) -> dict[str, int]:
    """Returns the batch sizes that are divided among workers."""
    return {"train": cell.train.batch} | ({"readout": cell.readout.batch} if kind_of(cell.readout.kind).trains else {})


def refused_tasks(cell: CellConfig) -> tuple[str, ...]:
    """Returns one line for each task of a cell's readout that has too few training people."""
    kind = kind_of(cell.readout.kind)
    key = kind.refusal_key(cell)
    if key not in _refusals:
        _refusals[key] = kind.refused_tasks(cell)
    return _refusals[key]


def forget_files() -> None:
    """Clears what is cached about the user's files, which may have changed since the last plan."""
    _refusals.clear()
