"""Entries and questions of bioS: the template and place of each sentence, and their tokens."""

import numpy as np
from tokenizers import Tokenizer

from ktrain.bios import templates
from ktrain.bios.fragment_encoder import FragmentEncoder, TokenizedTexts
from ktrain.bios.people import People
from ktrain.bios.pools import Pools
from ktrain.bios.question_wordings import Wordings
from ktrain.config import ATTRIBUTES, CorpusConfig
from ktrain.rng import generator


def entry_counts(setting: CorpusConfig) -> np.ndarray:
    """How many entries each person has, (people,)."""
    return np.repeat(
        [setting.entries_per_person, setting.celebrity.entries_per_person], [setting.people, setting.celebrities]
    )


def encode_entries(
    setting: CorpusConfig,
    people: People,
    bpe: Tokenizer,
    sentences: dict[str, tuple[str, ...]],
    drafts: np.ndarray,
    order: np.ndarray,
) -> TokenizedTexts:
    """Tokenizes all entries, person after person, with spans in the order of the attributes.

    `drafts` and `order`, both (entries, attributes), come from `draw_layout`.
    """
    encoder = entry_encoder(bpe, people.pools, sentences)
    owner = np.repeat(np.arange(len(people)), entry_counts(setting))
    fullname = np.where(owner < setting.people, setting.fullname, setting.celebrity.fullname)
    encoded = encoder.encode(programs(sentences, drafts, order, fullname), people.columns, owner)
    # The encoder returns spans in text order; the inverse permutation of `order` sorts them by attribute.
    place = np.argsort(order, axis=1)[:, :, None]
    return TokenizedTexts(encoded.ids, encoded.offsets, np.take_along_axis(encoded.spans, place, axis=1))


def draw_layout(
    setting: CorpusConfig, sentences: dict[str, tuple[str, ...]], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the template of each attribute and the order of the attributes, both (entries, attributes).

    Each person has M drafts; permute shuffles the same sentences of each draft P times. Coupled sentences are drawn
    anew for each entry and shuffled in pairs. Attributes besides the six draw from streams of their own, so the six
    keep their templates and their order.
    """
    counts = [len(sentences[a]) for a in ATTRIBUTES]
    own = {attribute: len(lines) for attribute, lines in sentences.items() if attribute not in ATTRIBUTES}
    groups = [("", setting.people, setting.couple or setting.multi, setting.permute)]
    if setting.celebrities:
        groups.append(("celebrity ", setting.celebrities, setting.celebrity.multi, setting.celebrity.permute))
    all_drafts, all_orders = [], []
    for name, people, multi, permute in groups:
        drafts = generator(seed, f"{name}templates").integers(counts, size=(people * multi, len(counts)))
        for attribute, count in own.items():
            chosen = generator(seed, f"{name}templates", attribute).integers(count, size=(len(drafts), 1))
            drafts = np.concatenate([drafts, chosen], axis=1)
        drafts = np.repeat(drafts.astype(np.int16), max(permute, 1), axis=0)
        order = np.tile(np.arange(len(counts), dtype=np.int8), (len(drafts), 1))
        if permute:
            order = generator(seed, f"{name}permute").permuted(order, axis=1)
        elif not name and setting.couple:
            pairs = generator(seed, "couple").permuted(order[:, ::2], axis=1)
            order = np.stack([pairs, pairs + 1], axis=2).reshape(order.shape)
        for attribute in own:
            # Put at a uniform place among those before it, the attributes are in a uniform order again.
            last = order.shape[1]
            place = np.full(len(order), last)
            if permute:
                place = generator(seed, f"{name}permute", attribute).integers(last + 1, size=len(order))
            order = _inserted(order, place)
        all_drafts.append(drafts)
        all_orders.append(order)
    return np.concatenate(all_drafts), np.concatenate(all_orders)


def _inserted(order: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Puts the next attribute at the `place` (entries,) of each entry in `order` (entries, n): (entries, n + 1)."""
    last, column = order.shape[1], np.arange(order.shape[1] + 1)
    before = np.take_along_axis(order, np.minimum(column - (column > place[:, None]), last - 1), axis=1)
    return np.where(column == place[:, None], last, before).astype(order.dtype)


def programs(
    sentences: dict[str, tuple[str, ...]], drafts: np.ndarray, order: np.ndarray, fullname: np.ndarray
) -> np.ndarray:
    """Program number of each sentence of each entry, (entries, attributes): forms with the full name first.

    `fullname` (entries,) bool selects the entries that use the full name in every sentence, not only in the first.
    """
    counts = np.array([len(lines) for lines in sentences.values()])
    base = np.cumsum(counts) - counts
    programs = np.take_along_axis(drafts + base, order.astype(np.int64), axis=1)
    programs[:, 1:] += np.where(fullname, 0, counts.sum())[:, None]
    return programs


def entry_encoder(bpe: Tokenizer, pools: Pools, sentences: dict[str, tuple[str, ...]]) -> FragmentEncoder:
    """An encoder whose programs are numbered as by `programs`."""
    encoded = []
    for named in (True, False):
        for attribute, lines in sentences.items():
            encoded += [templates.fragments(s, attribute, pools, named=named) for s in lines]
    return FragmentEncoder(bpe, encoded, templates.columns_of(pools))


def pieces(pools: Pools, sentences: dict[str, tuple[str, ...]], wordings: Wordings) -> list[str]:
    """Every text that entries and questions are put together from: names, values, and the words of each sentence."""
    found: dict[str, None] = {}
    for attribute, lines in sentences.items():
        for sentence in (*lines, *wordings[attribute]):
            for named in (True, False):
                for fragment in templates.fragments(sentence, attribute, pools, named=named):
                    found |= dict.fromkeys(fragment.texts)
    return list(found)


def question_encoder(bpe: Tokenizer, pools: Pools, wordings: Wordings) -> FragmentEncoder:
    """An encoder of questions with their answers; of n attributes, program n w + i asks for the i-th in wording w."""
    count = len(wordings[ATTRIBUTES[0]])
    questions = [
        templates.fragments(lines[w], attribute, pools, named=True)
        for w in range(count)
        for attribute, lines in wordings.items()
    ]
    # A question is the first text of its row, so no space precedes its first word.
    for question in questions:
        first = question[0]
        question[0] = templates.Fragment(first.column, tuple(t.removeprefix(" ") for t in first.texts), first.inside)
    return FragmentEncoder(bpe, questions, templates.columns_of(pools))
