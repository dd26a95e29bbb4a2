"""A language model behind an OpenAI-compatible endpoint: chat completions over HTTP.

An endpoint may be slow, overloaded, faulty or down for a while. The client retries each failed request unchanged, with
growing pauses; if the endpoint stays down, only the block in progress is lost. If it refuses one person's prompt, that
is the reply to this request, and the others go on.
"""

import asyncio
import os
import random
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import httpx2

from ktrain.config import WriterConfig
from ktrain.errors import WrongRequest
from ktrain.generation.generator import Completion, GenerationRequest
from ktrain.generation.openai_replies import PROMPT_STATUSES, Failure, read, refused, seconds_to_wait
from ktrain.system.loopback import is_loopback

PATH = "/chat/completions"
KEY = "KTRAIN_ENDPOINT_KEY"
"""The environment variable that holds the key of an endpoint."""
FIELDS = ("max_tokens", "temperature", "top_p", "seed")
"""The fields of a request that an endpoint may call otherwise or not know."""
LONGEST = 60.0
"""Longest pause between two tries in seconds, unless the endpoint itself requests more."""
LONGEST_WAIT = 3600.0
"""Seconds that an endpoint may ask to wait; where it asks for more, the command ends and may be called again later."""
FIRST_TRIES = 3
"""Tries before the endpoint has answered once, when its address may be wrong."""
ALL_REFUSED = 16
"""So many requests at once that are all refused for a reason that may be each prompt's own: then it is not."""
REFUSED = {
    400: "does not take the request",
    401: "needs a key",
    403: "refuses the key",
    404: "has no such model or path",
    405: "has no such path",
    413: "does not take the request",
    422: "does not take the request",
    451: "does not take the request",
}
"""Status codes that no retry would change."""
OF_ONE_REQUEST = ("garbage", "status 500", "an error with status 200")
"""Kinds of failures that, after all tries, are those of one request if the endpoint has answered others meanwhile."""


class EndpointFailure(RuntimeError):
    """The endpoint answered none of the tries of one request."""


