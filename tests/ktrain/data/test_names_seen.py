"""How many attribute tokens are read without their name; the oracle walks through the windows token by token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrain.bios.pools import Pools
from ktrain.config import ATTRIBUTES, AugmentationConfig, CorpusConfig, PoolsConfig, TrainConfig, WriterConfig
from ktrain.data import corpus as corpora
from ktrain.data import names_seen, token_estimates
from ktrain.data.corpus import Corpus
from ktrain.data.packing import Windows

Tiny = Callable[..., Corpus]


def share(corpus: Corpus, epoch: int = 0, **train: Any) -> float:
    setting = TrainConfig.model_validate({"steps": 4, "batch": 4, "warmup": 0, **train})
    return names_seen.nameless_share(corpus, Windows(corpus, "key", setting, 0).streams["biography"], epoch)


def slow_share(corpus: Corpus, epoch: int, context: int) -> float:
    """Of windows that cut the stream."""
    stream = Windows(corpus, "key", TrainConfig(steps=4, batch=4, context=context, warmup=0), 0).streams["biography"]
    read = [(int(entry), i) for entry in stream.order(epoch) for i in range(len(corpus.entries[entry]))]
    tokens = nameless = 0
    for begin in range(0, len(read) - context + 1, context):
        window = read[begin : begin + context]
        for place, (entry, i) in enumerate(window):
            if not any(b <= i < e for b, e in corpus.entries.spans[entry].tolist()):
                continue
            tokens += 1
            before = [int(corpus.entries[other][k]) for other, k in window[:place] if other == entry]
            # A token of a value may be the first of a text that goes on after the window; decode what stands before.
            nameless += f" {corpus.people.name(corpus.person[entry])}" not in corpus.tokenizer.decode(before)
    return nameless / tokens


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"multi": 2, "permute": 1, "fullname": True},
        {"tokenizer": "gpt2", "permute": 2},
        {"celebrity_fraction": 0.5, "celebrity": AugmentationConfig(multi=2, permute=1, fullname=True)},
        {"kind": "bioR", "writer": WriterConfig(backend="rules")},
    ],
)
@pytest.mark.parametrize("epoch", [0, 1])
def test_the_share_is_that_of_a_walk_through_the_windows(tiny: Tiny, changes: dict[str, Any], epoch: int) -> None:
    corpus = tiny(**changes)
    found = share(corpus, epoch, context=128)
    assert found == pytest.approx(slow_share(corpus, epoch, 128))
    assert 0 < found < 0.7


def test_whole_windows_leave_no_attribute_without_its_name(tiny: Tiny) -> None:
    for changes in ({}, {"multi": 2, "permute": 1}, {"fullname": True}):
        assert share(tiny(**changes), context=192, windows="whole") == 0.0
        assert share(tiny(**changes), context=192) > 0.0


def test_free_text_may_tell_an_attribute_before_the_name_however_windows_begin(tiny: Tiny) -> None:
    corpus = tiny(kind="bioR", multi=3, writer=WriterConfig(backend="rules"))
    begins = names_seen.last_names(corpus)
    spans, tokens = corpus.entries.spans.astype(int), np.diff(corpus.entries.spans.astype(int), axis=2)[..., 0]
    assert begins.shape == (len(corpus.entries), len(ATTRIBUTES)) and (begins < spans[..., 0]).all()
    never = float((tokens * (begins < 0)).sum() / tokens.sum())
    assert share(corpus, context=320, windows="whole") == pytest.approx(never, abs=0.1)


@pytest.mark.parametrize("tokenizer", ["gpt2", "bpe-600"])
def test_names_with_punctuation_are_found(
    tokenizer: str, hostile: Pools, write_pools: Callable[[Path, Pools], PoolsConfig], tmp_path: Path
) -> None:
    sizes = write_pools(tmp_path / "pools", hostile)
    setting = CorpusConfig(
        people=40, fullname=True, tokenizer=tokenizer, pools=sizes, pools_folder=str(tmp_path / "pools")
    )
    assert (names_seen.last_names(corpora.build_corpus(setting, seed=0)) >= 0).all()


@pytest.mark.parametrize("changes", [{}, {"permute": 1}, {"multi": 5, "fullname": True}])
@pytest.mark.parametrize("context", [32, 64, 128, 256, 512])
def test_the_estimate_of_a_plan_is_near(tiny: Tiny, changes: dict[str, Any], context: int) -> None:
    """Of the paper's tokenizer, for which it is made; many people, for a share without noise."""
    corpus = tiny(people=2000, tokenizer="gpt2", **changes)
    estimated = token_estimates.nameless_share(corpus.setting, TrainConfig(context=context))
    assert estimated == pytest.approx(share(corpus, context=context), rel=0.2)
    assert token_estimates.nameless_share(corpus.setting, TrainConfig(context=context, windows="whole")) == 0.0
