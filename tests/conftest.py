"""What many tests share: tiny corpora, hostile pools, a second, plain way to write a sentence, and object storage."""

import csv
import functools
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import debian_packages
import pytest
import s3_server
from fault_proxy import Proxy
from head import Head
from hypothesis import settings
from postgres import Missing, Postgres

from ktrain.bios.pools import Pools
from ktrain.config import CorpusConfig, PoolsConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.system import device

# The same examples every time, however busy the machine: whether a change lands must not be luck. To look for new ones:
# HYPOTHESIS_PROFILE=explore.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# Tiny batches: waiting for the tokenizer's threads takes longer than its work where the cores are busy.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files that start Ray first. They take longest, and two processes share the files out one by one: a long file
    at the end would leave one of them idle."""
    long = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end which Debian packages would have run what was skipped."""
    # Of a skip, `longrepr` is the file, the line and the reason.
    reasons = [str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", ())]
    if line := debian_packages.summary(reasons):
        terminalreporter.write_line(line, yellow=True)


SIZES = {"first_names": 20, "middle_names": 20, "last_names": 20, "birth_years": 20}
TINY = PoolsConfig(**SIZES, birth_cities=12, universities=12, majors=12, companies=12)


@pytest.fixture
def bf16_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are taken in bf16 where a setting asks for it, also on a processor that is slow at them."""
    monkeypatch.setattr(device, "processor_has_bf16", lambda: True)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Corpus]:
    """A corpus of 60 people from small pools, built once for each setting: `tiny(multi=2, seed=1)`."""

    @functools.cache
    def built(seed: int = 0, **changes: Any) -> Corpus:
        return corpora.build_corpus(
            CorpusConfig(**{"people": 60, "tokenizer": "bpe-600", "pools": TINY} | changes), seed
        )

    return built


@pytest.fixture(scope="session")
def hostile() -> Pools:
    """Values that have broken tokenisers, sentence splitters and name matching elsewhere."""
    return Pools(
        first_names=("Zoë", "D'Arcy", "Jean-Luc", "A."),
        middle_names=("X", "de la", "Ng'ang'a"),
        last_names=("O'Neill", "St. John", "Smith Jr.", "Müller"),
        birth_cities=("St. Louis, MO", "Coeur d'Alene, ID", "Washington, D.C.", "São Paulo (SP)"),
        universities=("Université Paris 8", "Texas A&M University", "University of Hawai'i", "Université"),
        majors=("Mathematics", "C++", "Women's Studies", "R&D: methods, tools"),
        companies=("AT&T", "3M", "Acme Inc.", "Yahoo!", 'Toys "R" Us', "7-Eleven", "日本郵政", "E*TRADE™"),
        company_cities=("Dallas, TX", "St. Paul, MN", "St. Paul, MN", "Sunnyvale, CA", "Wayne, N.J.", "Irving, TX",
                        "東京", "Washington, D.C."),
        birth_years=200,
    )  # fmt: skip


@pytest.fixture(scope="session")
def write_pools() -> Callable[[Path, Pools], PoolsConfig]:
    """Writes pools as this project's CSV files, and gives the sizes that use all of them."""

    def write(folder: Path, pools: Pools) -> PoolsConfig:
        folder.mkdir(exist_ok=True)
        names = [f.name for f in fields(Pools) if f.name not in ("company_cities", "birth_years", "own")]
        for name, own in [*((name, None) for name in names), *pools.own.items()]:
            with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                out = csv.writer(file, quoting=csv.QUOTE_ALL)
                values = own or getattr(pools, name)
                if name == "companies":
                    out.writerows([("value", "city"), *zip(values, pools.company_cities, strict=True)])
                else:
                    out.writerows([("value",), *((value,) for value in values)])
        return PoolsConfig(**{name: len(getattr(pools, name)) for name in names}, birth_years=pools.birth_years)

    return write


@pytest.fixture
def hobby(tmp_path: Path) -> dict[str, str]:
    """The settings of a corpus whose people have a hobby besides the six attributes: three folders with a file each."""
    texts = {
        "pools/hobby.csv": "value\nchess\nsailing\nbird watching\npottery\n",
        "templates/hobby.txt": "{name} spent free evenings on {value}.\n{name's} favourite pastime was {value}.\n",
        "questions/hobby.txt": "What is the hobby of {name}? Answer: {value}.\nWhat likes {name}? Answer: {value}.\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return {f"{kind}_folder": str(tmp_path / kind) for kind in ("pools", "templates", "questions")}


@pytest.fixture(scope="session")
def sentence() -> Callable[..., tuple[str, int]]:
    """Writes a sentence by plain replacement, with the place where its value begins: an oracle for the fragments."""

    def write(template: str, name: str, pronoun: int, value: str, *, named: bool) -> tuple[str, int]:
        begin = -1
        text = ""
        for piece in re.split(r"(\{.*?\})", template):
            if piece == "{value}":
                begin = len(text)
                text += value
            elif piece in ("{name}", "{name's}"):
                mine = piece == "{name's}"
                word = (("his", "her", "their") if mine else ("he", "she", "they"))[pronoun]
                text += (name + ("'s" if mine else "")) if named else (word if text else word.capitalize())
            elif piece == "{his}":
                text += ("his", "her", "their")[pronoun]
            elif piece.startswith("{"):
                text += piece[1:-1].split("|")[pronoun == 2 and not named]
            else:
                text += piece
        return text, begin

    return write


@pytest.fixture(scope="session")
def told(sentence: Callable[..., tuple[str, int]]) -> Callable[[Corpus, int], tuple[str, dict[str, int]]]:
    """The text of an entry and where each value begins in it, from templates and people without the composer."""

    def tell(corpus: Corpus, entry: int) -> tuple[str, dict[str, int]]:
        people, person = corpus.people, int(corpus.person[entry])
        text, begins = "", {}
        for position, number in enumerate(corpus.order[entry]):
            attribute = corpus.attributes[number]
            template = corpus.templates[attribute][corpus.drafts[entry, number]]
            group = corpus.setting if person < corpus.setting.people else corpus.setting.celebrity
            named = group.fullname or position == 0
            value = people.value(person, attribute)
            pronoun = int(people.column("pronoun")[person])
            written, begin = sentence(template, people.name(person), pronoun, value, named=named)
            begins[attribute] = len(text) + 1 + begin
            text += f" {written}"
        return text, begins

    return tell


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server on loopback that speaks S3, with the bucket `bucket`."""
    with s3_server.serving(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture
def s3(moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store in object storage, and the environment to use it, with a cache of its own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**s3_server.environment(moto), "KTRAIN_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def proxy(moto: int, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the storage of `s3`."""
    between = Proxy(moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.address)
    yield between
    between.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server; tests make databases of their own in it, and leave it running."""
    try:
        server = Postgres.installed()
    except Missing as e:
        pytest.skip(str(e))
    with server:
        yield server


@pytest.fixture(scope="session")
def head(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A real MLflow server with logins on PostgreSQL; tests make experiments of their own, and leave it running."""
    server = Head.prepared(postgres, "head", tmp_path_factory.mktemp("head"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
    assert server.process == 0
