"""Settings that contradict each other, or that a network does not fit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.requests.attempt import REFUSED, Request
from tests.requests.named_files import HF, NAMED, STARTED

UNFITTING: dict[str, tuple[str, ...]] = {
    "LoRA of random weights": ("train.method=lora",),
    "a text without a start": ("train.forgetting_text=X/tokenizer.json",),
    "a start of another family": ("model.start=X", "corpus.tokenizer=X"),
    "a start without its tokenizer": (*HF, "model.start=X"),
    "a start and a config": (*STARTED, "model.config=X"),
    "a start and a size": (*STARTED, "model.size=124m"),
    "a start and a width": (*STARTED, "model.width=64"),
    "LoRA at ZeRO": (*STARTED, "train.method=lora", "train.zero=1"),
    "LoRA with dropout": (*STARTED, "train.method=lora", "model.dropout=0.1"),
    "a folder as text": (*STARTED, "train.forgetting_text=X"),
    "masks of GPT-2": ("train.mask_share=0.3",),
    "masked answers of GPT-2": ("train.qa_ratio=0.5", "train.masked_answers=0.5"),
    "masked answers without questions": ("model.family=gbert", "train.masked_answers=0.5"),
    "a mask of everything": ("model.family=gbert", "train.mask_share=1"),
    "masked answers above 1": ("model.family=gbert", "train.qa_ratio=0.5", "train.masked_answers=1.5"),
    "GBERT with another tokenizer": ("model.family=gbert", "corpus.tokenizer=X"),
    "too many wordings": ("corpus.question_wordings=7",),
    "no room for an unseen wording": ("corpus.question_wordings=6", "corpus.question_unseen=true"),
    "no wordings": ("corpus.question_wordings=0",),
    "questions of a file": ("corpus.questions_folder=X/config.json",),
    "questions of another folder": ("corpus.questions_folder=X",),
    "rank 0": (*STARTED, "train.method=lora", "train.rank_qv=0"),
}
"""Axes that contradict each other, where `X` is a trained network."""


def requests() -> Iterator[Request]:
    """Yields each of them to a command in turn."""
    for number, (what, axes) in enumerate(UNFITTING.items()):
        command = ("plan", "status", "run")[number % 3]

        def prepare(work: Path) -> None:
            shutil.copytree(NAMED["model.start"].make(), work / "X")

        yield Request(f"unfitting: {what}", (command, "demo", *axes), REFUSED, prepare=prepare)
