"""A network that is trained already, from its folder to continued training, answers, probes and published files."""

import json
import shutil
from pathlib import Path
from typing import Any

import hf_files
import pandas as pd
import pretrained
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ktrain import pipeline
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.errors import WrongRequest
from ktrain.model import hf_networks, hf_request, networks
from ktrain.model.adapted_loss import AdaptedLanguageModelLoss
from ktrain.model.plain_forward import PlainLanguageModelLoss
from ktrain.readout.recomputed import contradiction
from ktrain.stages import active_axes, axes, cell_key, stages_of
from ktrain.store.open import store_at

TEXT = "Another text, which has nothing to do with anybody. " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.save(tmp_path_factory.mktemp("trained") / "qwen3")


def cell(folder: Path, readout: str = "full", **changes: Any) -> CellConfig:
    """A cell of three steps; `changes` by part."""
    tree: dict[str, dict[str, Any]] = {
        "corpus": {"people": 16, "permute": 1, "tokenizer": str(folder), "pools": hf_files.POOLS},
        "model": {"family": "hf", "start": str(folder)},
        "train": {"steps": 3, "batch": 4, "context": 64, "warmup": 1, "precision": "fp32", "learning_rate": 1e-2},
        "readout": hf_files.READOUT | (hf_files.READOUTS | {"mixed": {"kind": "mixed"}})[readout],
    }
    return CellConfig.model_validate({part: values | changes.get(part, {}) for part, values in tree.items()})


@pytest.mark.parametrize("network", pretrained.FILES)
def test_before_its_first_step_a_network_is_the_one_in_the_folder(network: str, tmp_path: Path) -> None:
    folder = pretrained.save(tmp_path, network)
    setting = cell(folder)
    built = networks.build_network(setting.model, 0, 64, 3, seed=1)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(40)[None] % pretrained.VOCABULARY
    with torch.no_grad():
        assert torch.equal(built.eval()(input_ids=ids).logits, theirs(input_ids=ids).logits)
        # The same network by another path: with adapters, which change nothing yet.
        weights = torch.full(ids.shape, 1 / 39)
        plain = PlainLanguageModelLoss(theirs)._loss(ids, weights)
        adapted = AdaptedLanguageModelLoss(built, 3, seed=0)
        assert torch.equal(adapted._loss(ids, weights), plain)
        for factor in adapted.adapters.module_b:
            factor.normal_()
        trained = adapted._loss(ids, weights)
        assert not torch.allclose(trained, plain)
        theirs.load_state_dict(adapted.weights())
        adapted.merge()
        for merged in (theirs, built):
            assert torch.allclose(PlainLanguageModelLoss(merged)._loss(ids, weights), trained, atol=1e-5)
    assert built.generation_config.repetition_penalty in (None, 1.0)


@pytest.mark.parametrize(("network", "kind", "method"), [("qwen3", "digits", "lora"), ("llama", "prepended", "full")])
def test_a_network_is_trained_further_finetuned_and_probed(
    network: str, kind: str, method: str, tmp_path: Path
) -> None:
    folder = pretrained.save(tmp_path / "start", network, kind)
    text = tmp_path / "other.txt"
    text.write_text(TEXT)
    train = {"method": method, "rank_qv": 2, "forgetting_text": str(text)}
    cells = {name: cell(folder, name, train=train) for name in hf_files.READOUTS}
    runtime = RuntimeConfig(store=str(tmp_path / "store"), compile=False, checkpoint_seconds=1e9)
    pipeline.run(list(cells.values()), runtime, lambda key, progress: False)
    store = store_at(runtime.store)
    keys = {name: stages_of(found).readout.key for name, found in cells.items()}
    keys["pretrain"] = stages_of(cells["full"]).pretrain.key
    assert all(contradiction(store, key) is None for key in keys.values())
    before = AutoModelForCausalLM.from_pretrained(folder).eval()
    published, places = {}, {}
    for name in ("pretrain", "full", "lora"):
        place = store.fetch(keys[name])
        assert place is not None
        places[name] = place
        published[name] = AutoModelForCausalLM.from_pretrained(place / "model").eval()
        tokenizer = AutoTokenizer.from_pretrained(place / "model")
        assert tokenizer.eos_token == tokenizer.pad_token == pretrained.EOS
        if name == "pretrain":
            continue
        # With nothing but transformers: greedy, and an answer has to end.
        asked = pd.read_parquet(place / "predictions.parquet").head(6)
        for prompt, predicted in zip(asked.prompt, asked.predicted, strict=True):
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
            output = published[name].generate(ids, max_new_tokens=40, do_sample=False)[0].tolist()
            said = tokenizer.decode(output, skip_special_tokens=True)
            assert said.startswith((prompt + predicted).rstrip("\ufffd"))
    moved = {
        name for name, was in before.named_parameters()
        if not torch.equal(was, dict(published["pretrain"].named_parameters())[name])
    }  # fmt: skip
    if method == "lora":
        assert {name.split(".")[-2] for name in moved} == {"q_proj", "v_proj"}
    else:
        assert moved == dict(before.named_parameters()).keys()

    metrics = store.metrics(keys["pretrain"])
    counts = json.loads(store.read(keys["pretrain"], "counts.json"))
    assert counts["n"]["start/exact_match/test/mean"] == 8
    low, high = counts["interval"]["start/first_token/test/mean"]
    assert low <= metrics["start/first_token/test/mean"] <= high
    # What the folder's own network says to the first token of each held-out question.
    tokenizer = AutoTokenizer.from_pretrained(places["full"] / "model")
    held_out = pd.read_parquet(places["full"] / "predictions.parquet")
    right = []
    for prompt, expected in held_out[held_out.split == "test"][["prompt", "expected"]].itertuples(index=False):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        whole = tokenizer(prompt + expected)["input_ids"]
        with torch.no_grad():
            right.append(int(before(ids).logits[0, -1].argmax()) == whole[ids.shape[1]])
    assert metrics["start/first_token/test/mean"] == pytest.approx(sum(right) / len(right))
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"][0]
    windows = [window[None] for window in ids.split(64) if len(window) > 1]
    for name, one in (("before", before), ("after", published["pretrain"])):
        with torch.no_grad():
            losses = [float(one(w, labels=w).loss) * (w.shape[1] - 1) for w in windows]
        mean = sum(losses) / sum(w.shape[1] - 1 for w in windows)
        assert metrics[f"forgetting/loss_{name}"] == pytest.approx(mean, rel=1e-4)


