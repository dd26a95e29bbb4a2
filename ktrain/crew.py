"""A crew: all adapters that are to be trained over one network, split into waves that are fleets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from ktrain import waves
from ktrain.adapters import Adapters, Member
from ktrain.config import Readout, Runtime
from ktrain.device import device, moved
from ktrain.dropout import seeds
from ktrain.fleet import Fleet
from ktrain.keys import digest
from ktrain.probes import Task
from ktrain.stages import Stage
from ktrain.store import Store
from ktrain.training import Progress, share
from ktrain.work import Report, fit


@dataclass(frozen=True)
class Asked:
    """One adapter of a readout stage: for a probe, one of its tasks."""

    stage: Stage
    member: Member
    task: Task | None = None


Wave = Sequence[Asked]
Publish = Callable[[Wave, Fleet, list[Progress]], None]


@dataclass(frozen=True)
class Crew:
    """What is trained: `batch(wave, step)` gives ids, places, targets and weights of whole batches, each (K, B, ...),
    `head(wave)` what reads the states; `width` is the tokens of a row, `dropout` its rate
    in the frozen network, `tokens` (vocabulary,) bool those whose embedding may be updated.
    """

    network: Any
    readout: Readout
    asked: Sequence[Asked]
    batch: Callable[[Wave, int], tuple[Tensor, ...]]
    head: Callable[[Wave], nn.Module]
    width: int
    dropout: float
    tokens: Tensor | None = None

    def train(self, store: Store, runtime: Runtime, report: Report, publish: Publish) -> None:
        """Trains the members wave after wave; `publish` gets each on rank 0, in evaluation mode.

        What a wave has learned stays in the work folder until all are published, so that a crash costs no wave.
        Raises `Diverged`, `Leaving`.
        """
        self.network.to(device())
        planned = list(self._waves(store, runtime))
        for index, wave in enumerate(planned):
            fleet = self.fleet(wave)
            curve = fit(
                fleet,
                self.readout,
                partial(self.rows, wave),
                self.readout.batch * self.width * len(wave),
                store.place(_key(wave)),
                runtime,
                partial(_tell, report, self.asked[0].stage.key, index, len(planned)),
                clip=fleet.clip,
            )
            if not dist.get_rank():
                publish(wave, fleet.eval(), curve)
        for key in {*map(_key, planned), *map(_key, self._kinds())} if not dist.get_rank() else ():
            store.clear_work(key)

    def fleet(self, wave: Wave) -> Fleet:
        """The members of a wave as they are before training."""
        adapters = Adapters(
            self.network, [one.member for one in wave], self.readout.lora_scale, self.dropout, self.tokens
        )
        adapters.rank, adapters.ranks = dist.get_rank(), dist.get_world_size()
        return Fleet(self.network, adapters, self.head(wave)).to(device()).train()

    def rows(self, wave: Wave, step: int) -> tuple[Tensor, ...]:
        """What this rank feeds to a wave at a step."""
        *read, weights = self.batch(wave, step)
        # DeepSpeed takes the mean over ranks, the loss is a sum over them.
        parts = (share(x, 1) for x in (*read, weights * dist.get_world_size()))
        return (*parts, seeds([(one.member.seed, f"{_parent(one)}/{one.member.name}") for one in wave], step))

    def _kinds(self) -> list[Wave]:
        """Whole embeddings and updates of low rank are different parameters, so different waves."""
        kinds = [[one for one in self.asked if (one.member.rank_embedding == "full") == whole] for whole in (0, 1)]
        return [kind for kind in kinds if kind]

    def _waves(self, store: Store, runtime: Runtime) -> Iterator[Wave]:
        for kind in self._kinds():
            place = store.place(_key(kind))
            size = waves.size(partial(self._first, kind), len(kind), self.readout, runtime, place.folder / "wave.json")
            if not dist.get_rank():
                place.keep()
            yield from (kind[begin : begin + size] for begin in range(0, len(kind), size))

    def _first(self, kind: Wave, count: int) -> tuple[Fleet, tuple[Tensor, ...]]:
        """The first members of a kind and their first step."""
        return self.fleet(kind[:count]), tuple(moved(t, device()) for t in self.rows(kind[:count], 0))


def own(curve: Sequence[Progress], members: Sequence[int]) -> list[Progress]:
    """The curve of some members of a wave."""
    lines = []
    for p in curve:
        losses = tuple(p.members[k] for k in members)
        lines.append(replace(p, loss=sum(losses) / len(losses), members=losses))
    return lines


def joined(before: list[Progress], after: list[Progress]) -> list[Progress]:
    """The curve of a stage whose members were trained in two waves."""
    lines = []
    for a, b in zip(before, after, strict=True) if before else ():
        members = (*a.members, *b.members)
        loss = sum(members) / len(members)
        lines.append(replace(b, loss=loss, members=members, tokens=a.tokens + b.tokens, seconds=a.seconds + b.seconds))
    return lines or after


def _key(wave: Wave) -> str:
    return f"fleet-{digest([[one.stage.key, one.member.name] for one in wave])}"


def _parent(one: Asked) -> str:
    assert one.stage.parent is not None
    return one.stage.parent.key


def _tell(report: Report, key: str, index: int, count: int, p: Progress) -> bool | None:
    """The progress of one wave as that of all waves, for whoever waits."""
    return report(key, replace(p, step=index * p.steps + p.step, steps=count * p.steps))
