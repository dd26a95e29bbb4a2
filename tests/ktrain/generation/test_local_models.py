"""Language models that run here: each draft by its own seed, whatever else is in its batch."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ktrain import stages
from ktrain.bios import tokenizer
from ktrain.config import CellConfig, WriterConfig
from ktrain.errors import WrongRequest
from ktrain.generation import local_models
from ktrain.generation.generator import Completion, GenerationRequest, clean_completion

ASKED = [GenerationRequest("Write about Ann.", 1),
         GenerationRequest("Write a much longer text about Bob and all of his friends.", 2),
         GenerationRequest("Write about Ann.", 3)]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of no training: what it writes is noise, and the same noise every time."""
    root = tmp_path_factory.mktemp("model")
    bpe = tokenizer.train(["Write about Ann and Bob, all of their friends and a longer text."] * 5, 300)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=tokenizer.EOS).save_pretrained(root)
    torch.manual_seed(0)
    told = GPT2Config(vocab_size=300, n_positions=128, n_embd=32, n_layer=1, n_head=2, initializer_range=0.3)
    told.eos_token_id = told.bos_token_id = tokenizer.eos_id(bpe)
    GPT2LMHeadModel(told).save_pretrained(root)
    return root


def writer(folder: Path, **changes: object) -> WriterConfig:
    return WriterConfig.model_validate({"backend": "transformers", "model": str(folder), "max_tokens": 40} | changes)


def test_a_draft_depends_on_its_prompt_and_seed_and_not_on_its_batch(folder: Path) -> None:
    model = local_models.load_model(writer(folder))
    together = model.complete(ASKED)
    assert [model.complete([one])[0] for one in ASKED] == together
    assert model.complete(ASKED[::-1]) == together[::-1]
    assert together[0].text != together[2].text, "another seed"
    assert all(0 < reply.tokens <= 40 and reply.cut == (reply.tokens == 40) for reply in together)
    assert together[1].prompt_tokens > together[0].prompt_tokens == together[2].prompt_tokens


def test_without_temperature_it_is_the_likeliest_text(folder: Path) -> None:
    cold = local_models.load_model(writer(folder, temperature=0.0))
    one, other = cold.complete([ASKED[0], ASKED[2]])
    assert one == other
    near = local_models.load_model(writer(folder, temperature=1e-4)).complete([ASKED[0]])[0]
    assert near.text == one.text


def test_a_chat_template_is_used_where_there_is_one(folder: Path) -> None:
    plain = PreTrainedTokenizerFast.from_pretrained(folder)
    assert local_models.chat_text(plain, "Hello") == "Hello\n\n"
    plain.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    assert local_models.chat_text(plain, "Hello") == "<user>Hello<assistant>"


def test_a_model_that_is_not_there_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(WrongRequest, match=r"^corpus\.writer\.model=.*nowhere: "):
        local_models.load_model(writer(tmp_path / "nowhere"))
    with pytest.raises(WrongRequest, match=r"^corpus\.writer\.backend=vllm: needs vllm, which is not installed$"):
        local_models.load_model(writer(tmp_path, backend="vllm"))
    with pytest.raises(WrongRequest, match="no such file"):
        local_models.load_model(writer(tmp_path / "nowhere.gguf", backend="gguf"))
    lost = CellConfig.model_validate(
        {"corpus": {"kind": "bioR", "writer": {"backend": "gguf", "model": "nowhere.gguf"}}}
    )
    with pytest.raises(WrongRequest, match=r"^corpus\.writer\.model=nowhere\.gguf: no such GGUF file$"):
        stages.stages_of(lost)


def test_the_content_of_a_model_here_is_identity_and_its_place_is_not(folder: Path, tmp_path: Path) -> None:
    def keys(path: Path) -> list[str]:
        told = {"kind": "bioR", "writer": {"backend": "transformers", "model": str(path)}}
        cell = CellConfig.model_validate({"corpus": told})
        return [stages.stages_of(cell).corpus.key, stages.texts(cell)[0][0].key]

    moved = tmp_path / "moved"
    moved.mkdir()
    for path in folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    before = keys(folder)
    assert keys(moved) == before
    (moved / "config.json").write_text("{}")
    assert not set(keys(moved)) & set(before)


@pytest.mark.parametrize(
    ("reply", "entry"),
    [
        ("Ann was born.", " Ann was born."),
        ("  Ann   was\n\nborn.  ", " Ann was born."),
        ("Sure! Here is a biography of Ann:\n\n**Ann** was *born*.", " Ann was born."),
        ("Here's a 50-word biography:\nAnn was born.", " Ann was born."),
        ('"Ann was born."', " Ann was born."),
        ("### Ann\nwas born_again.", " Ann was born_again."),
        ("Ann\u200b was\u00a0born.", " Ann was born."),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_a_reply_becomes_one_paragraph(reply: str, entry: str) -> None:
    assert clean_completion(reply) == entry


def test_a_sentence_that_was_cut_off_is_left_out() -> None:
    assert clean_completion("Ann was born. She works at", cut=True) == " Ann was born."
    assert clean_completion('Ann was born. She said "no." And', cut=True) == ' Ann was born. She said "no."'
    assert clean_completion("Ann was", cut=True) == ""
    assert Completion("x", 1, 1).cut is False
