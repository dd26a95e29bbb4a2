import os
from pathlib import Path
from typing import Any

import numpy as np
import pretrained
import pytest
from tokenizers import Tokenizer, normalizers

from ktrain.bios import entries, pools, pretrained_tokenizer, templates, tokenizer
from ktrain.bios.fragment_encoder import FragmentEncoder, encode_placed
from ktrain.bios.question_wordings import PAPER
from ktrain.bios.tokenizer import decode_inside, encode_inside, eos_id
from ktrain.config import ATTRIBUTES, CorpusConfig
from ktrain.config.tokenizer_file import read_tokenizer_file
from ktrain.data.corpus import Corpus, build_corpus, load_corpus
from ktrain.errors import WrongRequest

FEW = {"birth_years": 25, "birth_cities": 40, "universities": 40, "majors": 40, "companies": 40}


@pytest.fixture(scope="module", params=pretrained.KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.save_tokenizer(tmp_path_factory.mktemp("tokenizers") / request.param, request.param)


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    setting = {"people": 20, "multi": 2, "permute": 1, "celebrity_fraction": 0.2, "tokenizer": str(folder)}
    return build_corpus(CorpusConfig.model_validate(setting | {"pools": FEW}), 0)


def test_every_text_is_what_the_networks_own_tokenizer_makes_of_it(folder: Path, corpus: Corpus) -> None:
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.no_truncation()
    own.no_padding()
    assert corpus.eos == own.token_to_id(pretrained.EOS)
    written = entries.entry_encoder(tokenizer.byte_tokenizer(), corpus.people.pools, corpus.templates)
    programs, owner = _programs(corpus)
    for entry, (program, person) in enumerate(zip(programs, owner, strict=True)):
        text = written.text(program, corpus.people.columns[person])
        assert entry or text == corpus.entry_text(entry)
        expected = own.encode(text, add_special_tokens=False).ids
        assert corpus.entries[entry].tolist() == [*expected, corpus.eos]
    for question in range(len(corpus.questions)):
        prompt, answer = corpus.question_text(*_asked(question))
        expected = own.encode(prompt + answer, add_special_tokens=False).ids
        assert corpus.questions[question].tolist() == [*expected, corpus.eos]
        begin = int(corpus.questions.spans[question, 0, 0])
        assert expected[:begin] == own.encode(prompt, add_special_tokens=False).ids
        assert decode_inside(corpus.tokenizer, expected[begin:]) == answer


def _asked(question: int) -> tuple[int, str]:
    return question // 6, ATTRIBUTES[question % 6]


def test_spans_hold_the_values_with_their_space(corpus: Corpus) -> None:
    for entry in range(len(corpus.entries)):
        ids = corpus.entries[entry].tolist()
        for attribute, (begin, end) in zip(ATTRIBUTES, corpus.entries.spans[entry].tolist(), strict=True):
            value = f" {corpus.people.value(int(corpus.person[entry]), attribute)}"
            assert decode_inside(corpus.tokenizer, ids[begin:end]).startswith(value)
            assert not decode_inside(corpus.tokenizer, ids[begin : end - 1]).startswith(value)
            # The same first token as an answer has.
            assert ids[begin] == encode_inside(corpus.tokenizer, [value])[0][0]


def test_fragments_and_whole_texts_give_the_same_where_fragments_are_exact(folder: Path, corpus: Corpus) -> None:
    programs, owner = _programs(corpus)
    made = entries.entry_encoder(corpus.tokenizer, corpus.people.pools, corpus.templates)
    assert made.whole == (folder.name not in pretrained.COMPOSED)
    if made.whole:
        return
    for source in (made, entries.question_encoder(corpus.tokenizer, corpus.people.pools, PAPER)):
        asked = programs if source is made else np.tile(np.arange(6), len(corpus.people))[:, None]
        whose = owner if source is made else np.repeat(np.arange(len(corpus.people)), 6)
        whole = FragmentEncoder(corpus.tokenizer, source.programs, whole=True)
        one, other = (e.encode(asked, corpus.people.columns, whose) for e in (source, whole))
        for field in ("ids", "offsets", "spans"):
            assert np.array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("made", [tokenizer.gpt2, lambda: tokenizer.train(pretrained.texts(), 600)])
def test_the_projects_own_tokenizers_compose(made: Any) -> None:
    bpe, drawn, sentences = made(), pools.load(), templates.load()
    source = entries.entry_encoder(bpe, drawn, sentences)
    whole = FragmentEncoder(bpe, source.programs, whole=True)
    assert not source.whole
    rng = np.random.default_rng(0)
    programs = rng.integers(len(source.programs), size=(300, 6))
    limits = [min(len(f.texts) for p in source.programs for f in p if f.column == c) for c in _columns(source)]
    columns = np.stack([rng.integers(limit, size=300) for limit in limits], axis=1)
    one, other = (e.encode(programs, columns, np.arange(300)) for e in (source, whole))
    for field in ("ids", "offsets", "spans"):
        assert np.array_equal(getattr(one, field), getattr(other, field))


def _columns(source: FragmentEncoder) -> tuple[str, ...]:
    used = {f.column for program in source.programs for f in program}
    assert used == set(templates.COLUMNS)
    return templates.COLUMNS


def _programs(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    full = np.where(corpus.celebrity, corpus.setting.celebrity.fullname, corpus.setting.fullname)[corpus.person]
    return entries.programs(corpus.templates, corpus.drafts, corpus.order, full), corpus.person


def test_a_saved_corpus_still_knows_its_eos(corpus: Corpus, tmp_path: Path) -> None:
    corpus.save(tmp_path)
    again = load_corpus(tmp_path, corpus.setting, corpus.seed)
    assert again.eos == corpus.eos and again.entries.ids.dtype == corpus.entries.ids.dtype
    assert again.tokenizer.encode(" Anna").ids == corpus.tokenizer.encode(" Anna").ids


def test_ids_above_two_bytes_are_kept(tmp_path: Path) -> None:
    """As Qwen and Llama 3 have them."""
    large = pretrained.tokenizer_of("gpt2")
    large.add_tokens([f"@@{k}" for k in range(2**16)])
    tmp_path.mkdir(exist_ok=True)
    large.add_special_tokens(["<|last|>"])
    large.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": [{large.token_to_id("<|last|>")}, 0]}}')
    built = build_corpus(CorpusConfig(people=8, tokenizer=str(tmp_path)), 0)
    assert built.eos == built.entries[0][-1] == large.token_to_id("<|last|>") and built.eos > 2**16


def test_a_token_across_the_beginning_of_a_value_is_refused() -> None:
    bpe = tokenizer.byte_tokenizer()
    assert encode_placed(bpe, ["in Rome."], [[(2, 7)]])[2].tolist() == [[[2, 7]]]
    bpe = pretrained.tokenizer_of("gpt2")
    bpe.no_truncation()
    bpe.no_padding()
    bpe.add_tokens(["n Rom"])
    with pytest.raises(WrongRequest, match=r"^corpus.tokenizer: one token holds 'n Rom', the end of a word and"):
        encode_placed(pretrained_tokenizer_like(bpe), ["in Rome."], [[(2, 7)]])


def pretrained_tokenizer_like(bpe: Tokenizer) -> Tokenizer:
    bpe.post_processor = tokenizer.gpt2().post_processor
    bpe.add_special_tokens([tokenizer.EOS])
    return bpe


def _refused(folder: Path) -> str:
    with pytest.raises((WrongRequest, ValueError)) as caught:
        build_corpus(CorpusConfig(people=8, tokenizer=str(folder)), 0)
    return str(caught.value)


def test_a_tokenizer_that_changes_texts_is_refused(tmp_path: Path) -> None:
    pretrained.save_tokenizer(tmp_path, "gpt2")
    small = pretrained.tokenizer_of("gpt2")
    small.normalizer = normalizers.Lowercase()
    small.save(str(tmp_path / "tokenizer.json"))
    assert _refused(tmp_path).startswith(f"corpus.tokenizer={tmp_path}: turns '")


def test_a_tokenizer_without_eos_is_refused_in_one_line(tmp_path: Path) -> None:
    pretrained.save_tokenizer(tmp_path, "gpt2")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert "has no EOS: no eos_token in tokenizer_config.json" in _refused(tmp_path)


def test_a_pipe_beside_a_tokenizer_is_not_waited_for(tmp_path: Path) -> None:
    pretrained.save_tokenizer(tmp_path, "gpt2")
    (tmp_path / "tokenizer_config.json").unlink()
    os.mkfifo(tmp_path / "tokenizer_config.json")
    assert "has no EOS" in _refused(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"model": {"vocab": 3}}', '{"model": {"vocab": {}}}', '{"model": {"vocab": {"a": Infinity}}}'],
)
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    assert "tokenizer.json is no tokenizer of `tokenizers`" in _refused(tmp_path)


def test_eos_is_what_the_tokenizer_says_before_what_generation_says(tmp_path: Path) -> None:
    pretrained.save_tokenizer(tmp_path, "digits")
    other = pretrained.tokenizer_of("digits").token_to_id("<|im_end|>")
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {other}}}')
    assert read_tokenizer_file(tmp_path).eos == pretrained.EOS
    (tmp_path / "tokenizer_config.json").unlink()
    found = read_tokenizer_file(tmp_path / "tokenizer.json")
    assert (found.eos, found.eos_id) == ("<|im_end|>", other)
    assert eos_id(pretrained_tokenizer.load(found)) == other
