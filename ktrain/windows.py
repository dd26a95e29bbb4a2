"""Windows: rows of the context length, and the order in which they are seen.

The rows of step k are a pure function of (corpus key, seed, k). Every epoch shuffles all texts globally, joins them
with EOS and cuts the stream every T tokens, so texts straddle cuts and no two epochs cut alike (paper, appendix B;
without re-packing each epoch a public reproduction fell from 38 % to 1 %).
"""

from functools import lru_cache

import numpy as np

from ktrain.compose import Composed
from ktrain.config import Train
from ktrain.corpus import Corpus
from ktrain.errors import WrongRequest
from ktrain.randomness import generator

KINDS = ("biography", "question", "background")
"""What a window may hold."""


class Stream:
    """Texts shuffled and re-packed every epoch."""

    def __init__(self, name: str, texts: Composed, chosen: np.ndarray, context: int, key: str, seed: int) -> None:
        """`chosen` lists the texts to be used; `name`, `key` and `seed` draw their order."""
        self._name, self._ids, self._key, self._seed = name, texts.ids, key, seed
        self.chosen = chosen
        self._begin = texts.offsets[chosen]
        self._length = texts.offsets[chosen + 1] - self._begin
        self.context = context
        self.per_epoch = int(self._length.sum()) // context
        if self.per_epoch == 0:
            raise WrongRequest(f"train.context={context}: all {name} texts together have {self._length.sum()} tokens")
        self.epoch = lru_cache(maxsize=2)(self._pack)
        """All windows of an epoch by its number, (windows, T) uint16."""

    def order(self, epoch: int) -> np.ndarray:
        """The texts in the order of an epoch, as positions in `chosen`."""
        return generator(self._seed, "order", self._key, self._name, epoch).permutation(len(self._begin))

    def _pack(self, epoch: int) -> np.ndarray:
        order = self.order(epoch)
        begin, length = self._begin[order], self._length[order]
        source = np.arange(int(length.sum())) + np.repeat(begin - (np.cumsum(length) - length), length)
        packed: np.ndarray = self._ids[source][: self.per_epoch * self.context]
        return packed.reshape(-1, self.context)

    def neighbours(self, owner: np.ndarray) -> tuple[int, int]:
        """Pairs of texts of one owner that share a window of epoch 0, and all pairs that share a window.

        `owner` (texts,) is indexed by the texts of `chosen`.
        """
        order = self.order(0)
        owners, end = owner[self.chosen[order]], np.cumsum(self._length[order])
        first, last = (end - self._length[order]) // self.context, (end - 1) // self.context
        together = pairs = 0
        for distance in range(1, len(order)):
            share = last[:-distance] >= first[distance:]
            if not share.any():
                break
            pairs += int(share.sum())
            together += int((share & (owners[:-distance] == owners[distance:])).sum())
        return together, pairs

    def window(self, index: int) -> np.ndarray:
        """Window `index` of the endless stream, (T,) uint16."""
        window: np.ndarray = self.epoch(index // self.per_epoch)[index % self.per_epoch]
        return window


class Windows:
    """The rows of each step: windows that are all biographies, all questions or all background text.

    A window holds questions with probability `train.qa_ratio` (paper, section 3) and, of the others, background text
    with probability `corpus.background_share` (section 5). `streams` are those that there are, by kind.
    """

    def __init__(self, corpus: Corpus, key: str, train: Train, seed: int) -> None:
        self.batch = train.batch

        def stream(kind: str, texts: Composed, chosen: np.ndarray) -> Stream:
            return Stream(kind, texts, chosen, train.context, key, seed)

        self.streams = {"biography": stream("biography", corpus.entries, np.arange(len(corpus.entries)))}
        self.kind = np.zeros((train.steps, train.batch), dtype=np.int8)
        if corpus.background is not None:
            self.streams["background"] = stream("background", corpus.background, np.arange(len(corpus.background)))
            draws = generator(seed, "background", key).random(self.kind.shape)
            self.kind[draws < corpus.setting.background_share] = KINDS.index("background")
        if train.qa_ratio > 0:
            # Six questions per person, and only those of the training half.
            asked = np.flatnonzero(np.repeat(corpus.train, 6))
            if len(asked) == 0:
                raise WrongRequest(f"train.qa_ratio={train.qa_ratio}: corpus.question_share leaves no question")
            self.streams["question"] = stream("question", corpus.questions, asked)
            draws = generator(seed, "mix", key).random(self.kind.shape)
            self.kind[draws < train.qa_ratio] = KINDS.index("question")
        self.index = np.zeros(self.kind.shape, dtype=np.int64)
        for kind in range(len(KINDS)):
            mine = self.kind == kind
            self.index[mine] = np.arange(int(mine.sum()))

    def kinds(self, step: int) -> list[str]:
        """What each row of a step holds."""
        return [KINDS[kind] for kind in self.kind[step]]

    def rows(self, step: int) -> np.ndarray:
        """The token ids of step `step`, (batch, T) uint16."""
        return np.stack(
            [self.streams[kind].window(int(i)) for kind, i in zip(self.kinds(step), self.index[step], strict=True)]
        )
