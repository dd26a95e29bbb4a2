"""Sweep files that are wrong, or odd, in every field."""

from collections.abc import Iterator

from tests.requests.attempt import CLEAN, REFUSED, Request

HEAD = """\
import itertools, math, sys
import numpy as np
from ray import tune
from sweeps import Sweep

class Odd:
    def __repr__(self):
        raise RuntimeError("no repr")
    __str__ = __repr__

class Bare(BaseException):
    pass

def deep(n):
    value = "bottom"
    for _ in range(n):
        value = [value]
    return value

def deep_dict(n):
    value = "bottom"
    for _ in range(n):
        value = {"x": value}
    return value

loop = []
loop.append(loop)
ring = {}
ring["x"] = ring

"""
VALUES = {
    "none": "None",
    "true": "True",
    "int": "3",
    "negative": "-1",
    "float": "0.5",
    "nan": "math.nan",
    "infinity": "math.inf",
    "huge int": "10 ** 5000",
    "bytes": "b'x'",
    "empty": "''",
    "blank": "' '",
    "word": "'word'",
    "slash": "'a/b'",
    "dots": "'..'",
    "300 characters": "'x' * 300",
    "130 of two bytes": "'é' * 130",
    "a megabyte": "'x' * 2 ** 20",
    "surrogate": "'a\\ud800'",
    "nul": "'a\\0b'",
    "lines": "'a\\nb'",
    "closing markup": "'[/red]'",
    "markup": "'[bold]x[/bold]'",
    "bare object": "object()",
    "no repr": "Odd()",
    "list": "['x', 1]",
    "empty list": "[]",
    "tuple": "(1, 2)",
    "set": "{1, 2}",
    "dict": "{'x': 1}",
    "dict of numbers": "{1: 2}",
    "dict without repr": "{Odd(): Odd()}",
    "range": "range(3)",
    "generator": "(x for x in 'ab')",
    "endless": "itertools.count()",
    "function": "lambda *_: 1",
    "wrong arity": "lambda a, b, c: 1",
    "function that raises": "lambda *_: 1 / 0",
    "function that leaves": "lambda *_: sys.exit(3)",
    "function that raises a bare one": "lambda *_: (_ for _ in ()).throw(Bare())",
    "type": "int",
    "module": "math",
    "array": "np.arange(3)",
    "array number": "np.int64(3)",
    "sweep": "Sweep('inner', {})",
    "deep list": "deep(5000)",
    "deep dict": "deep_dict(5000)",
    "loop": "loop",
    "ring": "ring",
    "search": "tune.grid_search(['x', 1])",
    "search over nothing": "tune.grid_search([])",
    "search over odd": "tune.grid_search([Odd(), None])",
    "search over a number": "{'grid_search': 3}",
    "search over endless": "{'grid_search': itertools.count()}",
    "random": "tune.uniform(0, 1)",
    "nested search": "tune.grid_search([tune.grid_search([1, 2])])",
}
"""Source of values, by what they are."""
FIELDS = {
    "name": "sweep = Sweep(name={}, grid={{}})",
    "question": "sweep = Sweep(name='mine', grid={{}}, question={})",
    "figure": "sweep = Sweep(name='mine', grid={{}}, figure={})",
    "best_of": "sweep = Sweep(name='mine', grid={{}}, best_of={})",
    "best_of's axis": "sweep = Sweep(name='mine', grid={{}}, best_of=({},))",
    "parts": "sweep = Sweep(name='mine', parts={})",
    "a part": "sweep = Sweep(name='mine', parts=(Sweep('a', {{}}), {}))",
    "a part's name": "sweep = Sweep(name='mine', parts=(Sweep(name={}, grid={{}}),))",
    "a part's figure": "sweep = Sweep(name='mine', parts=(Sweep('a', {{}}, figure={}),))",
    "grid": "sweep = Sweep(name='mine', grid={})",
    "grid's function": "sweep = Sweep(name='mine', grid=lambda scale: {})",
    "grid's key": "sweep = Sweep(name='mine', grid={{{}: 1}})",
    "row": "sweep = Sweep(name='mine', grid={{'row': tune.grid_search([{}])}})",
    "row's key": "sweep = Sweep(name='mine', grid={{'row': tune.grid_search([{{{}: 1}}])}})",
    "corpus.multi": "sweep = Sweep(name='mine', grid={{'corpus.multi': {}}})",
    "searched corpus.multi": "sweep = Sweep(name='mine', grid={{'corpus.multi': tune.grid_search([1, {}])}})",
    "corpus.background": "sweep = Sweep(name='mine', grid={{'corpus.background': {}}})",
    "corpus.pools_folder": "sweep = Sweep(name='mine', grid={{'corpus.pools_folder': {}}})",
    "corpus.writer.model": "sweep = Sweep(name='mine', grid={{'corpus.kind': 'bioR', 'corpus.writer.model': {}}})",
    "train.learning_rate": "sweep = Sweep(name='mine', grid={{'train.learning_rate': {}}})",
    "train.method": "sweep = Sweep(name='mine', grid={{'train.method': {}}})",
    "train.forgetting_text": "sweep = Sweep(name='mine', grid={{'train.forgetting_text': {}}})",
    "train.mask_share": "sweep = Sweep(name='mine', grid={{'model.family': 'gbert', 'train.mask_share': {}}})",
    "train.masked_answers": "sweep = Sweep(name='mine', grid={{'model.family': 'gbert', 'train.qa_ratio': 0.5, "
    "'train.masked_answers': {}}})",
    "model.start": "sweep = Sweep(name='mine', grid={{'model.family': 'hf', 'model.start': {}}})",
    "corpus.tokenizer": "sweep = Sweep(name='mine', grid={{'corpus.tokenizer': {}}})",
    "corpus.questions_folder": "sweep = Sweep(name='mine', grid={{'corpus.questions_folder': {}}})",
    "corpus.question_wordings": "sweep = Sweep(name='mine', grid={{'corpus.question_wordings': {}}})",
    "readout.kind": "sweep = Sweep(name='mine', grid={{'readout.kind': {}}})",
    "samples": "sweep = Sweep(name='mine', grid={{'train.clip': tune.uniform(1, 2)}}, samples={})",
    "metric": "sweep = Sweep(name='mine', grid={{'train.clip': tune.uniform(1, 2)}}, samples=1, metric={})",
    "search_seed": "sweep = Sweep(name='mine', grid={{'train.clip': tune.uniform(1, 2)}}, samples=1, search_seed={})",
    "limit": "sweep = Sweep(name='mine', grid={{'train.clip': tune.uniform({}, 2)}}, samples=1)",
    "category": "sweep = Sweep(name='mine', grid={{'train.clip': tune.choice([1, {}])}}, samples=1)",
    "sweep": "sweep = {}",
    "raised": "raise {}",
    "called": "({})('mini')",
}
"""Source of a sweep file with a value in one place."""
RIGHT = {
    "name": ("word",),
    "a part": ("sweep",),
    "a part's name": ("word", "slash", "dots", "closing markup", "markup"),
    "question": ("empty", "blank", "word", "slash", "dots", "closing markup", "markup", "300 characters"),
    "figure": ("empty",),
    "a part's figure": ("empty",),
    "best_of": ("empty list",),
    "grid": ("dict of nothing",),
    "corpus.multi": ("int", "array number"),
    "searched corpus.multi": ("int", "array number"),
    "corpus.background": ("none",),
    "corpus.pools_folder": ("none",),
    "train.learning_rate": ("int", "float", "array number"),
    "train.forgetting_text": ("none",),
    "train.mask_share": ("float",),
    "train.masked_answers": ("float",),
    "corpus.questions_folder": ("none",),
    "corpus.question_wordings": ("int", "array number"),
    "samples": ("int",),
    "metric": ("empty",),
    "search_seed": ("int",),
    "limit": ("true", "float"),
    "category": ("int", "float", "array number"),
    "sweep": ("sweep",),
}
"""Values that need not be refused in a place."""
LENIENT = ("question", "parts", "row", "row's key", "grid", "grid's function", "corpus.writer.model", "called")
"""Places in which a strange value may be right: an empty row, a function of the scale, the name of any model."""
FILES: dict[str, str | bytes] = {
    "nothing": "",
    "no UTF-8": b"\xff\xfe\x00",
    "zeros": b"\0" * 100,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "half a line": "sweep = Sweep(",
    "deep source": "x = " + "(" * 500 + ")" * 500,
    "deeper source": "x = " + "-" * 100_000 + "1",
    "recursion": "def f(): return f()\nf()",
    "recursion in an error": "class E(Exception):\n    def __str__(self): return str(self)\nraise E()",
    "an error without text": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()",
    "an error of many lines": "raise RuntimeError('a\\n' * 1000)",
    "a long error": "raise RuntimeError('a' * 10 ** 6)",
    "an error with a surrogate": "raise RuntimeError('\\ud800')",
    "leaves": "import sys\nsys.exit(0)",
    "leaves with a text": "import sys\nsys.exit('bye')",
    "a bare exception": HEAD + "raise Bare()",
    "a generator's end": "raise GeneratorExit",
    "a group": "raise ExceptionGroup('g', [ValueError(1)])",
    "memory": "raise MemoryError",
    "an unknown field": HEAD + "sweep = Sweep('a', {}, colour=3)",
    "no arguments": HEAD + "sweep = Sweep()",
    "grid and parts": HEAD + "sweep = Sweep('a', {'seed': 1}, parts=(Sweep('b', {}),))",
    "a part of itself": HEAD + "sweep = Sweep('a', {})\nobject.__setattr__(sweep, 'parts', (sweep,))",
    "deep parts": HEAD + "sweep = Sweep('a', {})\nfor _ in range(3000): sweep = Sweep('a', parts=(sweep,))",
    "many cells": HEAD + "sweep = Sweep('a', {'seed': tune.grid_search(list(range(200_000)))})",
    "many cells in a product": HEAD + "s = tune.grid_search(list(range(300, 9_000)))\n"
    "sweep = Sweep('a', {'seed': s, 'train.steps': s})",
    "many cells in rows": HEAD + "s = tune.grid_search(list(range(1000)))\n"
    "sweep = Sweep('a', {'r': tune.grid_search([{'seed': s, 'train.steps': s, 'readout.steps': s}])})",
    "a changed class": HEAD
    + "class Sweep(Sweep):\n    @property\n    def figures(self): return 3\nsweep = Sweep('a', 3)",
}
COMMANDS = (("plan",), ("plan", "--json"), ("status",), ("run",), ("results",), ("report",))


def requests() -> Iterator[Request]:
    """Yields every value in every place, and whole files; a file that is wrong meets each command in turn."""
    number = 0
    for place, source in FIELDS.items():
        for what, value in VALUES.items():
            end = CLEAN if place in LENIENT or what in RIGHT.get(place, ()) else REFUSED
            command = COMMANDS[number % (len(COMMANDS) if end == REFUSED else 3)]
            number += 1
            text = HEAD + source.format(value) + "\n"
            words = (command[0], "mine.py", *command[1:])
            yield Request(f"sweep file: {place} is {what}", words, end, {"mine.py": text})
    for what, content in FILES.items():
        yield Request(f"sweep file: {what}", ("run", "mine.py"), REFUSED, {"mine.py": content})
