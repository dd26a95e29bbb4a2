import json
from pathlib import Path
from typing import Any

import pytest

from ktrain.readout import dispatch

MODULE = """
from pathlib import Path
from transformers import PreTrainedConfig, PreTrainedModel
Path({mark!r}).touch()
class ForeignConfig(PreTrainedConfig):
    model_type = "foreign"
class ForeignModel(PreTrainedModel):
    config_class = ForeignConfig
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once the code in the model folder `tmp_path / "model"` has run; whoever is asked says yes."""
    folder, mark = tmp_path / "model", tmp_path / "mark"
    folder.mkdir()
    kinds = {"AutoConfig": "ForeignConfig", "AutoModelForCausalLM": "ForeignModel"}
    auto_map = {kind: f"code.{name}" for kind, name in kinds.items()}
    config = {"model_type": "foreign", "architectures": ["ForeignModel"], "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(MODULE.format(mark=str(mark)))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return mark


def test_a_stage_that_brings_code_is_not_run(mark: Path) -> None:
    nothing: Any = None
    with pytest.raises(ValueError, match="trust_remote_code"):
        dispatch.read_out(nothing, mark.with_name("model"), [], nothing, nothing, nothing)
    assert not mark.exists()
