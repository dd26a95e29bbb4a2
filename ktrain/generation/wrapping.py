"""What models and servers put around a biography: reasoning and control tokens are removed, all else is named.

A draft is one paragraph about its person. Whatever else stands in it (a label, a heading, JSON, a remark to the reader)
would be trained on as if it were a fact's context, so that the draft is rejected.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from ktrain.bior.mentions import Facts, Mention
from ktrain.bior.sentences import split_sentences

_THINKERS = r"(?:[\w-]+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|plan)"
_OPEN, _CLOSE = rf"(?:<{_THINKERS}>|◁think▷|\[THINK\])", rf"(?:</{_THINKERS}>|◁/think▷|\[/THINK\])"
_REASONING = (
    # Channels of gpt-oss: what is not `final` is reasoning.
    re.compile(r"<\|channel\|>(?!final).*?(?=<\|channel\|>final|\Z)", re.S),
    re.compile(rf"{_OPEN}.*?{_CLOSE}", re.S | re.I),
    # A chat template may have opened the reasoning, or the limit of tokens has cut it off.
    re.compile(rf"\A.*{_CLOSE}", re.S | re.I),
    re.compile(rf"{_OPEN}.*", re.S | re.I),
)
_ECHO = re.compile(r"(?:\[INST\]|<<SYS>>).*?\[/INST\]", re.S)
_TOKEN = (
    r"(?:<\|[^|<>\n]{1,40}\|>|<\uff5c[^\uff5c<>\n]{1,40}\uff5c>|</?s>|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad|unk|sop|eop|unused\d+|0x[0-9A-F]{2})>|\[/?(?:INST|BOS|EOS|PAD|UNK|SEP|CLS|gMASK|sMASK)\])"
)
"""Tokens of chat templates: Llama, Qwen, Mistral, Gemma, DeepSeek, GLM, Command, gpt-oss."""
_ROLE = r"(?:assistant|model|user|system|final|commentary)"
_BEGIN = re.compile(rf"(?:\s*{_TOKEN}(?:\s*{_ROLE}(?=\s*<|[ \t]*\n))?)+")
_ROLE_LINE = re.compile(rf"\A\s*{_ROLE}[ \t]*\n", re.I)

_HEADING = re.compile(r"\s*(?:#{1,6}\s|[-*+•]\s|\d{1,2}[.)]\s|>|```|~~~|[-=_*]{3,}\s*$)")
_LABEL = re.compile(r"[\W_]*([^\W\d_][\w /-]{0,40}?)[\W_]*:(?=\s|[\W_]*$|[\"'*])")
_SENTENCE_END = re.compile(r"[.!?…][\"'\u201d\u2019)*_]*$")
_TITLE_WORDS = 8
"""Most words of a heading, a line without a full stop; a longer one is a line of prose that a server has wrapped."""
_PROSE = frozenset(".,;:!?…'\"\u2018\u2019\u201c\u201d()-\u2010\u2011\u2012\u2013\u2014&%$/+ ")
_ENTITY = re.compile(r"&#?\w{1,8};|&lt|&gt")
_THIRD_PERSON = re.compile(r"\b(?:he|she|they|him|her|hers|his|them|their|theirs|(?:him|her|them)sel(?:f|ves))\b", re.I)
_READER = re.compile(r"\b(?:you|your|yours|yourself|the user)\b", re.I)
_AUTHOR = re.compile(r"\b(?:I|I['\u2019](?:m|ve|d|ll)|me|my)\b")
_ABOUT_TEXT = re.compile(
    r"\b(?:biograph(?:y|ies|ical)|bio|word count|\d+[ -]words?|words: \d+|language model|AI|fictional|fictitious|"
    r"paragraph|prompt|(?:as|was|were) requested|(?:facts?|details|information) (?:you |were |was )?(?:given|provided)|"
    r"(?:given|provided) (?:facts?|details|information)|disclaimer|placeholder)\b",
    re.I,
)


def without_control(text: str) -> str:
    """A completion without its reasoning and without the control tokens of chat templates.

    The text ends where the model ended its turn: what it wrote after that, in other roles, is removed too.
    """
    for pattern in _REASONING:
        text = pattern.sub("", text)
    text = _ECHO.sub("", text)
    begin = _BEGIN.match(text)
    turn = re.split(_TOKEN, text[begin.end() if begin else 0 :], maxsplit=1)[0]
    return _ROLE_LINE.sub("", turn)


def outside_lines(text: str, facts: Facts) -> Iterator[str]:
    """The lines of a completion that are no prose: headings, titles, items of lists, fences and labels."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for k, line in enumerate(lines):
        label = _LABEL.match(line)
        if (
            _HEADING.match(line)
            or (label and facts.first not in label[1] and facts.last not in label[1])
            or (k < len(lines) - 1 and not _SENTENCE_END.search(line) and len(line.split()) <= _TITLE_WORDS)
        ):
            yield line


def outside_prose(text: str, facts: Facts, mentions: Sequence[Mention]) -> Iterator[str]:
    """The parts of an entry that are not about its person, or not prose; `mentions` are those of the text.

    Sentences without a mention may stand between others, as filler does; the first and the last ones must speak of a
    third person.
    """
    blank = list(text)
    for mention in mentions:
        blank[mention.begin : mention.end] = "x" * (mention.end - mention.begin)
    rest = "".join(blank)
    if entity := _ENTITY.search(rest):
        yield entity.group()
    yield from (mark for mark in dict.fromkeys(rest) if not _is_prose(mark))
    if rest.strip() and rest.strip()[0].islower() and not any(not text[: m.begin].strip() for m in mentions):
        yield text.split()[0]
    if rest.strip() and not _SENTENCE_END.search(text.rstrip()):
        yield f"{text.split()[-1]} (no full stop)"
    spans = split_sentences(text, [(m.begin, m.end) for m in mentions])
    mentioned = [any(b <= m.begin < e for m in mentions) for b, e in spans]
    inner = range(mentioned.index(True), len(spans) - mentioned[::-1].index(True)) if any(mentioned) else range(0)
    for k, (begin, end) in enumerate(spans):
        sentence = rest[begin:end]
        if (
            _ABOUT_TEXT.search(sentence)
            or _READER.search(sentence)
            or (not mentioned[k] and _AUTHOR.search(sentence))
            or (k not in inner and not _THIRD_PERSON.search(sentence))
        ):
            yield text[begin:end]


def _is_prose(mark: str) -> bool:
    """Whether a character may stand in a sentence outside of names and values."""
    if mark.isalpha():
        return unicodedata.name(mark, "").startswith(("LATIN", "MODIFIER LETTER"))
    return mark.isdigit() or mark in _PROSE or bool(unicodedata.combining(mark))
