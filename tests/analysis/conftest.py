"""A sweep's results, invented but shaped as recorded: in memory, and as runs of a real MLflow in SQLite."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from analysis.measurements.cells import Axis, Cell, Results
from analysis.measurements.names import (
    ATTRIBUTES,
    COLUMNS,
    PROBE_TARGETS,
    majority,
    metric,
    p_probe,
    p_probe_after,
    probed_attributes,
    q_probe,
)
from analysis.measurements.table_rows import setting
from analysis.paper import tables

AXES: Mapping[str, Axis] = {
    "corpus.kind": "bioS",
    "corpus.people": 500,
    "corpus.multi": 1,
    "corpus.permute": 0,
    "corpus.fullname": False,
    "train.qa_ratio": 0.0,
    "train.steps": 900,
    "readout.recall_gate": 0.97,
    "readout.kind": "qa_finetune",
    "seed": 0,
}


DEPARTING = ("corpus.people: the paper has 100000, here 500",)
"""Recorded with every cell of `regenerated`."""


def numbers(group: str, mean: float, own: tuple[str, ...] = ()) -> dict[str, Any]:
    """Metrics, n and intervals of a finished cell; the attributes lie around the mean. `own` are those besides the
    six."""
    shift = {"mean": 0.0} | {name: 0.01 * (k - 2.5) for k, name in enumerate((*ATTRIBUTES, *own))}
    values = {metric(group, column): min(1.0, max(0.0, mean + more)) for column, more in shift.items()}
    return {
        "metrics": values | {f"baseline/test/{column}": 0.07 for column in shift} | {"recall/attribute_tokens": 0.991},
        "n": {name: 1500 if name.endswith("mean") else 250 for name in values},
        "interval": {name: (max(0.0, v - 0.03), min(1.0, v + 0.03)) for name, v in values.items()},
    }


def probed(kind: str, mean: float, axes: Mapping[str, Axis], own: tuple[str, ...] = ()) -> dict[str, Any]:
    """The same of a cell with a probe; in a fixed order nothing is predicted that has been passed."""
    values: dict[str, float] = {}
    attributes = (*ATTRIBUTES, *own)
    for of in PROBE_TARGETS:
        columns = probed_attributes(of, attributes)
        if kind == "q_probe":
            values |= {q_probe(of, column): mean + 0.01 * attributes.index(column) for column in columns}
            values[q_probe(of, "mean")] = mean
            continue
        for position in range(len(attributes)):
            shuffled = axes["corpus.permute"] or axes.get("corpus.couple")
            ahead = [c for c in columns if shuffled or attributes.index(c) >= position]
            values |= {p_probe(of, position, column): mean + 0.02 * position for column in ahead}
            if set(ahead) - {"birth_date"}:
                values[p_probe(of, position, "mean")] = mean + 0.02 * position
        values |= {p_probe(of, "own", column): mean + 0.1 for column in (*columns, "mean")}
        if axes.get("corpus.couple"):
            for chosen in ((), ("birth_date",), ("birth_date", "university"), ("company",)):
                values[p_probe_after(of, chosen, "birth_city")] = 0.99 if "birth_date" in chosen else mean
            values[p_probe_after(of, ("company",), "company_city")] = 0.97
    targets = [(of, column) for of in PROBE_TARGETS for column in (*probed_attributes(of, attributes), "mean")]
    guesses = {majority(kind, of, column): 0.03 for of, column in targets}
    return {
        "metrics": values | guesses | {"recall/attribute_tokens": 0.991},
        "n": {name: 1250 if name.endswith("mean") else 250 for name in values},
        "interval": {name: (max(0.0, v - 0.03), min(1.0, v + 0.03)) for name, v in values.items()},
    }


@pytest.fixture(scope="session")
def make() -> Callable[..., Cell]:
    """A cell from what differs: `make(0.7, multi=5, permute=1)`; without a mean it has no readout. `own` are attributes
    besides the six."""

    def cell(mean: float | None = None, state: str = "done", own: tuple[str, ...] = (), **axes: Axis) -> Cell:
        short = {name.split(".")[-1]: name for name in AXES} | {"readout": "readout.kind", "steps": "train.steps"}
        short |= {"couple": "corpus.couple", "rank_embedding": "readout.rank_embedding"}
        full = dict(AXES) | {short.get(name, name): value for name, value in axes.items()}
        kind = str(full["readout.kind"])
        key = "-".join(f"{value}" for value in full.values())
        if mean is None:
            known: dict[str, Any] = {"metrics": {"recall/attribute_tokens": 0.71}}
        else:
            group = "mixed" if kind == "mixed" else "qa"
            known = probed(kind, mean, full, own) if "probe" in kind else numbers(group, mean, own)
        return Cell(key=key, axes=full, params=full, state=state, stages={"pretrain": "pretrain-1"}, **known)

    return cell


@pytest.fixture
def contrast(make: Callable[..., Cell]) -> Results:
    """The contrast of the paper, with one cell blocked and one missing."""
    return Results(
        "demo",
        (
            make(0.021),
            make(0.784, multi=5, permute=1, fullname=True),
            make(state="blocked: recall 71 %", multi=5),
            Cell(key="m", axes=dict(AXES) | {"corpus.permute": 2}, params=dict(AXES) | {"corpus.permute": 2}),
        ),
    )


@pytest.fixture
def probes(make: Callable[..., Cell]) -> Results:
    """Both kinds of probe on two settings, one P-probe running, and couples."""
    best = {"multi": 5, "permute": 1}
    return Results(
        "probes",
        (
            make(0.081, readout="q_probe"),
            make(0.702, readout="q_probe", **best),
            make(0.052, readout="p_probe"),
            make(0.604, readout="p_probe", **best),
            make(state="running", readout="p_probe", multi=5),
            make(0.55, readout="p_probe", couple=2),
        ),
    )


def read(name: str) -> dict[str, Axis]:
    """The axes of a text by the paper's name for it, parsed independently of `table_rows.setting`."""
    kind, _, rest = name.partition(" ")
    words = rest.split("+")
    number = words[0].removeprefix("multi").removeprefix("couple")
    shuffled = [word.removeprefix("permute") or "1" for word in words if word.startswith("permute")]
    return {
        "corpus.kind": kind,
        "corpus.multi": int(number) if words[0].startswith("multi") else 1,
        "corpus.permute": int(shuffled[0]) if shuffled else 0,
        "corpus.fullname": "fullname" in words,
        "corpus.couple": int(number) if words[0].startswith("couple") else 0,
        "corpus.celebrity_fraction": 0.5 if "CEL" in words else 0.0,
        "corpus.celebrity.multi": 5,
        "corpus.background": "/text" if "wiki" in words else None,
    }