class OpenAiClient:
    """Sends up to `concurrency` requests at once; `troubles` counts failed tries by kind."""

    def __init__(
        self,
        address: str,
        writer: WriterConfig,
        *,
        key: str = "",
        renamed: Mapping[str, str] | None = None,
        without: Collection[str] = (),
        concurrency: int = 16,
        timeout: float = 120.0,
        tries: int = 8,
        pause: float = 1.0,
    ) -> None:
        """`address` ends before `/chat/completions`, usually in `/v1`. `renamed` has the endpoint's own names for some
        of `FIELDS`, and `without` those that it does not take. The first pause between tries is `pause` seconds and
        doubles with each try. Raises `WrongRequest` for a malformed address or key, and for proxies and certificates of
        the environment that cannot be used.
        """
        if not address.startswith(("http://", "https://")):
            raise WrongRequest(f"endpoint={address}: must begin with http:// or https://")
        self._address = address.rstrip("/").removesuffix(PATH)
        self._writer, self._key = writer, _checked_key(key)
        self._renamed, self._without = dict(renamed or {}), frozenset(without)
        self._concurrency, self._timeout, self._tries, self._pause = concurrency, timeout, tries, pause
        self._open_at = 0.0
        self._reached = False
        self._answered = 0
        self.troubles: Counter[str] = Counter()
        self._client()

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """See `LanguageModel`. Raises `WrongRequest` if the endpoint refuses, `EndpointFailure` if it is down."""
        return asyncio.run(self._complete_all(requests))

    async def _complete_all(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        slots = asyncio.Semaphore(self._concurrency)
        refusals: list[Failure] = []
        async with self._client() as client:

            async def complete_one(request: GenerationRequest) -> Completion:
                async with slots:
                    return await self._complete_one(client, request, refusals)

            completions = list(await asyncio.gather(*map(complete_one, requests)))
        if refusals and len(refusals) == len(requests) and (not self._answered or len(refusals) >= ALL_REFUSED):
            raise self._refusal(refusals[0])
        return completions

    async def _complete_one(
        self, client: httpx2.AsyncClient, request: GenerationRequest, refusals: list[Failure]
    ) -> Completion:
        body, trouble, words, tries, before = self._body(request), "", "", 0, self._answered
        while tries < (self._tries if self._reached else min(FIRST_TRIES, self._tries)):
            await self._wait_for_rate_limit()
            try:
                answer = await client.post(f"{self._address}{PATH}", json=body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as e:
                trouble, words = type(e).__name__, str(e)
            except httpx2.TimeoutException:
                self._reached, trouble, words = True, "timeout", ""
            except httpx2.HTTPError as e:
                self._reached, trouble, words = True, type(e).__name__, str(e)
            else:
                self._reached = True
                reply = read(answer, self._key)
                if isinstance(reply, Completion):
                    self._answered += 1
                    return reply
                if (completion := self._refused_prompt(reply, refusals)) is not None:
                    return completion
                trouble, words = reply.kind, reply.words
                # All requests wait: the limit applies to the endpoint, not to one request.
                self._open_at = max(self._open_at, time.monotonic() + seconds_to_wait(answer.headers))
            self.troubles[trouble] += 1
            tries += 1
            # Random pauses keep simultaneous requests from coming back together.
            await asyncio.sleep(min(LONGEST, self._pause * 2 ** (tries - 1)) * random.uniform(0.5, 1.0))
        said = f"{trouble}: {words}" if words else trouble
        if trouble in OF_ONE_REQUEST and self._answered > before:
            return Completion("", 0, 0, refusal=refused(said))
        raise EndpointFailure(f"{self._address}: no answer after {tries} tries, the last time: {said}")

    def _refused_prompt(self, failure: Failure, refusals: list[Failure]) -> Completion | None:
        """The reply to a prompt that the endpoint refuses; None for a failure that a retry may change.

        Raises `WrongRequest` if the endpoint refuses for a reason that holds for every prompt.
        """
        if failure.kind != "redirect" and failure.status not in REFUSED:
            return None
        if failure.is_filtered:
            return Completion("", 0, 0, refusal=refused(failure.words))
        names_field = failure.field in self._names() or (self._field(failure) and not self._answered)
        if failure.status not in PROMPT_STATUSES or names_field:
            raise self._refusal(failure)
        refusals.append(failure)
        return Completion("", 0, 0, refusal=refused(failure.words))

    def _refusal(self, failure: Failure) -> WrongRequest:
        """What is wrong with all requests, in one line."""
        if failure.kind == "redirect":
            return WrongRequest(
                f"endpoint={self._address}: redirects ({failure.status}) to {failure.words}; give the address itself"
            )
        line = f"endpoint={self._address}: {REFUSED[failure.status]} ({failure.status}): {failure.words}"
        if not (field := self._field(failure)):
            return WrongRequest(line)
        ours, name = self._names()[field], "max_completion_tokens" if field == "max_tokens" else "NAME"
        return WrongRequest(f"{line}; --field {ours}={name} renames it, --without {ours} leaves it out")

    def _field(self, failure: Failure) -> str:
        """The optional field that a failure names; empty if it names none."""
        names = self._names()
        in_words = (name for name in names if re.search(rf"\b{re.escape(name)}\b", failure.words))
        return failure.field if failure.field in names else next(in_words, "")

    def _names(self) -> dict[str, str]:
        """Our names of the optional fields by the endpoint's."""
        return {self._renamed.get(name, name): name for name in FIELDS if name not in self._without}

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "max_tokens": self._writer.max_tokens,
            "temperature": self._writer.temperature,
            "top_p": self._writer.top_p,
            "seed": request.seed,
        }
        messages = [{"role": "user", "content": request.prompt}]
        optional = {name: fields[ours] for name, ours in self._names().items()}
        return {"model": self._writer.model, "messages": messages, **optional}

    async def _wait_for_rate_limit(self) -> None:
        while (left := self._open_at - time.monotonic()) > 0:
            if left > LONGEST_WAIT:
                raise EndpointFailure(f"{self._address}: asks to wait for {left / 3600:.1f} hours")
            await asyncio.sleep(left)

    def _client(self) -> httpx2.AsyncClient:
        """A client for all requests of a block. Raises `WrongRequest`."""
        limits = httpx2.Limits(max_connections=self._concurrency)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # No timeout for a connection from the pool, because it would include the time a request is queued here.
        timeout = httpx2.Timeout(self._timeout, pool=None)
        for name, exists in {"SSL_CERT_FILE": os.path.isfile, "SSL_CERT_DIR": os.path.isdir}.items():
            if (path := os.environ.get(name)) and not exists(path):
                raise WrongRequest(f"{name}={path}: does not exist; unset it for the certificates of this machine")
        try:
            url = httpx2.URL(self._address)
            if not url.host or "%" in url.host or (url.port or 0) > 65_535:
                raise httpx2.InvalidURL("needs a host, and a port up to 65535")
            # A transport of its own is never behind a proxy of the environment.
            transport = httpx2.AsyncHTTPTransport(limits=limits) if is_loopback(url.host) else None
            return httpx2.AsyncClient(transport=transport, limits=limits, headers=headers, timeout=timeout)
        except httpx2.InvalidURL as e:
            raise WrongRequest(f"endpoint={self._address}: no valid address: {e}") from e
        except OSError as e:
            name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
            raise WrongRequest(f"{name}={os.environ.get(name)}: holds no certificates: {e}") from e
        except (ImportError, ValueError) as e:
            raise WrongRequest(_proxy_line(e)) from e


def _proxy_line(error: Exception) -> str:
    """What is wrong with the proxies of the environment, whose addresses may hold a password."""
    known = ("http_proxy", "https_proxy", "all_proxy")
    names = ", ".join(sorted(name for name in os.environ if name.casefold() in known and os.environ[name]))
    if isinstance(error, ImportError):
        return f"{names}: a SOCKS proxy needs the package socksio (pip install socksio); or name a proxy of http://"
    return f"{names}: no valid address of a proxy; must be http://HOST:PORT or https://HOST:PORT"


def _checked_key(key: str) -> str:
    """The key without line ends and blanks around it. Raises `WrongRequest`, which does not show it."""
    key = key.strip("\ufeff \t\r\n")
    wrong = next((c for c in key if not "!" <= c <= "~" or c in "\"'"), None)
    if wrong is not None:
        name = unicodedata.name(wrong, "a control character").lower()
        raise WrongRequest(
            f"{KEY}: holds the character U+{ord(wrong):04X} ({name}), which no key has; was it copied with quotes, "
            "or in two lines?"
        )
    return key
