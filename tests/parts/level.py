"""Compares a tracking database with the store: an oracle that shares no code with the writer."""

import json
from collections import Counter
from typing import Any

from ktrain.stages import active_axes
from sweeps.planning.plan import Plan

CURVES = {"train/loss": "loss", "train/learning_rate": "learning_rate", "speed/tokens_per_second": "tokens_per_second"}
RUNS = """FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'ktrain.key'
WHERE r.lifecycle_stage = 'active' AND e.name = '{}'"""


def gap(connection: Any, plan: Plan) -> list[str]:
    """Every run, metric point, param, state and link that is missing, duplicated or unexpected.

    `connection` is one of `sqlite3` or `psycopg` to MLflow's database.
    """

    def rows(columns: str, joined: str = "") -> list[Any]:
        source = RUNS.format(plan.sweep.name).replace("WHERE", f"{joined} WHERE", 1)
        return [tuple(row) for row in connection.execute(f"SELECT {columns} {source}").fetchall()]

    actual = {
        "run": Counter(rows("k.value, r.status")),
        "point": Counter(rows("k.value, m.key, m.step, m.value", "JOIN metrics m ON m.run_uuid = r.run_uuid")),
        "param": Counter(rows("k.value, p.key", "JOIN params p ON p.run_uuid = r.run_uuid")),
        "latest": Counter(rows("k.value, m.key", "JOIN latest_metrics m ON m.run_uuid = r.run_uuid")),
    }
    tags = rows("k.value, t.key, t.value", "JOIN tags t ON t.run_uuid = r.run_uuid")
    ids = dict(rows("k.value, r.run_uuid"))
    expected: dict[str, Counter[Any]] = {kind: Counter() for kind in (*actual, "tag")}
    actual["tag"] = Counter(row for row in tags if row[1] == "ktrain.state" or row[1].startswith("ktrain.run."))
    for cell in plan.cells:
        state = {"done": "FINISHED", "planned": "SCHEDULED"}.get(cell.state.partition(":")[0], "FAILED")
        expected["run"][cell.key, state] += 1
        expected["param"].update((cell.key, axis) for axis in active_axes(cell.cell))
        expected["tag"][cell.key, "ktrain.state", cell.state] += 1
        numbers: dict[str, float] = {}
        for stage in cell.stages:
            folder = plan.store.fetch(stage.key)
            if folder is None:
                continue
            numbers = json.loads((folder / "metrics.json").read_text()) | numbers
            expected["tag"][cell.key, f"ktrain.run.{stage.kind}", ids.get(stage.key, "?")] += 1
        expected["point"].update((cell.key, name, 0, value) for name, value in numbers.items())
    for stage in {stage.key: stage for cell in plan.cells for stage in cell.stages}.values():
        folder = plan.store.fetch(stage.key)
        if folder is None:
            continue
        expected["run"][stage.key, "FINISHED"] += 1
        expected["param"].update((stage.key, name) for name in _names(stage.identity))
        files = {name: folder / f"{name}.json" for name in ("curve", "learning")}
        curve = json.loads(files["curve"].read_text()) if files["curve"].is_file() else []
        drawn = {"train/loss", "speed/tokens_per_second"}
        expected["point"].update(
            (stage.key, name, p["step"], p[field]) for p in curve for name, field in CURVES.items()
        )
        if files["learning"].is_file():
            learning = json.loads(files["learning"].read_text())
            points = [(name, p["step"], v) for p in learning["curve"] for name, v in p.items() if name != "step"]
            expected["point"].update((stage.key, *point) for point in points)
            expected["param"].update((stage.key, f"learning.n.{half}") for half in learning["n"])
            drawn |= {name for name, *_ in points}
        metrics = json.loads((folder / "metrics.json").read_text())
        expected["point"].update((stage.key, name, 0, value) for name, value in metrics.items() if name not in drawn)
    expected["latest"] = Counter({(key, name): 1 for key, name, *_ in expected["point"]})
    missing = [f"missing {kind}: {row}" for kind in expected for row in (expected[kind] - actual[kind]).elements()]
    return missing + [
        f"too many {kind}: {row}" for kind in expected for row in (actual[kind] - expected[kind]).elements()
    ]


def _names(identity: Any, path: str = "") -> list[str]:
    if not isinstance(identity, dict):
        return [path.rstrip(".")]
    return [full_name for name, inner in identity.items() for full_name in _names(inner, f"{path}{name}.")]
