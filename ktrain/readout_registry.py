"""The registry of readout kinds: which kinds exist, and the object that implements each.

It lies below the settings, which ask it whether a kind exists and what it refuses, so it knows a kind only by
`RegisteredKind`. Everything else that a kind does is `ktrain.readout.kinds.base.ReadoutKind`. A kind's module is
imported when somebody first asks for it, and must not import PyTorch: a plan asks for kinds too.
"""

import importlib
import sys
import types
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

ENTRY_POINTS = "ktrain.readout_kinds"
"""An installed package names its kinds in this group: `toy = "my_package.toy"`, a module that registers `toy`."""
BUILT_IN = ("qa_finetune", "mixed", "p_probe", "q_probe")
_PACKAGE = "ktrain.readout.kinds"


class RegisteredKind(Protocol):
    """What settings and stages ask of a kind; `readout` is a `ReadoutConfig` and `cell` a `CellConfig`."""

    name: str
    version: int
    probe: bool
    asks: bool

    def reads(self, field: str, readout: Any) -> bool:
        """Whether a setting of the readout can change its result."""

    def adapted(self, readout: Any) -> bool:
        """Whether adapters are trained over a frozen network."""

    def check_readout(self, readout: Any) -> None:
        """Raises `ValueError` for settings of a readout that contradict each other."""

    def check_cell(self, cell: Any) -> None:
        """Raises `ValueError` for a cell that cannot be read out in this way."""

    def identity(self, readout: Any) -> dict[str, Any]:
        """The settings that are hashed into the key of the stage."""

    def shared(self, readout: Any) -> dict[str, Any]:
        """The settings in which readouts must agree to be trained together."""


class KindSource(NamedTuple):
    """Where a kind of the user's own comes from, for processes that have not run the user's file.

    `module` is a module that can be imported, or empty; `path` and `text` are the file that registered the kind.
    """

    name: str
    module: str
    path: str
    text: str


K = TypeVar("K", bound=RegisteredKind)
_kinds: dict[str, RegisteredKind] = {}
_sources: dict[str, KindSource] = {}


def register(kind: type[K]) -> type[K]:
    """Class decorator: makes a kind known under its name; registered again, the later one stands.

    Raises `ValueError` for the name of a built-in kind.
    """
    caller = sys._getframe(1)
    made, module = kind(), str(caller.f_globals.get("__name__", ""))
    if made.name in BUILT_IN and module != f"{_PACKAGE}.{made.name}":
        raise ValueError(f"readout kind {made.name}: is built in")
    _kinds[made.name] = made
    path = Path(caller.f_code.co_filename)
    if made.name not in BUILT_IN and path.is_file():
        importable = module if module in sys.modules and module != "__main__" else ""
        _sources[made.name] = KindSource(made.name, importable, str(path), path.read_text(encoding="utf-8"))
    return kind


def kind_of(name: str) -> RegisteredKind:
    """The kind of a name. Raises `KeyError` where there is none."""
    if name not in _kinds and name in BUILT_IN:
        importlib.import_module(f"{_PACKAGE}.{name}")
    if name not in _kinds and name in _installed():
        importlib.import_module(_installed()[name])
    return _kinds[name]


def names() -> tuple[str, ...]:
    """The names of all kinds: those built in, in the paper's order, then installed ones and the user's own."""
    return tuple(dict.fromkeys((*BUILT_IN, *_installed(), *_kinds)))


def sources() -> tuple[KindSource, ...]:
    """The kinds that another process would not find by itself."""
    return tuple(source for name, source in _sources.items() if name not in _installed())


def restore(given: Iterable[KindSource]) -> None:
    """Registers the kinds of `sources` of another process: by import where that works, else by running their text."""
    for source in given:
        if source.name not in _kinds and source.module:
            with suppress(ImportError):
                importlib.import_module(source.module)
        if source.name not in _kinds:
            module = types.ModuleType(Path(source.path).stem)
            module.__file__ = source.path
            exec(compile(source.text, source.path, "exec"), module.__dict__)
            _sources.setdefault(source.name, source)


@cache
def _installed() -> dict[str, str]:
    """Modules of kinds that installed packages bring, by the name of the kind."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
