"""The networks of a plan: what each has, costs and can hold.

A network holds at most about 2 bits of knowledge a parameter, after a thousand passes over it, and about 1 after a
hundred ("Physics of Language Models: Part 3.3", Allen-Zhu and Li, arXiv 2404.05405).
"""

import math
from dataclasses import dataclass

from ktrain.bios import pools
from ktrain.bios.pools import DAYS, MONTHS
from ktrain.config import CellConfig, CorpusConfig
from sweeps.planning import cost, memory
from sweeps.planning.plan import Plan

BITS_PER_PARAMETER = 2.0


@dataclass(frozen=True)
class NetworkSummary:
    """A network and the largest demands of the cells that train it."""

    parameters: int
    flops_per_token: int
    """In pretraining."""
    bytes: int
    """Peak memory of pretraining by one worker, besides the process itself; estimated."""
    bits: float
    """The most facts that it is to learn."""

    @property
    def holds(self) -> float:
        """The bits that it can hold at most."""
        return BITS_PER_PARAMETER * self.parameters

    def line(self, name: str) -> str:
        """Returns a line about the network, with a warning where the facts do not fit."""
        line = (
            f"{name}: {self.parameters:,} parameters, {self.flops_per_token / 1e6:,.1f} MFLOP a token, "
            f"{self.bytes / 1e9:,.1f} GB to train"
        )
        if self.bits <= self.holds:
            return line
        return (
            f"{line}; too small: the facts are {self.bits / 1e6:,.2f} Mbit, and {BITS_PER_PARAMETER:g} bits a "
            f"parameter hold {self.holds / 1e6:,.2f}"
        )


def network_name(cell: CellConfig) -> str:
    """Returns the name of a cell's network with its tokenizer; the name of a size is the paper's, and rounds."""
    return f"{cell.model.family} {cell.model.name}, tokenizer {cell.corpus.tokenizer}"


def networks(plan: Plan) -> dict[str, NetworkSummary]:
    """Returns the networks of a plan by their names."""
    # A plan of the paper has a thousand cells, of a few dozen settings that matter here.
    distinct = {(c.cell.model, c.cell.train, c.cell.corpus): c for c in plan.cells}
    summaries: dict[str, NetworkSummary] = {}
    for planned in distinct.values():
        cell, name = planned.cell, network_name(planned.cell)
        per_token, bits = cost.per_token(cell, cell.train.context), bits_of_facts(cell.corpus)
        peak = round(memory.estimate(planned.stages.pretrain, cell, 1, gpu=plan.device != cost.CORE))
        known = summaries.get(name, NetworkSummary(0, 0, 0, 0.0))
        summaries[name] = NetworkSummary(
            cost.parameters(cell), max(per_token, known.flops_per_token), max(peak, known.bytes), max(bits, known.bits)
        )
    return summaries


def bits_of_facts(corpus: CorpusConfig) -> float:
    """Returns the bits of all facts: for each person the logarithms of the numbers of values, drawn independently.

    The city of a company follows from the company. With the paper's pools that is 46.6 bits a person.
    """
    used = corpus.pools
    drawn = [len(MONTHS), DAYS, used.birth_years, used.birth_cities, used.universities, used.majors, used.companies]
    if corpus.own_attributes:
        drawn += map(len, pools.load(corpus.pools_folder).own.values())
    return (corpus.people + corpus.celebrities) * sum(map(math.log2, drawn))
