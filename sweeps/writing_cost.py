"""What it would cost to have a language model write the biographies that a plan lacks, before it is run."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ktrain.ledger import tasks
from sweeps.cost import Device

if TYPE_CHECKING:
    from sweeps.plan import PlannedCell

ACCEPTANCE = 0.6
"""Share of the drafts that is accepted: an assumption, which the model decides."""
PROMPT_TOKENS, DRAFT_TOKENS = 190, 80
"""Of one draft, typical."""
INFERENCE = 0.25
"""What a model that writes makes of a device's speed in training, whose estimates assume 40 % of a peak."""
_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(b|m)(?![a-z])", re.I)


@dataclass(frozen=True)
class Writing:
    """One text stage that is to be written. `seconds` are of one device, None where it runs elsewhere or its size is
    not in its name.
    """

    stage: str
    model: str
    backend: str
    people: int
    tokens_read: int
    tokens_written: int
    seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """For `plan --json`."""
        return {**vars(self), "tokens": self.tokens_read + self.tokens_written}


def wanted(cells: Sequence["PlannedCell"], done: Collection[str], device: Device) -> list[Writing]:
    """The text stages of the cells that are not `done`, each once, in their order."""
    found = {}
    for key, (_, task) in {key: both for cell in cells for key, both in tasks(cell.cell).items()}.items():
        if key in done:
            continue
        drafts = task.people / ACCEPTANCE
        read, written = round(drafts * PROMPT_TOKENS), round(drafts * DRAFT_TOKENS)
        size = parameters(task.writer.model) if task.writer.backend != "http" else None
        seconds = 2 * size * (read + written) / (INFERENCE * device.speed) if size else None
        found[key] = Writing(key, task.writer.model, task.writer.backend, task.people, read, written, seconds)
    return list(found.values())


def parameters(model: str) -> float | None:
    """How many parameters a model has, by its name: 7e9 for `Qwen2.5-7B-Instruct`; None where it does not say."""
    found = _SIZE.findall(model.rsplit("/", 1)[-1])
    return float(found[-1][0]) * {"b": 1e9, "m": 1e6}[found[-1][1].lower()] if found else None


def told(writings: Sequence[Writing], sweep: str, device: Device) -> Iterator[str]:
    """What there is to write, in words: a line for each model."""
    models: dict[tuple[str, str], list[Writing]] = {}
    for writing in writings:
        models.setdefault((writing.model, writing.backend), []).append(writing)
    for (model, backend), mine in models.items():
        read, written = sum(w.tokens_read for w in mine), sum(w.tokens_written for w in mine)
        seconds = [w.seconds for w in mine if w.seconds is not None]
        hours = f", {sum(seconds) / 3600:,.1f} hours of one {device.name}" if len(seconds) == len(mine) else ""
        yield (
            f"{len(mine)} x {mine[0].people:,} by {model} ({backend}): about {read:,} tokens read and {written:,} "
            f"written{hours}, if {ACCEPTANCE:.0%} of the drafts are accepted; `ktrain write {sweep}` with the same "
            "options does it"
        )
