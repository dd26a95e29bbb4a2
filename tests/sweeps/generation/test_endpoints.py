"""`ktrain generate` against each manner of real endpoints: it ends well, and nothing that was accepted is lost."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from endpoint import (
    REJECTED,
    STRIPPED,
    Answer,
    Endpoint,
    Manner,
    in_parts,
    limited,
    of_a_tenth,
    refusing,
    saying,
    streamed,
    wrapped,
)

from ktrain.config import CellConfig
from ktrain.generation.generator import GenerationTask
from sweeps import cli

PEOPLE = 20
FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 12)
POOLS = {"first_names": 20, "middle_names": 20, "last_names": 20, **FEW}
WRITER = {"backend": "http", "model": "fake"}
CELL = CellConfig.model_validate({"corpus": {"kind": "bioR", "people": PEOPLE, "pools": POOLS, "writer": WRITER}})
FACTS = GenerationTask(CELL.corpus, CELL.seed, "minority", 0).facts()
FILTERED = Answer({"error": {"message": "The response was filtered", "code": "content_filter"}}, 400)


@pytest.fixture
def served() -> Iterator[Callable[..., Endpoint]]:
    running: list[Endpoint] = []

    def serve(manner: Manner | None = None) -> Endpoint:
        running.append(Endpoint(FACTS, spoils=False, manner=manner))
        return running[-1]

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def generate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command against an endpoint, and returns its exit code and what it prints in one line."""
    axes = {"corpus.kind": "bioR", "corpus.people": PEOPLE}
    axes |= {f"corpus.pools.{name}": size for name, size in POOLS.items()}
    axes |= {f"corpus.writer.{name}": value for name, value in WRITER.items()}
    path = tmp_path / "mine.py"
    path.write_text(f"from sweeps import Sweep\n\nsweep = Sweep('mine', {axes!r})\n")

    def run(endpoint: Endpoint, *words: str) -> tuple[int, str]:
        where = [str(path), "--store", str(tmp_path / "results"), "--endpoint", endpoint.address, "--batch", "10"]
        code = cli.main(["generate", *where, *words])
        captured = capsys.readouterr()
        assert captured.err.count("\n") <= 1, captured.err
        return code, " ".join((captured.out + captured.err).split())

    return run


