"""Background text is read besides biographies, and nothing else changes for it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ktrain.config import TrainConfig
from ktrain.data import background
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.data.packing import Windows
from ktrain.errors import WrongRequest

Tiny = Callable[..., Corpus]
TEXTS = {
    "z.txt": "An old river runs through the valley.\nNobody lives there now.",
    "inner/a.txt": "Snow fell all night, naïve and slow; the roads were closed.",
    "inner/deep/m.txt": "Bread needs flour, water, salt and time." * 9,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "read.me").write_text("This is no text.")
    return root


def windows(corpus: Corpus, qa_ratio: float = 0.0, steps: int = 400) -> Windows:
    return Windows(corpus, "key", TrainConfig(steps=steps, batch=8, context=32, warmup=0, qa_ratio=qa_ratio), seed=0)


def test_each_file_is_one_text_that_ends_in_eos(tiny: Tiny, folder: Path) -> None:
    corpus = tiny(background=str(folder))
    assert corpus.background is not None and len(corpus.background) == len(TEXTS)
    texts = [corpus.background[i] for i in range(len(TEXTS))]
    assert [corpus.tokenizer.decode(ids[:-1].tolist()) for ids in texts] == sorted(TEXTS.values())
    assert all(ids[-1] == corpus.eos and (ids[:-1] != corpus.eos).all() for ids in texts)


def test_nothing_else_changes_for_it(tiny: Tiny, folder: Path) -> None:
    plain, corpus = tiny(), tiny(background=str(folder))
    assert corpus.tokenizer.to_str() == plain.tokenizer.to_str()
    assert np.array_equal(corpus.entries.ids, plain.entries.ids)
    assert np.array_equal(corpus.questions.ids, plain.questions.ids)
    assert np.array_equal(corpus.train, plain.train)
    # The biographies come in the same order, only less often.
    read, alone = windows(corpus).streams["biography"], windows(plain).streams["biography"]
    assert all(np.array_equal(read.window(i), alone.window(i)) for i in range(50))


@pytest.mark.parametrize(("share", "qa_ratio"), [(0.5, 0.0), (0.2, 0.0), (0.5, 0.4)])
def test_windows_hold_their_share_of_it(tiny: Tiny, folder: Path, share: float, qa_ratio: float) -> None:
    """Of those that hold no questions."""
    made = windows(tiny(background=str(folder), background_share=share), qa_ratio, steps=1000)
    kinds = np.array([made.kinds(step) for step in range(1000)])
    told = kinds[kinds != "question"]
    assert (kinds == "question").mean() == pytest.approx(qa_ratio, abs=0.02)
    assert (told == "background").mean() == pytest.approx(share, abs=4 * (share * (1 - share) / told.size) ** 0.5)
    # Kinds are drawn row by row, and which rows ask has nothing to do with which read.
    assert len(np.unique((kinds == "background").sum(axis=1))) > 3


def test_rows_are_all_of_their_kind_and_all_text_is_read(tiny: Tiny, folder: Path) -> None:
    corpus = tiny(background=str(folder))
    assert corpus.background is not None
    made = windows(corpus, 0.3)
    rows = np.concatenate([made.rows(step) for step in range(400)])
    kinds = np.concatenate([made.kinds(step) for step in range(400)])
    for kind in ("biography", "question", "background"):
        mine = rows[kinds == kind]
        assert np.array_equal(mine, np.stack([made.streams[kind].window(i) for i in range(len(mine))]))
    # Each whole text stands somewhere: it is cut elsewhere in every epoch.
    stream = " ".join(map(str, rows[kinds == "background"].ravel().tolist()))
    for i in range(len(corpus.background)):
        assert " ".join(map(str, corpus.background[i][:-1].tolist())) in stream


def test_what_was_saved_is_loaded(tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    corpus = tiny(background=str(folder))
    corpus.save(tmp_path)
    loaded = corpora.load_corpus(tmp_path, corpus.setting, corpus.seed)
    assert corpus.background is not None and loaded.background is not None
    for name, value in vars(corpus.background).items():
        found = getattr(loaded.background, name)
        assert found.dtype == value.dtype and np.array_equal(found, value)
    assert all(np.array_equal(windows(loaded).rows(s), windows(corpus).rows(s)) for s in range(5))


def test_where_a_file_lies_changes_nothing(tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    """Content is identity, so it alone may decide the order of the texts."""
    for number, (name, text) in enumerate(TEXTS.items()):
        (tmp_path / f"{9 - number}").mkdir()
        (tmp_path / f"{9 - number}" / Path(name).name).write_text(text, encoding="utf-8")
    here, there = tiny(background=str(folder)), tiny(background=str(tmp_path))
    assert here.background is not None and there.background is not None
    assert np.array_equal(here.background.ids, there.background.ids)
    assert all(np.array_equal(windows(here).rows(s), windows(there).rows(s)) for s in range(5))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "corpus.background={}: no such folder"),
        ({}, "corpus.background={}: holds no *.txt file"),
        ({"a.md": b"text"}, "corpus.background={}: holds no *.txt file"),
        ({"a.txt": b"text", "b.txt": b"\xff\xfe"}, "b.txt in {}: byte 0 is not UTF-8"),
        ({"a.txt": b"text", "b.txt": b""}, "corpus.background={}: b.txt is empty"),
        ({"a.txt": b"text", "b.txt": b" \n\t"}, "corpus.background={}: b.txt is empty"),
        ({".hidden.txt": b"text"}, "corpus.background={}: holds no *.txt file"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(
    tiny: Tiny, tmp_path: Path, content: dict[str, bytes] | None, said: str
) -> None:
    root = tmp_path / "text"
    for name, data in (content or {}).items():
        root.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    if content == {}:
        root.mkdir()
    with pytest.raises(WrongRequest) as caught:
        background.encode_background(str(root), tiny().tokenizer)
    assert str(caught.value) == said.format(root)


def test_only_files_that_show_are_read(folder: Path, tmp_path: Path) -> None:
    """Folders, broken links and pipes of that name are no text, and notebooks keep copies in hidden folders."""
    root = tmp_path / ".data" / "text"
    for name in ("folder.txt", ".ipynb_checkpoints", "inner/.git/deep"):
        (root / name).mkdir(parents=True)
    for name in ("a.txt", ".a.txt.swp.txt", ".ipynb_checkpoints/a-checkpoint.txt", "inner/.git/deep/b.txt"):
        (root / name).write_text("A text.")
    (root / "gone.txt").symlink_to("nowhere")
    (root / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(root / "pipe.txt")
    (root / "inner" / "linked.txt").symlink_to(folder / "z.txt")
    assert background.files(str(root)) == [root / "a.txt", root / "inner" / "linked.txt"]


def test_text_of_less_than_a_window_is_told_in_one_line(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a")
    corpus = tiny(background=str(tmp_path))
    with pytest.raises(WrongRequest, match=r"^train\.context=32: all background texts together have 2 tokens$"):
        windows(corpus)
