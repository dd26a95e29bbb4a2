"""What a notebook calls: `analysis.results` and `analysis.curves`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import analysis

MEAN = "qa/exact_match/test/mean"


def test_every_recorded_cell_is_a_row_with_typed_columns(recorded: tuple[str, dict[str, Any]]) -> None:
    frame = analysis.results("demo", recorded[0]).set_index("key")
    assert set(frame.index) == {"first", "second", "blocked"}, "what was never recorded is no row"
    assert frame.columns[:2].tolist() == ["state", "scale"] and set(frame["scale"]) == {"mini"}
    second = frame.loc["second"]
    assert (second["corpus.multi"], second["corpus.fullname"], second["model.size"]) == (5, False, "124m")
    assert second[MEAN] == pytest.approx(0.784) and second[f"{MEAN}/n"] == 1500
    assert (second[f"{MEAN}/low"], second[f"{MEAN}/high"]) == pytest.approx((0.754, 0.814))
    assert second["stage/pretrain"] == "pretrain-1"
    assert frame.loc["blocked", "state"] == "blocked: recall 71 %" and frame[MEAN].isna()["blocked"]
    assert frame.loc["first", "state"] == "done", "a finished run must not be hidden by a later unfinished one"


def test_cells_without_curves_have_none_and_a_warning_says_why(recorded: tuple[str, dict[str, Any]]) -> None:
    with pytest.warns(UserWarning, match="^sweep demo: no pretraining is finished yet$") as warned:
        assert analysis.curves("demo", recorded[0]).empty
    assert warned[0].filename == __file__


def test_a_compact_frame_has_short_names(recorded: tuple[str, dict[str, Any]]) -> None:
    frame = analysis.results("demo", recorded[0], compact=True).set_index("key")
    assert frame.loc["second", "mean"] == pytest.approx(0.784) and frame.loc["second", "size"] == "124m"
    assert len(frame.columns) < 40


def test_where_results_are_looked_for(
    recorded: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        LookupError, match=rf"^sweep demo: nothing is recorded at sqlite:///{tmp_path}/results/mlflow.db$"
    ):
        analysis.results("demo")
    assert not list(tmp_path.iterdir())
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mlflow.db").write_bytes(Path(recorded[0].removeprefix("sqlite:///")).read_bytes())
    assert len(analysis.results("demo")) == 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(LookupError, match=r"none\.db$"):
        analysis.curves("demo")
    assert len(analysis.results("demo", recorded[0])) == 3
    with pytest.raises(LookupError, match=r"^sweep dmeo: "):
        analysis.results("dmeo", recorded[0])


def test_importing_is_cheap() -> None:
    heavy = "{'pandas', 'mlflow', 'matplotlib', 'scipy', 'ray', 'torch'} & set(sys.modules)"
    command = [sys.executable, "-c", f"import sys, analysis; print(sorted({heavy}))"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
