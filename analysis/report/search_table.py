"""Tables of searches: every sample with what was drawn, and the number by which the best one is chosen."""

from analysis.measurements.best_settings import shown_groups
from analysis.measurements.cells import ReplicateGroup, Results, Search, group_replicates
from analysis.measurements.table_rows import column_group, format_value, setting
from analysis.presentation.number_format import MISSING
from analysis.presentation.section import Sheet


def sheets(results: Results) -> tuple[Sheet, ...]:
    """Returns one table for each search, a line a sample; people whose answers are reported have no part in it."""
    shown = {replicates.keys for replicates in shown_groups(results)}
    return tuple(_sheet(results, search, shown) for search in results.searches)


def _sheet(results: Results, search: Search, shown: set[tuple[str, ...]]) -> Sheet:
    samples = [group for group in group_replicates(results) if search.keys.issuperset(group.keys)]
    best = "lowest" if search.lowest else "highest"
    settings = sum(map(search.keys.issuperset, shown))
    several = f" at {settings} settings; at each" if settings > 1 else ", of which"
    chosen = f"the one with the {best} {search.metric}, on {search.chosen_on}, is reported"
    title = f"Search: {len(samples)} samples{several} {chosen}"
    headers = ("setting", "readout", *search.axes, search.metric, "reported", "state")
    return Sheet(title, headers, tuple(_line(group, search, reported=group.keys in shown) for group in samples))


def _line(sample: ReplicateGroup, search: Search, *, reported: bool) -> tuple[str, ...]:
    measured = sample.metrics.get(search.metric) if sample.done else None
    return (
        setting(sample.params),
        column_group(sample.params),
        *(format_value(sample.axes.get(axis)) for axis in search.axes),
        MISSING if measured is None else f"{measured:.4g}",
        "yes" if reported and measured is not None else "",
        sample.state,
    )
