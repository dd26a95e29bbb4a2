"""Venn: five equal ellipses around a centre, the outlines of their 31 regions, and where each has room for a number."""

import functools
from dataclasses import dataclass

import numpy as np
from matplotlib.path import Path
from matplotlib.transforms import Affine2D
from scipy.spatial import KDTree

SETS = 5
CENTRE, TILT, RATIO = 0.2832, 1.9984, 0.6056
"""Where an ellipse with half-axes 1 and `RATIO` is centred above the middle, and by how many radians it is turned; the
others are its turns by fifths. Found by a search for the most room in regions of ellipses that follow each other."""
WIDE = 1.7
"""Width of a number over its height."""
FINE = 1440
"""Points on each ellipse where it is sampled."""


@dataclass(frozen=True)
class Region:
    """Where exactly these ellipses overlap, in a diagram that reaches from -1 to 1."""

    path: Path
    place: tuple[float, float]
    """The middle of the widest box for text that fits in."""
    room: float
    """Half the height of that box; its width is `WIDE` times its height."""


@functools.cache
def outline(number: int) -> Path:
    """The ellipse `number` (0 to 4)."""
    return _placed(number).transform_path(Path.unit_circle())


@functools.cache
def tip(number: int) -> tuple[float, float]:
    """The point of an ellipse that is farthest from the middle; it lies on no other one."""
    points = _points(number)
    x, y = points[np.hypot(*points.T).argmax()]
    return float(x), float(y)


@functools.cache
def regions() -> dict[int, Region]:
    """All regions by the sum of 2 ** number over the ellipses that they are in; the outside, 0, is none of them."""
    edge = np.concatenate([_points(k) for k in range(SETS)])
    line = np.linspace(-1, 1, 401)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    distance, _ = KDTree(edge * (1, WIDE)).query(grid * (1, WIDE))
    codes = inside(grid)
    found = {}
    for code in range(1, 2**SETS):
        mine = np.flatnonzero(codes == code)
        best = mine[distance[mine].argmax()]
        x, y = grid[best]
        found[code] = Region(_closed(_arcs()[code]), (float(x), float(y)), float(distance[best]) / WIDE)
    return found


def inside(points: np.ndarray) -> np.ndarray:
    """The region of each of `points` (n, 2), as `regions` numbers them."""
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
    """The arcs that bound each region, as points of Bezier curves (3 n + 1, 2); an arc parts two regions."""
    found: dict[int, list[np.ndarray]] = {}
    for k in range(SETS):
        cuts = sorted(angle for other in range(SETS) if other != k for angle in _crossings(k, other))
        for begin, end in zip(cuts, [*cuts[1:], cuts[0] + 2 * np.pi], strict=True):
            middle = (begin + end) / 2
            arc = _placed(k).transform(Path.arc(np.degrees(begin), np.degrees(end)).vertices)
            (code,) = inside(_placed(k).transform(np.array([[np.cos(middle), np.sin(middle)]])))
            for side in (int(code) | 1 << k, int(code) & ~(1 << k)):
                found.setdefault(side, []).append(np.asarray(arc))
    return found


def _crossings(number: int, other: int) -> list[float]:
    """The angles on an ellipse at which another one crosses it."""
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
    """Arcs in any order and direction, end to end."""
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
