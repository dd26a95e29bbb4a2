from dataclasses import replace

from analysis.claims.selection import choose, differences, labels, mean_of
from analysis.measurements.cells import ReplicateGroup

SMALL = (("corpus.people", "500"), ("model.size", "2x64h4"), ("model.layers", "2"), ("model.width", "64"))
LARGE = (("corpus.people", "500"), ("model.size", "8x64h4"), ("model.layers", "8"), ("model.width", "64"))


def test_groups_are_told_apart_by_what_distinguishes_them() -> None:
    many = (("corpus.people", "1000"), *SMALL[1:])
    assert labels([SMALL, many]) == ["corpus.people=500", "corpus.people=1000"]
    assert differences([SMALL, many]) == "corpus.people (500, 1000)"


def test_a_shape_is_told_once() -> None:
    assert labels([SMALL, LARGE]) == ["model.size=2x64h4", "model.size=8x64h4"]


def searched(state: str) -> ReplicateGroup:
    """The sample of a search that is the best by now."""
    name = "qa/exact_match/test/mean"
    return ReplicateGroup(
        axes={}, params={}, seeds=(0,), keys=("a",), metrics={name: 0.5}, n={name: 9}, interval={name: (0.4, 0.6)},
        state=state, counted=("a",), compared=2,
    )  # fmt: skip


def test_the_best_of_an_unfinished_search_is_no_number_yet() -> None:
    read = mean_of(["qa/exact_match/test/mean"])
    for state in ("best of 2 (of 3) by train/loss; planned", "best of 1 (of 3) by train/loss; running"):
        chosen = choose([searched(state)], read)
        assert chosen.effect is None and chosen.pending == (state,) and not chosen.will_never_finish
    chosen = choose([searched("best of 3 by train/loss")], read)
    assert chosen.effect and chosen.effect.value == 0.5 and not chosen.pending
    assert chosen.remark == "best of 3 by train/loss"


def test_a_search_of_which_no_sample_has_the_metric_never_gives_a_number() -> None:
    nothing = replace(searched("no sample has recall/attribute_tokens"), seeds=(), counted=(), metrics={})
    assert choose([nothing], mean_of(["qa/exact_match/test/mean"])).will_never_finish
