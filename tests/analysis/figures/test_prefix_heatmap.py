"""P-probes by what was seen before."""

import xml.etree.ElementTree as ET

from analysis.figures import prefix_heatmap
from analysis.measurements.cells import Results

TEXT = "{http://www.w3.org/2000/svg}text"


def test_sets_that_occur_are_columns_with_value_and_n(probes: Results) -> None:
    plot = prefix_heatmap.draw_prefix_heatmaps(probes)
    assert plot is not None
    words = ["".join(element.itertext()) for element in ET.fromstring(plot.svg).iter(TEXT)]
    # Four sets of birth city and one of company city, each of first token and whole attribute.
    assert (words.count("99.0"), words.count("55.0"), words.count("97.0"), words.count("250")) == (4, 4, 2, 10)
    titles = [word for word in words if word.startswith("P-probe of")]
    assert [title.split(",")[0] for title in titles] == ["P-probe of birth city", "P-probe of company city"]
    assert words.count("bioS couple2, first token") == 2
    assert "bioS single, first token" not in words
    assert "held-out people" in titles[0]


def test_smaller_sets_come_first(probes: Results) -> None:
    (line,) = [row for row in prefix_heatmap.rows(probes, ("p_probe",)) if "couple" in row.name]
    assert prefix_heatmap._sets([(line, "first")], "birth_city") == [
        (),
        ("birth_date",),
        ("company",),
        ("birth_date", "university"),
    ]


def test_targets_can_be_chosen_and_nothing_is_nothing(probes: Results, contrast: Results) -> None:
    assert prefix_heatmap.draw_prefix_heatmaps(contrast) is None
    assert prefix_heatmap.draw_prefix_heatmaps(probes, ("major",)) is None
    chosen = prefix_heatmap.draw_prefix_heatmaps(probes, ("company_city",))
    assert chosen is not None and "P-probe of birth city" not in chosen.svg
