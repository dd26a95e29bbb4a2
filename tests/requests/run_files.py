"""Files of runs that are damaged, odd or in an odd place, for `ktrain import` and `ktrain export`."""

import contextlib
import copy
import functools
import gzip
import io
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.requests.attempt import CLEAN, REFUSED, Request

KINDS = "ktrain.readout_kinds"
HEADER = {
    "format": "ktrain runs 1",
    "sweep": "demo",
    "tags": {KINDS: json.dumps([{"name": "mine", "title": "Mine", "prefix": "mine", "columns": ["x"], "label": "l"}])},
}
STAGE = {
    "kind": "stage",
    "key": "corpus-demo-00000000",
    "name": "corpus",
    "start": 1_796_081_947_000,
    "end": 1_796_081_948_000,
    "params": {"seed": "0"},
    "tags": {"ktrain.built": "b5ad639f"},
    "stages": {},
    "metrics": {"corpus/entries": [[0, 60.0, 0.0]]},
}
CELL = {
    **STAGE,
    "kind": "cell",
    "name": "a cell",
    "tags": {
        "ktrain.state": "done",
        "ktrain.scale": "mini",
        "ktrain.n.0": '{"qa/exact_match/test/mean":30}',
        "ktrain.interval.0": '{"qa/exact_match/test/mean":[0.7,0.8]}',
        "ktrain.departures.0": '{"lines":["corpus.people: fewer"]}',
    },
    "stages": {"corpus": "corpus-demo-00000000"},
    "metrics": {"qa/exact_match/test/mean": [[0, 0.75, 0.0]]},
}
VALUES: dict[str, str] = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "minus": "-1",
    "decimal": "0.5",
    "seven": "7",
    "a huge number": "1" + "0" * 30,
    "5000 digits": "9" * 5000,
    "infinity": "1e999",
    "not a number": "NaN",
    "empty": '""',
    "blank": '" "',
    "word": '"word"',
    "JSON of a list": '"[1, [2]]"',
    "JSON of an object": '"{\\"x\\": {\\"y\\": null}}"',
    "deep JSON": '"' + "[" * 3000 + '"',
    "path": '"../../x"',
    "NUL": '"a\\u0000"',
    "surrogate": '"a\\ud800"',
    "lines": '"a\\nb"',
    "another end of line": '"a\u2028b\x85c"',
    "markup": '"[/red]<script>"',
    "escape": '"\\u001b[31m"',
    "300 characters": '"' + "x" * 300 + '"',
    "100,000 characters": '"' + "x" * 100_000 + '"',
    "list": "[1]",
    "empty list": "[]",
    "deep list": "[" * 3000 + "]" * 3000,
    "object": '{"x": "y"}',
    "empty object": "{}",
    "object of odd names": '{"a/../b": "x", "": "y"}',
    "object of a tag of MLflow's": '{"mlflow.user": "root"}',
}
"""JSON of values that take the place of one."""
TYPES: dict[str, type] = {'"': str, "[": list, "{": dict, "n": type(None), "N": float, "t": bool}
PLACES: dict[str, tuple[int, tuple[Any, ...]]] = {
    **{f"header's {name}": (0, (name,)) for name in HEADER},
    "header's kinds": (0, ("tags", KINDS)),
    **{f"stage's {name}": (1, (name,)) for name in STAGE},
    "stage's param": (1, ("params", "seed")),
    "stage's tag": (1, ("tags", "ktrain.built")),
    **{f"cell's {name}": (2, (name,)) for name in CELL},
    **{f"cell's {name}": (2, ("tags", name)) for name in CELL["tags"]},
    "cell's stage": (2, ("stages", "corpus")),
    "cell's points": (2, ("metrics", "qa/exact_match/test/mean")),
    "cell's point": (2, ("metrics", "qa/exact_match/test/mean", 0)),
    "cell's step": (2, ("metrics", "qa/exact_match/test/mean", 0, 0)),
    "cell's value": (2, ("metrics", "qa/exact_match/test/mean", 0, 1)),
    "cell's seconds": (2, ("metrics", "qa/exact_match/test/mean", 0, 2)),
}
"""The line and the path of each value in a sound file."""
MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "a line's end": b"\n",
    "zeros": bytes(100),
    "no UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "null": b"null",
    "list": b"[1]",
    "a number": b"7",
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a gzip's begin": b"\x1f\x8b",
    "a gzip of another method": b"\x1f\x8b\x07\x00" + bytes(20),
}
ODD: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: None,
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a FIFO": lambda path: (os.mkfifo(path.with_name("fifo")), path.symlink_to("fifo"))[0],
    "in a file": lambda path: path.parent.rmdir() or path.parent.touch(),
}
"""What stands where a file is expected, in a folder of its own."""
UNWRITABLE = ("", ".", "..", "/", "/proc/x", "/proc/self/x/y", "/dev/null/x", "x" * 300, "x/" * 1900, "\udcff/" * 1900)
SHOWN = (("results", "demo"), ("results", "demo", "--format", "json"), ("report", "demo"))


def _file(*places: tuple[str, str], key: str = "cell-demo-00000000") -> bytes:
    """A file of three lines, with other JSON at these places."""
    lines = copy.deepcopy([HEADER, STAGE, {**CELL, "key": key}])
    texts = {f"@{number}@": VALUES[what] for number, (_, what) in enumerate(places)}
    for mark, (place, _) in zip(texts, places, strict=True):
        line, path = PLACES[place]
        within: Any = lines[line]
        for step in path[:-1]:
            within = within[step]
        within[path[-1]] = mark
    text = "\n".join(map(json.dumps, lines)) + "\n"
    for mark, value in texts.items():
        text = text.replace(json.dumps(mark), value)
    return text.encode("utf-8", "surrogatepass")


