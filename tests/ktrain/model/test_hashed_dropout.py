"""Dropout by hash: the right rate, independent elements, and masks that belong to their member."""

import numpy as np
import pytest
import torch

from ktrain.model.hashed_dropout import dropout_seeds, hashed_dropout

STREAMS = [(0, "a"), (0, "b"), (1, "a")]
ONES = torch.ones(3 * 8, 16, 64)


def masks(step: int = 0, site: int = 0, rate: float = 0.1) -> np.ndarray:
    """(members, rows, elements): what is kept."""
    return (hashed_dropout(ONES, dropout_seeds(STREAMS, step), site, rate) > 0).view(3, 8, -1).numpy()


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_rate_is_kept_and_the_mean_with_it(rate: float) -> None:
    kept = masks(rate=rate)
    spread = (rate * (1 - rate) / kept.size) ** 0.5
    assert abs((1 - kept.mean()) - rate) < 5 * spread
    dropped = hashed_dropout(ONES, dropout_seeds(STREAMS, 0), 0, rate)
    assert dropped[dropped > 0].unique().tolist() == pytest.approx([1 / (1 - rate)])


def test_neighbours_rows_members_sites_and_steps_are_independent() -> None:
    base = masks(rate=0.5).astype(float) - 0.5
    others = {
        "members": (base[0], base[1]),
        "seeds": (base[0], base[2]),
        "rows": (base[:, :-1], base[:, 1:]),
        "neighbours": (base[..., :-1], base[..., 1:]),
        "a power of two apart": (base[..., :-64], base[..., 64:]),
        "sites": (base, masks(site=1, rate=0.5) - 0.5),
        "steps": (base, masks(step=1, rate=0.5) - 0.5),
    }
    for name, (a, b) in others.items():
        # Products of fair coins have deviation 1/4.
        assert abs((a * b).mean()) < 5 * 0.25 / a.size**0.5, name


def test_a_pattern_of_many_elements_is_as_frequent_as_chance() -> None:
    """Bytes of eight neighbours: all 256 occur alike (chi-squared, 255 degrees of freedom, deviation 22.6)."""
    bits = np.packbits(masks(rate=0.5).reshape(-1, 8), axis=1).ravel()
    expected = len(bits) / 256
    chi = float(((np.bincount(bits, minlength=256) - expected) ** 2 / expected).sum())
    assert abs(chi - 255) < 5 * 22.6


def test_a_members_mask_is_its_own_whatever_its_company_and_its_share() -> None:
    together = hashed_dropout(ONES, dropout_seeds(STREAMS, 3), 2, 0.3).unflatten(0, (3, 8))
    for k, stream in enumerate(STREAMS):
        alone = hashed_dropout(ONES[:8], dropout_seeds([stream], 3), 2, 0.3)
        assert torch.equal(alone, together[k])
        for rank in range(2):
            half = hashed_dropout(ONES[:4], dropout_seeds([stream], 3), 2, 0.3, rank, 2)
            assert torch.equal(half, alone[rank::2])


def test_the_compiler_draws_the_same() -> None:
    compiled = torch.compile(lambda x, s: hashed_dropout(x, s, 1, 0.3))
    assert torch.equal(
        compiled(ONES, dropout_seeds(STREAMS, 0)), hashed_dropout(ONES, dropout_seeds(STREAMS, 0), 1, 0.3)
    )
