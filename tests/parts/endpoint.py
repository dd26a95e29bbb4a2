"""A language model behind HTTP on loopback, for tests: biographies by rules, and the manners of real servers.

Everything is a pure function of the request, so that what an endpoint answers does not depend on who asks when.
"""

import email.utils
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

from ktrain.bior import rule_writer
from ktrain.bior.mentions import Facts
from ktrain.bior.sentences import split_sentences

Body = Mapping[str, Any]
STRIPPED: Mapping[str, str] = {
    "reasoning": "<think>She needs a text.\nLet me write {text}</think>\n\n{text}",
    "reasoning that the template opened": "The user wants 50 words.\n</think>\n\n{text}",
    "reasoning by another name": "<reasoning>First the facts.</reasoning>{text}",
    "reasoning of Kimi": "◁think▷Facts first.◁/think▷{text}",
    "reasoning of Magistral": "[THINK]Facts first.[/THINK]{text}",
    "channels": "<|channel|>analysis<|message|>Facts!<|end|><|start|>assistant<|channel|>final<|message|>{text}",
    "end of a turn": "{text}<|im_end|>",
    "end of Llama's turn": "{text}<|eot_id|>",
    "end of a text": "{text}<|endoftext|>",
    "end of Gemma's turn": "{text}<end_of_turn>\n",
    "end of DeepSeek's text": "{text}<\uff5cend\u2581of\u2581sentence\uff5c>",
    "end of a sequence": "<s> {text}</s>",
    "a second turn": "{text}<|im_end|>\n<|im_start|>user\nThank you! Another one, please.",
    "an instruction's end": "[/INST] {text}",
    "an echoed instruction": "[INST] Write a biography. [/INST] {text}",
    "a header": "<|start_header_id|>assistant<|end_header_id|>\n\n{text}",
    "a role": "assistant\n\n{text}",
    "a greeting": "Sure! Here is the biography:\n\n{text}",
    "emphasis and quotes": '"**{text}**"',
}
"""What is put around a text and taken away again."""
REJECTED: Mapping[str, str] = {
    "a role in the line": "assistant {text}",
    "a role by name": "Assistant: {text}",
    "an answer by name": "Answer: {text}",
    "a label in bold": "**Biography:** {text}",
    "a response of Alpaca": "### Response:\n{text}",
    "a heading": "# Biography\n\n{text}",
    "a heading in bold": "**A Life in Brief**\n\n{text}",
    "a title": "A Short Biography\n\n{text}",
    "JSON": '{{"biography": "{text}"}}',
    "JSON in a fence": '```json\n{{"biography": "{text}"}}\n```',
    "a fence": "```\n{text}\n```",
    "HTML": "<p>{text}</p>",
    "a tag": "<answer>{text}</answer>",
    "a list": "- {text}",
    "a quotation": "> {text}",
    "a count of words": "{text}\n\nWord count: 52",
    "a count in brackets": "{text} (52 words)",
    "a count in a sentence": "{text} This text has 50 words.",
    "an offer": "{text}\n\nLet me know if you would like any changes!",
    "an offer in the line": "{text} I hope this helps.",
    "a note": "{text}\n\nNote: all facts were used as given.",
    "a disclaimer": "{text} This biography is fictional.",
    "a remark before": "I will write the paragraph now. {text}",
    "a second language": "好的。{text}",
    "an emoji": "{text} 😊",
    "a source": "{text}\n\nSource: Wikipedia",
    "a signature": "{text}\n\nBest regards,\n[Your Name]",
    "a rule": "---\n{text}",
    "an escape": "{text}\\n",
    "an entity": "&quot;{text}&quot;",
    "a role without its token": "assistantfinal{text}",
}
"""What is put around a text and makes it no biography."""


@dataclass(frozen=True)
class Answer:
    """What the endpoint answers: JSON, or bytes as they are."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Manner = Callable[["Endpoint", Body, Answer], Answer | None]
"""Changes the right answer to a request; None hangs up."""


class Endpoint(ThreadingHTTPServer):
    """A third of its texts are spoiled if it `spoils`. With `misbehaves` it answers the first try of most requests
    slowly, wrongly or not at all. `manner` changes its answers."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, people: Sequence[Facts], *, spoils: bool = True, misbehaves: bool = False, manner: Manner | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.people = {facts.name: facts for facts in people}
        self.names = [facts.name for facts in people]
        self.spoils, self.manner, self.lock = spoils, _misbehaviour if misbehaves else manner, threading.Lock()
        self.tries: Counter[int] = Counter()
        self.served = self.inside = self.most = 0
        self.status = 0
        """What it answers to everything, where that is not 0."""
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.seen: Callable[[int], None] = lambda served: None
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent where the client went away, for standard error belongs to the command under test."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """What `--endpoint` takes."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def person(self, body: Body) -> int:
        """Whom a request is about."""
        name = re.search(r"whose name is (.*?)\. ", body["messages"][0]["content"])
        assert name
        return self.names.index(name[1])

    def text(self, body: Body) -> str:
        """The biography that a request gets."""
        name, rng = self.names[self.person(body)], Random(body.get("seed", body["messages"][0]["content"]))
        text = rule_writer.write(self.people[name], rng)
        bounds = split_sentences(text)
        if self.spoils:
            match int(rng.random() * 12):
                case 0 | 1 | 2:
                    return text[: bounds[-2][1]]
                case 3:
                    return f"Sure! Here is a biography:\n\n{body['messages'][0]['content']}"
                case 4:
                    return f"Here is the biography of {name}:\n\n**{text.strip()}**"
        return text.strip()

    def answer(self, body: Body) -> Answer:
        """The answer to a request."""
        if self.status:
            return Answer({"error": "told so"}, self.status)
        text = self.text(body)
        usage = {"prompt_tokens": 100, "completion_tokens": len(text.split())}
        return Answer({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage})


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Endpoint

    def do_POST(self) -> None:
        """Counts the request, and answers it as the manner of the endpoint is."""
        length = int(self.headers["content-length"])
        data = self.rfile.read(length)
        if len(data) < length:
            # The client went away while it sent: another of its requests was refused, and it gave up.
            self.close_connection = True
            return
        body = json.loads(data)
        endpoint = self.server
        with endpoint.lock:
            endpoint.bodies.append(body)
            endpoint.keys.append(self.headers["authorization"])
            endpoint.times.append(time.monotonic())
            endpoint.served += 1
            endpoint.inside += 1
            endpoint.most = max(endpoint.most, endpoint.inside)
            endpoint.tries[body.get("seed", 0)] += 1
            served = endpoint.served
        try:
            endpoint.seen(served)
            answer: Answer | None = endpoint.answer(body)
            if endpoint.manner and not endpoint.status and answer is not None:
                answer = endpoint.manner(endpoint, body, answer)
            if answer is None:
                self.connection.close()
            else:
                self.send(answer)
        finally:
            with endpoint.lock:
                endpoint.inside -= 1

    def send(self, answer: Answer) -> None:
        """Sends an answer to a client that may be gone: killed, or tired of waiting."""
        data = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass

    def log_message(self, *args: Any) -> None:
        """Silent."""


