"""Reads the replies of OpenAI-compatible endpoints: completions, refusals of one prompt, errors, limits of requests."""

import email.utils
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from ktrain.generation.generator import Completion

SHOWN = 200
"""Most characters that are shown of an endpoint's own words."""
FILTERS = re.compile(
    r"content.?(?:filter|management|policy|moderation)|responsible.?ai|safety|moderat|inspection.?failed|"
    r"polic(?:y|ies).{0,20}violat|violat\w*.{0,30}polic|flagged|risk.?control|sensitive|inappropriate|harmful",
    re.IGNORECASE,
)
"""How endpoints say that a filter has refused a prompt, which is about one person and not about the endpoint."""
PROMPT_STATUSES = (400, 413, 422, 451)
"""Status codes that may be about one prompt alone."""
FILTER_STATUSES = (*PROMPT_STATUSES, 403)
"""Status codes with which a content filter refuses a prompt."""


@dataclass(frozen=True)
class Failure:
    """A reply without a completion: its status, or the one in its error, and the endpoint's own words."""

    status: int
    kind: str
    words: str
    field: str = ""
    """The field of the request that the error names in a field of its own."""

    @property
    def is_filtered(self) -> bool:
        """Whether a content filter has refused the prompt."""
        return self.status in FILTER_STATUSES and FILTERS.search(self.words) is not None


def read(answer: httpx2.Response, secret: str = "") -> Completion | Failure:
    """Returns the completion in a reply, perhaps one without text and with a reason, or what is there instead.

    Some endpoints repeat the key that they refuse: `secret` is left out of what they say.
    """
    text = answer.content.decode("utf-8-sig", "replace")
    text = text.replace(secret, "(key)") if secret else text
    if answer.is_redirect:
        return Failure(answer.status_code, "redirect", answer.headers.get("location", "no address"))
    try:
        body = _joined(text) if _is_stream(answer, text) else json.loads(text)
    except ValueError:
        body = None
    if answer.status_code != 200 or (isinstance(body, dict) and body.get("error") and not body.get("choices")):
        return _failure(answer.status_code, body, text)
    completion = _completion(body)
    if completion is None:
        media = answer.headers.get("content-type", "").partition(";")[0] or "unknown type"
        return Failure(200, "garbage", f"no completion but {media}: {_short(text) or 'nothing'}")
    return completion


def seconds_to_wait(headers: Mapping[str, str]) -> float:
    """Returns how long a reply asks not to be asked again: `retry-after-ms`, or `Retry-After` in seconds or as a date.

    A date is compared with the `Date` of the reply, because the clocks may differ. 0 if it asks for nothing.
    """
    milliseconds, after = _number(headers.get("retry-after-ms")), headers.get("retry-after", "").strip()
    if milliseconds is not None:
        return milliseconds / 1000
    if (seconds := _number(after)) is not None:
        return seconds
    until, now = _time(after), _time(headers.get("date", ""))
    if until is None:
        return 0.0
    return max(0.0, until - (now if now is not None else email.utils.localtime().timestamp()))


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\s*\d+(?:\.\d*)?\s*", text) else None


def _time(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_stream(answer: httpx2.Response, text: str) -> bool:
    return "event-stream" in answer.headers.get("content-type", "") or text.lstrip().startswith(("data:", "event:"))


def _joined(text: str) -> dict[str, Any]:
    """The events of a stream, which some endpoints send unasked, as one reply. Raises `ValueError` for no JSON."""
    joined: dict[str, Any] = {}
    content, finish = "", None
    for event in _events(text):
        if event.get("error"):
            return event
        joined |= {name: event[name] for name in ("usage",) if event.get(name)}
        for choice in event.get("choices") or ():
            part = choice.get("delta") or choice.get("message") or {}
            content += _text(part.get("content")) or ""
            finish = choice.get("finish_reason") or finish
    return joined | {"choices": [{"message": {"content": content or None}, "finish_reason": finish}]}


def _events(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        name, _, data = line.partition(":")
        if name.strip() == "data" and data.strip() not in ("", "[DONE]"):
            event = json.loads(data)
            if not isinstance(event, dict):
                raise ValueError("an event is no object")
            yield event


def _completion(body: Any) -> Completion | None:
    """The completion in a body; None if the body is malformed.

    One person's reply may be empty, where the model has used its tokens up or a filter has stepped in: then
    `finish_reason` or the model's `refusal` is the reason that there is no text.
    """
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        message, finish = choice["message"], str(choice.get("finish_reason") or "")
        text, refusal = _text(message["content"]), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    if refusal or finish in ("content_filter", "refusal", "safety"):
        return Completion(text or "", *counts, refusal=refused(str(refusal or finish)))
    if not text and finish:
        return Completion("", *counts, refusal=f"no text: finish reason {finish}")
    return None if text is None else Completion(text, *counts, cut=finish == "length")


def refused(words: str) -> str:
    """The reason of a draft that the endpoint has refused to write."""
    return f"refused: {_short(words, 80)}"


def _text(content: Any) -> str | None:
    """The text of a message, which may be a list of parts; parts that hold reasoning are left out."""
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else part.get("text") for part in content if not _is_reasoning(part)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def _is_reasoning(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") not in ("text", "output_text")


def _failure(status: int, body: Any, text: str) -> Failure:
    """What an error reply says, in one of the forms in which endpoints say it."""
    error = body.get("error", body) if isinstance(body, dict) else body
    named = error if isinstance(error, dict) else {}
    words = named.get("message") or named.get("detail") or (error if isinstance(error, str) else None)
    code = next((named[name] for name in ("code", "status", "status_code") if str(named.get(name)).isdigit()), status)
    # A code in words, such as `content_filter`, says more than the message.
    kinds = [str(named[name]) for name in ("code", "type") if isinstance(named.get(name), str)]
    kind = f"status {status}" if status != 200 else "an error with status 200"
    shown = ": ".join([*dict.fromkeys(k for k in kinds if not k.isdigit()), str(words)]) if words else text
    field = named.get("param")
    return Failure(int(code) if status == 200 else status, kind, _short(shown), field if isinstance(field, str) else "")


def _short(text: str, length: int = SHOWN) -> str:
    """A text in one line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]
