"""Explains a key: the settings and code versions in which a stage differs from the stages most like it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from ktrain import fingerprint
from ktrain.errors import WrongRequest, nearest
from ktrain.store.base import Store
from sweeps.console import Screen
from sweeps.planning.plan import Plan

SHOWN = 3
"""How many of several equally near neighbours are printed."""
CONTENT = {
    "corpus.pools_content": "content of the pools (corpus.pools_folder)",
    "corpus.templates_content": "content of the templates (corpus.templates_folder)",
    "questions.content": "content of the questions (corpus.questions_folder)",
    "corpus.background_content": "content of the text (corpus.background)",
    "corpus.tokenizer_content": "content of the tokenizer (corpus.tokenizer)",
    "model.start.weights": "content of the weights (model.start)",
    "train.forgetting_content": "content of the text (train.forgetting_text)",
    "corpus.writer.phrases_content": "content of the phrases that rules write with",
    "corpus.writer.forms_content": "content of the customary names that are accepted",
    "corpus.writer.model_content": "content of the GGUF file (corpus.writer.model)",
}
"""Fields that hold the digest of files, and what they are called in print."""


@dataclass(frozen=True)
class KnownStage:
    """A stage whose identity is known from its manifest or from a plan."""

    key: str
    identity: Mapping[str, Any]
    done: bool

    @property
    def kind(self) -> str:
        """Such as `pretrain`."""
        return str(self.identity["kind"])


@dataclass(frozen=True)
class Difference:
    """A field with its values, in canonical JSON, in the neighbour and here; None if the field is absent."""

    field: str
    there: str | None
    here: str | None

    def as_json(self) -> dict[str, Any]:
        """Returns `field`, `there` and `here`; omits a side that lacks the field."""
        sides = {"there": self.there, "here": self.here}
        return {"field": self.field} | {side: json.loads(text) for side, text in sides.items() if text is not None}


@dataclass(frozen=True)
class NearestStage:
    """A stage of the same kind with all differences, those of the earliest stage of its chain first."""

    key: str
    done: bool
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class KeyExplanation:
    """How `compared` differs from its nearest `neighbours`, all of them equally near.

    `compared` is the stage with the given key, the readout of the cell with that key, or a stage before it. `chain` has
    the stages up to that stage or readout, each with its state.
    """

    key: str
    state: str
    chain: tuple[tuple[str, str], ...]
    kind: str
    compared: str
    neighbours: tuple[NearestStage, ...]

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


def explain_key(key: str, store: Store, plan: Plan | None = None) -> KeyExplanation:
    """Explains how a stage, or a cell's readout, differs from the nearest stages of its kind.

    `key` may be the beginning of a key. A finished stage is compared with all known ones. An unfinished stage is
    compared with finished ones, because the differences from them are why it has to run; if none of its kind is
    finished, the stage before it is compared. Raises `WrongRequest` for a key that is neither in the store nor in the
    plan, and for one that is not unique.
    """
    known = _known(store, plan)
    cells = {c.key: (c.stages.readout.key, c.state) for c in plan.cells} if plan else {}
    full = _complete(key, [*known, *cells], store, plan)
    target, state = cells.get(full, (full, ""))
    chain = _chain(known, target)
    states = tuple((stage, _state(store, known[stage])) for stage in chain)
    for compared in reversed(chain):
        # A finished stage needs no explanation, unless it is the target.
        if known[compared].done and compared != target:
            continue
        if neighbours := _neighbours(known, known[compared]):
            return KeyExplanation(full, state or states[-1][1], states, known[compared].kind, compared, neighbours)
    return KeyExplanation(full, state or states[-1][1], states, known[target].kind, target, ())


def show(explanation: KeyExplanation) -> None:
    """Prints the chain of stages, and a line for each field in which a neighbour differs."""
    console = Screen(highlight=False)
    console.print(f"{escape(explanation.key)}: {escape(explanation.state)}", style="bold")
    stages = Table.grid(padding=(0, 2))
    for key, state in explanation.chain:
        stages.add_row("", escape(key), escape(state))
    console.print(stages)
    if not explanation.neighbours:
        console.print(f"\nthere is no other {explanation.kind} to compare it with")
    elif explanation.compared != explanation.chain[-1][0]:
        console.print(f"\nno other of its kind is done; compared is {escape(explanation.compared)}", soft_wrap=True)
    for neighbour in explanation.neighbours[:SHOWN]:
        state = "done" if neighbour.done else "to do"
        console.print(f"\nfrom {escape(neighbour.key)} ({state}):", style="bold", soft_wrap=True)
        fields = Table.grid(padding=(0, 1))
        for d in neighbour.differences:
            fields.add_row(f"  {escape(d.field)}:", escape(_value(d.there)), "->", escape(_value(d.here)))
        console.print(fields)
    if len(explanation.neighbours) > SHOWN:
        console.print(f"\n{len(explanation.neighbours) - SHOWN} more differ in as many fields")
    if any(None in (d.there, d.here) for n in explanation.neighbours[:SHOWN] for d in n.differences):
        console.print("\nabsent: that stage has no such field, or the field could change nothing there")


def _value(text: str | None) -> str:
    if text is None:
        return "absent"
    value = json.loads(text)
    return value if isinstance(value, str) and value else text


def _known(store: Store, plan: Plan | None) -> dict[str, KnownStage]:
    """Returns all stages of the store and the plan by key; of finished ones, the identity in their manifest."""
    known = {s.key: KnownStage(s.key, s.identity, False) for c in plan.cells for s in c.stages} if plan else {}
    return known | {key: KnownStage(key, one.manifest["config"], True) for key, one in store.snapshot().done.items()}


def _complete(key: str, known: list[str], store: Store, plan: Plan | None) -> str:
    """Returns the one known key that begins with `key`. Raises `WrongRequest` if there is none or more than one."""
    if key in known:
        return key
    matches = sorted({name for name in known if name.startswith(key)})
    if len(matches) > 1:
        more = ", ..." if len(matches) > SHOWN else ""
        raise WrongRequest(f"key={key}: {len(matches)} keys begin so: {', '.join(matches[:SHOWN])}{more}")
    if not matches:
        other = f"nor in the plan of {plan.sweep.name}" if plan else "whose stages"
        where = f"in the store {store.address}, {other}"
        hint = "" if plan else " are known; --sweep SWEEP adds the stages and cells of a plan"
        raise WrongRequest(f"key={key}: not {where}{hint}{nearest(key, known)}")
    return matches[0]


def _chain(known: Mapping[str, KnownStage], key: str) -> list[str]:
    """Returns the keys of a stage and of the known stages before it, the earliest first."""
    parent = known[key].identity["parent"]
    return [*(_chain(known, parent) if parent in known else ()), key]


def _state(store: Store, stage: KnownStage) -> str:
    failure = store.failure(stage.key)
    return "done" if stage.done else f"failed: {failure}" if failure else "to do"


def _neighbours(known: Mapping[str, KnownStage], me: KnownStage) -> tuple[NearestStage, ...]:
    """Returns all stages of a stage's kind that differ from it in the fewest fields."""
    others = [o for o in known.values() if o.kind == me.kind and o.key != me.key and (o.done or me.done)]
    compared = [NearestStage(o.key, o.done, tuple(_differences(known, o.identity, me.identity))) for o in others]
    fewest = min((len(n.differences) for n in compared), default=0)
    nearest_ones = [n for n in compared if len(n.differences) == fewest]
    return tuple(sorted(nearest_ones, key=lambda n: (not n.done, n.key)))


def _differences(
    known: Mapping[str, KnownStage], there: Mapping[str, Any], here: Mapping[str, Any]
) -> list[Difference]:
    """Returns the differences between two stages of one kind, those of their parents in place of the parents' keys."""
    return list({d.field: d for d in _all_differences(known, there, here)}.values())


def _all_differences(
    known: Mapping[str, KnownStage], there: Mapping[str, Any], here: Mapping[str, Any]
) -> Iterator[Difference]:
    old, new = there["parent"], here["parent"]
    if old in known and new in known:
        yield from _all_differences(known, known[old].identity, known[new].identity)
    elif old != new:
        yield Difference(
            f"{here['kind']}.parent (not in the store)", fingerprint.canonical(old), fingerprint.canonical(new)
        )
    for field, before, now in fingerprint.difference({**there, "parent": None}, {**here, "parent": None}):
        name = f"version of {here['kind']}" if field == "version" else CONTENT.get(field, field)
        yield Difference(name, before, now)
