"""Limits on what a rollout and a job may spend, and the meters that hold them."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hud.agents.reserving import FREE
from hud.errors import BudgetExhaustedError, ConfigError, LimitError
from hud.types.trace import AgentStep, SubagentStep
from hud.values import Value

if TYPE_CHECKING:
    from hud.agents.reserving import Reservation
    from hud.eval.purse import Amount, Purse
    from hud.types.messages import Usage
    from hud.types.trace import Step


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits(Value):
    """Bounds of one rollout, and (`job_*`) of a whole job; None leaves a bound out.

    `max_steps` counts the agent's turns, `max_tokens` prompt and completion, `seconds` everything from the
    queue to the teardown. A job that reaches one of its bounds starts nothing new; what is in flight is
    stopped at its next step (for `job_seconds`: runs to its end) and graded on what was achieved.
    """

    max_steps: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    seconds: float | None = None
    job_steps: int | None = None
    job_tokens: int | None = None
    job_cost_usd: float | None = None
    job_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not value > 0):
                raise ConfigError(f"limit {name}={value!r} must be a number above 0, or None for no limit")

    def for_row(self, max_steps: int | None) -> Limits:
        """Return these limits with a row's own `max_steps` where it is tighter."""
        if max_steps is None or (self.max_steps is not None and self.max_steps <= max_steps):
            return self
        return self.model_copy(update={"max_steps": max_steps})


