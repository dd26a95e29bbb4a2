"""A readout kind from a file outside the packages: the example of docs/extending.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "recall_by_attribute"
_EXAMPLE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)[0]
_AXES = {
    "corpus.people": 60, "corpus.tokenizer": "bpe-600", "corpus.pools.birth_years": 5, "corpus.pools.birth_cities": 5,
    "train.steps": 20, "train.warmup": 5, "train.batch": 4, "train.context": 64, "readout.recall_gate": 0.0,
}  # fmt: skip


def write(folder: Path) -> Path:
    """Writes the example as a sweep of one cell that trains in seconds."""
    path = folder / "recall.py"
    axes = {"readout.kind": NAME, **_AXES}
    path.write_text(_EXAMPLE.replace(f'{{"readout.kind": "{NAME}"}}', repr(axes)))
    assert str(axes) in path.read_text()
    return path
