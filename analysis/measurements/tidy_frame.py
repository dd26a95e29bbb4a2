"""The frame behind a figure or a table: a line for each number of each row."""

from collections.abc import Sequence

import pandas as pd

from analysis.measurements.table_rows import Row


def tidy(table: Sequence[Row]) -> pd.DataFrame:
    """One line per row, column group and metric, as fractions of 1.

    Columns: row, group, metric, value, low, high (95 % interval), n, seeds, state, keys (cells, separated by blanks).
    A group without numbers has one line, whose metric is empty.
    """
    lines = []
    for row in table:
        for group, replicates in row.replicates.items():
            own = [name for name in replicates.metrics if name.startswith(f"{group}/")] if replicates.done else []
            for name in own or [""]:
                low, high = replicates.interval.get(name) or (None, None)
                lines.append(
                    {
                        "row": row.name,
                        "group": group,
                        "metric": name,
                        "value": replicates.metrics.get(name),
                        "low": low,
                        "high": high,
                        "n": replicates.n.get(name),
                        "seeds": len(replicates.seeds),
                        "state": replicates.state,
                        "keys": " ".join(replicates.keys),
                    }
                )
    columns = ["row", "group", "metric", "value", "low", "high", "n", "seeds", "state", "keys"]
    return pd.DataFrame(lines, columns=columns).astype({"value": float, "low": float, "high": float, "n": "Int64"})