def test_mixed_training_by_lora_has_learning_curves_of_the_trained_network(folder: Path, tmp_path: Path) -> None:
    train = {"method": "lora", "rank_qv": 2, "qa_ratio": 0.5, "learning_rate": 0.1}
    chosen = cell(folder, "mixed", train=train)
    runtime = RuntimeConfig(store=str(tmp_path), compile=False, checkpoint_seconds=1e9)
    pipeline.run([chosen], runtime, lambda key, progress: False)
    store, key = store_at(str(tmp_path)), stages_of(chosen).pretrain.key
    points = json.loads(store.read(key, "learning.json"))["curve"]
    answered = store.metrics(stages_of(chosen).readout.key)
    assert points[-1]["mixed/exact_match/test/mean"] == answered["mixed/exact_match/test/mean"]
    assert points[-1]["mixed/first_token/train/mean"] == answered["mixed/first_token/train/mean"]


# Keys.


def test_a_network_is_known_by_the_content_of_its_files(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "b")
    one, other = cell(folder), cell(tmp_path / "b")
    assert stages_of(one) == stages_of(other) and cell_key(one) == cell_key(other)
    assert one.model.name.startswith("qwen3-") and axes(one)["model.start"] == one.model.name == other.model.name
    assert "model.start" in active_axes(one) and "train.method" not in active_axes(one)
    again = CellConfig.model_validate(one.model_dump(mode="json"))
    assert again == one and stages_of(again) == stages_of(one)
    weights = tmp_path / "b" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert stages_of(other).corpus == stages_of(one).corpus
    assert stages_of(other).pretrain.key != stages_of(one).pretrain.key
    assert cell_key(other) != cell_key(one) and other.model.name != one.model.name