class Meter:
    """What has been spent, in one rollout or (as `parent`) in the job around it.

    `purse` holds the job's budget. A job that runs within a rollout of another spends from that one's: `lender` is
    the outer rollout's meter, which must not count the same a second time.
    """

    __slots__ = (
        "cost_usd",
        "credit",
        "exhausted",
        "for_grading",
        "lender",
        "limits",
        "parent",
        "purse",
        "steps",
        "tokens",
        "tripped",
        "ungraded_because",
    )

    def __init__(
        self,
        limits: Limits,
        parent: Meter | None = None,
        *,
        purse: Purse | None = None,
        lender: Meter | None = None,
    ) -> None:
        self.limits: Limits = limits
        self.parent: Meter | None = parent
        self.purse: Purse | None = purse if parent is None else parent.purse
        self.lender: Meter | None = lender if parent is None else parent.lender
        self.credit: Amount | None = None
        """What calls used that the purse has counted and no step has told of yet."""
        self.for_grading: Amount | None = None
        """What this rollout's graders used."""
        self.ungraded_because: BudgetExhaustedError | None = None
        """The budget could not pay for its graders."""
        self.steps: int = 0
        self.tokens: int = 0
        self.cost_usd: float = 0.0
        self.tripped: LimitError | None = None
        """The bound this rollout passed, also where its agent kept the error to itself."""
        self.exhausted: str | None = None
        """The job's bound that was reached, as a sentence; set on the job's meter alone."""

    def charge(self, step: Step) -> None:
        """Count `step`; raises `LimitError` (or `BudgetExhaustedError`, the job's) where a bound is passed.

        The step is counted and kept either way: the limit stops what comes after it.
        """
        if isinstance(step, AgentStep):
            usage, turns = step.usage, 1
        elif isinstance(step, SubagentStep):
            usage, turns = step.subagent.usage, sum(isinstance(s, AgentStep) for s in step.subagent.walk())
        else:
            return
        self._add(turns, usage)
        self._take_from_purse(usage)
        if self.parent is not None:
            self.parent._add(turns, usage)
        if isinstance(step, AgentStep) and step.done:
            return  # the agent's last turn: nothing comes after it that a limit could stop
        try:
            self._hold(usage)
        except LimitError as exc:
            self.tripped = exc
            raise

    def next_attempt(self) -> None:
        """Count the steps anew for a fresh placement; what was spent stays spent."""
        self.steps = 0
        self.tripped = None
        self.credit = None

    async def reserve(
        self,
        *,
        model: str,
        prompt_tokens: int,
        output_tokens: int | None = None,
        shrinks: bool = False,
        grading: bool = False,
    ) -> Reservation:
        """Hold what a call of `model` may cost at most; see `Purse.reserve`. Free where the job has no budget."""
        if self.purse is None:
            return FREE
        try:
            held = await self.purse.reserve(
                model=model,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                shrinks=shrinks,
                grading=grading,
            )
        except BudgetExhaustedError as exc:
            if grading:
                self.ungraded_because = exc
            else:
                self.tripped = exc
            raise
        held.on_settled(self._graders_used if grading else self._used)
        return held

    def _used(self, amount: Amount) -> None:
        from hud.eval.purse import Amount as New

        for meter in (self, self.lender):
            if meter is not None:
                if meter.credit is None:
                    meter.credit = New()
                meter.credit.add(amount)

    def _graders_used(self, amount: Amount) -> None:
        from hud.eval.purse import Amount as New

        self._used(amount)
        if self.for_grading is None:
            self.for_grading = New()
        self.for_grading.add(amount)

    def _take_from_purse(self, usage: Usage | None) -> None:
        """Have the purse count `usage`, as far as no reservation has."""
        if self.purse is None or usage is None:
            return
        from hud.eval.purse import Amount as New

        rest = New(usage.cost_usd or 0.0, usage.total_tokens)
        if self.credit is not None:
            known = New(min(self.credit.usd, rest.usd), min(self.credit.tokens, rest.tokens))
            self.credit.add(known, -1)
            rest.add(known, -1)
        if rest.usd <= 0 and rest.tokens <= 0:
            return
        self.purse.add(rest)
        if self.lender is not None:
            self.lender._used(rest)

    def check(self, *, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Raise where spending `tokens` and `cost_usd` more would pass a bound; counts nothing.

        A harness calls this before a model call it can estimate.
        """
        limits = self.limits
        if limits.max_tokens is not None and self.tokens + tokens > limits.max_tokens:
            raise LimitError(
                "max_tokens", f"{self.tokens + tokens} tokens would pass max_tokens={limits.max_tokens}"
            )
        if limits.max_cost_usd is not None and self.cost_usd + cost_usd > limits.max_cost_usd:
            total = self.cost_usd + cost_usd
            raise LimitError("max_cost_usd", f"${total:.4f} would pass max_cost_usd={limits.max_cost_usd}")
        if self.parent is not None:
            self.parent.hold_job(tokens, cost_usd)

    def spend(self, usage: Usage) -> None:
        """Count what a grader's model used; the next step or check holds it against the limits."""
        self._add(0, usage)
        self._take_from_purse(usage)
        if self.parent is not None:
            self.parent._add(0, usage)

    def _add(self, turns: int, usage: Usage | None) -> None:
        self.steps += turns
        if usage is not None:
            self.tokens += usage.total_tokens
            self.cost_usd += usage.cost_usd or 0.0

    def _hold(self, usage: Usage | None) -> None:
        limits = self.limits
        if usage is not None and usage.cost_usd is None and usage.llm_call_count:
            for name in ("max_cost_usd", "job_cost_usd"):
                if getattr(limits, name) is not None:
                    raise LimitError(name, f"{name} cannot be held: the model's price is not known")
        if limits.max_steps is not None and self.steps >= limits.max_steps:
            raise LimitError("max_steps", f"the rollout took its {limits.max_steps} steps (max_steps)")
        if limits.max_tokens is not None and self.tokens >= limits.max_tokens:
            raise LimitError(
                "max_tokens", f"the rollout used {self.tokens} tokens (max_tokens={limits.max_tokens})"
            )
        if limits.max_cost_usd is not None and self.cost_usd >= limits.max_cost_usd:
            raise LimitError(
                "max_cost_usd", f"the rollout cost ${self.cost_usd:.4f} (max_cost_usd={limits.max_cost_usd})"
            )
        if self.parent is not None:
            self.parent.hold_job()
        if self.purse is not None:
            self._hold_purse(self.purse, usage)

    def _hold_purse(self, purse: Purse, usage: Usage | None) -> None:
        unpriced = usage is not None and usage.cost_usd is None and usage.llm_call_count > 0
        if unpriced and purse.budget.usd is not None:
            raise LimitError("budget", "the budget in dollars cannot be held: the model's price is not known")
        purse.hold()

    def hold_job(self, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Raise `BudgetExhaustedError` where the job's bounds are reached; called on the job's meter."""
        limits = self.limits
        spent = (
            ("job_steps", self.steps, limits.job_steps),
            ("job_tokens", self.tokens + tokens, limits.job_tokens),
            ("job_cost_usd", self.cost_usd + cost_usd, limits.job_cost_usd),
        )
        for name, used, bound in spent:
            if bound is not None and used >= bound:
                self.exhausted = f"the job used {used:g} of {name}={bound:g}"
                raise BudgetExhaustedError(self.exhausted)


spending: ContextVar[Meter | None] = ContextVar("hud_spending", default=None)
"""The meter of the rollout whose agent this is: what a job started within it spends is the outer job's."""
