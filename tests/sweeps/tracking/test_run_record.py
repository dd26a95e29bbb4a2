from hypothesis import given
from hypothesis import strategies as st

from sweeps.tracking.run_record import MOST_PARAMS, MOST_POINTS, MOST_TAGS, Point, RunRecord


@given(st.integers(0, 3000), st.integers(0, 350), st.integers(0, 250))
def test_a_record_goes_out_whole_and_in_order_with_its_tags_last(points: int, params: int, tags: int) -> None:
    made = RunRecord(
        "k", "k", "FINISHED", {},
        points=tuple(Point("m", float(k), k) for k in range(points)),
        params={f"p{k}": "v" for k in range(params)},
        tags={f"t{k}": "v" for k in range(tags)},
    )  # fmt: skip
    batches = list(made.batches())
    for batch, most in ((0, MOST_POINTS), (1, MOST_PARAMS), (2, MOST_TAGS)):
        assert all(len(parts[batch]) <= most for parts in batches)
    assert all(sum(map(len, parts)) <= 1000 for parts in batches)
    assert [point for batch, _, _ in batches for point in batch] == list(made.points)
    assert [param for _, batch, _ in batches for param in batch] == list(made.params.items())
    assert [tag for _, _, batch in batches for tag in batch] == list(made.tags.items())
    assert not tags or batches[-1][2][-1] == (f"t{tags - 1}", "v")
