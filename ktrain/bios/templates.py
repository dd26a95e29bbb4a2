"""Templates: sentences with slots, split into fragments where the pre-tokenizer splits.

Slots: `{name}` the subject and `{name's}` its possessive (full name or pronoun), `{his}` a possessive pronoun,
`{value}` the attribute, `{a|b}` agreement with a singular or plural subject ("they").
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ktrain.bios.attribute_files import attribute_files
from ktrain.bios.pools import DAYS, FIRST_YEAR, MONTHS, Pools, read_text, text_fault
from ktrain.config import ATTRIBUTES
from ktrain.errors import WrongRequest

BUILTIN = Path(__file__).parents[1] / "data" / "assets" / "templates"
COLUMNS = ("constant", "first", "middle", "last", "pronoun", "plural", "month", "day", "year",
           "birth_city", "university", "major", "company")  # fmt: skip
"""What the text of a fragment can depend on, besides attributes of the user's own; a person is one index per column."""
SUBJECT = ("he", "she", "they")
POSSESSIVE = ("his", "her", "their")
QUESTIONS = {
    "birth_date": "What is the birth date of {name}? Answer: {value}.",
    "birth_city": "What is the birth city of {name}? Answer: {value}.",
    "university": "Which university did {name} study? Answer: {value}.",
    "major": "What major did {name} study? Answer: {value}.",
    "company": "Which company did {name} work for? Answer: {value}.",
    "company_city": "Where did {name} work? Answer: {value}.",
}
"""One wording per attribute (paper, section 2.1)."""
_SLOT = re.compile(r"\{([^{}]*)\}")
_AGREEING = {"is", "was", "has", "does", "are", "were", "have", "do"}
"""Verbs whose form depends on the pronoun; so do their negations, such as `isn't`."""
_ADVERBS = (
    r"(?:\w+ly|a(?:lmost|lready|lso|lways)|ever|first|just|never|now|nowadays|often|once|sometimes|soon|still|then)"
)
_VERB = re.compile(rf"\{{name\}},? (?:{_ADVERBS},? )*([a-z']+)\b")
"""The word after `{name}`, adverbs skipped: its verb, unless a phrase stands between them."""
_NO_VERB = re.compile(r".*(?:ss|us|is|wards|doors|stairs)|always|as|besides|overseas|perhaps|sometimes|nowadays|.*'s")
"""Words that end in s and may follow a subject without being its verb in the present tense."""


@dataclass(frozen=True)
class Fragment:
    """A piece of text between two cuts of the pre-tokenizer; one column of the person selects it.

    `texts[i]` is the text at index i of `column`; its first `inside[i]` characters belong to the attribute.
    """

    column: str
    texts: tuple[str, ...]
    inside: tuple[int, ...]


def load(folder: str | None = None, attributes: Sequence[str] = ATTRIBUTES) -> dict[str, tuple[str, ...]]:
    """Reads the templates of each of the `attributes`, in their order, one per line of `<attribute>.txt`.

    A folder that has only files of attributes besides the six adds them to the built-in templates. Raises
    `WrongRequest` with the file and line of the first malformed template.
    """
    if folder is None:
        return dict(_builtin())
    if not Path(folder).is_dir():
        raise WrongRequest(f"corpus.templates_folder={folder}: no such folder")
    return _read(Path(folder), files(folder, attributes))


@cache
def _builtin() -> dict[str, tuple[str, ...]]:
    """Reads the built-in templates once in a process, as `pools` does."""
    return _read(BUILTIN, files())


