"""The loss of each pretraining, once."""

import pandas as pd

from analysis.figures import loss_figure
from analysis.measurements.curves import CURVE_COLUMNS
from analysis.measurements.names import LOSS


def curves() -> pd.DataFrame:
    """Two seeds of one setting, a second setting that shares a run with it, and a mixed training."""
    rows = []
    trainings = (("a", 0.0, 0, "r0", 2.0), ("a", 0.0, 1, "r1", 4.0), ("b", 0.0, 0, "r0", 2.0), ("c", 0.5, 0, "r2", 1.0))
    for key, (setting, ratio, seed, run, end) in enumerate(trainings):
        for step in (1, 2, 4):
            rows.append([key, setting, ratio, seed, run, LOSS, step, step / 4, 4 * end / step, None, None, None])
    rows.append([0, "a", 0.0, 0, "r0", "bio/first_token/test/mean", 4, 1.0, 0.5, 30, 0.4, 0.6])
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS)).astype({"n": "Int64"})


def test_settings_that_share_a_training_share_a_line() -> None:
    frame = loss_figure.losses(curves())
    ends = frame[frame["step"] == 4].set_index("setting")["value"].to_dict()
    assert ends == {"a": 3.0, "c": 1.0} and set(frame["seeds"]) == {1, 2}
    plot = loss_figure.draw_losses(curves())
    assert plot and "a: 3.000" in plot.svg and "c, 50% of the windows with questions: 1.000" in plot.svg
    assert plot.svg == loss_figure.draw_losses(curves()).svg  # type: ignore[union-attr]
    labels = [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert {"2", "5"} <= set(labels)


def test_without_a_loss_there_is_no_figure() -> None:
    assert loss_figure.draw_losses(curves().query(f"metric != '{LOSS}'")) is None
