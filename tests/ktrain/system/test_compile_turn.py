"""One process at a time compiles the same code, and none waits once it is there."""

import threading
from pathlib import Path

import pytest

from ktrain.system.compile_turn import CACHE, compile_turn


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "inductor"))
    return tmp_path / "inductor"


class Other(threading.Thread):
    """Compiles too. A lock of the kernel belongs to an open file, so two threads take turns as two processes do."""

    def __init__(self, code: str) -> None:
        super().__init__(daemon=True)
        self.code, self.compiled = code, threading.Event()
        self.start()

    def run(self) -> None:
        with compile_turn(self.code):
            self.compiled.set()


def test_the_second_waits_for_the_first_and_the_third_for_nobody() -> None:
    with compile_turn("net"):
        second, stranger = Other("net"), Other("another net")
        assert stranger.compiled.wait(60) and not second.compiled.wait(0.2)
    assert second.compiled.wait(60)
    with compile_turn("net"):
        assert Other("net").compiled.wait(60)


def test_the_turn_of_one_that_fails_is_the_next_ones() -> None:
    with pytest.raises(RuntimeError), compile_turn("net"):
        raise RuntimeError
    with compile_turn("net"):
        assert not Other("net").compiled.wait(0.2)


def test_without_a_folder_there_are_no_turns(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("no folder")
    with compile_turn("net"):
        assert Other("net").compiled.wait(60)
    monkeypatch.delenv(CACHE)
    with compile_turn("net"):
        assert Other("net").compiled.wait(60)
