from analysis.claims.selection import differences, labels

SMALL = (("corpus.people", "500"), ("model.size", "2x64h4"), ("model.layers", "2"), ("model.width", "64"))
LARGE = (("corpus.people", "500"), ("model.size", "8x64h4"), ("model.layers", "8"), ("model.width", "64"))


def test_groups_are_told_apart_by_what_distinguishes_them() -> None:
    many = (("corpus.people", "1000"), *SMALL[1:])
    assert labels([SMALL, many]) == ["corpus.people=500", "corpus.people=1000"]
    assert differences([SMALL, many]) == "corpus.people (500, 1000)"


def test_a_shape_is_told_once() -> None:
    assert labels([SMALL, LARGE]) == ["model.size=2x64h4", "model.size=8x64h4"]
