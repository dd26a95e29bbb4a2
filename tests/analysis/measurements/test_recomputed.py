"""Every number that is drawn can be recomputed from the stored predictions, by the scripts of docs/analysis.md.

The models are dice; everything after them is real: scores, store, the writer to MLflow, and the figures.
"""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ray import tune

import analysis
from analysis.figures import answer_bars, pair_sets, probe_figure
from analysis.figures.drawing import Plot
from analysis.measurements.cells import Results
from analysis.measurements.names import ATTRIBUTES, COLUMNS
from analysis.measurements.recorded import load_results
from analysis.paper import tables
from analysis.presentation.number_format import percent, ranged, span
from ktrain.config import CellConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.readout import probe_scores, probes, scores
from ktrain.readout.evaluation import Answers
from ktrain.readout.kinds.base import kind_of
from ktrain.readout.probe_scores import ProbePredictions
from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.store.open import open_store
from ktrain.training.artifacts import measurement_files
from sweeps import Sweep
from sweeps.planning.plan import make
from sweeps.tracking.sync import Tracker

NAME = "recomputed"
POOLS = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 5)
TINY: Mapping[str, Any] = {
    "corpus.people": 60,
    "corpus.tokenizer": "bpe-600",
    **{f"corpus.pools.{name}": size for name, size in POOLS.items()},
    "readout.people_per_class": 0,
}
WRITTEN = [{"corpus.multi": 1}, {"corpus.multi": 2, "corpus.permute": 1}, {"corpus.couple": 7}]
ASKED = [
    {"readout.kind": "qa_finetune", "readout.method": "lora"},
    {"readout.kind": "p_probe", "readout.rank_embedding": 2},
    {"readout.kind": "q_probe", "readout.rank_embedding": 16},
]
PAGE = Path(__file__).parents[3] / "docs" / "analysis.md"
TEXT = "{http://www.w3.org/2000/svg}text"
NUMBER = r"\d+\.\d"


def answered(corpus: Corpus, cell: CellConfig, dice: np.random.Generator) -> dict[str, Any]:
    """Answers about everyone; some people are known better than others, so that answers about one go together."""
    groups = scores.asked_groups(corpus, cell.readout.people)
    person = np.repeat(np.arange(len(corpus.people)), len(ATTRIBUTES))
    attribute = np.tile(np.arange(len(ATTRIBUTES)), len(corpus.people))
    first = dice.random(len(person)) < np.repeat(dice.random(len(corpus.people)), len(ATTRIBUTES))
    exact = first & (dice.random(len(person)) < 0.8)
    answers = Answers(person, attribute, exact, first, ["a text"] * len(person))
    metrics, *others = scores.score(answers, groups, "qa")
    return {
        "predictions.parquet": partial(scores.predictions(answers, corpus, groups).to_parquet, index=False),
        **measurement_files([], metrics | scores.baseline(corpus.people, groups["test"]), *others),
    }


def probed(corpus: Corpus, cell: CellConfig, dice: np.random.Generator) -> dict[str, Any]:
    """Classes at every place of every task, right more often the later the place."""
    asked = corpus.people_split(cell.readout.people)[1]
    rows = kind_of(cell.readout.kind).rows(corpus, cell.readout)
    tested = rows.kept(asked)
    found = {task: probes.classes(corpus, task) for task in probes.TASKS}
    guesses = {}
    for task, about in found.items():
        drawn = dice.integers(len(about.names), size=tested.places.shape)
        knows = dice.random(tested.places.shape) < 0.2 + 0.1 * np.arange(tested.places.shape[1])
        guesses[task] = np.where(knows, about.labels[tested.person][:, None], drawn)
    said = ProbePredictions(tested, found, guesses)
    return {
        "predictions.parquet": partial(probe_scores.predictions(said).to_parquet, index=False),
        **measurement_files([], *probe_scores.score(said, asked, cell.readout.kind)),
    }


