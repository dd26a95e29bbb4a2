"""Generation cost: estimates what a language model takes to write the biographies that a plan lacks."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ktrain.generation.drafts import generation_tasks
from sweeps.planning.cost import Device
from sweeps.planning.plan import Plan

ACCEPTANCE = 0.6
"""Assumed share of drafts that are accepted; the real one depends on the model."""
PROMPT_TOKENS, DRAFT_TOKENS = 190, 80
"""Typical lengths of one prompt and one draft."""
INFERENCE = 0.25
"""Speed of generation as a share of the device's speed in training, which is itself 40 % of its peak."""
_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(b|m)(?![a-z])", re.I)


@dataclass(frozen=True)
class GenerationCost:
    """The estimate for one text stage. `seconds` are of one device; None if the model runs elsewhere, or if its name
    does not tell its size.
    """

    stage: str
    model: str
    backend: str
    people: int
    tokens_read: int
    tokens_written: int
    seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Returns the fields of `plan --json`."""
        return {**vars(self), "tokens": self.tokens_read + self.tokens_written}


def generation_costs(plan: Plan) -> list[GenerationCost]:
    """Estimates each text stage that a language model has to write before cells of the plan can run, in plan order."""
    estimates: dict[str, GenerationCost] = {}
    tasks = {key: task for cell in plan.cells for key, (_, task) in generation_tasks(cell.cell).items()}
    for key, task in tasks.items():
        if key in plan.snapshot.done:
            continue
        drafts = task.people / ACCEPTANCE
        read, written = round(drafts * PROMPT_TOKENS), round(drafts * DRAFT_TOKENS)
        size = parameters(task.writer.model) if task.writer.backend != "http" else None
        seconds = 2 * size * (read + written) / (INFERENCE * plan.device.speed) if size else None
        writer = task.writer
        estimates[key] = GenerationCost(key, writer.model, writer.backend, task.people, read, written, seconds)
    return list(estimates.values())


def parameters(model: str) -> float | None:
    """Returns the parameters that a model's name tells: 7e9 for `Qwen2.5-7B-Instruct`; None if it tells none."""
    sizes = _SIZE.findall(model.rsplit("/", 1)[-1])
    if not sizes:
        return None
    number, unit = sizes[-1]
    return float(number) * {"b": 1e9, "m": 1e6}[unit.lower()]


def describe(costs: Sequence[GenerationCost], sweep: str, device: Device) -> Iterator[str]:
    """Yields a line for each model, with what it has to write and how long that takes."""
    models: dict[tuple[str, str], list[GenerationCost]] = {}
    for cost in costs:
        models.setdefault((cost.model, cost.backend), []).append(cost)
    for (model, backend), mine in models.items():
        read, written = sum(w.tokens_read for w in mine), sum(w.tokens_written for w in mine)
        seconds = [w.seconds for w in mine if w.seconds is not None]
        hours = f", {sum(seconds) / 3600:,.1f} hours of one {device.name}" if len(seconds) == len(mine) else ""
        yield (
            f"{len(mine)} x {mine[0].people:,} by {model} ({backend}): about {read:,} tokens read and {written:,} "
            f"written{hours}, if {ACCEPTANCE:.0%} of the drafts are accepted; `ktrain generate {sweep}` with the same "
            "options does it"
        )
