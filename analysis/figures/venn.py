"""A Venn diagram of five equal ellipses: the outlines of its 31 regions, and the place for a number in each."""

import functools
from dataclasses import dataclass

import numpy as np
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

SETS = 5
CENTRE, TILT, RATIO = 0.2832, 1.9984, 0.6056
"""Height of the first ellipse's centre, its rotation in radians, and its minor half-axis (the major one is 1). The
others are its rotations by fifths of a turn. A search for the roomiest regions gave these numbers."""
WIDE = 1.7
"""Width of a number over its height."""
FINE = 1440
"""Sample points on each ellipse."""


@dataclass(frozen=True)
class Region:
    """Area inside exactly these ellipses; the diagram spans -1 to 1."""

    path: Path
    place: tuple[float, float]
    """Centre of the widest text box that fits."""
    room: float
    """Half the height of that box; its width is `WIDE` times its height."""


@functools.cache
def outline(number: int) -> Path:
    """The ellipse `number` (0 to 4)."""
    return _placed(number).transform_path(Path.unit_circle())


@functools.cache
def tip(number: int) -> tuple[float, float]:
    """The point of an ellipse farthest from the centre; no other ellipse contains it."""
    points = _points(number)
    x, y = points[np.hypot(*points.T).argmax()]
    return float(x), float(y)


@functools.cache
def regions() -> dict[int, Region]:
    """All regions by code: the sum of 2 ** number over the ellipses that contain them. The outside, 0, is left out."""
    # A third of a second to import, and few reports draw this diagram.
    from scipy.spatial import KDTree

    edge = np.concatenate([_points(k) for k in range(SETS)])
    line = np.linspace(-1, 1, 401)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    distance, _ = KDTree(edge * (1, WIDE)).query(grid * (1, WIDE))
    codes = inside(grid)
    by_code = {}
    for code in range(1, 2**SETS):
        mine = np.flatnonzero(codes == code)
        best = mine[distance[mine].argmax()]
        x, y = grid[best]
        by_code[code] = Region(_closed(_arcs()[code]), (float(x), float(y)), float(distance[best]) / WIDE)
    return by_code


def inside(points: np.ndarray) -> np.ndarray:
    """Region codes of `points` (n, 2), shape (n,)."""
    codes = np.zeros(len(points), dtype=int)
    for k in range(SETS):
        codes |= (np.hypot(*_placed(k).inverted().transform(points).T) < 1).astype(int) << k
    return codes


@functools.cache
def _placed(number: int) -> Affine2D:
    """The unit circle to an ellipse."""
    angles = np.linspace(0, 2 * np.pi, FINE)
    first = Affine2D().scale(1, RATIO).rotate(TILT).translate(0, CENTRE)
    reach = np.hypot(*first.transform(np.stack([np.cos(angles), np.sin(angles)], axis=1)).T).max()
    return first.scale(1 / reach).rotate(-2 * np.pi * number / SETS)


def _points(number: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, FINE, endpoint=False)
    return np.asarray(_placed(number).transform(np.stack([np.cos(angles), np.sin(angles)], axis=1)))


@functools.cache
def _arcs() -> dict[int, list[np.ndarray]]:
    """Arcs that bound each region, as points of Bezier curves (3 n + 1, 2); each arc separates two regions."""
    arcs: dict[int, list[np.ndarray]] = {}
    for k in range(SETS):
        cuts = sorted(angle for other in range(SETS) if other != k for angle in _crossings(k, other))
        for begin, end in zip(cuts, [*cuts[1:], cuts[0] + 2 * np.pi], strict=True):
            middle = (begin + end) / 2
            arc = _placed(k).transform(Path.arc(np.degrees(begin), np.degrees(end)).vertices)
            (code,) = inside(_placed(k).transform(np.array([[np.cos(middle), np.sin(middle)]])))
            for side in (int(code) | 1 << k, int(code) & ~(1 << k)):
                arcs.setdefault(side, []).append(np.asarray(arc))
    return arcs


def _crossings(number: int, other: int) -> list[float]:
    """Angles on an ellipse at which another one crosses it, by bisection."""
    angles = np.linspace(0, 2 * np.pi, FINE + 1)
    onto = _placed(number) + _placed(other).inverted()

    def beyond(at: np.ndarray) -> np.ndarray:
        return np.asarray(np.hypot(*onto.transform(np.stack([np.cos(at), np.sin(at)], axis=1)).T) - 1)

    there = np.flatnonzero(np.diff(np.sign(beyond(angles))))
    low, high = angles[there], angles[there + 1]
    for _ in range(50):
        middle = (low + high) / 2
        same = np.sign(beyond(middle)) == np.sign(beyond(low))
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return [float(angle) for angle in low]


def _closed(arcs: list[np.ndarray]) -> Path:
    """Joins arcs, given in any order and direction, end to end."""
    left = list(arcs)
    chain = [left.pop(0)]
    while left:
        end = chain[-1][-1]
        gaps = [(float(np.hypot(*(arc[side] - end))), k, side) for k, arc in enumerate(left) for side in (0, -1)]
        _, k, side = min(gaps)
        arc = left.pop(k)
        chain.append(arc if side == 0 else arc[::-1])
    points = np.concatenate([chain[0], *(arc[1:] for arc in chain[1:])])
    return Path(points, [Path.MOVETO, *[Path.CURVE4] * (len(points) - 1)])
