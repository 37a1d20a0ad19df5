"""A job's budget while it runs: what is spent, what calls in flight hold, and when it is used up.

A call reserves the most it can cost before it is sent. Where the rest does not cover that, it waits for calls in
flight, which mostly used less than they held; once none is in flight it is granted a shorter reply, or refused. So
what is spent passes the budget by no more than calls use beyond what they reserved.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hud.agents.prices import cost_of, price_of
from hud.agents.reserving import Reservation
from hud.errors import BudgetExhaustedError, ConfigError
from hud.eval.budget import Budget, shown
from hud.eval.sandbox_clock import SandboxClock

if TYPE_CHECKING:
    from hud.settings.hudtoml import Price
    from hud.types.messages import Usage

UNKNOWN_OUTPUT = 16_384
"""Tokens a reply may have where neither the call bounds it nor earlier calls tell."""
LEAST_OUTPUT = 256
"""A shorter reply than this is not worth asking for."""
_SLACK = 1e-9


@dataclass(slots=True)
class Amount:
    """Dollars and tokens."""

    usd: float = 0.0
    tokens: int = 0

    def add(self, other: Amount, sign: int = 1) -> None:
        """Add `other`, or take it away."""
        self.usd += sign * other.usd
        self.tokens += sign * other.tokens


@dataclass(slots=True)
class _Outputs:
    """How long a model's replies were."""

    calls: int = 0
    total: int = 0
    longest: int = 0


class Held(Reservation):
    """A reservation of this budget."""

    __slots__ = ("_purse", "_settled", "amount", "model")

    def __init__(self, purse: Purse, model: str, amount: Amount, output_tokens: int | None) -> None:
        super().__init__(output_tokens)
        self._purse: Purse | None = purse
        self._settled: Callable[[Amount], None] | None = None
        self.model: str = model
        self.amount: Amount = amount

    def on_settled(self, tell: Callable[[Amount], None]) -> None:
        """Have `tell` called with what the call used; its step must not be counted a second time."""
        self._settled = tell

    def settle(self, usage: Usage | None) -> None:
        """Count what the call used and give back the rest; more than once is as once."""
        if usage is None:
            self._end(Amount())
            return
        if self._purse is not None:
            self._purse.learn(self.model, usage.completion_tokens)
        self._end(Amount(usage.cost_usd or 0.0, usage.total_tokens))

    def forfeit(self) -> None:
        """Count all that was held; no step will tell of it."""
        self._settled = None
        self._end(self.amount)

    def _end(self, used: Amount) -> None:
        purse, self._purse = self._purse, None
        if purse is None:
            return
        if self._settled is not None:
            self._settled(used)
        purse.give_back(self.amount, used)


@dataclass(slots=True)
class _Asking:
    model: str
    price: Price | None
    prompt_tokens: int
    output_tokens: int
    shrinks: bool
    grading: bool
    answer: asyncio.Future[Held]

    def amount(self, output_tokens: int | None = None) -> Amount:
        output = self.output_tokens if output_tokens is None else output_tokens
        return Amount(self._cost(output), self.prompt_tokens + output)

    def _cost(self, output: int) -> float:
        if self.price is None:
            return 0.0
        prompt, written = self.prompt_tokens, self.price.cache_write
        all_written = prompt if written is not None and written > self.price.input else 0
        return cost_of(self.price, prompt=prompt, output=output, written=all_written)


