import base64
import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import regex  # type: ignore[import-untyped]
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ktrain.bios import pools, templates, tokenizer

DATA = Path(tokenizer.__file__).parents[1] / "data" / "assets" / "gpt2" / "r50k_base.tiktoken"
CUTS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
"""GPT-2's pre-tokenizer, as published with its encoder."""
letters = st.characters(max_codepoint=0x24F) | st.sampled_from("ΩЖあ日本한🙂™€“”—…\u200b\u3000\u0301")
texts = st.text(letters, max_size=40)


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    lines = (line.split() for line in DATA.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return tokenizer.train(sample(), 600)


def sample() -> list[str]:
    """Sentences and values: text enough for a few hundred merges."""
    drawn = pools.load()
    sentences = [s for group in templates.load().values() for s in group]
    return [*sentences, *drawn.birth_cities, *drawn.universities, *drawn.first_names]


def encode(text: str, ranks: dict[bytes, int]) -> list[int]:
    """Byte-pair encoding by its definition: join the pair of least rank until none can be joined."""
    ids = []
    for piece in CUTS.findall(text):
        parts = [bytes([b]) for b in piece.encode()]
        while True:
            joins = [(ranks[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks]
            if not joins:
                break
            _, i = min(joins)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


def test_the_ranks_are_openais_file() -> None:
    assert hashlib.sha256(DATA.read_bytes()).hexdigest() == tokenizer.SHA256
    assert tokenizer.SHA256 == "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        (" Menlo Park, CA", [6065, 5439, 3250, 11, 7257]),
        ("<|endoftext|>", [50256]),
        ("", []),
    ],
)
def test_ids_known_from_gpt2(text: str, ids: list[int]) -> None:
    assert tokenizer.gpt2().encode(text).ids == ids


def test_gpt2_has_50257_entries_and_its_last_ends_a_text() -> None:
    assert tokenizer.gpt2().get_vocab_size() == 50_257
    assert tokenizer.eos_id(tokenizer.gpt2()) == 50_256
    assert sorted(tokenizer.gpt2().get_vocab().values()) == list(range(50_257))


def test_pools_and_templates_are_encoded_as_plain_bpe_on_the_ranks_does(ranks: dict[bytes, int]) -> None:
    drawn = pools.load()
    words = [*drawn.birth_cities, *drawn.universities, *drawn.majors, *drawn.companies, *drawn.last_names]
    lines = [f" {word}." for word in words] + [s for group in templates.load().values() for s in group]
    lines += [
        Path(pools.__file__).read_text(),
        " don't  we'll\n\n\tI'd 1234567 x²  ½ naïve—“quoted” 日本語 🙂🏽 e\u0301 ",
    ]
    found = [e.ids for e in tokenizer.gpt2().encode_batch(lines)]
    for line, ids in zip(lines, found, strict=True):
        assert ids == encode(line, ranks), line


@settings(max_examples=150, deadline=None)
@given(texts)
def test_any_text_is_encoded_as_plain_bpe_on_the_ranks_does(ranks: dict[bytes, int], text: str) -> None:
    # Hypothesis tries the constants of the source too, and that one is no product of merges.
    assume(tokenizer.EOS not in text)
    assert tokenizer.gpt2().encode(text).ids == encode(text, ranks)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_decoding_gives_any_text_back(bpe: Tokenizer, text: str) -> None:
    for coder in (tokenizer.gpt2(), bpe):
        assert coder.decode(coder.encode(text).ids, skip_special_tokens=False) == text


@given(st.text())
def test_bytes_are_a_tokenizer_of_any_text(text: str) -> None:
    plain = tokenizer.byte_tokenizer()
    assert plain.get_vocab_size() == 257
    ids = plain.encode(text).ids
    assert len(ids) == len(text.encode()) and plain.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("fault", ["cut", "swapped", "absent byte"])
def test_a_file_that_is_not_the_original_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    raw = DATA.read_bytes()
    lines = raw.splitlines(keepends=True)
    damaged = {
        "cut": raw[:-1],
        "swapped": b"".join([lines[1], lines[0], *lines[2:]]),
        "absent byte": raw.replace(b"IQ== 0\n", b""),
    }
    path = tmp_path / "ranks"
    path.write_bytes(damaged[fault])
    monkeypatch.setattr(tokenizer, "_RANKS", path)
    with pytest.raises(ValueError, match=r"^ranks is not GPT-2's vocabulary"):
        tokenizer.gpt2.__wrapped__()


@pytest.mark.parametrize("size", [300, 600, 1024])
def test_a_trained_tokenizer_has_exactly_the_size_asked_for(size: int) -> None:
    coder = tokenizer.train(sample(), size)
    assert coder.get_vocab_size() == size
    assert sorted(coder.get_vocab().values()) == list(range(size))
    assert tokenizer.eos_id(coder) < size


def test_two_trainings_on_one_text_are_equal_even_in_other_processes(bpe: Tokenizer) -> None:
    assert tokenizer.train(sample(), 600).to_str() == bpe.to_str()
    program = (
        "import sys; from ktrain.bios import tokenizer; t = tokenizer.train(sys.stdin.read().split('\\n'), 600);"
        "sys.stdout.write(t.to_str())"
    )
    for _ in range(2):
        told = subprocess.run(
            [sys.executable, "-c", program], input="\n".join(sample()), capture_output=True, text=True, check=True
        )
        assert told.stdout == bpe.to_str()


def test_a_trained_tokenizer_has_merged_what_is_frequent(bpe: Tokenizer) -> None:
    assert len(bpe.encode(" University").ids) == 1
    assert len(bpe.encode(" birth").ids) == 1


def test_the_end_of_text_never_comes_out_of_merging(bpe: Tokenizer) -> None:
    assert bpe.encode("<|endoftext|>").ids == [tokenizer.eos_id(bpe)]
    assert bpe.encode("a<|endoftext|>b").ids[1] == tokenizer.eos_id(bpe)
    assert tokenizer.eos_id(bpe) not in bpe.encode("<|endoftext|").ids


def test_a_tokenizer_without_end_of_text_is_an_error() -> None:
    from tokenizers import models

    with pytest.raises(AssertionError):
        tokenizer.eos_id(Tokenizer(models.BPE()))
