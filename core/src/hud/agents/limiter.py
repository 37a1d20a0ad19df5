"""How fast a provider may be called: one limiter per address, key and model, shared by the whole process.

Two things are learned. How many calls may be in flight grows with success and shrinks when the provider says it
is overloaded. How many may start in a second is unknown until the provider refuses one or its headers say that
the allowance runs low; from then on starts are spaced at the rate that succeeded, and the rate grows slowly.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from hud.agents.allowance import Allowance, read_allowance
from hud.errors import ProviderError

T = TypeVar("T")

RATE_LIMITED = 429
OVERLOADED = frozenset({503, 529})
GROWTH_PER_S = 0.04
"""How much the spacing's rate grows in a second without a refusal."""
MEASURED_S = 4.0
"""Over how long the rate of successes is measured."""
SHORT_WAIT_S = 2.0
"""A refusal that asks for longer stops every call, a shorter one only its own."""


@dataclass(slots=True)
class Tally:
    """What happened so far: `calls` sent, of which `succeeded`, `refused` (429), and `failed` otherwise."""

    calls: int = 0
    succeeded: int = 0
    refused: int = 0
    failed: int = 0


class Limiter:
    """Starts calls to one provider as fast as it takes them, and tries again what may succeed.

    Use it on one event loop. `max_in_flight` bounds the calls at once, `first_in_flight` is where it begins.
    `patience_s` bounds how long a call is retried that fails for other reasons than a rate limit.
    """

    def __init__(
        self,
        *,
        first_in_flight: float = 32,
        max_in_flight: float = 1024,
        patience_s: float = 600.0,
        dice: random.Random | None = None,
    ) -> None:
        self.window: float = float(first_in_flight)
        self.rate: float | None = None
        self.in_flight: int = 0
        self.tally: Tally = Tally()
        self._max = max_in_flight
        self._patience_s = patience_s
        self._dice = dice or random.Random()  # noqa: S311 - jitter, not secrets
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next_start = 0.0
        self._closed_until = 0.0
        self._shrunk_at = float("-inf")
        self._grown_at = 0.0
        self._guessed = False
        self._successes: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def call(
        self, attempt: Callable[[], Awaitable[T]], *, deadline: float | None = None, again: bool = True
    ) -> T:
        """Await `attempt()` when it is its turn, again and again until it succeeds.

        `attempt` raises `ProviderError`; `deadline` is a time of the loop's clock. A rate limit is waited for as
        long as the deadline allows (without one, until cancelled), other retryable failures for `patience_s`.

        Raises:
            ProviderError: the last failure, when it is final or the time is up.
        """
        loop = asyncio.get_running_loop()
        first_failure: float | None = None
        tries = 0
        while True:
            await self._enter(first=tries > 0)
            tries += 1
            self.tally.calls += 1
            try:
                result = await attempt()
            except ProviderError as error:
                now = loop.time()
                self._failed(error, now)
                first_failure = now if first_failure is None else first_failure
                wait_s = self._wait_of(error, tries)
                if not again or not self._may_retry(error, now, first_failure, wait_s, deadline):
                    raise
            else:
                self._succeeded(loop.time())
                return result
            finally:
                self.in_flight -= 1
                self._pump()
            await asyncio.sleep(wait_s)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Read the rate-limit headers of a reply, whichever provider's they are."""
        allowance = read_allowance(headers)
        if allowance is not None:
            self._heed(allowance, asyncio.get_running_loop().time())

    def _heed(self, allowance: Allowance, now: float) -> None:
        if allowance.remaining > 0.2 * allowance.limit or allowance.refill_per_s is None:
            return
        self.rate = (
            allowance.refill_per_s if self.rate is None else min(self.rate, allowance.refill_per_s * 1.05)
        )
        self._grown_at = now
        if allowance.remaining < 1:
            self._next_start = max(self._next_start, now + 1.0 / allowance.refill_per_s)

    def _wait_of(self, error: ProviderError, tries: int) -> float:
        backoff: float = min(30.0, 0.5 * 2 ** min(tries - 1, 8)) * self._dice.uniform(0.5, 1.0)
        if error.retry_after_s is None:
            return backoff
        return error.retry_after_s * self._dice.uniform(1.0, 1.1) + self._dice.uniform(0.0, 0.05)

    def _may_retry(
        self, error: ProviderError, now: float, first_failure: float, wait_s: float, deadline: float | None
    ) -> bool:
        if not error.retryable:
            return False
        if deadline is not None and now + wait_s >= deadline:
            return False
        patient = error.status == RATE_LIMITED or error.status in OVERLOADED
        return patient or now - first_failure < self._patience_s

    def _succeeded(self, now: float) -> None:
        self.tally.succeeded += 1
        self._successes.append(now)
        while self._successes and self._successes[0] < now - MEASURED_S:
            self._successes.popleft()
        self.window = min(self._max, self.window + 1.0)

    def _failed(self, error: ProviderError, now: float) -> None:
        if error.status == RATE_LIMITED:
            self.tally.refused += 1
            self._slow_down(error.retry_after_s, now)
            return
        self.tally.failed += 1
        if error.status in OVERLOADED and now - self._shrunk_at > 1.0:
            self._shrunk_at = now
            self.window = max(1.0, self.window * 0.7)

    def _slow_down(self, retry_after_s: float | None, now: float) -> None:
        """Space the starts at what succeeded lately; one refusal a second counts, its neighbours are the same."""
        if now - self._shrunk_at > 1.0:
            self._shrunk_at = now
            lately = [at for at in self._successes if at >= now - MEASURED_S]
            measured_s = now - lately[0] if lately else 0.0
            self._guessed = False
            if len(lately) >= 5 and measured_s >= 1.0:
                self.rate = 0.97 * len(lately) / measured_s
            elif self.rate is not None:
                self.rate *= 0.7
            else:
                # Nothing is measured yet: of the calls in flight, those that are not refused passed in a second.
                self._guessed = True
                self.rate = max(1.0, self.in_flight - 1.0)
                self._closed_until = max(self._closed_until, now + 1.0)
            self._grown_at = now
        elif self._guessed and self.rate is not None:
            self.rate = max(1.0, self.rate - 1.0)
        if retry_after_s is not None and retry_after_s > SHORT_WAIT_S:
            self._closed_until = max(self._closed_until, now + retry_after_s)

    async def _enter(self, *, first: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        self._pump()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in, and cancelled in the same step
                self.in_flight -= 1
                self._pump()
            raise

    def _pump(self) -> None:
        """Let in whoever may start now, and come back when the next one may."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()  # cancelled while it waited
        if not self._waiting or self.in_flight >= max(1.0, self.window):
            return  # whoever ends next comes back here
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._grow(now)
        wait_s = max(self._closed_until, self._next_start) - now
        if wait_s > 0:
            if self._timer is None or self._timer.cancelled() or self._timer.when() > now + wait_s:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = loop.call_later(wait_s, self._awake)
            return
        if self.rate is not None:
            # A start that comes late may catch up with at most a quarter of a second's worth.
            self._next_start = max(self._next_start, now - 0.25) + 1.0 / self.rate
        self.in_flight += 1
        self._waiting.popleft().set_result(None)
        self._pump()

    def _awake(self) -> None:
        self._timer = None
        self._pump()

    def _grow(self, now: float) -> None:
        if self.rate is not None and now > self._grown_at:
            self.rate *= (1.0 + GROWTH_PER_S) ** min(now - self._grown_at, 10.0)
            self._grown_at = now


_LIMITERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str, str], Limiter]] = (
    WeakKeyDictionary()
)


def limiter_for(address: str, model: str, key: str = "") -> Limiter:
    """Return the running loop's limiter for one address, model and key (of which a digest is kept)."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:12] if key else ""
    mine = _LIMITERS.setdefault(asyncio.get_running_loop(), {})
    return mine.setdefault((address.rstrip("/"), model, digest), Limiter())
