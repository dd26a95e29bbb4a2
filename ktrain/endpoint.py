"""A language model behind an endpoint that speaks OpenAI's protocol: chat completions over HTTP.

An endpoint may be slow, full, wrong or away for a while. Whatever did not answer is asked again, later each time, and
what is asked never depends on that; where it does not come back, the block in hand is given up and all else is kept.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

import httpx2

from ktrain.config import Writer
from ktrain.errors import WrongRequest
from ktrain.scribe import Asked, Reply

PATH = "/chat/completions"
LONGEST = 60.0
"""Seconds between two tries, at most, unless the endpoint itself asks for more."""
FIRST_TRIES = 3
"""Of an endpoint that nobody has reached yet: its address may be wrong."""
REFUSED = {
    400: "does not take the request",
    401: "needs a key",
    403: "refuses the key",
    404: "has no such model or path",
    422: "does not take the request",
}
"""What no later try would change."""


class EndpointFailure(RuntimeError):
    """An endpoint that did not answer one request after all tries."""


class Endpoint:
    """Asks at most `concurrency` things at once; `troubles` counts what went wrong on the way, by kind."""

    def __init__(
        self,
        address: str,
        writer: Writer,
        *,
        key: str = "",
        concurrency: int = 16,
        timeout: float = 120.0,
        tries: int = 8,
        pause: float = 1.0,
    ) -> None:
        """`address` ends before `/chat/completions`, mostly in `/v1`. `pause` seconds are the first wait of several, of
        which each is twice the one before. Raises `WrongRequest` for an address that is none.
        """
        if not address.startswith(("http://", "https://")):
            raise WrongRequest(f"endpoint={address}: must begin with http:// or https://")
        self._address = address.rstrip("/").removesuffix(PATH)
        self._writer, self._key = writer, key
        self._concurrency, self._timeout, self._tries, self._pause = concurrency, timeout, tries, pause
        self._open = 0.0
        self._reached = False
        self.troubles: Counter[str] = Counter()

    def replies(self, asked: Sequence[Asked]) -> list[Reply]:
        """As `scribe.Model`. Raises `WrongRequest` where the endpoint refuses, `EndpointFailure` where it is away."""
        return asyncio.run(self._all(asked))

    async def _all(self, asked: Sequence[Asked]) -> list[Reply]:
        limits = httpx2.Limits(max_connections=self._concurrency)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        slots = asyncio.Semaphore(self._concurrency)
        # A wait of its own for each answer: one for a connection would count those that are queued here.
        timeout = httpx2.Timeout(self._timeout, pool=None)
        async with httpx2.AsyncClient(limits=limits, headers=headers, timeout=timeout) as client:

            async def one(question: Asked) -> Reply:
                async with slots:
                    return await self._one(client, question)

            return list(await asyncio.gather(*(one(question) for question in asked)))

    async def _one(self, client: httpx2.AsyncClient, asked: Asked) -> Reply:
        body = {
            "model": self._writer.model,
            "messages": [{"role": "user", "content": asked.prompt}],
            "max_tokens": self._writer.max_tokens,
            "temperature": self._writer.temperature,
            "top_p": self._writer.top_p,
            "seed": asked.seed,
        }
        trouble, k = "", 0
        while k < (self._tries if self._reached else min(FIRST_TRIES, self._tries)):
            await self._wait_for_the_limit()
            try:
                answer = await client.post(f"{self._address}{PATH}", json=body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as e:
                trouble = type(e).__name__
            except httpx2.TimeoutException:
                self._reached, trouble = True, "timeout"
            except httpx2.HTTPError as e:
                self._reached, trouble = True, type(e).__name__
            else:
                self._reached = True
                if answer.status_code != 200:
                    trouble = self._refusal(answer)
                elif (reply := _reply(answer)) is None:
                    trouble = "garbage"
                else:
                    return reply
            self.troubles[trouble] += 1
            k += 1
            # Not all at once again: what came together would come together each time.
            await asyncio.sleep(min(LONGEST, self._pause * 2 ** (k - 1)) * random.uniform(0.5, 1.0))
        raise EndpointFailure(f"{self._address}: no answer after {k} tries, the last time: {trouble}")

    def _refusal(self, answer: httpx2.Response) -> str:
        """What a status says; raises `WrongRequest` for one that stays."""
        status = answer.status_code
        if status in REFUSED:
            said = " ".join(answer.text.split())[:200]
            raise WrongRequest(f"endpoint={self._address}: {REFUSED[status]} ({status}): {said}")
        seconds = answer.headers.get("retry-after", "")
        if status in (429, 503) and seconds.replace(".", "", 1).isdigit():
            # For all requests: the limit is of the endpoint, not of this one.
            self._open = max(self._open, time.monotonic() + float(seconds))
        return f"status {status}"

    async def _wait_for_the_limit(self) -> None:
        while (left := self._open - time.monotonic()) > 0:
            await asyncio.sleep(left)


def _reply(answer: httpx2.Response) -> Reply | None:
    """The reply in an answer; None where there is none, whatever there is instead."""
    try:
        told = answer.json()
        choice, usage = told["choices"][0], told.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return Reply(text, *counts, cut=cut) if isinstance(text, str) else None
