"""The verifier: accepts a biography if it states all six facts of its person and no other ones, and locates them.

Rules, each with its own tests:
- The full name occurs, and no other person's name.
- Each attribute occurs in a form of `surface_forms`, at least once in a complete one. Its span is its first mention,
  complete or partial.
- No other date, university or employer of the pools occurs anywhere, no other city with its state anywhere, no other
  city without its state after a preposition, and no other major in a sentence about studies.
- The birth date is not in a sentence that is only about studies or work.
- The birth city is not in a context of work, nor the company city in one of birth, and at least one of the two is in a
  context of its own role. If both are one place, each needs its own mention.
- No clause that states a fact denies something, and no sentence speaks of somebody else before the fact.
Every rule looks at one sentence at a time, so that an accepted entry stays accepted when its sentences are shuffled.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ktrain.bior.context_cues import ROLE_PATTERNS, ContextCue, find_cues, is_denied, nearest_role
from ktrain.bior.mentions import Facts, Mention, ValueIndex, other_people
from ktrain.bior.sentences import Word, split_sentences
from ktrain.bior.surface_forms import VALUE_KINDS
from ktrain.bios.pools import Pools
from ktrain.bios.tokenizer import EOS
from ktrain.config import ATTRIBUTES

MISSING, WRONG, AMBIGUOUS, PARTIAL = "missing", "wrong value", "ambiguous", "only in part"
NO_NAME, STRANGER, COPY, END = "name missing", "another person", "near-copy of the prompt", "holds the end token"
REASONS = (MISSING, WRONG, AMBIGUOUS, PARTIAL, NO_NAME, STRANGER, COPY, END)
"""The kinds of reasons; a colon and the offending text may follow."""
COPIED = 12
"""Longest run of words that an entry may share with its prompt."""
_PLACE_PREPOSITIONS = frozenset({"in", "from", "of", "near", "at", "to", "outside", "around"})
Span = tuple[int, int]


@dataclass(frozen=True)
class Verdict:
    """The span of each attribute in characters, or the reasons to reject the text.

    The keys of `reasons` are attributes, `name` and `text`; if there are reasons, `spans` is empty.
    """

    spans: tuple[Span, ...]
    reasons: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mentions: tuple[Mention, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the text states all facts and no wrong one."""
        return not self.reasons

    @property
    def explanation(self) -> str:
        """The reasons in one line."""
        return "; ".join(f"{subject}: {reason}" for subject, reason in self.reasons.items())


class Verifier:
    """Judges texts against all values of the full pools: a value that a smaller corpus leaves out is wrong as well."""

    def __init__(self, pools: Pools) -> None:
        self._index = ValueIndex(pools)

    def judge(self, text: str, facts: Facts, prompt: str = "") -> Verdict:
        """Judges a text; with a `prompt`, a near-copy of it is rejected."""
        mentions, rest = self._index.mentions(text, facts)
        reasons: dict[str, str] = {}
        if EOS in text:
            reasons["text"] = END
        elif prompt and copies_prompt(text, prompt):
            reasons["text"] = COPY
        if not any(m.kind == "name" and m.complete for m in mentions):
            reasons["name"] = NO_NAME
        if stranger := next(other_people(text, mentions, rest, self._index, facts), None):
            reasons["name"] = f"{STRANGER}: {stranger}"
        analysis = _TextAnalysis(text, mentions, rest, facts)
        spans: list[Span] = []
        for attribute in ATTRIBUTES:
            result = analysis.span_or_reason(attribute)
            if isinstance(result, str):
                reasons[attribute] = result
            else:
                spans.append(result)
        return Verdict(() if reasons else tuple(spans), MappingProxyType(reasons), tuple(mentions))


