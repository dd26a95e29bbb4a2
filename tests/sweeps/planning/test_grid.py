import itertools
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune

from ktrain.config import CellConfig
from ktrain.data.background import UNNAMED
from ktrain.errors import WrongRequest
from ktrain.stages import axes
from sweeps import Sweep
from sweeps.planning.grid import builtin, cells_by_part, expand, load, parse_overrides
from sweeps.recipes.scales import SCALES

HEAD = "from ray import tune\nfrom sweeps import Sweep\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a sweep file into the working folder."""
    monkeypatch.chdir(tmp_path)

    def written(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(HEAD + text)
        return name

    return written


def grid(**values: list[object]) -> Sweep:
    """A sweep over a product: `grid(seed=[0, 1])`, with `__` for a dot."""
    return Sweep("g", {name.replace("__", "."): tune.grid_search(list(v)) for name, v in values.items()})


def settings_of(cells: list[CellConfig], *names: str) -> list[tuple[object, ...]]:
    return [tuple(axes(cell)[name] for name in names) for cell in cells]


def refusal(call: Callable[[], object]) -> str:
    """The message of a wrong request, which is one line."""
    with pytest.raises(WrongRequest) as caught:
        call()
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1
    return message


# Where a sweep comes from.


def test_the_sweeps_of_the_project_are_known_by_name() -> None:
    figures = [f"fig{number}" for number in range(1, 20) if number != 4]
    assert builtin() == ["bior", "claims", "demo", *figures, "injection", "paper", "probes"]
    for name in builtin():
        assert load(name).name == name


def test_a_file_of_the_users_own_is_a_sweep(write: Callable[..., str], tmp_path: Path) -> None:
    write('sweep = Sweep("mine", {"seed": tune.grid_search([0, 1])}, question="Why?", figure="fig3")')
    for name in ("mine.py", "./mine.py", str(tmp_path / "mine.py")):
        found = load(name)
        assert (found.name, found.question, found.figure) == ("mine", "Why?", "fig3")
        assert settings_of(expand(found, "mini", {}), "seed") == [(0,), (1,)]


def test_an_edited_file_is_read_anew_and_nothing_is_left_beside_it(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in ("one", "two", "six"):
        assert load(write(f'sweep = Sweep("{name}", {{}})')).name == name
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_loading_leaves_no_module_behind(write: Callable[..., str]) -> None:
    before = set(sys.modules)
    load(write('sweep = Sweep("mine", {})'))
    assert not {name for name in set(sys.modules) - before if "mine" in name}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('x = 1\nraise RuntimeError("two\\nlines")', "RuntimeError in line 4: two lines"),
        ("def f():\n    return 1 / 0\n\nf()", "ZeroDivisionError in line 4: division by zero"),
        ("import no_such_module", "ModuleNotFoundError in line 3"),
        ("sweep = Sweep(", "SyntaxError: '(' was never closed (mine.py, line 3)"),
        ('sweep = Sweep("mine", {}, colour="red")', "TypeError in line 3"),
        ("import sys\nsys.exit(3)", "SystemExit in line 4: 3"),
        ("assert False", "AssertionError in line 3"),
        ("grid = {}", "defines no `sweep = Sweep(...)`"),
        ('sweep = {"seed": 1}', "defines no `sweep = Sweep(...)`"),
        ('sweep = Sweep("", {})', "a name"),
        ('sweep = Sweep("a/b", {})', "a name"),
        ('sweep = Sweep("x" * 300, {})', "a name of 1 to 200 bytes"),
        ('sweep = Sweep("é" * 130, {})', "a name of 1 to 200 bytes"),
        ("sweep = Sweep(3, {})", "sweep: name=3: must be a text"),
        (
            'sweep = Sweep("a", {}, callbacks=3)',
            "sweep a: callbacks=3: must be a tuple of ray.tune.Callback",
        ),
        ('sweep = Sweep("a", {}, callbacks=[3])', "sweep a: callbacks: 3 is no ray.tune.Callback"),
        (
            'from ray.tune import Callback\nsweep = Sweep("a", {}, callbacks=[Callback])',
            "sweep a: callbacks: <class 'ray.tune.callback.Callback'> is no ray.tune.Callback (an object, not its ",
        ),
        ('sweep = Sweep("a", {}, figure=3)', "sweep a: figure=3: must be one of fig1, fig2, "),
        ('sweep = Sweep("a", {}, figure="fig33")', "did you mean fig3?"),
        ('sweep = Sweep("a", {}, best_of="readout.rank_qv")', "best_of=readout.rank_qv: must be a tuple of axes"),
        ('sweep = Sweep("a", {}, best_of=("readout.rank",))', "axis readout.rank: no such axis; did you mean"),
        ('sweep = Sweep("a", {}, question=None)', "question=None: must be a text"),
        ('sweep = Sweep("a", parts=("demo",))', "must be a tuple of sweeps"),
        ('sweep = Sweep("a", [])', "grid=[]: must be a dict of axes"),
        ("class Stop(BaseException): ...\nraise Stop('now')", "raises Stop in line 4: now"),
        ("def f(): f()\nf()", "raises RecursionError in line 3"),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E", "raises E in line 5: <E>"),
        ("sweep = Sweep('a', {})\nfor _ in range(30): sweep = Sweep('b', parts=(sweep,))", "20 levels of parts"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_line(write: Callable[..., str], text: str, told: str) -> None:
    message = refusal(lambda: load(write(text)))
    assert message.startswith("sweep mine.py: ") and told in message


def test_a_name_that_does_not_exist_lists_those_that_do() -> None:
    message = refusal(lambda: load("figg3"))
    assert "there are bior, claims, demo, fig1, fig2, fig3, fig5, " in message and "did you mean fig3?" in message
    assert "sweep fig4: Figure 4 is an illustration without data; there are" in refusal(lambda: load("fig4"))
    assert "no such sweep or file" in refusal(lambda: load("nowhere/mine.py"))


@pytest.mark.parametrize("name", ["plan", "cli", "__init__", "../sweeps/demo", "", "."])
def test_modules_that_are_no_sweeps_are_not_taken_for_one(name: str) -> None:
    assert "no such sweep" in refusal(lambda: load(name))


# What a grid is.


def test_a_grid_is_a_product_in_its_own_order() -> None:
    cells = expand(grid(corpus__multi=[5, 1], seed=[3, 0, 7]), "mini", {})
    found = settings_of(cells, "corpus.multi", "seed")
    assert sorted(found) == [(1, 0), (1, 3), (1, 7), (5, 0), (5, 3), (5, 7)]
    assert list(dict.fromkeys(m for m, _ in found)) == [5, 1] and list(dict.fromkeys(s for _, s in found)) == [3, 0, 7]
    assert found == settings_of(expand(grid(corpus__multi=[5, 1], seed=[3, 0, 7]), "mini", {}), "corpus.multi", "seed")


def test_a_grid_over_dicts_varies_axes_together() -> None:
    rows = [{"corpus.multi": 1, "corpus.permute": 5}, {"corpus.multi": 2, "corpus.permute": 0}]
    sweep = Sweep("g", {"setting": tune.grid_search(rows), "seed": tune.grid_search([0, 1])})
    found = settings_of(expand(sweep, "mini", {}), "corpus.multi", "corpus.permute", "seed")
    assert sorted(found) == [(1, 5, 0), (1, 5, 1), (2, 0, 0), (2, 0, 1)]


def test_fixed_values_hold_for_every_cell_and_the_scale_fills_the_rest() -> None:
    sweep = Sweep("g", {"corpus.people": 77, "both": {"corpus.multi": 3}, "seed": tune.grid_search([0, 1])})
    for cell in expand(sweep, "mini", {}):
        assert (cell.corpus.people, cell.corpus.multi) == (77, 3)
        assert (cell.train, cell.readout) == (SCALES["mini"].train, SCALES["mini"].readout)


def test_an_empty_grid_is_the_scale_itself() -> None:
    for scale, cell in SCALES.items():
        assert expand(Sweep("g", {}), scale, {}) == [cell]


def test_a_grid_may_depend_on_the_scale() -> None:
    sweep = Sweep("g", lambda scale: {"seed": tune.grid_search([0, 1] if scale == "mini" else [5])})
    assert [len(expand(sweep, scale, {})) for scale in ("mini", "full")] == [2, 1]


def test_overrides_replace_axes_and_add_others() -> None:
    sweep = grid(corpus__multi=[1, 2])
    replaced = expand(sweep, "mini", {"corpus.multi": ["5"]})
    assert settings_of(replaced, "corpus.multi") == [(5,)]
    added = expand(sweep, "mini", {"seed": ["0", "1", "2"], "corpus.fullname": ["true"]})
    assert sorted(settings_of(added, "corpus.multi", "seed", "corpus.fullname")) == [
        (m, s, True) for m in (1, 2) for s in (0, 1, 2)
    ]


def test_an_override_wins_over_a_grid_of_dicts_and_what_falls_together_is_one_cell() -> None:
    rows = [{"corpus.multi": m, "corpus.permute": p} for m in (1, 5) for p in (0, 1)]
    cells = expand(Sweep("g", {"setting": tune.grid_search(rows)}), "mini", {"corpus.permute": ["2"]})
    assert settings_of(cells, "corpus.multi", "corpus.permute") == [(1, 2), (5, 2)]


def test_the_same_value_twice_is_one_cell() -> None:
    assert len(expand(grid(seed=[0, 1, 0]), "mini", {})) == 2
    assert len(expand(grid(seed=[0]), "mini", {"train.learning_rate": ["0.001", "1e-3"]})) == 1


def test_text_and_value_of_an_axis_give_the_same_cell() -> None:
    values = {"seed": 3, "corpus.fullname": True, "train.learning_rate": 0.001, "corpus.tokenizer": "bpe-600"}
    typed = expand(Sweep("g", values), "mini", {})
    assert typed == expand(Sweep("g", {}), "mini", {name: [str(v)] for name, v in values.items()})


LENGTHS = st.fixed_dictionaries(
    {},
    optional={
        "corpus.multi": st.integers(1, 4),
        "corpus.permute": st.integers(1, 3),
        "seed": st.integers(1, 4),
        "train.steps": st.integers(1, 3),
        "readout.rank_qv": st.integers(1, 3),
    },
)


@settings(max_examples=40, deadline=None)
@given(LENGTHS)
def test_a_product_has_as_many_cells_as_the_product_of_its_lengths(lengths: dict[str, int]) -> None:
    space = {axis: tune.grid_search([200 + k for k in range(n)]) for axis, n in lengths.items()}
    cells = expand(Sweep("g", space), "mini", {})
    assert len(cells) == len(set(cells)) == math.prod(lengths.values())


# What is refused.


def test_an_axis_that_does_not_exist_is_refused_with_the_nearest_and_where_all_are() -> None:
    for call in (
        lambda: expand(Sweep("g", {}), "mini", {"corpus.mutli": ["2"]}),
        lambda: expand(grid(corpus__mutli=[2]), "mini", {}),
        lambda: expand(Sweep("g", {"corpus.mutli": 2}), "mini", {}),
        lambda: expand(Sweep("g", {"setting": tune.grid_search([{"corpus.mutli": 2}])}), "mini", {}),
    ):
        message = refusal(call)
        assert message.startswith("axis corpus.mutli: no such axis; did you mean corpus.multi?")
        assert "`ktrain axes` lists all" in message


@pytest.mark.parametrize(
    ("axis", "value", "told"),
    [
        ("corpus.multi", "abc", "corpus.multi=abc: must be a valid integer"),
        ("corpus.multi", 1.5, "corpus.multi=1.5: must be a valid integer"),
        ("corpus.multi", True, "corpus.multi=True: must be a number"),
        ("corpus.multi", None, "corpus.multi=None"),
        ("seed", [0, 1], "seed=[0, 1]"),
        ("corpus.multi", 0, "corpus.multi=0: must be greater than or equal to 1"),
        ("corpus.fullname", "perhaps", "corpus.fullname=perhaps"),
        ("train.qa_ratio", 1.0, "train.qa_ratio=1.0: must be less than 1"),
        ("train.learning_rate", "nan", "train.learning_rate=nan"),
        ("train.learning_rate", math.inf, "train.learning_rate=inf"),
        ("train.warmup", 10**9, "train.warmup=1000000000: more than steps="),
        ("readout.kind", "qa_finetun", "did you mean qa_finetune?"),
        ("readout.kind", "mixed", "readout.kind=mixed: needs train.qa_ratio > 0"),
        ("corpus.question_share", 0.0, "corpus.question_share leaves no question"),
        ("corpus.tokenizer", "gpt3", "corpus.tokenizer=gpt3"),
        ("corpus.pools_folder", 3, "corpus.pools_folder=3"),
        ("model.size", "125m", "did you mean 124m?"),
        ("seed", -1, "seed=-1"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_field(axis: str, value: object, told: str) -> None:
    assert told in refusal(lambda: expand(Sweep("g", {axis: value}), "mini", {}))
    if isinstance(value, str):
        assert told in refusal(lambda: expand(Sweep("g", {}), "mini", {axis: [value]}))


def test_questions_in_training_need_questions_to_train_on() -> None:
    wrong = {"train.qa_ratio": 0.5, "corpus.question_share": 0.0}
    assert "train.qa_ratio=0.5" in refusal(lambda: expand(Sweep("g", wrong), "mini", {}))


@pytest.mark.parametrize(
    "space",
    [
        {"seed": tune.grid_search([0, tune.randint(1, 9)])},
        {"setting": tune.grid_search([{"seed": tune.choice([1, 2])}])},
        {"setting": {"seed": tune.uniform(0, 1)}},
    ],
)
def test_nothing_is_drawn_within_a_value(space: dict[str, object]) -> None:
    assert "a distribution stands in the grid itself" in refusal(lambda: expand(Sweep("g", space), "mini", {}))


def test_a_function_is_no_value() -> None:
    message = refusal(lambda: expand(Sweep("g", {"seed": lambda: 3}), "mini", {}))
    assert "takes tune.grid_search([...]) or a fixed value" in message


@pytest.mark.parametrize("found", [lambda scale: 1 / 0, lambda: {}, lambda scale: [1], 5, None])
def test_a_grid_that_raises_or_is_no_grid_is_told_in_one_line(found: object) -> None:
    assert refusal(lambda: expand(Sweep("g", found), "mini", {})).startswith("sweep g: ")  # type: ignore[arg-type]


class NoText:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ({3: 1}, "3: must be the name of an axis"),
        (tune.grid_search([1, 2]), "grid: must be a dict of axes, and each"),
        ({"seed": NoText()}, "seed=<NoText>: an axis takes tune.grid_search([...]) or a fixed value"),
        ({"row": tune.grid_search([{NoText(): 1}])}, "row: <NoText> must be the name of an axis"),
        ({"seed": tune.grid_search(3)}, "seed: tune.grid_search takes a list, not 3"),  # type: ignore[arg-type]
        ({"seed": {"grid_search": itertools.count()}}, "seed: tune.grid_search takes a list, not count(0)"),
        ({"train.steps": 10**13}, "train.steps=10000000000000: must be at most 1,000,000,000,000"),
        ({"train.steps": 10**400}, "train.steps=1000"),
        ({"train.steps": 10**5000}, "train.steps=<int>: "),
        ({"corpus.background": "a\ud800"}, "corpus.background=a\\ud800: must be UTF-8"),
        ({"corpus.writer.revision": "a\0b"}, "corpus.writer.revision=a\\x00b: must be UTF-8"),
        ({"seed": "x" * 10**6}, "seed=xxx"),
    ],
)
def test_whatever_stands_in_a_grid_is_told_in_one_short_line(space: dict[str, object], line: str) -> None:
    message = refusal(lambda: expand(Sweep("g", space), "mini", {}))
    assert message.startswith(line) and len(message) < 400


def test_a_value_that_contains_itself_is_told() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "more than 8 levels" in refusal(lambda: expand(Sweep("g", {"seed": loop}), "mini", {}))


def test_grids_of_numpy_and_ranges_are_lists() -> None:
    for values in (np.arange(3), range(3), (0, 1, 2)):
        sweep = Sweep("g", {"seed": tune.grid_search(values)})  # type: ignore[arg-type]
        assert settings_of(expand(sweep, "mini", {}), "seed") == [(0,), (1,), (2,)]


def test_a_huge_grid_is_refused_before_it_is_expanded_unless_it_is_wanted() -> None:
    thousand = tune.grid_search(list(range(300, 1300)))
    rows = tune.grid_search([{"seed": thousand, "train.steps": thousand, "readout.steps": thousand}, {"seed": 1}])
    message = refusal(lambda: expand(Sweep("g", {"row": rows}), "mini", {}))
    assert message == "sweep g: its grid has 1,000,000,001 cells, above 100,000; --many-cells allows it"
    whole = Sweep("w", parts=(Sweep("g", {"seed": thousand}), Sweep("h", {"train.steps": thousand})))
    assert "1,000,000 cells" in refusal(lambda: expand(whole, "mini", {"corpus.people": list(range(1000))}))
    assert "999 cells, above 998" in refusal(lambda: expand(grid(seed=list(range(999))), "mini", {}, 998))
    assert len(expand(grid(seed=list(range(999))), "mini", {}, 999)) == len(
        expand(grid(seed=list(range(999))), "mini", {}, None)
    )


def test_an_axis_is_set_by_one_word() -> None:
    assert parse_overrides(["seed=0,1", "corpus.multi=2"]) == {"seed": ["0", "1"], "corpus.multi": ["2"]}
    told = "seed=1: seed is set twice; several values are one word, seed=0,1"
    assert refusal(lambda: parse_overrides(["seed=0", "seed=1"])) == told
    assert "seed=0,1,2" in refusal(lambda: parse_overrides(["seed=0,1", "corpus.multi=2", "seed=1,2"]))
    for word in ("seed", "seed=", "seed=0,", "seed=,0", "seed=0,,1"):
        assert refusal(partial(parse_overrides, [word])) == f"{word}: an axis is set as axis=v1,v2"


def test_a_home_folder_is_named_in_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(HEAD + 'sweep = Sweep("mine", {"corpus.background": "~/texts"})')
    (cell,) = expand(load("~/mine.py"), "mini", {"corpus.templates_folder": ["~/mine"]})
    assert (cell.corpus.background, cell.corpus.templates_folder) == (str(tmp_path / "texts"), str(tmp_path / "mine"))


def test_a_grid_search_over_nothing_is_told() -> None:
    assert "a grid search over nothing" in refusal(lambda: expand(grid(seed=[]), "mini", {}))


def test_a_scale_that_does_not_exist_is_told() -> None:
    message = refusal(lambda: expand(Sweep("g", {}), "minni", {}))
    assert message == "scale=minni: must be one of mini, small, medium, full; did you mean mini?"


# Wholes.


def test_a_whole_has_the_cells_of_its_parts_each_once_in_order() -> None:
    first, second = grid(corpus__multi=[5, 1]), grid(corpus__multi=[1, 2])
    whole = Sweep("w", parts=(first, second))
    assert settings_of(expand(whole, "mini", {}), "corpus.multi") == [(5,), (1,), (2,)]
    assert settings_of(expand(Sweep("v", parts=(whole, second)), "mini", {}), "corpus.multi") == [(5,), (1,), (2,)]


def test_overrides_reach_every_part() -> None:
    whole = Sweep("w", parts=(grid(corpus__multi=[1, 2]), Sweep("h", {"corpus.couple": 1})))
    found = settings_of(expand(whole, "mini", {"seed": [0, 1]}), "corpus.multi", "corpus.couple", "seed")
    assert sorted(found) == [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (2, 0, 0), (2, 0, 1)]


def test_a_part_that_cannot_take_an_override_is_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    whole = Sweep("w", parts=(Sweep("h", {"corpus.couple": 1}), grid(corpus__multi=[1, 2])))
    assert list(cells_by_part(whole, "mini", {"corpus.multi": [3]})) == ["g"]
    assert caplog.messages == [
        "h is left out: corpus.couple=1: sets the number of entries, so it needs multi=1 and permute=0"
    ]
    assert refusal(lambda: expand(whole, "mini", {"corpus.multi": [0]})).startswith("corpus.multi=0: must be")


def test_a_folder_goes_to_the_cells_that_leave_it_to_be_named(tmp_path: Path) -> None:
    first = Sweep("a", {"seed": tune.grid_search([1, 2])})
    second = Sweep("b", {"corpus.background": UNNAMED, "seed": 3})
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    for sweep in (Sweep("w", parts=(first, second)), Sweep("v", parts=(Sweep("w", parts=(second,)), first))):
        unnamed = settings_of(expand(sweep, "mini", {}), "seed", "corpus.background")
        assert sorted(unnamed) == [(1, None), (2, None), (3, UNNAMED)]
        named = settings_of(expand(sweep, "mini", {"corpus.background": [here, there]}), "seed", "corpus.background")
        assert sorted(named, key=str) == [(1, None), (2, None), (3, here), (3, there)]
    # Where nothing is left to be named, it is an axis like any other.
    found = settings_of(expand(first, "mini", {"corpus.background": [here]}), "seed", "corpus.background")
    assert found == [(1, here), (2, here)]


def test_a_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (cell,) = expand(Sweep("a", {"corpus.background": "texts"}), "mini", {})
    assert cell.corpus.background == str(tmp_path / "texts")


def test_a_whole_says_which_figures_it_has_and_what_is_chosen_from() -> None:
    first = Sweep("a", {}, figure="fig3", best_of=("readout.rank_qv",))
    second = Sweep("b", {}, figure="fig2", best_of=("readout.learning_rate", "readout.rank_qv"))
    whole = Sweep("w", figure="fig9", parts=(first, Sweep("c", parts=(second, first)), Sweep("d", {})))
    assert whole.figures == ("fig9", "fig3", "fig2")
    assert whole.best_of == ("readout.rank_qv", "readout.learning_rate")


def test_a_whole_has_no_grid_of_its_own() -> None:
    with pytest.raises(ValueError, match="no grid of its own"):
        Sweep("w", {"seed": 1}, parts=(Sweep("a", {}),))


def test_a_grid_inside_a_row_is_expanded_too() -> None:
    rows = [{"corpus.multi": 1, "seed": tune.grid_search([3, 4])}, {"corpus.multi": 2, "seed": 5}]
    found = settings_of(expand(Sweep("g", {"row": tune.grid_search(rows)}), "mini", {}), "corpus.multi", "seed")
    assert sorted(found) == [(1, 3), (1, 4), (2, 5)]
