"""Why a key is not another one: the settings and code versions that separate a stage from its nearest neighbour."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from ktrain import keys
from ktrain.errors import WrongRequest, nearest
from ktrain.store import Store
from sweeps.plan import Plan
from sweeps.show import Screen

SHOWN = 3
"""How many neighbours are told where several differ in as few fields."""
CONTENT = {
    "corpus.pools_content": "content of the pools (corpus.pools_folder)",
    "corpus.templates_content": "content of the templates (corpus.templates_folder)",
    "corpus.background_content": "content of the text (corpus.background)",
    "corpus.tokenizer_content": "content of the tokenizer (corpus.tokenizer)",
    "corpus.writer.phrases_content": "content of the phrases that rules write with",
    "corpus.writer.forms_content": "content of the customary names that are accepted",
    "corpus.writer.model_content": "content of the GGUF file (corpus.writer.model)",
}
"""Fields that hold the digest of files, in the user's words."""


@dataclass(frozen=True)
class Known:
    """A stage whose identity is known, from its manifest or from a plan."""

    key: str
    identity: Mapping[str, Any]
    done: bool

    @property
    def kind(self) -> str:
        """Such as `pretrain`."""
        return str(self.identity["kind"])


@dataclass(frozen=True)
class Difference:
    """A field, and its values in canonical JSON in the neighbour and here; None where the field is absent."""

    field: str
    there: str | None
    here: str | None

    def as_json(self) -> dict[str, Any]:
        """`field`, `there` and `here`; a side that lacks the field is left out."""
        sides = {"there": self.there, "here": self.here}
        return {"field": self.field} | {side: json.loads(text) for side, text in sides.items() if text is not None}


@dataclass(frozen=True)
class Neighbour:
    """A stage of the same kind, and all in which it and the stages before it differ, the first stage first."""

    key: str
    done: bool
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Answer:
    """What separates `compared`, which is the stage asked about, the readout of the cell, or a stage before it.

    `chain` has the stages up to the one asked about, each with its state; `neighbours` are all that are equally near.
    """

    key: str
    state: str
    chain: tuple[tuple[str, str], ...]
    kind: str
    compared: str
    neighbours: tuple[Neighbour, ...]

    def as_json(self) -> dict[str, Any]:
        """The contract of `why --json`."""
        return {
            "key": self.key,
            "state": self.state,
            "stages": [{"key": key, "state": state} for key, state in self.chain],
            "compared": self.compared,
            "neighbours": [
                {"key": n.key, "done": n.done, "differences": [d.as_json() for d in n.differences]}
                for n in self.neighbours
            ],
        }


def answer(key: str, store: Store, plan: Plan | None = None) -> Answer:
    """What separates a key, or the one that begins so, from the nearest; a cell is asked about by its readout.

    A stage that is done is compared with all that are known. One that is not is compared with those that are done: it
    runs because of what separates it from them; where none of its kind is done, the stage before it is compared.
    Raises `WrongRequest` for a key that is neither in the store nor in the plan, and for one that is not unique.
    """
    known = _known(store, plan)
    cells = {c.key: (c.stages[-1].key, c.state) for c in plan.cells} if plan else {}
    full = _full(key, [*known, *cells], store, plan)
    asked, state = cells.get(full, (full, ""))
    chain = _chain(known, asked)
    states = tuple((stage, _state(store, known[stage])) for stage in chain)
    for compared in reversed(chain):
        # What is done needs no reason, unless it was asked about.
        found = _neighbours(known, known[compared]) if compared == asked or not known[compared].done else ()
        if found:
            return Answer(full, state or states[-1][1], states, known[compared].kind, compared, found)
    return Answer(full, state or states[-1][1], states, known[asked].kind, asked, ())