def test_a_machine_without_the_folder_says_so_in_one_line(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    dumped = cell(copy).model_dump(mode="json") | {"corpus": cell(folder).corpus.model_dump(mode="json")}
    assert stages_of(CellConfig.received(dumped)) == stages_of(cell(folder))
    shutil.rmtree(copy)
    with pytest.raises(WrongRequest) as caught:
        CellConfig.received(dumped)
    said = "no such folder on this machine; a folder with a trained network must lie on each that trains"
    assert str(caught.value) == f"model.start={copy}: {said}"


def test_training_is_known_by_method_rank_and_the_content_of_the_text(folder: Path, tmp_path: Path) -> None:
    for name, text in (("a", "one text"), ("b", "one text"), ("c", "two texts")):
        (tmp_path / name).write_text(text)
    train: list[dict[str, Any]] = [{}, {"method": "lora"}, {"method": "lora", "rank_qv": 3}]
    train += [{"forgetting_text": str(tmp_path / name)} for name in "abc"]
    keys = [stages_of(cell(folder, train=one)).pretrain.key for one in train]
    assert keys[3] == keys[4] and len(set(keys)) == 5
    # A rank that nothing reads is no part of it.
    assert stages_of(cell(folder, train={"rank_qv": 3})).pretrain.key == keys[0]


def test_no_code_of_the_folder_runs_and_no_other_weights_are_read(folder: Path, tmp_path: Path) -> None:
    copy, ran = _copy(folder, tmp_path), tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\n"
    for name in ("custom_generate/generate.py", "modeling_qwen3.py", "configuration_qwen3.py", "tokenizer.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(code)
    settings = json.loads((copy / "config.json").read_text())
    odd = {"transformers_weights": "other.safetensors", "attn_implementation": "kernels-community/other"}
    (copy / "config.json").write_text(json.dumps(settings | odd))
    assert cell(copy).model.name == cell(folder).model.name
    try:
        loaded = hf_networks.load(cell(copy).model, 3)
    except WrongRequest as e:
        assert "\n" not in str(e)
    else:
        theirs = hf_networks.load(cell(folder).model, 3).state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in loaded.state_dict().items())
    assert not ran.exists()


# Wrong requests, each one line.


def _refused(folder: Path, **changes: Any) -> str:
    with pytest.raises((ValidationError, WrongRequest)) as caught:
        chosen = cell(folder, **changes)
        hf_request.check_cell(chosen, 0, 64)
        hf_networks.load(chosen.model, 3)
    error = caught.value
    line = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    assert "\n" not in line
    return line


def _copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"family": "gpt2"}}, "is for model.family=hf, this is gpt2"),
        ({"model": {"config": '{"model_type": "qwen3"}'}}, "has a config.json of its own, so model.config cannot be"),
        ({"model": {"family": "gbert", "start": None}}, "model.family=gbert masks the words of gpt2 and bpe-V alone"),
        ({"model": {"layers": 3}}, "layers=3: model.start says it where model.family=hf"),
        ({"model": {"start": None}}, "needs model.config, a config.json or a folder that has one; or model.start"),
        (
            {"corpus": {"tokenizer": "bpe-400"}},
            "corpus.tokenizer=bpe-400: is not the tokenizer of model.start; set corp",
        ),
        ({"train": {"method": "lora", "zero": 1}}, "zero=1: method=lora trains few weights"),
        ({"train": {"method": "lora"}, "model": {"dropout": 0.1}}, "train.method=lora trains without dropout; set 0"),
        ({"train": {"rank_qv": 0}}, "greater than or equal to 1"),
        ({"train": {"forgetting_text": "/nowhere"}}, "no such file on this machine"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    assert said in _refused(folder, **changes)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"method": "lora"}, "train.method=lora: is for model.start; random weights are trained whole"),
        ({"forgetting_text": __file__}, f"train.forgetting_text={__file__}: is for model.start"),
    ],
)
def test_random_weights_take_none_of_it(train: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CellConfig.model_validate({"train": train})
    assert said in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("removed", "written", "said"),
    [
        (("model.safetensors",), {}, "the folder has no weights: no model.safetensors and no model.safetensors.index"),
        (("model.safetensors",), {"pytorch_model.bin": "x"}, "pytorch_model.bin is a pickle, which could run code"),
        (("config.json",), {}, "the folder has no config.json"),
        (("tokenizer.json",), {}, "the folder has no tokenizer.json; AutoTokenizer.from_pretrained(FOLDER).save_pretr"),
        (("tokenizer_config.json", "generation_config.json"), {}, "has no EOS: no eos_token in tokenizer_config.json"),
        ((), {"adapter_config.json": "{}"}, "has an adapter_config.json: merge the adapter"),
        ((), {"config.json": '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'}, "is no causal network"),
        ((), {"config.json": '{"model_type": "qwen3", "auto_map": {}}'}, "code that comes with a network is not run"),
        ((), {"model.safetensors": "no tensors"}, "model.safetensors is no file of safetensors, or a part of it is"),
        (
            ("model.safetensors",),
            {"model.safetensors.index.json": '{"weight_map": {"a": "../b.safetensors"}}'},
            "lists ../b.safetensors, not files of the folder",
        ),
        (
            ("model.safetensors",),
            {"model.safetensors.index.json": '{"weight_map": {"a": "\\ud800"}}'},
            "lists \\ud800, not files of the folder",
        ),
        (
            ("model.safetensors",),
            {"model.safetensors.index.json": '{"weight_map": {"a": "b.safetensors"}}'},
            "b.safetensors is missing, which model.safetensors.index.json lists",
        ),
    ],
)  # fmt: skip
def test_a_folder_that_lacks_something_is_refused(
    folder: Path, tmp_path: Path, removed: tuple[str, ...], written: dict[str, str], said: str
) -> None:
    copy = _copy(folder, tmp_path)
    for name in removed:
        (copy / name).unlink()
    for name, text in written.items():
        (copy / name).write_text(text)
    if "EOS" in said:
        settings = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(settings | {"eos_token_id": None}))
    assert said in _refused(copy)


def test_weights_that_lack_a_tensor_and_a_vocabulary_that_is_too_small_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    copy = _copy(folder, tmp_path)
    settings = json.loads((copy / "config.json").read_text())
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:-1])
    assert "model.safetensors is no file of safetensors, or a part of it is missing" in _refused(copy)
    (copy / "model.safetensors").write_bytes(whole)
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    assert "its weights lack model.layers.1.mlp.up_proj.weight" in _refused(copy)
    (copy / "config.json").write_text(json.dumps(settings | {"vocab_size": 600}))
    assert "tokens, its vocab_size is 600" in _refused(copy)
