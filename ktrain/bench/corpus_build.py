"""Speed of building a corpus, against `tokenizers` on texts that are already rendered."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ktrain.bench import interleaved, machine
from ktrain.bench.interleaved import Loop
from ktrain.bios import entries, tokenizer
from ktrain.config import CorpusConfig
from ktrain.data import corpus as corpora

PEOPLE = 20_000


def corpus(*, seconds: float, people: int = PEOPLE) -> dict[str, Any]:
    """Returns tokens a second, and our ratio over `tokenizers`, whose tokens must be the same.

    Ours also draws people and templates, composes the texts, finds spans and makes the questions. The reference only
    encodes the entries, in one batch, on all cores.
    """
    setting = CorpusConfig(people=people, multi=5, permute=1)
    built = corpora.build_corpus(setting, 0)
    ours = len(built.entries.ids) + len(built.questions.ids)
    composer = entries.entry_encoder(built.tokenizer, built.people.pools, built.templates)
    whole = np.zeros(len(built.entries), dtype=bool)
    programs = entries.programs(built.templates, built.drafts, built.order, whole)
    people_of = built.people.columns[built.person]
    texts = [composer.text(program, row) for program, row in zip(programs, people_of, strict=True)]
    bpe = tokenizer.gpt2()
    encoded = bpe.encode_batch(texts)
    theirs = sum(len(text.ids) for text in encoded)
    reference = np.concatenate([text.ids for text in encoded])
    assert np.array_equal(reference, built.entries.ids[built.entries.ids != built.eos]), "not the same tokens"
    rounds = interleaved.interleave(
        {
            "ktrain": _rate(lambda: corpora.build_corpus(setting, 0), ours),
            "tokenizers": _rate(lambda: bpe.encode_batch(texts), theirs),
        },
        seconds,
    )
    rows = [interleaved.row(name, values, "tok/s") for name, values in rounds.items()]
    described = {"people": people, "entries": len(built.entries), "tokens": ours}
    return interleaved.result(rows, {"tokenizers": rows[0].median / rows[1].median}, {}, machine.describe(), described)


def _rate(work: Callable[[], Any], tokens: int) -> Loop:
    def loop(seconds: float) -> float:
        begin, times = time.perf_counter(), 0
        while not times or time.perf_counter() - begin < seconds:
            work()
            times += 1
        return times * tokens / (time.perf_counter() - begin)

    return loop