def _read(root: Path, paths: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    templates = {}
    for path in paths:
        if not path.is_file():
            raise WrongRequest(f"corpus.templates_folder={root}: {path.name} is missing")
        lines = {n: line for n, line in enumerate(read_text(path).splitlines(), 1) if line.strip()}
        if not lines:
            raise WrongRequest(f"{path.name} in {path.parent}: no template")
        for number, line in lines.items():
            if fault := template_fault(line) or name_fault(line):
                raise WrongRequest(f"{path.name} line {number}: {fault}: {line!r}")
        templates[path.stem] = tuple(lines.values())
    return templates


def files(folder: str | None = None, attributes: Sequence[str] = ATTRIBUTES) -> list[Path]:
    """The files that define the templates, for the corpus key."""
    return attribute_files(folder, BUILTIN, attributes)


def template_fault(template: str) -> str | None:
    """The first mistake in a template, or None."""
    if fault := text_fault(template):
        return fault
    slots = _SLOT.findall(template)
    if slots.count("value") != 1:
        return "needs {value} exactly once"
    if slots.count("name") + slots.count("name's") != 1:
        return "needs {name} or {name's} exactly once"
    unknown = [s for s in slots if s not in ("value", "name", "name's", "his") and s.count("|") != 1]
    if unknown:
        return f"unknown slot {{{unknown[0]}}}; slots are {{name}}, {{name's}}, {{his}}, {{value}}, {{a|b}}"
    if set(_SLOT.sub("", template)) & set("{}"):
        return "a brace opens or closes no slot"
    # An agreement slot may be empty for one of its subjects, which would leave two spaces.
    forms = [_SLOT.sub(side, template) for side in (lambda s: s[1].split("|")[0], lambda s: s[1].split("|")[-1])]
    if any("  " in form or form != form.strip() or not form.endswith(".") for form in forms):
        return "needs single spaces and a full stop at the end"
    if not re.search(r"(?<=\S )\{value\}", template):
        return "needs a word and a space before {value}"
    if any(len(_SLOT.findall(word)) > 1 for word in _words(template)):
        return "two slots are in one word"
    return None


def name_fault(template: str) -> str | None:
    """The first mistake in how a well-formed template names its person, or None.

    The name must stand before the value: otherwise the value has to be known before the reader hears of whom. The verb
    must agree with `they` too. Detected are, right after `{name}` or after adverbs, a form of be, have or do and any
    verb in the present tense with -s; also `{name}'s`. Not detected are a verb further away (`{name} lived and works
    in`), before the name (`was {name} born`) or without -s (`{name} work`, which reads like the past `{name} put`),
    pronouns in place of a slot (`his`, `him`), and a slot with the wrong words (`{are|is}`).
    """
    subject, value = re.search(r"\{name(?:'s)?\}", template), template.find("{value}")
    if subject is None or value < 0:
        return None
    if subject.start() > value:
        return "needs {name} or {name's} before {value}"
    if "{name}'" in template:
        return "{name}' does not agree with a pronoun; the possessive is {name's}"
    if match := _VERB.match(template, subject.start()):
        verb = match.group(1)
        present = verb.endswith("s") and not _NO_VERB.fullmatch(verb)
        if verb.removesuffix("n't") in _AGREEING or present:
            return f"{verb!r} after {{name}} agrees with one pronoun only; write both forms, such as {{was|were}}"
    return None


def fragments(template: str, attribute: str, pools: Pools, *, named: bool) -> list[Fragment]:
    """The fragments of one sentence with a leading space; `named` writes the full name in place of the pronoun."""
    pieces: list[Fragment] = []
    literal = ""
    for position, word in enumerate(_words(template)):
        slot = _SLOT.search(word)
        if slot is None:
            literal += f" {word}"
            continue
        if literal:
            pieces.append(_fragment("constant", [literal]))
            literal = ""
        before, after = " " + word[: slot.start()], word[slot.end() :]
        pieces.extend(_slot(slot.group(1), attribute, pools, before, after, named=named, first=position == 0))
    if literal:
        pieces.append(_fragment("constant", [literal]))
    return pieces


def columns_of(pools: Pools) -> tuple[str, ...]:
    """The names of a person's columns: `COLUMNS`, then the attributes of the user's own."""
    return (*COLUMNS, *pools.own)


def attribute_columns(attribute: str, pools: Pools) -> list[tuple[str, list[str]]]:
    """The columns of an attribute, each with the text of every index: three columns for a date, one otherwise."""
    if attribute == "birth_date":
        years = [str(FIRST_YEAR + i) for i in range(pools.birth_years)]
        return [("month", list(MONTHS)), ("day", [f"{d}," for d in range(1, DAYS + 1)]), ("year", years)]
    if attribute in pools.own:
        return [(attribute, list(pools.own[attribute]))]
    plural = {"birth_city": "birth_cities", "university": "universities", "major": "majors",
              "company": "companies", "company_city": "company_cities"}  # fmt: skip
    column = "company" if attribute == "company_city" else attribute
    return [(column, list(getattr(pools, plural[attribute])))]


def _words(template: str) -> Iterator[str]:
    """Words of a template; a slot is inside one word, even if it has spaces as `{has been|have been}`."""
    yield from re.findall(r"(?:\{[^{}]*\}|[^\s{}])+", template)


def _slot(
    slot: str, attribute: str, pools: Pools, before: str, after: str, *, named: bool, first: bool
) -> Iterator[Fragment]:
    if slot == "value":
        columns = attribute_columns(attribute, pools)
        for i, (column, texts) in enumerate(columns):
            last = i == len(columns) - 1
            inside = [f" {text}" for text in texts]
            yield _fragment(column, [t + after for t in inside] if last else inside, [len(t) for t in inside])
    elif slot in ("name", "name's") and named:
        after = ("'s" if slot == "name's" else "") + after
        yield _fragment("first", [before + v for v in pools.first_names])
        yield _fragment("middle", [" " + v for v in pools.middle_names])
        yield _fragment("last", [" " + v + after for v in pools.last_names])
    elif slot in ("name", "name's", "his"):
        words = SUBJECT if slot == "name" else POSSESSIVE
        yield _fragment("pronoun", [before + (w.capitalize() if first else w) + after for w in words])
    else:
        singular, plural = slot.split("|")
        # A full name is one person, whatever the pronoun: its verb is singular.
        yield _fragment("plural", [before + singular + after, before + (singular if named else plural) + after])


def _fragment(column: str, texts: list[str], inside: list[int] | None = None) -> Fragment:
    return Fragment(column, tuple(texts), tuple(inside or [0] * len(texts)))
