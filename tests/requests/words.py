"""Words of command lines: axes, options, commands, and odd values for each."""

import random
from collections.abc import Iterator

from sweeps.cli import COMMANDS
from sweeps.planning.axes import AXES
from tests.requests.attempt import CLEAN, REFUSED, Request

TEXTS = {
    "nothing": "",
    "blank": " ",
    "comma": ",",
    "minus": "-1",
    "zero": "0",
    "decimal": "1.5",
    "word": "many",
    "not a number": "nan",
    "infinity": "inf",
    "400 digits": "9" * 400,
    "5000 digits": "9" * 5000,
    "exponent": "1e309",
    "hexadecimal": "0x10",
    "underscores": "1_000",
    "other digits": "\u0661\u0662",
    "closing markup": "[/red]",
    "markup": "[link=x]y",
    "newline": "a\nb",
    "tab": "a\tb",
    "escape": "\x1b[31mred",
    "surrogate": "\udcff",
    "emoji": "\U0001f600",
    "right to left": "\u202eabc",
    "a megabyte": "x" * 2**20,
    "path": "/dev/null",
    "home of nobody": "~nobody-at-all/x",
    "long path": "/".join(["x" * 200] * 30),
    "deep path": "/".join(["x"] * 1900),
    "long name": "x" * 300,
    "braces": "{0}%s",
    "equals": "a=b",
    "list": "[1,2]",
}
OPTIONS = (
    *("plan demo --scale", "plan demo --store", "plan demo --gpu", "plan demo --gpus", "plan demo --tokens-per-second"),
    *("run nowhere --workers", "run nowhere --threads", "run nowhere --checkpoint-seconds", "run nowhere --gpus-max"),
    *("run nowhere --gpu-memory", "results nowhere --format", "results demo --output", "show people -n"),
    *("show window --step", "show entries --kind", "ui --store nowhere --port", "why", "why x --sweep", "plan", "show"),
    *("status nowhere --address", "status nowhere --cluster", "cluster check", "bench", "doctor --only"),
    *("generate nowhere --endpoint", "generate nowhere --concurrency", "generate nowhere --price"),
    *("logs nowhere --cluster", "submit nowhere --workers", "watch-preemption --every", "results demo --scale"),
)
"""Command lines that end in a place for a value."""
RIGHT = {"corpus.background", "corpus.pools_folder", "corpus.templates_folder", "corpus.questions_folder"}
FIXED = (
    *("plan demo seed=0 seed=1", "plan demo corpus.multi=1,2 corpus.multi=3", "run demo seed=1 seed=1"),
    *("plan demo seed", "plan demo =1", "plan demo =", "plan demo seed=,", "plan demo seed=1,,2", "plan demo seed=1,"),
    *("plan demo --gpus 99999999999", "ui --port 99999", "ui --port -1", "ui --port 0"),
    *("run demo --workers 99999999999999999999", "plan demo --gpus -5", "run demo --threads 99999999999"),
    *("plan demo seed=0 --scale mini --scale huge", "plan /", "plan .", "plan .py", "plan /.py", "plan /dev/null"),
    *("run demo --checkpoint-seconds inf", "run demo --gpus-max -1", "run demo --gpu-memory nan", "show window -n 0"),
)


def requests() -> Iterator[Request]:
    """Yields every odd text as value of every axis and of every option, the fixed lines, and random lines."""
    for axis in AXES:
        for what, text in TEXTS.items():
            yield Request(f"axis: {axis} is {what}", ("plan", "demo", f"{axis}={text}"))
    for what, text in TEXTS.items():
        yield Request(f"axis: its name is {what}", ("plan", "demo", f"{text}=1"), REFUSED)
        yield Request(f"axis: the word is {what}", ("plan", "demo", text), REFUSED)
    for line in OPTIONS:
        for what, text in TEXTS.items():
            yield Request(f"option: {line} {what}", (*line.split(), text))
    for line in FIXED:
        yield Request(f"line: {line}", tuple(line.split()), REFUSED)
    many = ",".join(map(str, range(60_000)))
    yield Request("line: many cells", ("plan", "demo", f"seed={many}"), REFUSED)
    yield from _random_lines(random.Random(0), 200)


def _random_lines(draw: random.Random, count: int) -> Iterator[Request]:
    """Yields lines of one to five words that are drawn from commands, sweeps, axes, options and odd texts."""
    commands = [name for handlers in COMMANDS.values() for name in handlers if name not in ("doctor", "bench", "serve")]
    words = ["demo", "fig3", "--json", "--cells", "--scale", "small", "--store", "results", "-n", "--help", "--", "-"]
    words += [f"{axis}={value}" for axis in ("seed", "corpus.multi", "train.steps") for value in ("0", "2", "1,2", "x")]
    for number in range(count):
        command = draw.choice(commands)
        chosen = [draw.choice(words) if draw.random() < 0.8 else draw.choice(list(TEXTS.values())) for _ in range(3)]
        if command in ("run", "generate"):
            # Otherwise some of them would train.
            chosen.insert(0, "nowhere")
        yield Request(f"random line {number}: {command}", (command, *chosen[: draw.randint(0, 4)]), CLEAN)
