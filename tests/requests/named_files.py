"""Folders and files that settings name, with content that is damaged, odd or hostile."""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.requests.attempt import CLEAN, REFUSED, Request

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t\n",
    "zeros": bytes(1000),
    "no UTF-8": b"\xff\xfe\x00\x80",
    "half JSON": b'{"a": [1, 2',
    "deep JSON": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "NUL": b'{"a\\u0000": "\\u0000"}\0',
    "surrogate": b'{"\\ud800": "\\ud800"}',
    "null": b"null",
    "list": b"[1, 2]",
    "number": b"7",
    "text": b'"text"',
    "5000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "markup": b"[/red] {name} <script>{value}.\n",
    "a line of a megabyte": b"x" * 2**20,
}
"""What takes the place of a file's content."""
ENTRIES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}
"""What takes the place of a file."""
JSON: dict[str, str] = {
    "null": "null",
    "true": "true",
    "minus": "-1",
    "zero": "0",
    "decimal": "0.5",
    "a huge number": "1" + "0" * 30,
    "infinity": "Infinity",
    "empty": '""',
    "word": '"word"',
    "path": '"../../x"',
    "NUL": '"a\\u0000"',
    "surrogate": '"a\\ud800"',
    "list": '["x", 1]',
    "empty list": "[]",
    "deep list": "[" * 3000 + "]" * 3000,
    "object": '{"x": 1}',
    "empty object": "{}",
}
"""What takes the place of a value in a JSON file."""


@dataclass(frozen=True)
class Named:
    """A folder or a file that settings name: how to make a sound one, the axes that name it as `X`, its files without
    which nothing works, and the fields of its JSON files that are changed one by one."""

    make: Callable[[], Path]
    axes: tuple[str, ...]
    needed: tuple[str, ...]
    fields: Mapping[str, tuple[tuple[Any, ...], ...]]
    optional: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """The command, if it is always the same."""

    def request(self, name: str, command: str, end: str, change: Callable[[Path], Any]) -> Request:
        """The request for a copy that `change` has changed; a single file is in a folder of its own."""

        def prepare(work: Path) -> None:
            shutil.copytree(self.make(), work / "X")
            change(work / "X")

        words = self.words or {"plan": ("plan", "demo"), "run": ("run", "demo"), "show": ("show", "questions")}[command]
        return Request(
            name, (*words, *self.axes), end, {}, {"XDG_CONFIG_HOME": "X"}, prepare, self.words[:1] == ("cluster",)
        )


def _folder(fill: Callable[[Path], Any]) -> Callable[[], Path]:
    """Makes a folder once for all requests, and removes it with the process."""

    @functools.cache
    def made() -> Path:
        held = tempfile.TemporaryDirectory(prefix="ktrain-named-")
        _held.append(held)
        fill(Path(held.name))
        return Path(held.name)

    return made


_held: list[tempfile.TemporaryDirectory[str]] = []
ROOT = Path(__file__).parents[2]
NETWORK = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 1024,
    "eos_token_id": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "hidden_act": "silu",
}  # fmt: skip


def _network(folder: Path) -> None:
    """A trained network of two layers, as far as a plan reads it: its weights are zeros."""
    (folder / "config.json").write_text(json.dumps(NETWORK))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 256}))
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [300, 32], "data_offsets": [0, 38400]}})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(38400))
    _tokenizer(folder)


def _tokenizer(folder: Path) -> None:
    from ktrain.bios.tokenizer import EOS, byte_tokenizer

    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))


