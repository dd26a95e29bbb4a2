"""Typical lengths of texts, and widths of padded rows, in tokens; for estimates before any text is written."""

from ktrain.config import ATTRIBUTES, CorpusConfig, TrainConfig

QUESTION_WIDTH = 32
"""Tokens of a finetuning row with its padding. Widths follow from the longest text; they are measured, because a plan
builds no corpus."""
_PER_QUESTION = {"gpt2": 17, "bpe": 19}
_PER_ENTRY = {
    ("bioS", "gpt2"): (73, 90),
    ("bioS", "bpe"): (79, 108),
    ("bioR", "gpt2"): (72, 83),
    ("bioR", "bpe"): (96, 115),
}
"""Without and with full names. Biographies of bioR are those of the rules."""
_NAME_WIDTH = {"gpt2": 12, "bpe": 14}
_ENTRY_WIDTH = {
    ("bioS", "gpt2"): (88, 120),
    ("bioS", "bpe"): (104, 144),
    ("bioR", "gpt2"): (96, 120),
    ("bioR", "bpe"): (136, 168),
}
"""Without and with full names."""


def tokens_per_entry(corpus: CorpusConfig) -> int:
    """Tokens of one biography."""
    return _with_own(_PER_ENTRY[corpus.kind, _tokenizer(corpus)][corpus.fullname], corpus)


def tokens_per_question(corpus: CorpusConfig) -> int:
    """Tokens of one question with its answer and EOS."""
    return _PER_QUESTION[_tokenizer(corpus)]


def questions_per_row(corpus: CorpusConfig, context: int) -> float:
    """Questions in a packed row: on average, half of one no longer fits."""
    each = tokens_per_question(corpus)
    return max(1.0, (context - each / 2) / each)


def entry_width(corpus: CorpusConfig) -> int:
    """Tokens of a P-probe's row with its padding."""
    return _with_own(_ENTRY_WIDTH[corpus.kind, _tokenizer(corpus)][corpus.fullname], corpus)


def name_width(corpus: CorpusConfig) -> int:
    """Tokens of a Q-probe's row with its padding."""
    return _NAME_WIDTH[_tokenizer(corpus)]


def _with_own(tokens: int, corpus: CorpusConfig) -> int:
    """The length of a biography that has as many sentences more as there are attributes besides the six."""
    return -(-tokens * len(corpus.attributes) // len(ATTRIBUTES))


def _tokenizer(corpus: CorpusConfig) -> str:
    """A trained network's tokenizer has more tokens than the miniature's, and may split digits."""
    return "gpt2" if corpus.tokenizer == "gpt2" else "bpe"


def nameless_share(corpus: CorpusConfig, train: TrainConfig) -> float:
    """The share of attribute tokens that stand in their window without the name before them.

    Of windows that cut the stream every T tokens, one begins in the last x tokens with probability x / T. The name of a
    biography of L tokens is at most L tokens away, half of that on average; where each of its sentences begins with
    the full name, it is about L / 8 away, as measured. Whole windows begin with the sentence that has the name.
    """
    if train.windows == "whole":
        return 0.0
    ratio = tokens_per_entry(corpus) / train.context
    if corpus.fullname:
        return min(1.0, ratio / 8)
    return ratio / 2 if ratio <= 1 else 1 - 1 / (2 * ratio)


def vocabulary_size(corpus: CorpusConfig) -> int:
    """Entries of the tokenizer."""
    if (file := corpus.tokenizer_file) is not None:
        return file.vocabulary
    return 50_257 if corpus.tokenizer == "gpt2" else int(corpus.tokenizer.removeprefix("bpe-"))
