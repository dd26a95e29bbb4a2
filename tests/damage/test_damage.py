"""The short form of `python -m tests.damage`: every other file, each with another kind of damage."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.damage import damages, finished, trial
from tests.damage.damages import Damage
from tests.damage.finished import Finished


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished.make(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def sound(store: Finished) -> dict[str, dict[str, Any]]:
    return trial.cells(store, store.store)


def few(every: Iterator[Damage]) -> list[Damage]:
    """One damage to each file, each of a kind that no file before it has, as long as there are such."""
    chosen: list[Damage] = []
    for _, group in itertools.groupby(every, key=lambda damage: (damage.key, damage.file)):
        mine, kinds = list(group), {damage.name for damage in chosen}
        chosen.append(next((damage for damage in mine if damage.name not in kinds), mine[len(chosen) % len(mine)]))
    return chosen


def test_there_are_many_damages(store: Finished) -> None:
    assert len(list(damages.every(store.store))) >= 500


def test_an_undamaged_store_has_all_its_numbers(store: Finished, sound: dict[str, dict[str, Any]]) -> None:
    assert len(sound) == 3 and all(cell["state"] == "done" and cell["metrics"] for cell in sound.values())
    assert trial.run(store, store.store, "verify").code == 0


def test_no_damage_goes_unnoticed(store: Finished, sound: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    chosen = few(damages.every(store.store))[::2]
    assert len(chosen) >= 20
    wrong = {}
    for number, damage in enumerate(chosen):
        if lines := trial.judge(store, sound, damage, tmp_path / str(number)):
            wrong[damage.key, damage.file, damage.name] = lines
    assert not wrong
