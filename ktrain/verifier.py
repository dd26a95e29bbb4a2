"""The verifier: whether a biography tells all six facts of its person and no other ones, and where.

Rules, of which each has tests:
- The full name stands there, and no other person's.
- Each attribute stands there in a form of `forms`, whole at least once. Its span is its first mention, whole or not.
- No other date, university or employer of the pools stands anywhere, no other city with its state anywhere and no
  other city without it after a preposition, and no other major where studies are told of.
- The birth date does not stand in a sentence that tells of studies or work alone.
- The birth city does not stand where work is told of, nor the company city where birth is, and at least one of the two
  stands where its own role is told of. Where both are one place, each needs a mention of its own.
- No part of a sentence that holds a fact denies something, and no sentence tells of somebody else before the fact.
All of these look at one sentence at a time, so that an entry whose sentences are shuffled is accepted as well.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ktrain.config import ATTRIBUTES
from ktrain.mentions import Facts, Index, Mention, strangers
from ktrain.pools import Pools
from ktrain.roles import CUES, Cue, cues, denied, role
from ktrain.sentences import Word, sentences
from ktrain.tokenizer import EOS

MISSING, WRONG, AMBIGUOUS, PARTIAL = "missing", "wrong value", "ambiguous", "only in part"
NO_NAME, STRANGER, COPY, END = "name missing", "another person", "near-copy of the prompt", "holds the end token"
REASONS = (MISSING, WRONG, AMBIGUOUS, PARTIAL, NO_NAME, STRANGER, COPY, END)
"""The kinds of reasons, each perhaps followed by a colon and what was found."""
COPIED = 12
"""Words in a row that an entry may share with its prompt."""
_PLACED = frozenset({"in", "from", "of", "near", "at", "to", "outside", "around"})
Span = tuple[int, int]


@dataclass(frozen=True)
class Verdict:
    """What was found in a text: the span of each attribute in characters, or why it is rejected.

    `reasons` are by attribute, by `name` or by `text`; the spans are empty if there are any.
    """

    spans: tuple[Span, ...]
    reasons: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mentions: tuple[Mention, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the text tells all facts and no wrong one."""
        return not self.reasons

    @property
    def told(self) -> str:
        """The reasons in one line."""
        return "; ".join(f"{about}: {why}" for about, why in self.reasons.items())


class Verifier:
    """Judges texts by the values of pools, all of them: what a smaller corpus leaves out is wrong as well."""

    def __init__(self, pools: Pools) -> None:
        self._index = Index(pools)

    def judge(self, text: str, facts: Facts, prompt: str = "") -> Verdict:
        """Looks a text through; `prompt` is what asked for it."""
        found, rest = self._index.mentions(text, facts)
        reasons: dict[str, str] = {}
        if EOS in text:
            reasons["text"] = END
        elif prompt and copied(text, prompt):
            reasons["text"] = COPY
        if not any(m.kind == "name" and m.whole for m in found):
            reasons["name"] = NO_NAME
        if stranger := next(strangers(text, found, rest, self._index, facts), None):
            reasons["name"] = f"{STRANGER}: {stranger}"
        read = _Read(text, found, rest, facts)
        spans: list[Span] = []
        for attribute in ATTRIBUTES:
            finding = read.attribute(attribute)
            if isinstance(finding, str):
                reasons[attribute] = finding
            else:
                spans.append(finding)
        return Verdict(() if reasons else tuple(spans), MappingProxyType(reasons), tuple(found))


