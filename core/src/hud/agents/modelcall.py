"""One plain model call over HTTP: limited, retried, its failures typed. For host calls, judges and the like."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hud.agents.allowance import read_retry_after
from hud.agents.limiter import limiter_for
from hud.agents.prices import usage_of
from hud.agents.routing import Route
from hud.cleanup import shielded
from hud.errors import ProviderError
from hud.types.messages import Usage

if TYPE_CHECKING:
    import ssl

    import httpx

RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
NO_MONEY = "insufficient_quota"
"""What OpenAI says, as a rate limit, where waiting does not help."""
ATTEMPT_S = 300.0
"""How long one try may take."""
CLOSE_S = 5.0
"""How long a client may take to close its connections."""


class ModelCaller:
    """Sends calls; use it with `async with`, on one event loop. Nothing is made before the first call."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._entered = False

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._entered = False
        if self._client is not None:
            client, self._client = self._client, None
            await shielded(client.aclose(), within_s=CLOSE_S)

    async def call(self, route: Route, body: Mapping[str, Any], *, deadline_s: float) -> dict[str, Any]:
        """Send `body` and return the provider's reply; retried within `deadline_s` seconds.

        Raises:
            ProviderError: the provider refused, or did not answer properly in time.
        """
        deadline = asyncio.get_running_loop().time() + deadline_s
        limiter = limiter_for(route.base_url, route.model, route.api_key)
        try:
            async with asyncio.timeout_at(deadline):
                return await limiter.call(lambda: self._attempt(route, body), deadline=deadline)
        except TimeoutError:
            raise ProviderError(
                f"{route.model} did not answer within {deadline_s:g} s", retryable=True
            ) from None

    async def _attempt(self, route: Route, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        assert self._entered, "use ModelCaller with `async with`"
        if self._client is None:
            timeout = httpx.Timeout(ATTEMPT_S, connect=15.0)
            self._client = httpx.AsyncClient(timeout=timeout, trust_env=True, verify=_certificates())
        content = json.dumps(dict(body), ensure_ascii=False).encode()
        headers = {"content-type": "application/json", **route.headers}
        try:
            response = await self._client.post(route.url, content=content, headers=headers)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ProviderError(f"{route.model}: {route.base_url!r} is no address: {error}") from error
        except httpx.TimeoutException as error:
            raise ProviderError(
                f"{route.model}: {type(error).__name__} at {route.base_url}", retryable=True
            ) from error
        except httpx.HTTPError as error:
            text = str(error) or type(error).__name__
            raise ProviderError(
                f"{route.model} cannot be reached at {route.base_url}: {text}", retryable=True
            ) from error
        received = {name.lower(): value for name, value in response.headers.items()}
        limiter_for(route.base_url, route.model, route.api_key).observe(received)
        if response.status_code != 200:
            raise refused(route, response.status_code, response.text, received)
        try:
            reply = response.json()
        except ValueError as error:
            raise ProviderError(f"{route.model} answered with no JSON", status=200, retryable=True) from error
        if not isinstance(reply, dict):
            raise ProviderError(f"{route.model} answered with no JSON object", status=200, retryable=True)
        return reply


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return what servers are checked by; reading it takes 20 ms, which each judge's client would pay again."""
    import httpx

    return httpx.create_ssl_context(trust_env=True)


def refused(route: Route, status: int, text: str, headers: Mapping[str, str]) -> ProviderError:
    """Return the error for a reply of `status`, saying what to do about it."""
    message = error_text(text)
    if status in (401, 403):
        whose = f"the key in {route.credential}" if route.credential else "the key given"
        message = f"{whose} was refused ({message})"
    return ProviderError(
        f"{route.model}: HTTP {status} from {route.base_url}: {message}",
        status=status,
        retry_after_s=read_retry_after(headers) or _retry_info(text),
        retryable=status in RETRYABLE and NO_MONEY not in text,
    )


def error_text(text: str) -> str:
    """Return the message within an error's body, at most 500 characters of it."""
    try:
        body = json.loads(text)
        found = body["error"]["message"] if isinstance(body["error"], dict) else body["error"]
    except (ValueError, KeyError, TypeError):
        found = text
    return str(found).strip()[:500] or "no message"


def _retry_info(text: str) -> float | None:
    """Read the delay Gemini puts into the error itself (google.rpc.RetryInfo)."""
    try:
        details = json.loads(text)["error"]["details"]
        return next(float(d["retryDelay"].rstrip("s")) for d in details if "retryDelay" in d)
    except (ValueError, KeyError, TypeError, StopIteration):
        return None


def usage_in(route: Route, reply: Mapping[str, Any]) -> Usage:
    """Return what a reply says it used, with its cost where the model's price is known."""
    given = reply.get("usage") or {}
    if route.dialect.name == "anthropic":
        cached = int(given.get("cache_read_input_tokens") or 0)
        written = int(given.get("cache_creation_input_tokens") or 0)
        prompt = int(given.get("input_tokens") or 0) + cached + written
        output = int(given.get("output_tokens") or 0)
        return usage_of(route.model, prompt=prompt, output=output, cached=cached, written=written)
    if route.dialect.name == "gemini":
        counts = reply.get("usageMetadata") or {}
        output = int(counts.get("candidatesTokenCount") or 0) + int(counts.get("thoughtsTokenCount") or 0)
        return usage_of(
            route.model,
            prompt=int(counts.get("promptTokenCount") or 0),
            output=output,
            cached=int(counts.get("cachedContentTokenCount") or 0),
        )
    prompt = int(given.get("prompt_tokens") or given.get("input_tokens") or 0)
    output = int(given.get("completion_tokens") or given.get("output_tokens") or 0)
    details = given.get("prompt_tokens_details") or given.get("input_tokens_details") or {}
    return usage_of(route.model, prompt=prompt, output=output, cached=int(details.get("cached_tokens") or 0))
