"""Two data-parallel workers are one: the same losses, the same function, the same end after an interruption.

Tolerance: `RELATIVE`. Two ranks add the gradients of half batches, one adds them at once; what that rounds differently
was seen to move a loss by 1e-7. A rank that weighed its own targets only, answers being of unequal length, would move
it by 1e-2. Adam divides a gradient by its size, so it turns the rounding of a gradient near zero into a whole step: the
learning rate is small, so that such steps stay below the tolerance.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPTNeoXForCausalLM

import ktrain
from ktrain import pipeline
from ktrain.config import CellConfig, CorpusConfig, ModelConfig, PoolsConfig, ReadoutConfig, RuntimeConfig, TrainConfig
from ktrain.fingerprint import sha256
from ktrain.model import networks
from ktrain.stages import stages_of
from ktrain.store.checkpoints import Checkpoints
from ktrain.store.open import store_at
from ktrain.training.progress import Progress

RELATIVE = 1e-5
SHAPE = networks.NetworkSize(2, 2, 32)
FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 12)
Losses = list[float]


def cell(zero: int, method: str, dropout: float = 0.0) -> CellConfig:
    """Five questions, biographies or names a step: three for one rank, two for the other."""
    # Batch norm over five names magnifies rounding, so a probe's steps are smaller still.
    probe = {"kind": method, "method": "lora", "people_per_class": 0, "learning_rate": 0.0005}
    kind = probe if method.endswith("probe") else {"method": method}
    pools = PoolsConfig(first_names=20, middle_names=20, last_names=20, **FEW)
    return CellConfig(
        corpus=CorpusConfig(people=12, multi=2, permute=1, tokenizer="bpe-600", pools=pools),
        model=ModelConfig(size="mini", dropout=dropout),
        train=TrainConfig(steps=6, batch=4, context=64, warmup=2, precision="fp32", zero=zero, clip=0.5),
        readout=ReadoutConfig.model_validate(
            {
                "rank_qv": 2,
                "rank_embedding": 4,
                "steps": 6,
                "batch": 5,
                "learning_rate": 0.002,
                **kind,
            }
            | {"precision": "fp32", "zero": zero, "recall_gate": 0.0}
        ),
    )


def mixed(zero: int, family: str = "gpt2") -> CellConfig:
    """Questions mixed in, asked at once."""
    tree = cell(zero, "full").model_dump()
    tree["train"]["qa_ratio"], tree["readout"]["kind"], tree["model"]["family"] = 0.5, "mixed", family
    return CellConfig.model_validate(tree)


def gbert(method: str) -> CellConfig:
    """A network that fills in; the masks of a batch are not shared out evenly."""
    tree = cell(0, method).model_dump()
    tree["model"]["family"] = "gbert"
    return CellConfig.model_validate(tree)


@dataclasses.dataclass
class Task:
    """Cells for two ranks; see `rank.py`."""

    name: str
    cells: list[CellConfig]
    stops: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    give_up: bool = False


TASKS = [
    Task("zero0", [cell(0, "full"), cell(0, "lora")]),
    Task("probes", [cell(0, "p_probe"), cell(0, "q_probe")]),
    Task("zero2", [cell(2, "full")]),
    Task("dropout", [cell(2, "full", 0.3)]),
    Task("killed", [cell(2, "full", 0.3)], [("pretrain", 4), ("qa-finetune", 3)]),
    Task("fleets", [cell(0, "p_probe", 0.3), cell(0, "q_probe", 0.3)]),
    Task("killed-fleets", [cell(0, "p_probe", 0.3), cell(0, "q_probe", 0.3)], [("p-probe", 3), ("q-probe", 4)]),
    Task("left", [cell(2, "full")], [("pretrain", 4)], give_up=True),
    Task("gbert", [gbert("full"), gbert("lora"), gbert("q_probe")]),
    Task("curves", [mixed(0)]),
    Task("killed-curves", [mixed(0)], [("pretrain", 5)]),
    Task("sharded", [mixed(3, "gbert")]),
]


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """`mini` in a smaller shape, here as in the ranks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", SHAPE)
        yield


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of each task, done by two processes."""
    folder = tmp_path_factory.mktemp("two")
    tasks = [
        {
            "store": str(folder / task.name),
            "cells": [c.model_dump(mode="json") for c in task.cells],
            "stops": task.stops,
            "give_up": task.give_up,
        }
        for task in TASKS
    ]
    (folder / "tasks.json").write_text(json.dumps({"shape": dataclasses.asdict(SHAPE), "tasks": tasks}))
    path = [str(Path(ktrain.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    ranks = []
    for rank in range(2):
        output = (folder / f"rank-{rank}.txt").open("w")
        command = [sys.executable, str(Path(__file__).with_name("rank.py")), str(rank), "2", str(folder)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
        ranks.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))
    try:
        codes = [rank.wait(timeout=400) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    said = "\n".join((folder / f"rank-{rank}.txt").read_text()[-3000:] for rank in range(2))
    assert codes == [0, 0], said
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[CellConfig], Path]:
    """The store of what one rank does, here."""
    folder = tmp_path_factory.mktemp("one")

    def done(cell: CellConfig) -> Path:
        pipeline.run([cell], RuntimeConfig(store=str(folder), compile=False), lambda key, progress: None)
        return folder

    return done


def losses(store: Path, key: str) -> Losses:
    folder = store_at(store).fetch(key)
    assert folder is not None, key
    return [line["loss"] for line in json.loads((folder / "curve.json").read_text())]


def logits(store: Path, key: str) -> Tensor:
    network = GPTNeoXForCausalLM.from_pretrained(store_at(store).fetch(key) / "model").eval()  # type: ignore[operator]
    ids = torch.randint(0, 600, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = network(input_ids=ids, use_cache=False).logits
    return found


def weights(store: Path, key: str) -> str:
    return sha256(store / "stages" / key / "model" / "model.safetensors")


@pytest.mark.parametrize(("method", "zero"), [("full", 0), ("full", 2), ("lora", 0)])
def test_two_workers_train_as_one_does(two: Path, one: Callable[[CellConfig], Path], method: str, zero: int) -> None:
    asked = cell(zero, method)
    alone, together = one(asked), two / f"zero{zero}"
    for stage in stages_of(asked).trained:
        wanted, found = losses(alone, stage.key), losses(together, stage.key)
        assert len(wanted) == 6
        assert found == pytest.approx(wanted, rel=RELATIVE), stage.key
        difference = (logits(together, stage.key) - logits(alone, stage.key)).norm()
        assert difference <= RELATIVE * logits(alone, stage.key).norm()


@pytest.mark.parametrize("kind", ["p_probe", "q_probe"])
def test_two_workers_probe_as_one_does(two: Path, one: Callable[[CellConfig], Path], kind: str) -> None:
    """Batch norm does not see how a batch is shared out; that dropout does not is in `test_dropout`."""
    key = stages_of(cell(0, kind)).readout.key
    alone, together = one(cell(0, kind)), two / "probes"
    assert losses(together, key) == pytest.approx(losses(alone, key), rel=RELATIVE)
    wanted, found = (load_file(store / "stages" / key / "adapters.safetensors") for store in (alone, together))
    assert found.keys() == wanted.keys() and len(wanted) > 11
    for name, tensor in wanted.items():
        # Weights that begin at zero are small after six steps, and their rounding is that of what made them.
        assert (found[name] - tensor).norm() <= 1e-3 * tensor.norm(), name


def test_a_fleet_of_two_workers_that_is_killed_ends_as_if_it_had_not_been(two: Path) -> None:
    """But for the rounding of waves of another size: how large they are is measured anew in each store."""
    for kind in ("p_probe", "q_probe"):
        key = stages_of(cell(0, kind, 0.3)).readout.key
        killed, whole = two / "killed-fleets", two / "fleets"
        assert losses(killed, key) == pytest.approx(losses(whole, key), rel=RELATIVE)
        found, wanted = (load_file(s / "stages" / key / "adapters.safetensors") for s in (killed, whole))
        assert all((found[name] - tensor).norm() <= 1e-3 * tensor.norm() for name, tensor in wanted.items())


def test_two_workers_that_are_killed_end_as_if_they_had_not_been(two: Path) -> None:
    """Each with its own dropout, bit by bit."""
    _, pretrain, readout = stages_of(cell(2, "full", 0.3))
    for stage in (pretrain, readout):
        assert losses(two / "killed", stage.key) == losses(two / "dropout", stage.key)
        assert weights(two / "killed", stage.key) == weights(two / "dropout", stage.key)
    assert losses(two / "dropout", pretrain.key) != losses(two / "zero2", stages_of(cell(2, "full")).pretrain.key)


def test_one_worker_goes_on_where_two_were_killed(two: Path, one: Callable[[CellConfig], Path]) -> None:
    """How many devices there are is not identity: the checkpoint of two ranks serves one."""
    asked, seen = cell(2, "full"), list[tuple[str, int]]()
    _, pretrain, readout = stages_of(asked)
    assert not store_at(two / "left").exists(pretrain.key)
    point = Checkpoints(two / "left" / "work" / pretrain.key).latest()
    assert point is not None
    first, second = point.record["generators"]
    assert first != second, "a rank drops out elements of its own"

    def report(key: str, progress: Progress) -> None:
        seen.append((key, progress.step))

    pipeline.run([asked], RuntimeConfig(store=str(two / "left"), compile=False), report)
    assert seen[:3] == [(pretrain.key, step) for step in (4, 5, 6)]
    alone = one(asked)
    for stage in (pretrain, readout):
        assert losses(two / "left", stage.key) == pytest.approx(losses(alone, stage.key), rel=RELATIVE)


@pytest.mark.parametrize("method", ["full", "lora", "q_probe"])
def test_two_workers_fill_in_as_one_does(two: Path, one: Callable[[CellConfig], Path], method: str) -> None:
    asked = gbert(method)
    alone, together = one(asked), two / "gbert"
    for stage in stages_of(asked).trained:
        wanted, found = losses(alone, stage.key), losses(together, stage.key)
        assert len(wanted) == 6 and found == pytest.approx(wanted, rel=RELATIVE), stage.key
    if method != "q_probe":
        wanted_logits = logits(alone, stage.key)
        assert (logits(together, stage.key) - wanted_logits).norm() <= RELATIVE * wanted_logits.norm()


def learned(store: Path, asked: CellConfig) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        (store / "stages" / stages_of(asked).pretrain.key / "learning.json").read_text()
    )
    return found


def test_two_workers_look_at_what_one_sees(two: Path, one: Callable[[CellConfig], Path]) -> None:
    """And a point is there once, however often they were killed."""
    wanted = learned(one(mixed(0)), mixed(0))
    assert [point["step"] for point in wanted["curve"]] == [1, 2, 3, 4, 5, 6]  # type: ignore[attr-defined]
    assert learned(two / "curves", mixed(0)) == learned(two / "killed-curves", mixed(0)) == wanted


def test_a_network_in_pieces_is_looked_at_and_whole_in_the_end(two: Path, one: Callable[[CellConfig], Path]) -> None:
    sharded, whole = mixed(3, "gbert"), mixed(0, "gbert")
    alone = one(whole)
    assert learned(two / "sharded", sharded) == learned(alone, whole)
    found, wanted = (
        logits(store, stages_of(c).pretrain.key) for store, c in ((two / "sharded", sharded), (alone, whole))
    )
    assert (found - wanted).norm() <= RELATIVE * wanted.norm()