def _parted(folder: Path) -> None:
    """A trained network whose weights an index divides."""
    _network(folder)
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    index = {"metadata": {"total_size": 38400}, "weight_map": {"model.embed_tokens.weight": "part-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _server(folder: Path) -> None:
    """What `ktrain serve` has written down of a server that has ended."""
    settings = {"database": "x", "artifacts": "x", "host": "127.0.0.1", "port": 5999, "names": [], "workers": 1}
    (folder / "ktrain").mkdir()
    record = {"process": 1, "mark": "none", "settings": settings}
    (folder / "ktrain" / "mlflow-5999.json").write_text(json.dumps(record))


def _copied(*files: Path) -> Callable[[Path], Any]:
    def copy(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)

    return copy


def _assets(kind: str) -> tuple[Path, ...]:
    root = ROOT / "ktrain" / "data" / "assets" / kind
    return tuple(sorted(path for path in root.iterdir() if path.suffix in (".csv", ".txt")))


def _of_assets(kind: str, *axes: str, optional: tuple[str, ...] = ()) -> Named:
    files = _assets(kind)
    return Named(_folder(_copied(*files)), axes, tuple(path.name for path in files), {}, optional)


HF = ("model.family=hf", "train.context=256", "train.windows=cut")
STARTED = (*HF, "model.start=X", "corpus.tokenizer=X")
SETTINGS = tuple((name,) for name in NETWORK)
TOKENIZER = (
    ("model",), ("model", "type"), ("model", "vocab"), ("model", "vocab", "a"), ("model", "merges"),
    ("added_tokens",), ("added_tokens", 0), ("added_tokens", 0, "id"), ("added_tokens", 0, "content"),
    ("pre_tokenizer",), ("decoder",), ("normalizer",), ("post_processor",), ("version",),
)  # fmt: skip
SERVER = {
    "ktrain/mlflow-5999.json": (("process",), ("mark",), ("settings",), ("settings", "host"), ("settings", "port"))
}
NAMED: dict[str, Named] = {
    "model.start": Named(
        _folder(_network),
        STARTED,
        ("config.json", "model.safetensors", "tokenizer.json"),
        {"config.json": SETTINGS, "generation_config.json": (("eos_token_id",),)},
        ("generation_config.json", "tokenizer_config.json"),
    ),
    "model.start of parts": Named(
        _folder(_parted),
        (*STARTED, "train.method=lora"),
        ("model.safetensors.index.json", "part-1.safetensors"),
        {"model.safetensors.index.json": (("weight_map",), ("weight_map", "model.embed_tokens.weight"))},
    ),
    "model.config": Named(
        _folder(lambda folder: (folder / "config.json").write_text(json.dumps(NETWORK))),
        (*HF, "model.config=X"),
        ("config.json",),
        {"config.json": SETTINGS},
    ),
    "corpus.tokenizer": Named(
        _folder(_tokenizer),
        ("corpus.tokenizer=X", "train.context=512"),
        ("tokenizer.json", "tokenizer_config.json"),
        {"tokenizer.json": TOKENIZER, "tokenizer_config.json": (("eos_token",),)},
    ),
    "corpus.pools_folder": _of_assets("pools", "corpus.pools_folder=X", optional=("more.csv",)),
    "corpus.templates_folder": _of_assets("templates", "corpus.templates_folder=X"),
    "corpus.questions_folder": _of_assets(
        "questions", "corpus.questions_folder=X", "corpus.question_wordings=2", "corpus.question_unseen=true"
    ),
    "train.forgetting_text": Named(
        _folder(lambda folder: (_network(folder), (folder / "text.txt").write_text("Two words and more. " * 9))),
        (*STARTED, "train.forgetting_text=X/text.txt"),
        ("text.txt",),
        {},
    ),
    "cluster": Named(
        _folder(_copied(ROOT / "cluster.yaml")), ("X/cluster.yaml",), ("cluster.yaml",), {}, (), ("cluster", "check")
    ),
    "server": Named(_folder(_server), ("--port=5999",), (), SERVER, ("ktrain/mlflow-5999.json",), ("serve", "--stop")),
}


def requests() -> Iterator[Request]:
    """Yields every damage to every file of every named folder, and every field with another value."""
    number = 0
    for setting, named in NAMED.items():
        for file in (*named.needed, *named.optional):
            for what, content in CONTENTS.items():
                name = f"{setting}: {file} is {what}"
                refused = file in named.needed and not (setting == "train.forgetting_text" and what in _MEASURABLE)
                end, number = REFUSED if refused else CLEAN, number + 1
                command = ("plan", "run")[number % 2] if end == REFUSED else "plan"

                def write(folder: Path, file: str = file, content: bytes = content) -> None:
                    (folder / file).write_bytes(content)

                yield named.request(name, command, end, write)
            for what, make in ENTRIES.items():

                def replace(folder: Path, file: str = file, make: Callable[[Path], Any] = make) -> None:
                    (folder / file).unlink(missing_ok=True)
                    make(folder / file)

                end = REFUSED if file in named.needed else CLEAN
                yield named.request(f"{setting}: {file} is {what}", "plan", end, replace)
            if not (named.make() / file).is_file():
                continue
            for what, place in {"begin": 0.0, "middle": 0.5, "end": 0.999}.items():
                yield named.request(f"{setting}: {file} is cut at its {what}", "plan", CLEAN, _cut(file, place))
                yield named.request(
                    f"{setting}: {file} has a bit flipped at its {what}", "plan", CLEAN, _flip(file, place)
                )
        for file, fields in named.fields.items():
            for path in fields:
                for what, value in JSON.items():
                    field = ".".join(map(str, path))
                    number += 1
                    command = "show" if number % 4 == 0 and setting == "corpus.tokenizer" else "plan"
                    yield named.request(
                        f"{setting}: {file}'s {field} is {what}", command, CLEAN, _edit(file, path, value)
                    )


_MEASURABLE = ("half JSON", "surrogate", "list", "5000 digits", "markup", "NUL")
"""Contents with two words, which a text to measure may have."""


def _cut(file: str, place: float) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(place * len(content))])

    return cut


def _flip(file: str, place: float) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[int(place * len(content))] ^= 0x15
        (folder / file).write_bytes(content)

    return flip


def _edit(file: str, path: tuple[Any, ...], value: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        whole = json.loads((folder / file).read_bytes())
        within = whole
        for step in path[:-1]:
            within = within[step]
        within[path[-1]] = "@here@"
        (folder / file).write_text(json.dumps(whole).replace('"@here@"', value))

    return edit