class Purse:
    """Holds one job to its budget. `on_used_up` is told, once, when nothing new is to start."""

    def __init__(self, budget: Budget, on_used_up: Callable[[str], None] = lambda _: None) -> None:
        self.budget = budget
        self.spent: Amount = Amount()
        self.held: Amount = Amount()
        self.used_up: str | None = None
        """Why nothing new starts; None while there is something left."""
        self.cut_short = 0
        """Rollouts that it ended, graded on what they had achieved."""
        self.given_back = 0
        """Rollouts that it ended before they had done anything; they count as never started."""
        self._tell = on_used_up
        self._waiting: deque[_Asking] = deque()
        self._in_flight = 0
        self._outputs: dict[str, _Outputs] = {}
        seconds = budget.sandbox_seconds
        self.clock: SandboxClock | None = (
            None if seconds is None else SandboxClock(seconds, self._out_of_time)
        )
        self._grading = Amount()
        self._grading_call = Amount()
        """The most that one call of a grader needs to be sent at all."""
        self._graded = 0
        self._acting = 0

    # Model calls

    async def reserve(
        self,
        *,
        model: str,
        prompt_tokens: int,
        output_tokens: int | None = None,
        shrinks: bool = False,
        grading: bool = False,
    ) -> Held:
        """Hold the most that a call can cost; waits for calls in flight where the rest does not cover it.

        `output_tokens` bounds the reply, None where the call does not. With `shrinks` a shorter reply may be granted
        (`Held.output_tokens`). `grading` calls may also use what agents must leave for them.

        Raises:
            BudgetExhaustedError: the budget cannot pay for it.
            ConfigError: the budget is in dollars and the model's price is not known.
        """
        price = price_of(model)
        if price is None and self.budget.usd is not None:
            raise ConfigError(unpriced(model))
        output = output_tokens if output_tokens is not None else self._usual_output(model)
        answer: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        asking = _Asking(model, price, prompt_tokens, output, shrinks, grading, answer)
        if grading:
            needed = asking.amount(
                min(output, max(LEAST_OUTPUT, self._mean_output(model))) if shrinks else output
            )
            most = self._grading_call
            self._grading_call = Amount(max(most.usd, needed.usd), max(most.tokens, needed.tokens))
        if self._waiting or not self._serve(asking):
            self._waiting.append(asking)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                answer.result().settle(None)
            self._go_on()
            raise

    def _usual_output(self, model: str) -> int:
        known = self._outputs.get(model)
        return UNKNOWN_OUTPUT if known is None or known.calls < 3 else max(2 * known.longest, 1024)

    def _mean_output(self, model: str) -> int:
        known = self._outputs.get(model)
        return known.total // known.calls if known is not None and known.calls else 0

    def learn(self, model: str, output_tokens: int) -> None:
        """Take note of how long a model's reply was."""
        known = self._outputs.setdefault(model, _Outputs())
        known.calls += 1
        known.total += output_tokens
        known.longest = max(known.longest, output_tokens)

    def _serve(self, asking: _Asking) -> bool:
        """Answer `asking` where that can be done now."""
        if asking.answer.done():
            return True
        amount = asking.amount()
        if self._covers(amount, asking):
            self._grant(asking, amount, None)
            return True
        if self._in_flight:
            return False
        shorter = self._affordable(asking) if asking.shrinks else 0
        if shorter:
            self._grant(asking, asking.amount(shorter), shorter)
            return True
        asking.answer.set_exception(self._refusal(asking, amount))
        return True

    def _grant(self, asking: _Asking, amount: Amount, output_tokens: int | None) -> None:
        self.held.add(amount)
        self._in_flight += 1
        asking.answer.set_result(Held(self, asking.model, amount, output_tokens))

    def _covers(self, amount: Amount, asking: _Asking) -> bool:
        left_usd, left_tokens = self._left(asking)
        return amount.usd <= left_usd + _SLACK and amount.tokens <= left_tokens

    def _left(self, asking: _Asking) -> tuple[float, float]:
        """Return the dollars and tokens that a call may hold: agents leave what grading their work will take."""
        kept = Amount()
        if not asking.grading and self._graded:
            most = self._grading_call
            kept = Amount(
                max(self._grading.usd / self._graded, most.usd) * self._acting,
                int(max(self._grading.tokens / self._graded, most.tokens) * self._acting),
            )
        limit = self.budget
        usd = float("inf") if limit.usd is None else limit.usd - self.spent.usd - self.held.usd - kept.usd
        tokens = (
            float("inf")
            if limit.tokens is None
            else limit.tokens - self.spent.tokens - self.held.tokens - kept.tokens
        )
        return usd, tokens

    def _affordable(self, asking: _Asking) -> int:
        """Return how long a reply the rest pays for; 0 where that is less than this model mostly needs."""
        left_usd, left_tokens = self._left(asking)
        output = float(asking.output_tokens)
        output = min(output, left_tokens - asking.prompt_tokens)
        if asking.price is not None and left_usd != float("inf") and asking.price.output > 0:
            output = min(output, (left_usd - asking.amount(0).usd) * 1e6 / asking.price.output)
        return int(output) if output >= max(LEAST_OUTPUT, self._mean_output(asking.model)) else 0

    def _refusal(self, asking: _Asking, amount: Amount) -> BudgetExhaustedError:
        over = "usd" if amount.usd > self._left(asking)[0] + _SLACK else "tokens"
        used, most = shown(over, getattr(self.spent, over)), shown(over, getattr(amount, over))
        why = f"the budget of {self.budget} is used up: {used} spent"
        why += f", and the next call of {asking.model} may take {most}"
        self._end(why)
        return BudgetExhaustedError(why)

    def _out_of_time(self, why: str) -> None:
        self._end(f"the budget of {self.budget} is used up: {why}")

    def give_back(self, held: Amount, used: Amount) -> None:
        """End one reservation."""
        self.held.add(held, -1)
        self._in_flight -= 1
        if not self._in_flight:
            self.held = Amount()  # no rounding error is carried on
        self.add(used)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and (self._waiting[0].answer.done() or self._serve(self._waiting[0])):
            self._waiting.popleft()

    def add(self, used: Amount) -> None:
        """Count what was spent."""
        self.spent.add(used)
        for unit in ("usd", "tokens"):
            limit, spent = getattr(self.budget, unit), getattr(self.spent, unit)
            if limit is not None and spent >= limit:
                self._end(f"the budget of {self.budget} is used up: {shown(unit, spent)} spent")

    def hold(self) -> None:
        """Raise `BudgetExhaustedError` where everything is spent; for what spends without asking first."""
        budget, spent = self.budget, self.spent
        over_usd = budget.usd is not None and spent.usd >= budget.usd
        if over_usd or (budget.tokens is not None and spent.tokens >= budget.tokens):
            raise BudgetExhaustedError(self.used_up or f"the budget of {budget} is used up")

    def _end(self, why: str) -> None:
        if self.used_up is None:
            self.used_up = why
            self._tell(why)

    # What grading takes

    def began_acting(self) -> None:
        """Take note that a rollout has work to be graded soon."""
        self._acting += 1

    def ended_acting(self, *, graded: bool, used: Amount | None) -> None:
        """Take note that the work was graded, and what its graders used, or that it never will be."""
        self._acting -= 1
        if graded:
            self._graded += 1
            if used is not None:
                self._grading.add(used)

    # The job's beginning and end

    def take_up(self, spent: Amount, sandbox_seconds: float) -> None:
        """Count what was spent before the job went on."""
        if self.clock is not None:
            self.clock.over_s += sandbox_seconds
        self.add(spent)

    def admits_rollout(self) -> bool | None:
        """Tell whether one more rollout may start; None: perhaps, once one in flight has ended."""
        if self.used_up is not None:
            return False
        return True if self.clock is None else self.clock.admits_rollout()

    def close(self) -> None:
        """Stop the clock."""
        if self.clock is not None:
            self.clock.close()

    def model_dump(self) -> dict[str, Any]:
        """Return bounds and what was spent, as JSON's types."""
        return {
            "limit": self.budget.model_dump(exclude_none=True),
            "spent": {
                "usd": round(self.spent.usd, 6),
                "tokens": self.spent.tokens,
                "sandbox_seconds": None if self.clock is None else round(self.clock.spent_s, 3),
            },
            "used_up": self.used_up,
            "cut_short": self.cut_short,
            "given_back": self.given_back,
        }


def unpriced(model: str) -> str:
    """Return the message for a budget in dollars and a model without a price."""
    return (
        f"the price of {model!r} is not known, and a budget in dollars cannot be held without it: add "
        f'[prices."{model}"] with input and output (USD per million tokens) to hud.toml, or bound tokens instead'
    )
