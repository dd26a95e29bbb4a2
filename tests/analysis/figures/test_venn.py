"""The diagram of five sets: every region is there, once, with room for a number."""

import numpy as np
import pytest
from matplotlib.transforms import Affine2D

from analysis.figures import venn


def test_every_set_of_sets_has_one_region_and_a_place_in_it() -> None:
    regions = venn.regions()
    assert set(regions) == set(range(1, 32))
    for code, region in regions.items():
        assert venn.inside(np.array([region.place])) == [code]
        assert region.path.contains_point(region.place)
        assert np.hypot(*(region.path.vertices[0] - region.path.vertices[-1])) < 1e-9, "an outline is closed"


def test_regions_cover_the_ellipses_and_nothing_else() -> None:
    line = np.linspace(-1, 1, 83)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    codes = venn.inside(points)
    # Curves are flattened to about a unit.
    large = Affine2D().scale(1000)
    for code, region in venn.regions().items():
        found = region.path.transformed(large).contains_points(1000 * points)
        # A Bezier curve is a little off its arc, and few points lie that close to it.
        assert (found != (codes == code)).sum() <= 2


@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_ellipses_that_follow_each_other_have_room_for_a_number(first: int, count: int) -> None:
    code = sum(1 << (first + k) % 5 for k in range(count))
    assert venn.regions()[code].room > 0.045


def test_a_turn_by_a_fifth_changes_nothing() -> None:
    line = np.linspace(-1, 1, 61)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    angle = -2 * np.pi / 5
    reversed_pairs = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    before, after = venn.inside(points), venn.inside(reversed_pairs)
    assert (((before << 1) | (before >> 4)) & 31 == after).mean() > 0.999


def test_names_stand_at_tips_outside_all_others() -> None:
    for k in range(5):
        x, y = venn.tip(k)
        assert np.hypot(x, y) == pytest.approx(1, abs=1e-4)
        assert venn.inside(np.array([[0.99 * x, 0.99 * y]])) == [1 << k]