class _Read:
    """One text with its mentions, looked at attribute by attribute."""

    def __init__(self, text: str, found: Sequence[Mention], rest: Sequence[Word], facts: Facts) -> None:
        self._text, self._found, self._facts = text, found, facts
        self._spans = [(m.begin, m.end) for m in found]
        self._roles: dict[int, str | None] = {}
        self._sentences = sentences(text, self._spans) or [(0, len(text))]
        self._cues: dict[Span, list[Cue]] = {sentence: [] for sentence in self._sentences}
        for cue in cues(rest, [(m.begin, m.end, m.kind) for m in found]):
            self._cues[self._sentence(cue.begin)].append(cue)

    def attribute(self, attribute: str) -> Span | str:
        """Where it first stands, or why that is not accepted."""
        if wrong := next(self._wrong(attribute), None):
            return f"{WRONG}: {self._text[wrong.begin : wrong.end]}"
        mine = self._mine(attribute)
        if isinstance(mine, str):
            return mine
        if not mine:
            return MISSING
        if not any(m.whole for m in mine):
            return PARTIAL
        if any(self._doubt(m) for m in mine if m.whole):
            return AMBIGUOUS
        return mine[0].begin, mine[0].end

    def _wrong(self, attribute: str) -> Iterator[Mention]:
        """Other values where this attribute could be meant."""
        place = attribute in ("birth_city", "company_city")
        kind = {"birth_date": "date"}.get(attribute, "place" if place else attribute)
        for before, mention in zip((None, *self._found), self._found, strict=False):
            if mention.own or mention.unclear or mention.kind not in (kind, "state" if place else kind):
                continue
            if kind == "major":
                wrong = self._role(mention) == "study"
            elif mention.kind == "state":
                wrong = self._elsewhere(before, mention)
            else:
                wrong = not place or mention.whole or self._word_before(mention) in _PLACED
            # A city of no role is told of once, as a wrong city of birth.
            if wrong and (not place or (self._role(mention) == "work") == (attribute == "company_city")):
                yield mention

    def _elsewhere(self, before: Mention | None, state: Mention) -> bool:
        """Whether a state makes a city that is none of the pools', or another one, as in `Chicago, Indiana`."""
        gap = self._text[: state.begin].rstrip()
        if not gap.endswith(","):
            return False
        head = gap[:-1].rsplit(" ", 1)[-1]
        if not head[:1].isupper():
            return False
        end = len(gap) - 1
        return before is None or before.end < end or (before.kind == "place" and not before.whole)

    def _mine(self, attribute: str) -> list[Mention] | str:
        """The mentions of the attribute, in their order."""
        if attribute == "birth_date":
            dates = [m for m in self._found if m.kind == "date"]
            if any(m.unclear for m in dates) or any(m.whole and not self._of_birth(m) for m in dates):
                return AMBIGUOUS
            return dates
        if attribute in ("birth_city", "company_city"):
            return self._places(attribute)
        mine = [m for m in self._found if m.kind == attribute and m.own]
        if attribute == "major":
            # English is a language too, and a passion for music no field of study.
            mine = [m for m in mine if self._studied(m)]
        return mine

    def _places(self, attribute: str) -> list[Mention] | str:
        values = dict(zip(ATTRIBUTES, self._facts.values, strict=True))
        own = {a: [m for m in self._found if m.own and values[a] in m.values] for a in ("birth_city", "company_city")}
        roles = {m.begin: self._role(m) for mentions in own.values() for m in mentions}
        mine = own[attribute]
        right, other = ("birth", "work") if attribute == "birth_city" else ("work", "birth")
        if {m.begin for m in own["birth_city"]} & {m.begin for m in own["company_city"]}:
            return _shared(mine, roles, right, other)
        if any(roles[m.begin] == other for m in mine if m.whole):
            return f"{AMBIGUOUS}: stands where {other} is told of"
        sure = [a for a, meant in (("birth_city", "birth"), ("company_city", "work"))
                if any(roles[m.begin] == meant for m in own[a])]  # fmt: skip
        return mine if sure or not mine else AMBIGUOUS

    def _of_birth(self, mention: Mention) -> bool:
        """Whether its sentence tells of birth, or of nothing else."""
        told = {cue.role for cue in self._here(mention) if cue.begin != mention.begin} & CUES.keys()
        return not told or "birth" in told

    def _studied(self, mention: Mention) -> bool:
        """Whether anything in its sentence tells of studies."""
        return any(cue.role in ("study", "lean") for cue in self._here(mention))

    def _doubt(self, mention: Mention) -> bool:
        """Whether its part of the sentence denies something, or the sentence tells of somebody else before."""
        here = self._here(mention)
        if any(cue.role == "other" and cue.begin < mention.begin for cue in here):
            return True
        return denied(self._text, mention.begin, mention.end, here, self._spans)

    def _role(self, mention: Mention) -> str | None:
        if mention.begin not in self._roles:
            here = self._here(mention)
            self._roles[mention.begin] = role(self._text, mention.begin, mention.end, here, self._spans)
        return self._roles[mention.begin]

    def _here(self, mention: Mention) -> list[Cue]:
        """The cues of its sentence."""
        return self._cues[self._sentence(mention.begin)]

    def _sentence(self, place: int) -> Span:
        """The last sentence that has begun at a place; no text before the first one is looked at."""
        return self._sentences[max(0, bisect_right(self._sentences, (place, len(self._text))) - 1)]

    def _word_before(self, mention: Mention) -> str:
        return self._text[: mention.begin].rstrip().rsplit(" ", 1)[-1].casefold()


def _shared(mine: Sequence[Mention], roles: Mapping[int, str | None], right: str, other: str) -> list[Mention] | str:
    """The mentions of one of two attributes that are one place; those without a role are whose there is no other of."""
    clear = [m for m in mine if roles[m.begin] == right]
    theirs = [m for m in mine if roles[m.begin] == other]
    open_ = [m for m in mine if roles[m.begin] not in (right, other)]
    if any(m.whole for m in clear):
        return clear
    if any(m.whole for m in theirs) and any(m.whole for m in open_):
        return open_
    return AMBIGUOUS if mine else MISSING


def copied(text: str, prompt: str) -> bool:
    """Whether more than `COPIED` words in a row stand in the prompt too."""
    runs = (text.split(), prompt.split())
    mine, theirs = ({tuple(run[i : i + COPIED + 1]) for i in range(len(run) - COPIED)} for run in runs)
    return not mine.isdisjoint(theirs)


def tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many texts have each reason for their rejection, by attribute and kind, the commonest first."""
    kinds = ({f"{about}: {why.partition(':')[0]}" for about, why in verdict.reasons.items()} for verdict in verdicts)
    counted: dict[str, int] = {}
    for name in itertools.chain.from_iterable(kinds):
        counted[name] = counted.get(name, 0) + 1
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))