def publish(store: Store, stage: Stage, cell: CellConfig, corpus: Corpus) -> None:
    """What a trial leaves of a stage."""
    if stage.kind in ("corpus", "pretrain"):
        files = {"metrics.json": {"recall/attribute_tokens": 1.0} if stage.kind == "pretrain" else {}}
    else:
        dice = np.random.default_rng(int(stage.key[-8:], 16))
        files = (answered if stage.kind == "qa_finetune" else probed)(corpus, cell, dice)
    store.publish_files(stage, files)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Results]:
    """Tracking URI and results of a sweep that is done."""
    store = open_store(tmp_path_factory.mktemp(NAME) / "results")
    grid = {**TINY, "written": tune.grid_search(WRITTEN), "asked": tune.grid_search(ASKED)}
    sweep = Sweep(NAME, grid)
    built: dict[str, Corpus] = {}
    for planned in make(sweep, "mini", {}, store).cells:
        corpus, *_ = planned.stages
        if corpus.key not in built:
            built[corpus.key] = corpora.build_corpus(planned.cell.corpus, planned.cell.seed)
        for stage in planned.stages:
            if not store.exists(stage.key):
                publish(store, stage, planned.cell, built[corpus.key])
    plan = make(sweep, "mini", {}, store)
    uri = f"sqlite:///{store.root / 'mlflow.db'}"
    Tracker.open(uri, NAME).sync(plan)
    results = load_results(uri, NAME, {cell.key: cell.axes for cell in plan.cells})
    assert results.done == len(results.cells) == 9
    return uri, results


