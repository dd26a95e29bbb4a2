"""Learning curves of mixed training: what a model recalls and answers while it learns (paper, Figures 1b and 1c)."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor

from ktrain.data.corpus import Corpus
from ktrain.readout import evaluation, scores
from ktrain.store.regular_files import read_text
from ktrain.system.atomic_write import atomic_write
from ktrain.system.retry import retry_until

PEOPLE = 500
"""People of each half who are asked at each point, the first ones. An accuracy of 90 % is then known to 2.6 points; of
200 people it is known to 4.2."""


class LearningCurves:
    """Five curves: first tokens of biographies and of answers, about people of both halves, and whole answers about
    people of the test half. Kept in a file of the work folder, so that a restart continues them.

    A copy of the network is asked: one in training may be sharded whenever it is used, and looking leaves no trace.
    """

    def __init__(
        self, corpus: Corpus, network: Any, folder: Path, weights: Callable[[], Mapping[str, Tensor]] | None = None
    ) -> None:
        """`weights` returns those of the network as it is trained, where they are not its own (LoRA)."""
        self._corpus, self._trained, self._path = corpus, network, folder / "learning.json"
        self._weights = weights or network.state_dict
        self._copy = None if dist.get_rank() else copy.deepcopy(network)
        chosen = [np.flatnonzero(half)[:PEOPLE] for half in corpus.people_split("minority")]
        self._people = np.sort(np.concatenate(chosen))
        self._n = dict(zip(("train", "test"), map(len, chosen), strict=True))

    def watch(self, step: int) -> None:
        """Measures after `step` steps, while the trained weights are whole; rank 0 alone.

        Points beyond it are of a run that was cut short.
        """
        if self._copy is None:
            return
        self._copy.to(self._trained.device).load_state_dict(self._weights())
        before = self.points()["curve"] if self._path.is_file() else []
        curve = [point for point in before if point["step"] < step] + [{"step": step, **self._measured()}]
        text = json.dumps({"n": self._n, "curve": curve}, allow_nan=False)
        # A point of the curve cannot be made up for later, so a disk that refuses is waited for.
        retry_until(f"learning curves of {self._path.parent.name}", lambda: atomic_write(self._path, text))

    def points(self) -> dict[str, Any]:
        """`n`, the people of each half, and `curve`, one line a point: its step and accuracies by metric name."""
        points: dict[str, Any] = json.loads(read_text(self._path, self._path.parent))
        return points

    def _measured(self) -> dict[str, float]:
        groups = scores.asked_groups(self._corpus, "minority")
        answers = evaluation.answer(self._copy, self._corpus, people=self._people, texts=False)
        metrics, *_ = scores.score(answers, groups, "mixed")
        recalled = evaluation.recall(self._copy, self._corpus, self._people)
        points = {f"mixed/first_token/{half}/mean": metrics[f"mixed/first_token/{half}/mean"] for half in self._n}
        points["mixed/exact_match/test/mean"] = metrics["mixed/exact_match/test/mean"]
        for half in self._n:
            first = recalled.first[groups[half][recalled.person]]
            # A bidirectional network is asked what is masked, which of few people may be nothing.
            if not np.isnan(first).all():
                points[f"bio/first_token/{half}/mean"] = float(np.nanmean(first))
        return points
