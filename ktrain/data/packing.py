"""Packing: texts to windows of the context length, and the order in which training reads them.

The rows of step k are a pure function of (corpus key, seed, k). Every epoch shuffles all texts globally and joins them
with EOS, so no two epochs cut alike (paper, appendix B; a public reproduction that did not re-pack each epoch fell from
38 % to 1 %). `train.windows` says where windows begin: `cut` cuts this stream every T tokens, as the paper does, and
reads the rest of a text that straddles a cut without its name. `whole` begins each window with the text that the window
before cut, so every epoch holds every text whole at least once, and the beginnings of some twice.
"""

from bisect import bisect_right
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from ktrain.bios.fragment_encoder import TokenizedTexts, ragged_arange
from ktrain.config import TrainConfig
from ktrain.data.corpus import Corpus
from ktrain.errors import WrongRequest
from ktrain.rng import generator

WINDOW_KINDS = ("biography", "question", "background")
"""The kinds of text; a window holds one of them."""


class Layout(NamedTuple):
    """Where an epoch's texts and windows lie in its stream of tokens.

    `texts` are the texts in stream order, as positions in `chosen`, `begin` and `end` the tokens between which each
    lies, all (texts,); `windows` (windows,) is the token at which each window begins.
    """

    texts: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    windows: np.ndarray


class WindowParts(NamedTuple):
    """The pieces of texts that an epoch's windows hold, in the order of reading, all (pieces,).

    Window `window` holds the tokens `begin` to `end`, counted from the start of the text, of text `text` of `chosen`.
    """

    window: np.ndarray
    text: np.ndarray
    begin: np.ndarray
    end: np.ndarray


