"""The client of endpoints: what they refuse, how they answer, how long they ask to wait, and the environment around."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from endpoint import Answer, Endpoint, Manner, in_parts, limited, refusing, saying, streamed

from ktrain.config import CorpusConfig
from ktrain.errors import WrongRequest
from ktrain.generation.generator import Completion, GenerationRequest, GenerationTask
from ktrain.generation.openai_client import EndpointFailure, OpenAiClient
from ktrain.generation.openai_replies import Failure, read, seconds_to_wait

SETTING = CorpusConfig.model_validate({"kind": "bioR", "people": 20, "writer": {"backend": "http", "model": "fake"}})
TASK = GenerationTask(SETTING, 0, "minority", 0)
FACTS = TASK.facts()


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


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("SSL_CERT")]:
        monkeypatch.delenv(name)


def requests(count: int = 20) -> list[GenerationRequest]:
    return [TASK.request(person, 0, FACTS[person]) for person in range(count)]


def client(endpoint: Endpoint, **options: Any) -> OpenAiClient:
    return OpenAiClient(endpoint.address, SETTING.writer, **{"pause": 0.001, "tries": 4} | options)


def texts(completions: list[Completion]) -> list[str]:
    return [completion.text for completion in completions]


@pytest.fixture(scope="module")
def right() -> list[str]:
    endpoint = Endpoint(FACTS, spoils=False)
    try:
        return texts(client(endpoint).complete(requests()))
    finally:
        endpoint.shutdown()
        endpoint.server_close()


def of_person_3(answer: Any) -> Manner:
    """Another answer about one person, whatever is tried."""
    return lambda endpoint, body, usual: answer(usual) if endpoint.person(body) == 3 else usual


def azure(_: Answer) -> Answer:
    message = "The response was filtered due to the prompt triggering the content management policy; modify it."
    inner = {"code": "ResponsibleAIPolicyViolation"}
    return Answer(
        {"error": {"message": message, "code": "content_filter", "innererror": inner, "param": "prompt"}}, 400
    )


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (azure, "refused: content_filter: The response was filtered"),
        (lambda _: Answer({"code": "DataInspectionFailed", "message": "Input is bad"}, 400), "refused: DataInspection"),
        (lambda _: Answer({"error": {"message": "flagged by moderation"}}, 403), "refused: flagged by moderation"),
        (lambda _: Answer({"detail": "prompt too long"}, 422), "refused: prompt too long"),
        (lambda usual: saying(usual, None, "length"), "no text: finish reason length"),
        (lambda usual: saying(usual, "", "stop"), "no text: finish reason stop"),
        (lambda usual: saying(usual, None, refusal="I cannot help with that."), "refused: I cannot help with that."),
        (lambda usual: saying(usual, "Ann", "content_filter"), "refused: content_filter"),
    ],
)
def test_what_is_refused_about_one_person_is_the_reply_about_this_person(
    answer: Any, refusal: str, served: Callable[..., Endpoint], right: list[str]
) -> None:
    endpoint = served(of_person_3(answer))
    completions = client(endpoint).complete(requests())
    assert completions[3].refusal.startswith(refusal)
    assert [c for c in texts(completions) if c != completions[3].text] == [t for k, t in enumerate(right) if k != 3]
    assert endpoint.served == 20, "no retry would change it"


@pytest.mark.parametrize("answer", [Answer(b"<html>"), Answer({"error": "crash"}, 500), Answer({"error": "odd"})])
def test_a_failure_about_one_person_while_others_are_answered_is_a_reply_too(
    answer: Answer, served: Callable[..., Endpoint], right: list[str]
) -> None:
    completions = client(served(of_person_3(lambda _: answer)), concurrency=2, pause=0.2, tries=2).complete(requests())
    assert completions[3].refusal.startswith("refused: ") and sum(not c.refusal for c in completions) == 19


def test_what_refuses_everything_ends_with_one_line(served: Callable[..., Endpoint]) -> None:
    def odd(status: int, content: Any, **headers: str) -> Manner:
        return lambda endpoint, body, usual: Answer(content, status, headers)

    cases: list[tuple[Manner, str]] = [
        (odd(400, {"error": {"message": "no such model"}}), r"does not take the request \(400\): no such model$"),
        (odd(403, {"error": {"message": "go away"}}), r"refuses the key \(403\): go away$"),
        (odd(200, {"error": {"message": "no credit", "code": 401}}), r"needs a key \(401\): no credit"),
        (odd(307, b"", location="https://other/v1"), r"redirects \(307\) to https://other/v1; give the address itself"),
        (refusing("max_tokens"), r"--field max_tokens=max_completion_tokens renames it, --without max_tokens leaves"),
        (refusing("seed"), r"'seed' is not supported .*; --field seed=NAME renames it, --without seed leaves it out"),
        (odd(422, {"detail": [{"loc": ["body", "top_p"], "msg": "Extra inputs"}]}), "--without top_p leaves it out"),
    ]
    for manner, line in cases:
        with pytest.raises(WrongRequest, match=line) as caught:
            client(served(manner)).complete(requests())
        assert "\n" not in str(caught.value)


def test_refusals_of_every_prompt_after_others_were_answered_are_not_about_one_person(
    served: Callable[..., Endpoint],
) -> None:
    endpoint = served(lambda e, b, usual: Answer({"detail": "no"}, 400) if e.served > 20 else usual)
    model = client(endpoint)
    model.complete(requests())
    assert all(completion.refusal for completion in model.complete(requests(5)))
    with pytest.raises(WrongRequest, match=r"does not take the request \(400\): no$"):
        model.complete(requests())


def test_fields_are_renamed_and_left_out(served: Callable[..., Endpoint], right: list[str]) -> None:
    endpoint = served(refusing("max_tokens", "top_p", "temperature"))
    model = client(endpoint, renamed={"max_tokens": "max_completion_tokens"}, without=("top_p", "temperature"))
    assert texts(model.complete(requests())) == right
    assert {*endpoint.bodies[0]} == {"model", "messages", "max_completion_tokens", "seed"}
    assert endpoint.bodies[0]["max_completion_tokens"] == SETTING.writer.max_tokens


@pytest.mark.parametrize(
    "manner", [streamed, in_parts, lambda e, b, a: Answer(b"\xef\xbb\xbf" + json.dumps(a.content).encode())]
)
def test_content_in_parts_streams_and_a_mark_are_read(
    manner: Manner, served: Callable[..., Endpoint], right: list[str]
) -> None:
    completions = client(served(manner)).complete(requests())
    assert texts(completions) == right and all(c.prompt_tokens == 100 and not c.cut for c in completions)


@pytest.mark.parametrize(
    ("content", "headers", "words"),
    [
        ({"error": {"message": "out of memory"}}, {}, "an error with status 200: out of memory"),
        (b"<html>Sign in</html>", {"Content-Type": "text/html"}, "garbage: no completion but text/html: <html>Sign in"),
        (b'data: {"error": {"message": "gone"}}\n\n', {"Content-Type": "text/event-stream"}, "status 200: gone"),
        (b"", {}, "garbage: no completion but unknown type: nothing"),
    ],
)
def test_what_was_received_in_place_of_a_completion_is_named(
    content: Any, headers: dict[str, str], words: str, served: Callable[..., Endpoint]
) -> None:
    with pytest.raises(EndpointFailure, match=f"no answer after 2 tries, the last time: .*{words}"):
        client(served(lambda *_: Answer(content, headers=headers)), tries=2).complete(requests(2))


@pytest.mark.parametrize("how", ["date", "ms", "seconds"])
def test_all_requests_wait_as_long_as_the_endpoint_asks(
    how: str, served: Callable[..., Endpoint], right: list[str]
) -> None:
    wait = 2.2 if how == "date" else 0.7
    endpoint = served(limited(wait, how))
    model = client(endpoint, concurrency=1)
    assert texts(model.complete(requests())) == right
    # A date has whole seconds.
    assert endpoint.times[1] - endpoint.times[0] >= wait - (1.0 if how == "date" else 0.0)
    assert endpoint.served == 21 and model.troubles == {"status 429": 1}


def test_how_long_to_wait_is_read_in_every_form() -> None:
    date = {"date": "Wed, 21 Oct 2026 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}
    assert seconds_to_wait(date) == 30.0, "the clock of the endpoint counts"
    assert seconds_to_wait({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert seconds_to_wait({"retry-after-ms": "1500", "retry-after": "2"}) == 1.5
    assert [seconds_to_wait({"retry-after": text}) for text in ("2", "0.5", "soon", "", "-1")] == [2, 0.5, 0, 0, 0]


def test_an_endpoint_that_asks_to_wait_for_hours_ends_the_command(served: Callable[..., Endpoint]) -> None:
    began = time.monotonic()
    with pytest.raises(EndpointFailure, match=r"asks to wait for 2\.0 hours"):
        client(served(limited(7200, "seconds"))).complete(requests(2))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("key", ["\u201csk-secret\u201d", "sk-se\ncret", '"sk-secret"', "sk-secret\u00a0", "sk sécret"])
def test_a_key_that_no_header_can_hold_is_one_line_that_does_not_show_it(key: str) -> None:
    with pytest.raises(WrongRequest, match=r"^KTRAIN_ENDPOINT_KEY: holds the character U\+") as caught:
        OpenAiClient("http://127.0.0.1:9/v1", SETTING.writer, key=key)
    assert "ecret" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_line_end_of_a_key_is_left_out_and_the_key_never_shown(served: Callable[..., Endpoint]) -> None:
    endpoint = served()
    client(endpoint, key=" sk-secret\r\n").complete(requests(1))
    assert endpoint.keys == ["Bearer sk-secret"]
    echo = served(lambda *_: Answer({"error": {"message": "Incorrect API key: sk-secret"}}, 401))
    with pytest.raises(WrongRequest, match=r"Incorrect API key: \(key\)"):
        client(echo, key="sk-secret").complete(requests(1))


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("ALL_PROXY", "socks5://u:sesame@127.0.0.1:1080", "ALL_PROXY: a SOCKS proxy needs the package socksio"),
        (
            "HTTPS_PROXY",
            "ftp://u:sesame@proxy:21",
            "HTTPS_PROXY: no valid address of a proxy; must be http://HOST:PORT",
        ),
        ("SSL_CERT_FILE", "/no/such.pem", "SSL_CERT_FILE=/no/such.pem: does not exist; unset it"),
        ("SSL_CERT_DIR", "/no/such", "SSL_CERT_DIR=/no/such: does not exist; unset it"),
        ("SSL_CERT_FILE", "EMPTY", "holds no certificates"),
    ],
)
def test_proxies_and_certificates_that_cannot_be_used_are_one_line(
    name: str, value: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv(name, str(empty) if value == "EMPTY" else value)
    with pytest.raises(WrongRequest, match=line) as caught:
        OpenAiClient("https://example.org/v1", SETTING.writer)
    assert "sesame" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_address_that_is_none_is_one_line() -> None:
    for address in ("http://[::1", "http://host:99999/v1", "http://ho st/v1", "http://"):
        with pytest.raises(WrongRequest, match="endpoint=http"):
            OpenAiClient(address, SETTING.writer)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_an_endpoint_on_this_machine_is_never_behind_a_proxy(
    name: str, served: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    endpoint = served()
    assert len(client(endpoint, key="k", tries=1).complete(requests(2))) == 2 and set(endpoint.keys) == {"Bearer k"}


def test_a_reply_that_is_no_object_is_garbage() -> None:
    for content in (b"[]", b"null", b'"text"', b'{"choices": {}}', b'{"choices": [{"message": "x"}]}', b"data: 1"):
        reply = read(httpx2.Response(200, content=content))
        assert isinstance(reply, Failure) and reply.kind == "garbage", content