@functools.cache
def _sound() -> bytes:
    """A file with a cell that the sweep `demo` has."""
    from ktrain.store.open import store_at
    from sweeps.planning import grid, plan

    return _file(key=plan.make(grid.load("demo"), "mini", {}, store_at("nowhere")).cells[0].key)


def _end(place: str, what: str) -> str:
    """Another type of value must be refused; another value of the type need not."""
    line, path = PLACES[place]
    within: Any = [HEADER, STAGE, CELL][line]
    for step in path:
        within = within[step]
    other = TYPES.get(VALUES[what][0], int)
    numbers = (int, float)
    same = other in numbers and type(within) in numbers if type(within) in numbers else isinstance(within, other)
    return CLEAN if same or (path == ("end",) and what == "null") else REFUSED


@functools.cache
def _database(imported: bytes) -> bytes:
    """A database of MLflow with the runs of a file, or without any: making one takes seconds."""
    from mlflow import MlflowClient

    from sweeps import cli

    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{path}").get_experiment_by_name("none")
        if imported:
            path.with_name("runs.json").write_bytes(imported)
            assert cli.main(["import", f"{folder}/runs.json", "--store", folder]) == 0
        return path.read_bytes()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _with_database(imported: Callable[[], bytes], then: Callable[[Path], Any] | None = None) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        content = _database(imported())
        (work / "results").mkdir()
        (work / "results" / "mlflow.db").write_bytes(content)
        if then:
            then(work)

    return prepare


def _with_import(content: bytes) -> Callable[[Path], None]:
    """A database to which a file was imported, if it is not refused."""

    def imported(work: Path) -> None:
        from sweeps import cli

        (work / "runs.json").write_bytes(content)
        with _silence():
            cli.main(["import", "runs.json"])

    return _with_database(bytes, imported)


def requests() -> Iterator[Request]:
    """Yields imports of damaged and odd files, what is shown after them, and exports to odd places."""
    empty = _with_database(bytes)
    for place in PLACES:
        for number, what in enumerate(VALUES):
            content = _file((place, what))
            yield Request(
                f"import: {place} is {what}",
                ("import", "runs.json"),
                _end(place, what),
                {"runs.json": content},
                {},
                empty,
            )
            if _end(place, what) == CLEAN and place.startswith(("cell", "header's kinds")):
                words = SHOWN[number % len(SHOWN)]
                yield Request(f"imported: {place} is {what}, {words[0]}", words, prepare=_with_import(content))
    whole = _file()
    lines = whole.splitlines(keepends=True)
    for what, content in {
        **MALFORMED,
        "a header alone twice": lines[0] * 2,
        "no header": lines[1] + lines[2],
        "no stage": lines[0] + lines[2],
        "a cell twice": whole + lines[2],
        "an empty line": whole.replace(b"\n", b"\n\n"),
        "other ends of lines": whole.replace(b"\n", b"\r"),
        "two files": whole * 2,
        "an unknown field": lines[0] + lines[1].replace(b'"kind"', b'"colour": 1, "kind"'),
        "a missing field": lines[0] + lines[1].replace(b'"start"', b'"begin"'),
    }.items():
        for name in ("runs.json", "runs.gz"):
            stored = content if name == "runs.json" or what in MALFORMED else gzip.compress(content, mtime=0)
            yield Request(f"import: {what}, {name}", ("import", name), REFUSED, {name: stored}, {}, empty)
    yield from _damaged_gzips(random.Random(0), empty)
    for what, make in ODD.items():
        for name in ("runs.json", "runs.gz"):

            def prepare(work: Path, make: Callable[[Path], Any] = make, name: str = name) -> None:
                (work / "in").mkdir()
                make(work / "in" / name)

            yield Request(f"import: {what}, {name}", ("import", f"in/{name}"), REFUSED, prepare=prepare)
            taken = CLEAN if what in ("nothing", "a link to nothing", "a link to itself") else REFUSED
            words = ("export", "demo", f"in/{name}")
            yield Request(f"export: over {what}, {name}", words, taken, prepare=_with_database(_sound, prepare))
    for place in UNWRITABLE:
        words = ("export", "demo", place)
        yield Request(f"export: to {ascii(place)[:40]}", words, REFUSED, prepare=_with_database(_sound))
    for axis in ("seed=9", "corpus.multi=x", "seed", "--scale=small", "--store=nowhere"):
        words = ("export", "demo", "out.json", axis)
        yield Request(f"export: {axis}", words, REFUSED, prepare=_with_database(_sound))


def _damaged_gzips(draw: random.Random, empty: Callable[[Path], None]) -> Iterator[Request]:
    """Compressed files with a flipped bit anywhere, cut anywhere, or with more behind them."""
    sound = gzip.compress(_file(), mtime=0)
    damaged = {}
    for number in range(60):
        place, flipped = draw.randrange(len(sound)), bytearray(sound)
        flipped[place] ^= 1 << draw.randrange(8)
        damaged[f"bit {number} flipped, in byte {place}"] = bytes(flipped)
        cut = draw.randrange(len(sound))
        damaged[f"cut {number}, at byte {cut}"] = sound[:cut]
    damaged |= {"twice": sound * 2, "with a text behind it": sound + b"more"}
    for what, content in damaged.items():
        # A flipped bit of the header may change nothing but its time.
        end = CLEAN if "flipped" in what else REFUSED
        yield Request(f"import: a gzip, {what}", ("import", "runs.gz"), end, {"runs.gz": content}, {}, empty)