def show(found: Answer) -> None:
    """The stages of what is asked about, and one line for each field that differs."""
    console = Screen(highlight=False)
    console.print(f"{escape(found.key)}: {escape(found.state)}", style="bold")
    stages = Table.grid(padding=(0, 2))
    for key, state in found.chain:
        stages.add_row("", escape(key), escape(state))
    console.print(stages)
    if not found.neighbours:
        console.print(f"\nthere is no other {found.kind} to compare it with")
    elif found.compared != found.chain[-1][0]:
        console.print(f"\nno other of its kind is done; compared is {escape(found.compared)}", soft_wrap=True)
    for neighbour in found.neighbours[:SHOWN]:
        state = "done" if neighbour.done else "to do"
        console.print(f"\nfrom {escape(neighbour.key)} ({state}):", style="bold", soft_wrap=True)
        fields = Table.grid(padding=(0, 1))
        for d in neighbour.differences:
            fields.add_row(f"  {escape(d.field)}:", escape(_value(d.there)), "->", escape(_value(d.here)))
        console.print(fields)
    if len(found.neighbours) > SHOWN:
        console.print(f"\n{len(found.neighbours) - SHOWN} more differ in as many fields")
    if any(None in (d.there, d.here) for n in found.neighbours[:SHOWN] for d in n.differences):
        console.print("\nabsent: that stage does not know the field, or it could change nothing there")


def _value(text: str | None) -> str:
    if text is None:
        return "absent"
    value = json.loads(text)
    return value if isinstance(value, str) and value else text


def _known(store: Store, plan: Plan | None) -> dict[str, Known]:
    """All stages by key; what is done is told by its manifest."""
    known = {s.key: Known(s.key, s.identity, False) for c in plan.cells for s in c.stages} if plan else {}
    return known | {key: Known(key, one.manifest["config"], True) for key, one in store.glance().done.items()}


def _full(key: str, known: list[str], store: Store, plan: Plan | None) -> str:
    if key in known:
        return key
    begun = sorted({name for name in known if name.startswith(key)})
    if len(begun) > 1:
        more = ", ..." if len(begun) > SHOWN else ""
        raise WrongRequest(f"key={key}: so begin {len(begun)} keys: {', '.join(begun[:SHOWN])}{more}")
    if not begun:
        other = f"nor in the plan of {plan.sweep.name}" if plan else "whose stages"
        where = f"in the store {store.address}, {other}"
        hint = "" if plan else " are known; --sweep SWEEP adds the stages and cells of a plan"
        raise WrongRequest(f"key={key}: not {where}{hint}{nearest(key, known)}")
    return begun[0]


def _chain(known: Mapping[str, Known], key: str) -> list[str]:
    """A stage and those before it, the first one first, as far as they are known."""
    parent = known[key].identity["parent"]
    return [*(_chain(known, parent) if parent in known else ()), key]


def _state(store: Store, stage: Known) -> str:
    failure = store.failure(stage.key)
    return "done" if stage.done else f"failed: {failure}" if failure else "to do"


def _neighbours(known: Mapping[str, Known], me: Known) -> tuple[Neighbour, ...]:
    """All of a stage's kind that differ from it in the fewest fields."""
    others = [o for o in known.values() if o.kind == me.kind and o.key != me.key and (o.done or me.done)]
    found = [Neighbour(o.key, o.done, tuple(_differences(known, o.identity, me.identity))) for o in others]
    fewest = min((len(n.differences) for n in found), default=0)
    return tuple(sorted((n for n in found if len(n.differences) == fewest), key=lambda n: (not n.done, n.key)))


def _differences(known: Mapping[str, Known], there: Mapping[str, Any], here: Mapping[str, Any]) -> list[Difference]:
    """What differs between two stages of one kind, and in place of their parents' keys what differs between those."""
    return list({d.field: d for d in _each(known, there, here)}.values())


def _each(known: Mapping[str, Known], there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = there["parent"], here["parent"]
    if old in known and new in known:
        yield from _each(known, known[old].identity, known[new].identity)
    elif old != new:
        yield Difference(f"{here['kind']}.parent (not in the store)", keys.canonical(old), keys.canonical(new))
    for field, before, now in keys.difference({**there, "parent": None}, {**here, "parent": None}):
        name = f"version of {here['kind']}" if field == "version" else CONTENT.get(field, field)
        yield Difference(name, before, now)