@pytest.fixture(scope="session")
def read_axes() -> Callable[[str], dict[str, Axis]]:
    """`read`, for tests."""
    return read


@pytest.fixture(scope="session")
def regenerate() -> Callable[..., Results]:
    """`regenerated`, for tests."""
    return regenerated


def regenerated(
    *figures: str, shift: float = 0.0, running: Iterable[str] = (), also: Mapping[str, Axis] | None = None
) -> Results:
    """Cells that have the paper's own numbers plus `shift`; those of the settings `running` have none yet.

    `also` are further axes of all cells, which win over those that the figure has.
    """
    made: dict[str, tuple[dict[str, Axis], dict[str, float]]] = {}
    for number in (number for name in figures for number in tables.numbers(name) if number.row != "baseline"):
        chosen = {axis: values[0] for axis, values in {**number.columns.usual, **number.columns.axes}.items()}
        axes = (
            dict(AXES)
            | read(number.settings[0])
            | {"model.family": "gpt2", "readout.people": "minority"}
            | chosen
            | dict(also or {})
        )
        value = min(1.0, max(0.0, number.value + shift))
        made.setdefault(json.dumps(axes, sort_keys=True), (axes, {}))[1][number.metric] = value
    cells = []
    for axes, metrics in made.values():
        done = setting(axes) not in running
        bounds = {name: (max(0.0, v - 0.02), min(1.0, v + 0.02)) for name, v in metrics.items()}
        guesses = {majority(kind, of, c): 0.05 for kind in ("qa", "q_probe") for of in PROBE_TARGETS for c in COLUMNS}
        known: dict[str, Any] = {"metrics": metrics | guesses, "n": dict.fromkeys(metrics, 250), "interval": bounds}
        state: dict[str, Any] = {"state": "done", **known} if done else {"state": "running"}
        key = f"{setting(axes)} {axes['readout.kind']} {len(cells)} {also or ''}"
        cells.append(Cell(key=key, axes=axes, params=axes, scale="mini", departures=DEPARTING, **state))
    return Results("s", tuple(cells))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Cell]) -> tuple[str, dict[str, Any]]:
    """Tracking URI of a database with the sweep `demo`, and the plan's keys with their axes."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("demo")
    stage = client.create_run(experiment, tags={"ktrain.key": "pretrain-1", "ktrain.kind": "stage"})
    client.log_metric(stage.info.run_id, "train/loss", 3.2)
    blocked = make(state="blocked: recall 71 %", multi=5)
    cells = {"first": make(0.021), "second": make(0.784, multi=5, permute=1), "blocked": blocked}
    for key, cell in reversed(cells.items()):
        record(client, experiment, key, cell)
    # A later attempt at a finished cell, cut short.
    client.create_run(experiment, tags={"ktrain.key": "first", "ktrain.kind": "cell", "ktrain.state": "running"})
    planned = {key: dict(cell.axes) for key, cell in cells.items()} | {"absent": dict(AXES) | {"seed": 7}}
    return uri, planned


def record(client: MlflowClient, experiment: str, key: str, cell: Cell) -> None:
    """Write a cell as the driver does."""
    tags = {
        "ktrain.key": key,
        "ktrain.kind": "cell",
        "ktrain.state": cell.state,
        "ktrain.stages": json.dumps(dict(cell.stages)),
        "ktrain.scale": "mini",
    }
    intervals = {name: list(bounds) for name, bounds in cell.interval.items()}
    for name, value in (("ktrain.n", dict(cell.n)), ("ktrain.interval", intervals)):
        text = json.dumps(value)
        # Shorter than the backend demands, so that there are more than ten pieces.
        tags |= {f"{name}.{k}": text[20 * k : 20 * (k + 1)] for k in range(len(text) // 20 + 1)}
    run = client.create_run(experiment, tags=tags).info.run_id
    for name, value in (dict(cell.params) | {"model.size": "124m", "model.dropout": 0.0}).items():
        client.log_param(run, name, value)
    for name, value in cell.metrics.items():
        client.log_metric(run, name, value)
    client.log_metric(run, "speed/tokens_per_second", float("nan"))


@pytest.fixture
def missing_database(tmp_path: Path) -> Path:
    """Where a database would be."""
    return tmp_path / "mlflow.db"