class PackedStream:
    """An endless stream of windows; every epoch shuffles and re-packs the texts."""

    def __init__(
        self,
        name: str,
        texts: TokenizedTexts,
        chosen: np.ndarray,
        context: int,
        key: str,
        seed: int,
        *,
        whole: bool = False,
    ) -> None:
        """`chosen` lists the texts to use; `name`, `key` and `seed` determine their order; `whole` as in the module.

        Raises `WrongRequest` if the texts do not fill one window, or if a window has to hold one whole and cannot.
        """
        self._name, self._ids, self._key, self._seed = name, texts.ids, key, seed
        self.chosen, self.context, self.whole = chosen, context, whole
        self._begin = texts.offsets[chosen]
        self.length = texts.offsets[chosen + 1] - self._begin
        """Tokens of each text of `chosen`, (texts,)."""
        self._total = int(self.length.sum())
        if self._total < context:
            raise WrongRequest(f"train.context={context}: all {name} texts together have {self._total} tokens")
        if whole:
            longest_fits(self.length, name, context)
        # The number in the endless stream of the first window of each epoch, as far as anyone asked.
        self._first = [0]
        self.layout = lru_cache(maxsize=2)(self._lay_out)
        """Returns the layout of an epoch given its number."""
        self.epoch = lru_cache(maxsize=2)(partial(self.pack, self._ids))
        """Returns all windows of an epoch given its number, (windows, T) unsigned."""

    def order(self, epoch: int) -> np.ndarray:
        """The texts in the order of an epoch, as positions in `chosen`."""
        return generator(self._seed, "order", self._key, self._name, epoch).permutation(len(self._begin))

    def count(self, epoch: int) -> int:
        """How many windows an epoch has; where windows begin with texts, that depends on their order."""
        return len(self.layout(epoch).windows) if self.whole else self._total // self.context

    def locate(self, index: int) -> tuple[int, int]:
        """The epoch of window `index` of the endless stream, and the window's place in it."""
        if not self.whole:
            return divmod(index, self._total // self.context)
        while self._first[-1] <= index:
            self._first.append(self._first[-1] + self.count(len(self._first) - 1))
        epoch = bisect_right(self._first, index) - 1
        return epoch, index - self._first[epoch]

    def window(self, index: int) -> np.ndarray:
        """Window `index` of the endless stream, (T,) unsigned."""
        epoch, place = self.locate(index)
        window: np.ndarray = self.epoch(epoch)[place]
        return window

    def parts(self, epoch: int) -> WindowParts:
        """The pieces of texts that the windows of an epoch hold."""
        texts, begin, end, windows = self.layout(epoch)
        first = np.searchsorted(end, windows, side="right")
        beyond = np.searchsorted(begin, windows + self.context, side="left")
        place = ragged_arange(first, beyond - first)
        window = np.repeat(np.arange(len(windows)), beyond - first)
        # Relative to the start of each text.
        window_begin = windows[window] - begin[place]
        return WindowParts(
            window,
            texts[place],
            np.maximum(window_begin, 0),
            np.minimum(window_begin + self.context, end[place] - begin[place]),
        )

    def count_shared_windows(self, owner: np.ndarray, epoch: int = 0) -> tuple[int, int]:
        """How many pairs of texts of one owner share a window of an epoch, and how many pairs share one at all.

        `owner` (texts,) gives the owner of every text. A pair counts once in each window that it shares.
        """
        parts = self.parts(epoch)
        owners, same_owner, pairs = owner[self.chosen[parts.text]], 0, 0
        for distance in range(1, len(owners)):
            share = parts.window[:-distance] == parts.window[distance:]
            if not share.any():
                break
            pairs += int(share.sum())
            same_owner += int((share & (owners[:-distance] == owners[distance:])).sum())
        return same_owner, pairs

    def _lay_out(self, epoch: int) -> Layout:
        texts = self.order(epoch)
        end = np.cumsum(self.length[texts])
        begin = end - self.length[texts]
        if not self.whole:
            return Layout(texts, begin, end, np.arange(self._total // self.context) * self.context)
        windows = begin[self._window_texts(begin, end)]
        # The epoch's first texts again fill its last window.
        again = int(np.searchsorted(end, self.context)) + 1
        return Layout(
            np.concatenate([texts, texts[:again]]),
            np.concatenate([begin, begin[:again] + self._total]),
            np.concatenate([end, end[:again] + self._total]),
            windows,
        )

    def _window_texts(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The place in the stream of the text with which each window begins: the first that the one before cuts."""
        cut = np.searchsorted(end, begin + self.context, side="right").tolist()
        # No text is longer than a window, so `cut[i] > i`.
        firsts, text = [], 0
        while text < len(cut):
            firsts.append(text)
            text = cut[text]
        return np.array(firsts)

    def pack(self, values: np.ndarray, epoch: int) -> np.ndarray:
        """Cuts `values`, one for each token of all texts, into the windows of an epoch, (windows, T)."""
        texts, _, _, windows = self.layout(epoch)
        # A ragged gather concatenates the shuffled texts, (tokens,).
        stream = values[ragged_arange(self._begin[texts], self.length[texts])]
        if not self.whole:
            # What does not fill a window is dropped.
            packed: np.ndarray = stream[: len(windows) * self.context].reshape(-1, self.context)
            return packed
        # The view has a row for each token of the stream at which a window may begin.
        return np.asarray(np.lib.stride_tricks.sliding_window_view(stream, self.context)[windows])


def longest_fits(length: np.ndarray, kind: str, context: int) -> None:
    """Raises `WrongRequest` if a window of `context` tokens does not hold the longest of texts of these lengths."""
    if (longest := int(length.max())) > context:
        raise WrongRequest(
            f"train.windows=whole: the longest {kind} has {longest} tokens, train.context={context}; "
            "a longer context holds it, train.windows=cut cuts it"
        )


class Windows:
    """The rows of each training step; every window holds only biographies, only questions or only background text.

    A window holds questions with probability `train.qa_ratio` (paper, section 3) and otherwise background text with
    probability `corpus.background_share` (section 5); `train.windows` says where windows of biographies and questions
    begin, background text is always cut. `streams` has the kinds in use; `kind` and `index`, both (steps, batch), give
    each row's kind and its number in the stream of this kind.
    """

    def __init__(self, corpus: Corpus, key: str, train: TrainConfig, seed: int) -> None:
        """Raises `WrongRequest` like `PackedStream`, and if there is no question to mix in."""
        self.batch, self.context = train.batch, train.context

        def add_stream(kind: str, texts: TokenizedTexts, chosen: np.ndarray) -> None:
            whole = train.windows == "whole" and kind != "background"
            self.streams[kind] = PackedStream(kind, texts, chosen, train.context, key, seed, whole=whole)

        self.streams: dict[str, PackedStream] = {}
        add_stream("biography", corpus.entries, np.arange(len(corpus.entries)))
        self.kind = np.zeros((train.steps, train.batch), dtype=np.int8)
        if corpus.background is not None:
            add_stream("background", corpus.background, np.arange(len(corpus.background)))
            draws = generator(seed, "background", key).random(self.kind.shape)
            self.kind[draws < corpus.setting.background_share] = WINDOW_KINDS.index("background")
        if train.qa_ratio > 0:
            questions = corpus.trained_questions(corpus.train)
            if len(questions) == 0:
                raise WrongRequest(f"train.qa_ratio={train.qa_ratio}: corpus.question_share leaves no question")
            add_stream("question", corpus.questions, questions)
            in_answer = partial(self.streams["question"].pack, _answer_tokens(corpus.questions))
            self._in_answer = lru_cache(maxsize=2)(in_answer)
            draws = generator(seed, "mix", key).random(self.kind.shape)
            self.kind[draws < train.qa_ratio] = WINDOW_KINDS.index("question")
        self.index = np.zeros(self.kind.shape, dtype=np.int64)
        for kind in range(len(WINDOW_KINDS)):
            of_kind = self.kind == kind
            self.index[of_kind] = np.arange(int(of_kind.sum()))

    def kinds(self, step: int) -> list[str]:
        """The kind of each row of a step, from `WINDOW_KINDS`."""
        return [WINDOW_KINDS[kind] for kind in self.kind[step]]

    def answers(self, step: int) -> np.ndarray:
        """Which tokens of step `step` belong to the answer to a question, without its EOS, (batch, T) bool."""
        inside = np.zeros((self.batch, self.context), dtype=bool)
        for row in np.flatnonzero(self.kind[step] == WINDOW_KINDS.index("question")):
            epoch, place = self.streams["question"].locate(int(self.index[step, row]))
            inside[row] = self._in_answer(epoch)[place]
        return inside

    def rows(self, step: int) -> np.ndarray:
        """The token ids of step `step`, (batch, T) unsigned."""
        return np.stack(
            [self.streams[kind].window(int(i)) for kind, i in zip(self.kinds(step), self.index[step], strict=True)]
        )


def _answer_tokens(questions: TokenizedTexts) -> np.ndarray:
    """Which of the tokens of all questions belong to their answers, with the full stop, (tokens,) bool."""
    begin = questions.offsets[:-1] + questions.spans[:, 0, 0]
    # EOS ends every text.
    end = questions.offsets[1:] - 1
    inside = np.zeros(len(questions.ids), dtype=bool)
    inside[ragged_arange(begin, end - begin)] = True
    return inside
