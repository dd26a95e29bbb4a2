import json
from pathlib import Path
from typing import Any

import hf_files
import pytest
from pydantic import ValidationError

from ktrain.config import CellConfig, ModelConfig
from ktrain.config.network_file import read_network, settings_of, short_name
from ktrain.stages import axes, cell_key, stages_of

QWEN = hf_files.FILES["qwen3"]


def written(folder: Path, content: Any) -> Path:
    """A `config.json` in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_network_is_what_its_file_says_wherever_that_lies(tmp_path: Path) -> None:
    path = written(tmp_path / "a", QWEN)
    line = read_network(path)
    assert line == read_network(str(path.parent)) == read_network(json.dumps(QWEN, indent=2)) == read_network(line)
    assert settings_of(line) == {name: value for name, value in QWEN.items() if name != "architectures"}
    assert short_name(line).startswith("qwen3-")
    # The order of keys, and what the corpus or published weights say, is no part of it.
    implementations = {"attn_implementation": "kernels-community/other", "_experts_implementation": "eager"}
    told = {"vocab_size": 151_936, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "eos_token_id": [1, 2]}
    assert read_network(json.dumps(dict(reversed(QWEN.items())) | told | implementations)) == line
    wider = read_network(json.dumps(QWEN | {"hidden_size": 64}))
    assert wider != line and short_name(wider) != short_name(line)


def test_infinity_is_a_number_again() -> None:
    settings = settings_of(read_network(json.dumps(hf_files.FILES["mamba2"])))
    assert settings["time_step_limit"] == [0.0, float("inf")]


def test_a_cell_carries_the_content_and_its_keys_and_names_follow_from_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a", QWEN)
    cell = CellConfig(model=ModelConfig(family="hf", config=str(path)))
    path.unlink()
    # As Ray's workers get it.
    again = CellConfig.model_validate(cell.model_dump(mode="json"))
    assert again == cell and stages_of(again) == stages_of(cell) and cell_key(again) == cell_key(cell)
    name = short_name(read_network(json.dumps(QWEN)))
    assert cell.model.name == axes(cell)["model.config"] == axes(cell)["model.size"] == name
    assert stages_of(cell).pretrain.key.startswith(f"pretrain-hf-{name}-single-n100000-")
    assert stages_of(cell).pretrain.identity["model"] == {
        "family": "hf", "dropout": 0.0, "config": json.loads(read_network(json.dumps(QWEN))),
    }  # fmt: skip
    # What says nothing about such a network is not in its key.
    sized = CellConfig(model=ModelConfig(family="hf", config=json.dumps(QWEN), size="302m"))
    assert stages_of(sized).pretrain == stages_of(cell).pretrain


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("[1]", "must be a JSON object, as in a config.json of transformers"),
        ({"hidden_size": 32}, "has no model_type, which names the architecture in transformers"),
        ({"model_type": 3}, "has no model_type"),
        (QWEN | {"auto_map": {"AutoConfig": "x.Y"}}, "has an auto_map: code that comes with a network is not run"),
        (QWEN | {"quantization_config": {}}, "has a quantization_config: weights of networks are trained in fp32"),
        ({"model_type": "gemma3", "text_config": {}}, "model_type=gemma3 reads more than text: take its text_config"),
        (QWEN | {"is_encoder_decoder": True}, "model_type=qwen3 is an encoder with a decoder, no causal network"),
        (
            {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
            "architectures=BertForMaskedLM is no causal network (...ForCausalLM or ...LMHeadModel)",
        ),
        (QWEN | {"architectures": "Qwen"}, "architectures: must be a list of names of classes"),
        (QWEN | {"vocab_size": 0}, "vocab_size=0: must be a whole number from 1"),
        (QWEN | {"hidden_size": "32"}, "hidden_size=32: must be a whole number from 1"),
        (QWEN | {"num_hidden_layers": 10**30}, f"num_hidden_layers={10**30}: must be at most 1,024"),
        (QWEN | {"num_local_experts": 1025}, "num_local_experts=1025: must be at most 1,024"),
        (QWEN | {"hidden_size": True}, "hidden_size=True: must be a whole number from 1"),
        ('{"model_type": "qwen3", "rope_theta": 1e999}', "cannot be read: "),
        ('{"model_type": ' + "[" * 100_000, "is no JSON: "),
        ('{"model_type": "' + "x" * 1_000_001 + '"}', "has more than 1,000,000 bytes, which no config.json has"),
    ],
)
def test_a_file_of_no_causal_network_is_refused_in_one_line(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_network(written(tmp_path, content))
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    (tmp_path / "odd.json").write_bytes(b'{"model_type": "\xff"}')
    for value in (tmp_path, tmp_path / "none.json", "/dev/zero", "", "x" * 5000, "None"):
        with pytest.raises(
            ValueError, match=r"no such file, and no folder with a config\.json|cannot be read: File name"
        ):
            read_network(value)
    with pytest.raises(ValueError, match="is no JSON: it is not UTF-8"):
        read_network(tmp_path / "odd.json")
    with pytest.raises(ValueError, match="must be UTF-8 without NUL"):
        read_network("a\0b")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"family": "hf"}}, "family=hf: needs model.config, a config.json or a folder that has one"),
        ({"model": {"config": json.dumps(QWEN)}}, "is for model.family=hf, this is gpt2"),
        ({"model": hf_files.model("qwen3") | {"layers": 3}}, "layers=3: model.config says it where model.family=hf"),
        ({"model": hf_files.model("qwen3") | {"width": 64}}, "width=64: model.config says it where model.family=hf"),
        ({"readout": {"modules": "q_proj"}}, "readout.modules=q_proj: is for model.family=hf; gpt2 has its own"),
        (
            {"model": hf_files.model("qwen3"), "readout": {"modules": "q_proj, v"}},
            "must be names of modules, joined by",
        ),
    ],
)
def test_what_says_nothing_beside_a_file_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CellConfig.model_validate(sections)
    assert said in caught.value.errors()[0]["msg"]