def rows(root: Path, kind: str) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted(root.glob(f"results/stages/*/{kind}-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def accepted(root: Path) -> dict[int, str]:
    return {row["person"]: row["text"] for row in rows(root, "accepted")}


def right(endpoint: Endpoint) -> set[str]:
    """All texts that an endpoint has written, without what was around them."""
    return {f" {endpoint.text(body)}" for body in endpoint.bodies}


WELL: dict[str, tuple[Manner, list[str]]] = {
    "wrappings that are removed": (wrapped(STRIPPED), []),
    "an event stream": (streamed, []),
    "content in parts": (in_parts, []),
    "a date to wait for": (limited(1.0, "date"), []),
    "milliseconds to wait": (limited(0.3, "ms"), []),
    "max_completion_tokens": (refusing("max_tokens"), ["--field", "max_tokens=max_completion_tokens"]),
    "no seed": (refusing("seed"), ["--without", "seed"]),
    "no top_p and temperature": (refusing("top_p", "temperature"), ["--without", "top_p", "--without", "temperature"]),
}


@pytest.mark.parametrize("name", WELL)
def test_manners_that_change_nothing_are_read(
    name: str, served: Callable[..., Endpoint], generate: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    manner, words = WELL[name]
    endpoint = served(manner)
    code, out = generate(endpoint, *words)
    assert code == 0 and "20 of 20 people, 100.0% of 20 drafts accepted" in out, out
    assert {*accepted(tmp_path).values()} == right(endpoint)
    (run,) = [json.loads(line) for line in next(tmp_path.glob("results/stages/*/runs.jsonl")).read_text().splitlines()]
    assert run["without"] == [word for before, word in zip(["", *words], words, strict=False) if before == "--without"]


REASONS: dict[str, tuple[Manner, str, int]] = {
    "text around": (wrapped(REJECTED, every=2), "text: outside the biography", 0),
    "a filter": (of_a_tenth(lambda usual: FILTERED), "text: refused", 4),
    "no content": (of_a_tenth(lambda usual: saying(usual, None, "length")), "text: no text", 4),
    "a refusal": (of_a_tenth(lambda usual: saying(usual, None, refusal="I will not.")), "text: refused", 4),
    "an odd 400": (of_a_tenth(lambda usual: Answer({"error": {"message": "no"}}, 400)), "text: refused", 4),
    "reasoning alone": (of_a_tenth(lambda usual: saying(usual, "<think>Hm", "length")), "text: no text", 4),
}


@pytest.mark.parametrize("name", REASONS)
def test_a_reply_that_is_no_biography_is_a_rejected_draft_and_the_next_attempt_another_request(
    name: str, served: Callable[..., Endpoint], generate: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    manner, reason, count = REASONS[name]
    endpoint = served(manner)
    code, out = generate(endpoint)
    assert code == 0 and "20 of 20 people" in out and re.search(rf"\d+ drafts: {reason}", out), out
    rejected = rows(tmp_path, "rejected")
    assert len(rejected) == count or (not count and len(rejected) > 5)
    assert all(row["why"].startswith(reason) for row in rejected)
    assert len({*accepted(tmp_path)}) == 20 and {*accepted(tmp_path).values()} <= right(endpoint)
    assert len({body["seed"] for body in endpoint.bodies}) == len(endpoint.bodies) == 20 + len(rejected)


def test_people_whom_a_filter_never_lets_through_cost_nobody_else(
    served: Callable[..., Endpoint], generate: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    def strict(endpoint: Endpoint, body: Any, usual: Answer) -> Answer:
        return FILTERED if endpoint.person(body) in (3, 13) else usual

    endpoint = served(strict)
    code, out = generate(endpoint, "--attempts", "3")
    assert (
        code == 1 and "18 of 20 people" in out and "2 of 20 people have no accepted biography after 3 attempts" in out
    )
    endpoint.manner, before = None, endpoint.served
    code, out = generate(endpoint, "--attempts", "4")
    assert code == 0 and "20 of 20 people" in out and endpoint.served == before + 2


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            Answer(b"", 308, {"Location": "https://example.org/v1"}),
            r"redirects \(308\) to https://example.org/v1; give",
        ),
        (Answer({"error": {"message": "no credit", "code": 402}}), "an error with status 200: no credit"),
        (
            Answer(b"<html>Sign in</html>", 200, {"Content-Type": "text/html"}),
            "no completion but text/html: <html>Sign",
        ),
    ],
)
def test_what_no_retry_helps_against_ends_in_one_line_and_what_is_written_is_kept(
    answer: Answer,
    line: str,
    served: Callable[..., Endpoint],
    generate: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from ktrain.generation import openai_client

    patient = openai_client.OpenAiClient
    monkeypatch.setattr(openai_client, "OpenAiClient", lambda *a, **o: patient(*a, **o, pause=0.001, tries=3))
    endpoint = served(lambda endpoint, body, usual: answer if endpoint.served > 12 else usual)
    code, out = generate(endpoint, "--concurrency", "2")
    assert code in (1, 2) and re.search(line, out), out
    endpoint.manner = None
    code, out = generate(endpoint)
    # The first block of ten people was whole. What the endpoint has served may count a late request of the first run.
    assert code == 0 and "20 of 20 people" in out and " 10 biographies in " in out, out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--field", "max_token=x"], "field=max_token=x: the fields are max_tokens, .* did you mean max_tokens"),
        (["--field", "seed"], "field=seed: must be FIELD=NAME"),
        (["--without", "model"], "without=model: the fields are max_tokens"),
    ],
)
def test_fields_that_do_not_exist_are_one_line(
    words: list[str], line: str, served: Callable[..., Endpoint], generate: Callable[..., tuple[int, str]]
) -> None:
    endpoint = served()
    code, out = generate(endpoint, *words)
    assert code == 2 and re.search(line, out) and not endpoint.served, out
