"""What a tracking database has of a sweep against what the store has: an oracle that shares no code with the writer."""

import json
from collections import Counter
from typing import Any

from sweeps.plan import Plan

CURVES = {"train/loss": "loss", "train/learning_rate": "learning_rate", "speed/tokens_per_second": "tokens_per_second"}
RUNS = """FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'ktrain.key'
WHERE r.lifecycle_stage = 'active' AND e.name = '{}'"""


def gap(connection: Any, plan: Plan) -> list[str]:
    """Every run, point of a history, param, state and link that is missing, doubled or should not be there.

    `connection` is one of `sqlite3` or `psycopg` to MLflow's database.
    """

    def rows(columns: str, joined: str = "") -> list[Any]:
        source = RUNS.format(plan.sweep.name).replace("WHERE", f"{joined} WHERE", 1)
        return [tuple(row) for row in connection.execute(f"SELECT {columns} {source}").fetchall()]

    found = {
        "run": Counter(rows("k.value, r.status")),
        "point": Counter(rows("k.value, m.key, m.step, m.value", "JOIN metrics m ON m.run_uuid = r.run_uuid")),
        "param": Counter(rows("k.value, p.key", "JOIN params p ON p.run_uuid = r.run_uuid")),
        "latest": Counter(rows("k.value, m.key", "JOIN latest_metrics m ON m.run_uuid = r.run_uuid")),
    }
    tags = rows("k.value, t.key, t.value", "JOIN tags t ON t.run_uuid = r.run_uuid")
    ids = dict(rows("k.value, r.run_uuid"))
    wanted: dict[str, Counter[Any]] = {kind: Counter() for kind in (*found, "tag")}
    found["tag"] = Counter(row for row in tags if row[1] == "ktrain.state" or row[1].startswith("ktrain.run."))
    for cell in plan.cells:
        state = {"done": "FINISHED", "planned": "SCHEDULED"}.get(cell.state.partition(":")[0], "FAILED")
        wanted["run"][cell.key, state] += 1
        wanted["param"].update((cell.key, axis) for axis in cell.axes)
        wanted["tag"][cell.key, "ktrain.state", cell.state] += 1
        numbers: dict[str, float] = {}
        for stage in cell.stages:
            folder = plan.store.find(stage.key)
            if folder is None:
                continue
            numbers = json.loads((folder / "metrics.json").read_text()) | numbers
            wanted["tag"][cell.key, f"ktrain.run.{stage.kind}", ids.get(stage.key, "?")] += 1
        wanted["point"].update((cell.key, name, 0, value) for name, value in numbers.items())
    for stage in {stage.key: stage for cell in plan.cells for stage in cell.stages}.values():
        folder = plan.store.find(stage.key)
        if folder is None:
            continue
        wanted["run"][stage.key, "FINISHED"] += 1
        wanted["param"].update((stage.key, name) for name in _names(stage.identity))
        files = {name: folder / f"{name}.json" for name in ("curve", "learning")}
        curve = json.loads(files["curve"].read_text()) if files["curve"].is_file() else []
        drawn = {"train/loss", "speed/tokens_per_second"}
        wanted["point"].update((stage.key, name, p["step"], p[field]) for p in curve for name, field in CURVES.items())
        if files["learning"].is_file():
            learning = json.loads(files["learning"].read_text())
            points = [(name, p["step"], v) for p in learning["curve"] for name, v in p.items() if name != "step"]
            wanted["point"].update((stage.key, *point) for point in points)
            wanted["param"].update((stage.key, f"learning.n.{half}") for half in learning["n"])
            drawn |= {name for name, *_ in points}
        metrics = json.loads((folder / "metrics.json").read_text())
        wanted["point"].update((stage.key, name, 0, value) for name, value in metrics.items() if name not in drawn)
    wanted["latest"] = Counter({(key, name): 1 for key, name, *_ in wanted["point"]})
    told = [f"missing {kind}: {row}" for kind in wanted for row in (wanted[kind] - found[kind]).elements()]
    return told + [f"too many {kind}: {row}" for kind in wanted for row in (found[kind] - wanted[kind]).elements()]


def _names(identity: Any, path: str = "") -> list[str]:
    if not isinstance(identity, dict):
        return [path.rstrip(".")]
    return [found for name, inner in identity.items() for found in _names(inner, f"{path}{name}.")]
