"""Speed of building a corpus, against `tokenizers` on texts that are already rendered."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ktrain import corpus as corpora
from ktrain import templated, tokenizer
from ktrain.bench import machine, turns
from ktrain.bench.turns import Loop
from ktrain.config import Corpus

PEOPLE = 20_000


def corpus(*, seconds: float, people: int = PEOPLE) -> dict[str, Any]:
    """Tokens a second: the rows, and the ratio of this over `tokenizers`, whose tokens must be the same.

    Ours draws people and templates, composes, finds spans and makes the questions besides; the reference encodes the
    entries in one batch, on all cores, and no more.
    """
    setting = Corpus(people=people, multi=5, permute=1)
    built = corpora.build(setting, 0)
    ours = len(built.entries.ids) + len(built.questions.ids)
    composer = templated.entry_composer(built.tokenizer, built.people.pools, built.templates)
    whole = np.zeros(len(built.entries), dtype=bool)
    programs = templated.programs(built.templates, built.drafts, built.order, whole)
    people_of = built.people.columns[built.person]
    texts = [composer.text(program, row) for program, row in zip(programs, people_of, strict=True)]
    bpe = tokenizer.gpt2()
    encoded = bpe.encode_batch(texts)
    theirs = sum(len(text.ids) for text in encoded)
    told = np.concatenate([text.ids for text in encoded])
    assert np.array_equal(told, built.entries.ids[built.entries.ids != built.eos]), "not the same tokens"
    rounds = turns.rounds(
        {
            "ktrain": _rate(lambda: corpora.build(setting, 0), ours),
            "tokenizers": _rate(lambda: bpe.encode_batch(texts), theirs),
        },
        seconds,
    )
    rows = [turns.row(name, values, "tok/s") for name, values in rounds.items()]
    about = {"people": people, "entries": len(built.entries), "tokens": ours}
    return turns.result(rows, {"tokenizers": rows[0].median / rows[1].median}, {}, machine.told(), about)


def _rate(work: Callable[[], Any], tokens: int) -> Loop:
    def loop(seconds: float) -> float:
        begin, times = time.perf_counter(), 0
        while not times or time.perf_counter() - begin < seconds:
            work()
            times += 1
        return times * tokens / (time.perf_counter() - begin)

    return loop
