"""What P-probes and Q-probes share: tasks for each attribute, each an adapter with a classifier of frozen states."""

import itertools
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, cast

from ktrain.config import ATTRIBUTES, AugmentationConfig, CellConfig, ReadoutConfig, WriterConfig
from ktrain.model import sizes
from ktrain.readout.kinds.base import ReadoutKind

if TYPE_CHECKING:
    import pandas as pd

    from ktrain.data.corpus import Corpus
    from ktrain.readout.job import ReadoutJob
    from ktrain.readout.probes import Rows


_WRITTEN = {
    "kind": "bioS", "multi": 1, "permute": 0, "fullname": False, "couple": 0, "celebrity_fraction": 0.0,
    "celebrity": AugmentationConfig(), "background": None, "writer": WriterConfig(),
}  # fmt: skip
"""Cells that differ in how their people are described share a tokenizer."""
WHOLE = ("mean", *ATTRIBUTES[1:])
"""A whole birth date has more classes than there are people to learn them from, so no probe predicts it."""


class ProbeKind(ReadoutKind):
    """Linear classifiers of states, for the first token and the whole of each attribute (paper, section 4)."""

    trains = True
    probe = True
    tasks = 11
    figure = "probes"
    batch_norm: bool = False
    """Whether states are normalised over the batch before they are classified."""

    def task_count(self, cell: CellConfig) -> int:
        """Two for each attribute, and one for the birth date: eleven where people have the six."""
        return 2 * len(cell.corpus.attributes) - 1

    def examples_per_person(self, cell: CellConfig) -> int:
        """Rows that each person has."""
        return 1

    def rows(self, corpus: "Corpus", readout: ReadoutConfig, pad: int | None = None) -> "Rows":
        """What the probes read; names are padded with `pad`, which is EOS unless given."""
        raise NotImplementedError

    def reads(self, field: str, readout: ReadoutConfig) -> bool:
        """Probes always train adapters."""
        return super().reads(field, readout) and field != "method"

    def check_cell(self, cell: CellConfig) -> None:
        """Somebody must be left to train on."""
        if not cell.learned_from:
            raise ValueError("corpus.question_share leaves nobody to train a probe on")

    def refusal_key(self, cell: CellConfig) -> Hashable:
        """The people and their tokenizer, and how many people there are for each class."""
        corpus = cell.corpus.model_copy(update=_WRITTEN)
        return "classes", corpus, cell.seed, cell.learned_from, cell.readout.people_per_class

    def refused_tasks(self, cell: CellConfig) -> tuple[str, ...]:
        """Tasks with fewer than `readout.people_per_class` training people for each class."""
        from ktrain.bios import pools
        from ktrain.data import corpus as corpora
        from ktrain.readout import probes

        corpus = cell.corpus.model_copy(update=_WRITTEN)
        drawn = pools.shrink(pools.load(corpus.pools_folder), corpus.pools)
        left_out = probes.refusal(
            drawn, lambda: corpora.tokenizer_of(corpus, cell.seed), cell.learned_from, cell.readout.people_per_class
        )
        return tuple(left_out.values())

    def size(self, cell: CellConfig, vocabulary: int) -> int:
        """Adapters and heads, and a few bytes for every example of the predictions."""
        rank = cell.readout.rank_embedding
        adapter = vocabulary * (sizes.shape_of(cell.model, vocabulary).width if rank == "full" else int(rank))
        examples = cell.corpus.people * self.examples_per_person(cell)
        return self.task_count(cell) * (4 * adapter + 16 * examples)

    def recomputed(self, predictions: "pd.DataFrame") -> dict[str, float]:
        """Accuracies by place and task, their means over the attributes except the birth date, and accuracies by the
        set of attributes already read."""
        rows = predictions.assign(right=predictions["expected"] == predictions["predicted"])
        rows[["measure", "attribute"]] = rows["task"].str.split("/", expand=True)
        paths = {"": rows}
        metrics: dict[str, float] = {}
        if "seen" in rows:
            # The last place at which a task is counted is the one right before its attribute.
            last = rows.groupby(["entry", "person", "task"])["position"].transform("max")
            paths = {f"/{place}": chosen for place, chosen in rows.groupby("position")}
            paths["/own"] = rows[rows["position"] == last]
            for names, share in rows.groupby(["measure", "seen", "attribute"])["right"].mean().items():
                metrics["/".join((self.metric_prefix, "seen", *map(str, cast(tuple[str, ...], names))))] = float(share)
        for path, chosen in paths.items():
            for measure, tasks in chosen.groupby("measure"):
                prefix, shares = f"{self.metric_prefix}/{measure}{path}", tasks.groupby("attribute")["right"].mean()
                metrics |= {f"{prefix}/{attribute}": float(share) for attribute, share in shares.items()}
                averaged = shares.drop("birth_date", errors="ignore")
                metrics |= {f"{prefix}/mean": float(averaged.mean())} if len(averaged) else {}
        return metrics

    def places(self, attributes: Sequence[str]) -> tuple[str, ...]:
        """The places of a row, as its metrics name them; none where it has one."""
        return ()

    def attribute_metrics(self, attributes: Sequence[str]) -> frozenset[str]:
        """Accuracies at each place, by what was read before it, and what the commonest classes would score."""
        columns = [f"first/{column}" for column in ("mean", *attributes)]
        columns += [f"whole/{column}" for column in ("mean", *attributes) if column != "birth_date"]
        names, places = {f"baseline/{column}" for column in columns}, self.places(attributes)
        for measure, _, column in (column.partition("/") for column in columns):
            paths = [f"{measure}/{place}" for place in places] or [measure]
            names |= {f"{self.metric_prefix}/{path}/{column}" for path in paths}
            if places and column != "mean":
                before = _read_before(column, attributes)
                names |= {f"{self.metric_prefix}/seen/{measure}/{seen}/{column}" for seen in before}
        return frozenset(names)

    def read_out(self, job: "ReadoutJob") -> None:
        """Trains all tasks of all cells together, and publishes predictions and adapters."""
        from ktrain.readout import probe_training

        rows = self.rows(job.corpus, job.cells[0].readout, job.network.config.pad_token_id)
        probe_training.ProbeTraining(job, rows, batch_norm=self.batch_norm).run()


def _read_before(attribute: str, attributes: Sequence[str]) -> list[str]:
    """The sets of attributes that may have been read before one of them, as metrics name them."""
    others = [other for other in attributes if other != attribute]
    sets = [chosen for size in range(len(attributes)) for chosen in itertools.combinations(others, size)]
    return ["-".join(chosen) or "none" for chosen in sets]