class _TextAnalysis:
    """One text with its mentions, sentences and cues, judged attribute by attribute."""

    def __init__(self, text: str, mentions: Sequence[Mention], rest: Sequence[Word], facts: Facts) -> None:
        self._text, self._mentions, self._facts = text, mentions, facts
        self._mention_spans = [(m.begin, m.end) for m in mentions]
        self._roles: dict[int, str | None] = {}
        self._sentences = split_sentences(text, self._mention_spans) or [(0, len(text))]
        self._cues: dict[Span, list[ContextCue]] = {sentence: [] for sentence in self._sentences}
        for cue in find_cues(rest, [(m.begin, m.end, m.kind) for m in mentions]):
            self._cues[self._sentence_at(cue.begin)].append(cue)

    def span_or_reason(self, attribute: str) -> Span | str:
        """The span of the first mention of an attribute, or the reason to reject it."""
        if wrong := next(self._wrong_values(attribute), None):
            return f"{WRONG}: {self._text[wrong.begin : wrong.end]}"
        own = self._own_mentions(attribute)
        if isinstance(own, str):
            return own
        if not own:
            return MISSING
        if not any(m.complete for m in own):
            return PARTIAL
        if any(self._is_doubtful(m) for m in own if m.complete):
            return AMBIGUOUS
        return own[0].begin, own[0].end

    def _wrong_values(self, attribute: str) -> Iterator[Mention]:
        """Mentions of other values that the text may state for this attribute."""
        is_city = attribute in ("birth_city", "company_city")
        kinds = ("place", "state") if is_city else (VALUE_KINDS[attribute],)
        for before, mention in zip((None, *self._mentions), self._mentions, strict=False):
            if mention.own or mention.unclear or mention.kind not in kinds:
                continue
            if mention.kind == "major":
                wrong = self._role(mention) == "study"
            elif mention.kind == "state":
                wrong = self._is_other_city(before, mention)
            else:
                wrong = not is_city or mention.complete or self._word_before(mention) in _PLACE_PREPOSITIONS
            # A wrong city in no context is reported once, as a birth city.
            if wrong and (not is_city or (self._role(mention) == "work") == (attribute == "company_city")):
                yield mention

    def _is_other_city(self, before: Mention | None, state: Mention) -> bool:
        """Whether a state follows the name of a city that is not in the pools, or changes one: `Chicago, Indiana`."""
        gap = self._text[: state.begin].rstrip()
        if not gap.endswith(","):
            return False
        city = gap[:-1].rsplit(" ", 1)[-1]
        if not city[:1].isupper():
            return False
        city_end = len(gap) - 1
        return before is None or before.end < city_end or (before.kind == "place" and not before.complete)

    def _own_mentions(self, attribute: str) -> list[Mention] | str:
        """The mentions that state the attribute, from left to right, or the reason to reject them."""
        if attribute == "birth_date":
            dates = [m for m in self._mentions if m.kind == "date"]
            if any(m.unclear for m in dates) or any(m.complete and not self._is_about_birth(m) for m in dates):
                return AMBIGUOUS
            return dates
        if attribute in ("birth_city", "company_city"):
            return self._own_places(attribute)
        own = [m for m in self._mentions if m.kind == attribute and m.own]
        if attribute == "major":
            # English is a language too, and a passion for music is no field of study.
            own = [m for m in own if self._is_about_studies(m)]
        return own

    def _own_places(self, attribute: str) -> list[Mention] | str:
        """`_own_mentions` of one of the two cities."""
        values = dict(zip(ATTRIBUTES, self._facts.values, strict=True))
        own = {
            city: [m for m in self._mentions if m.own and values[city] in m.values]
            for city in ("birth_city", "company_city")
        }
        roles = {m.begin: self._role(m) for mentions in own.values() for m in mentions}
        role, other_role = ("birth", "work") if attribute == "birth_city" else ("work", "birth")
        if {m.begin for m in own["birth_city"]} & {m.begin for m in own["company_city"]}:
            return _shared_place(own[attribute], roles, role, other_role)
        if any(roles[m.begin] == other_role for m in own[attribute] if m.complete):
            return f"{AMBIGUOUS}: stands where {other_role} is told of"
        either_is_clear = any(roles[m.begin] == "birth" for m in own["birth_city"]) or any(
            roles[m.begin] == "work" for m in own["company_city"]
        )
        return own[attribute] if either_is_clear or not own[attribute] else AMBIGUOUS

    def _is_about_birth(self, mention: Mention) -> bool:
        """Whether the sentence is about birth, or about no role at all."""
        roles = {cue.role for cue in self._sentence_cues(mention) if cue.begin != mention.begin}
        roles &= ROLE_PATTERNS.keys()
        return not roles or "birth" in roles

    def _is_about_studies(self, mention: Mention) -> bool:
        """Whether anything in the sentence indicates studies."""
        return any(cue.role in ("study", "weak_study") for cue in self._sentence_cues(mention))

    def _is_doubtful(self, mention: Mention) -> bool:
        """Whether the clause denies something, or the sentence speaks of somebody else before the mention."""
        cues = self._sentence_cues(mention)
        if any(cue.role == "other" and cue.begin < mention.begin for cue in cues):
            return True
        return is_denied(self._text, mention.begin, mention.end, cues, self._mention_spans)

    def _role(self, mention: Mention) -> str | None:
        """The role that the nearest cue indicates."""
        if mention.begin not in self._roles:
            cues = self._sentence_cues(mention)
            role = nearest_role(self._text, mention.begin, mention.end, cues, self._mention_spans)
            self._roles[mention.begin] = role
        return self._roles[mention.begin]

    def _sentence_cues(self, mention: Mention) -> list[ContextCue]:
        return self._cues[self._sentence_at(mention.begin)]

    def _sentence_at(self, position: int) -> Span:
        """The last sentence that begins at or before a position; the first one for text before it."""
        return self._sentences[max(0, bisect_right(self._sentences, (position, len(self._text))) - 1)]

    def _word_before(self, mention: Mention) -> str:
        return self._text[: mention.begin].rstrip().rsplit(" ", 1)[-1].casefold()


def _shared_place(
    own: Sequence[Mention], roles: Mapping[int, str | None], role: str, other_role: str
) -> list[Mention] | str:
    """The mentions of one city if both cities are one place.

    Mentions in a context of `role` count; if there is no complete one, those in no context do, provided that the other
    city has its own mention.
    """
    clear = [m for m in own if roles[m.begin] == role]
    others = [m for m in own if roles[m.begin] == other_role]
    undecided = [m for m in own if roles[m.begin] not in (role, other_role)]
    if any(m.complete for m in clear):
        return clear
    if any(m.complete for m in others) and any(m.complete for m in undecided):
        return undecided
    return AMBIGUOUS if own else MISSING


def copies_prompt(text: str, prompt: str) -> bool:
    """Whether the text shares more than `COPIED` words in a row with its prompt."""
    runs = [
        {tuple(words[i : i + COPIED + 1]) for i in range(len(words) - COPIED)}
        for words in (text.split(), prompt.split())
    ]
    return not runs[0].isdisjoint(runs[1])