@pytest.fixture(autouse=True)
def where(recorded: tuple[str, Results], monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts say no address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", recorded[0])


def scripts() -> Iterator[str]:
    """The scripts of the page that compute every number again."""
    _, heading, rest = PAGE.read_text("utf-8").partition("## Every number again")
    assert heading
    yield from re.findall(r"```python\n(.*?)```", rest, re.DOTALL)


def run(number: int) -> dict[str, Any]:
    """The names that a script leaves, of the sweep here."""
    code, count = re.subn(r'results\("\w+"\)', f'results("{NAME}")', list(scripts())[number])
    assert count == 1
    found: dict[str, Any] = {}
    exec(code, found)
    return found


def of(results: Results, kind: str, couple: bool | None = None) -> Results:
    """The cells of one kind of readout, of couple data alone or of all but these where that is said."""
    chosen = [cell for cell in results.cells if cell.axes["readout.kind"] == kind]
    chosen = [cell for cell in chosen if couple is None or bool(cell.axes["corpus.couple"]) == couple]
    return Results(results.sweep, tuple(chosen))


def drawn(plot: Plot | None, form: str = NUMBER) -> Counter[str]:
    """The texts of a figure that have this form."""
    assert plot is not None
    words = ("".join(element.itertext()) for element in ET.fromstring(plot.svg).iter(TEXT))
    return Counter(word for word in words if re.fullmatch(form, word))


def told(values: Any) -> Counter[str]:
    """Numbers as figures write them, without those that there are not."""
    return Counter(percent(float(value)) for value in np.ravel(values) if not np.isnan(value))


def test_a_script_has_ten_lines_at_most() -> None:
    lengths = [len(code.strip().splitlines()) for code in scripts()]
    assert len(lengths) == 5 and max(lengths) <= 10


def test_a_heat_map_of_answers(recorded: tuple[str, Results]) -> None:
    results = of(recorded[1], "qa_finetune")
    script, other = run(0), run(1)
    table, baseline, intervals = script["table"], script["baseline"], other["intervals"]
    keys = [cell.key for cell in results.cells]
    assert set(table.index) == set(intervals) == set(keys)
    for cell in results.cells:
        assert script["people"][cell.key] == cell.n["qa/exact_match/test/mean"]
    wanted = told(table[list(ATTRIBUTES)]) + told(baseline[list(COLUMNS)].mean())
    wanted += Counter(ranged(table.at[key, "mean"], intervals[key]) for key in keys)
    assert drawn(answer_bars.heat_map(results), rf"{NUMBER}( \[{NUMBER}, {NUMBER}\])?") == wanted


def test_the_square_of_a_p_probe(recorded: tuple[str, Results]) -> None:
    results = of(recorded[1], "p_probe")
    script = run(2)
    assert script["square"].shape == (3 * 11, 6)
    baseline = script["baseline"].groupby("task").mean()
    # The baseline stands at every position.
    wanted = told(script["square"]) + told(np.repeat(baseline.to_numpy(), 6))
    assert drawn(probe_figure.draw_probes(results)) == wanted
    counted = Counter(script["people"].stack().dropna())
    assert counted == Counter(n for cell in results.cells for name, n in cell.n.items() if is_place(name))


def is_place(name: str) -> bool:
    return re.fullmatch(r"p_probe/(first|whole)/\d/(?!mean).*", name) is not None


def test_a_q_probe(recorded: tuple[str, Results]) -> None:
    results = of(recorded[1], "q_probe")
    script = run(3)
    assert drawn(probe_figure.draw_probes(results)) == told(script["table"]) + told(script["baseline"].mean())
    assert set(script["people"].stack()) == {30}


def test_a_set_diagram(recorded: tuple[str, Results]) -> None:
    results = of(recorded[1], "p_probe", couple=True)
    script = run(4)
    table = script["table"].droplevel("key")
    wanted, ranges = told(table), Counter[str]()
    for target, partner in pair_sets.PARTNERS.items():
        values = table.loc[f"first/{target}"]
        kinds = [values.index.str.contains(rf"\b{partner}\b"), values.index == "none"]
        for kind in (*kinds, ~kinds[0] & ~kinds[1]):
            low, high = percent(values[kind].min()), percent(values[kind].max())
            ranges[low if low == high else f"{low}\N{EN DASH}{high}"] += 1
    assert table.notna().sum().sum() == 3 * 12 and sum(len(kind) for kind in tables.sets("major").values()) == 12
    assert drawn(pair_sets.draw_pair_sets(results), rf"{NUMBER}(\N{{EN DASH}}{NUMBER})?") == wanted + ranges
    people: Sequence[str] = [span([int(n) for n in counts.dropna()]) for _, counts in script["people"].iterrows()]
    assert drawn(pair_sets.draw_pair_sets(results), r"n = .*") == Counter(f"n = {said} per number" for said in people)


def test_the_first_hour_with_the_demo(recorded: tuple[str, Results]) -> None:
    """The page begins with scripts that one notebook runs in turn; here is another sweep, of which no loss is known."""
    first, *_ = PAGE.read_text("utf-8").partition("## ")
    one, two, three = re.findall(r"```python\n(.*?)```", first, re.DOTALL)
    names: dict[str, Any] = {}
    exec(one.replace("demo", NAME), names)
    assert len(names["cells"]) == 9 and list(names["cells"]["state"].unique()) == ["done"]
    answering = names["cells"].query("readout == 'qa'")
    names["cells"] = answering
    exec(two.replace("multi5", "multi2"), names)
    means = answering.set_index("setting")["mean"]
    assert len(names["wrong"]) == round((1 - means["bioS multi2+permute"]) * 180)
    with pytest.warns(UserWarning, match=f"sweep {NAME}: none of its finished pretrainings recorded train/loss"):
        exec(three.partition("\n")[0].replace("demo", NAME), names)
    with pytest.warns(UserWarning, match=r"questions mixed in \(train.qa_ratio=0\)"):
        assert analysis.curves(NAME).empty


def test_a_prediction_that_is_changed_is_noticed(recorded: tuple[str, Results]) -> None:
    """The comparison can fail: one flipped answer changes a number."""
    results = of(recorded[1], "qa_finetune")
    file = Path(results.cells[0].stages["qa_finetune"]) / "predictions.parquet"
    whole = file.read_bytes()
    said = pd.read_parquet(file)
    said.loc[said.index[said["split"] == "test"][0], "exact"] ^= True
    said.to_parquet(file, index=False)
    try:
        with pytest.raises(AssertionError):
            test_a_heat_map_of_answers(recorded)
    finally:
        file.write_bytes(whole)