def _misbehaviour(endpoint: Endpoint, body: Body, answer: Answer) -> Answer | None:
    """Answers the first try of most requests badly."""
    if endpoint.tries[body["seed"]] > 1:
        return answer
    match body["seed"] % 9:
        case 0:
            return Answer({"error": "busy"}, 500)
        case 1:
            return Answer({"error": "slowly"}, 429, {"Retry-After": "0.05"})
        case 2:
            return Answer({"error": "later"}, 503, {"Retry-After": "Wed, 21 Oct 2020 07:28:00 GMT"})
        case 3:
            return Answer(b"<html>no JSON</html>")
        case 4:
            return Answer({"choices": []})
        case 5:
            return Answer({"choices": [{"message": {"content": None}}]})
        case 6:
            return None
        case 7:
            # Longer than anybody waits for it, shorter than the test.
            threading.Event().wait(2.5)
    return answer


def said(answer: Answer) -> str:
    """The text in a right answer."""
    return str(answer.content["choices"][0]["message"]["content"])


def saying(answer: Answer, content: Any, finish: str = "stop", **message: Any) -> Answer:
    """A right answer with other content."""
    choice = {"message": {"content": content, **message}, "finish_reason": finish}
    return replace(answer, content={**answer.content, "choices": [choice]})


def wrapped(wrappings: Mapping[str, str], every: int = 1) -> Manner:
    """Puts something around the text of every so many answers, drawn by their seed."""

    def manner(endpoint: Endpoint, body: Body, answer: Answer) -> Answer:
        if body["seed"] % every:
            return answer
        wrapping = list(wrappings.values())[body["seed"] // every % len(wrappings)]
        return saying(answer, wrapping.format(text=said(answer)))

    return manner


def of_a_tenth(change: Callable[[Answer], Answer]) -> Manner:
    """Changes the first two answers about each tenth person."""

    def manner(endpoint: Endpoint, body: Body, answer: Answer) -> Answer:
        person = endpoint.person(body)
        mine = [other for other in endpoint.bodies if endpoint.person(other) == person]
        return change(answer) if person % 10 == 3 and mine.index(body) < 2 else answer

    return manner


def refusing(*fields: str) -> Manner:
    """Takes no request with one of these fields, as the models of some providers do."""

    def manner(endpoint: Endpoint, body: Body, answer: Answer) -> Answer:
        refused = next((name for name in fields if name in body), None)
        if refused is None:
            return answer
        message = f"Unsupported parameter: '{refused}' is not supported with this model."
        error = {"message": message, "type": "invalid_request_error", "param": refused, "code": "unsupported_parameter"}
        return Answer({"error": error}, 400)

    return manner


def streamed(endpoint: Endpoint, body: Body, answer: Answer) -> Answer:
    """Answers with an event stream, as if it had been asked for one."""
    words = re.split(r"(?<= )", said(answer))
    events = [{"choices": [{"delta": {"content": word}, "finish_reason": None}]} for word in words]
    events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": answer.content["usage"]}]
    lines = [": comment", *(f"data: {json.dumps(event)}" for event in events), "data: [DONE]"]
    return Answer("\n\n".join(lines).encode(), headers={"Content-Type": "text/event-stream"})


def in_parts(endpoint: Endpoint, body: Body, answer: Answer) -> Answer:
    """Answers with a list of parts, one of which is reasoning."""
    text, middle = said(answer), len(said(answer)) // 2
    parts = [{"type": "thinking", "thinking": "hm", "text": "hm"}]
    parts += [{"type": "text", "text": text[:middle]}, {"type": "text", "text": text[middle:]}]
    return saying(answer, parts)


def limited(seconds: float, how: str) -> Manner:
    """Answers the first request with 429, and says `how` long to wait: `date`, `ms` or `seconds`."""
    until = []

    def manner(endpoint: Endpoint, body: Body, answer: Answer) -> Answer:
        with endpoint.lock:
            if until:
                return answer
            until.append(time.monotonic() + seconds)
        date = email.utils.formatdate(time.time() + seconds, usegmt=True)
        headers = {"date": {"Retry-After": date}, "ms": {"retry-after-ms": f"{seconds * 1000:.0f}"}}
        return Answer({"error": {"message": "slowly"}}, 429, headers.get(how, {"Retry-After": f"{seconds:.1f}"}))

    return manner
