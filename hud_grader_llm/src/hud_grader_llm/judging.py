"""One choice by a judge: asked, read, mended once, voted on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hud.errors import GraderError
from hud.types.messages import Usage
from hud_grader_llm.asking import Asked, Asker
from hud_grader_llm.question import MAX_TOKENS, Question, ReplyText
from hud_grader_llm.verdict import Form, UnreadableReplyError, Verdict, read_verdict

T = TypeVar("T")

AT_ONCE = 16
"""How many questions of one grade are open at the same time."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One reading of one question; `choice` is None where it could not be had, and `reason` says why.

    `failure` is what kept it from being asked.
    """

    choice: str | None
    reason: str
    asked: Sequence[Asked] = ()
    failure: GraderError | None = None

    def record(self) -> dict[str, Any]:
        """Return what is kept of it."""
        out: dict[str, Any] = {"verdict": self.choice, "reason": self.reason}
        if self.asked:
            last = self.asked[-1]
            usage = total(self.asked)
            out |= {
                "model": last.model,
                "raw": [asked.reply.text for asked in self.asked],
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "cost_usd": usage.cost_usd,
                "seconds": round(sum(asked.seconds for asked in self.asked), 3),
                "cached": all(asked.cached for asked in self.asked),
                "by_host": last.by_host,
            }
            if failures := [failure for asked in self.asked for failure in asked.failures]:
                out["failures"] = failures
        return out


@dataclass(frozen=True, slots=True)
class Decision:
    """What the majority chose, the share that agreed (1 where one was asked), and every vote."""

    choice: str
    reason: str
    agreement: float
    votes: Sequence[Vote]

    def record(self) -> dict[str, Any]:
        """Return what is kept of it: the votes' details, flat where there is one."""
        if len(self.votes) == 1:
            return self.votes[0].record()
        return {
            "verdict": self.choice,
            "reason": self.reason,
            "agreement": self.agreement,
            "votes": [vote.record() for vote in self.votes],
        }

    @property
    def usage(self) -> Usage:
        """What all votes used."""
        return total([asked for vote in self.votes for asked in vote.asked])


def total(asked: Sequence[Asked]) -> Usage:
    """Return the sum of what questions used."""
    usage = Usage(cost_usd=0.0, llm_call_count=0)
    for one in asked:
        usage = usage.plus(one.usage)
    return usage


async def decide(
    asker: Asker,
    question: Question,
    form: Form,
    *,
    votes: int,
    undecided: str | None,
    slots: asyncio.Semaphore,
) -> Decision:
    """Ask `question` `votes` times and return the majority's choice.

    `undecided` is the choice that stands for none.

    Raises:
        GraderError: there is no majority for a choice; says what each vote was.
    """
    if type(votes) is not int or votes < 1:
        raise GraderError(f"votes={votes!r} must be a whole number of at least 1")
    done: list[Vote] = await together(
        [_vote(asker, question, form, slot, undecided=undecided, slots=slots) for slot in range(votes)]
    )
    counts = Counter(vote.choice for vote in done if vote.choice is not None)
    if counts:
        choice, count = counts.most_common(1)[0]
        if count * 2 > votes:
            reason = next(vote.reason for vote in done if vote.choice == choice)
            return Decision(choice, reason, count / votes, done)
    failures = [vote.failure for vote in done if vote.failure is not None]
    if failures and len(failures) == votes:
        raise failures[0]
    said = "; ".join(vote.choice or vote.reason for vote in done)
    failed = GraderError(
        f"the judge could not decide: {said}" if votes == 1 else f"no majority among {votes} votes: {said}"
    )
    failed.retryable = any(failure.retryable for failure in failures)
    raise failed


async def _vote(
    asker: Asker,
    question: Question,
    form: Form,
    slot: int,
    *,
    undecided: str | None,
    slots: asyncio.Semaphore,
) -> Vote:
    async with slots:
        try:
            verdict, asked = await _ask(asker, question, form, slot)
        except GraderError as error:
            return Vote(None, str(error), failure=error)
    if verdict is None:
        last = asked[-1].reply
        cut = f" (cut off at {MAX_TOKENS} tokens)" if last.cut else ""
        return Vote(None, f"unreadable: {last.text[:200]!r}{cut}", asked)
    if verdict.choice == undecided:
        return Vote(None, f"cannot decide: {verdict.reason}", asked)
    return Vote(verdict.choice, verdict.reason, asked)


async def _ask(asker: Asker, question: Question, form: Form, slot: int) -> tuple[Verdict | None, list[Asked]]:
    asked = [await asker.ask(question, slot=slot)]
    try:
        verdict = _read(asked[0].reply, form)
    except UnreadableReplyError as error:
        complaint = f"Your reply could not be read: {error}. Reply with one JSON object only: {form.example}"
    else:
        asker.keep(asked[0])
        return verdict, asked
    asked.append(await asker.ask(question.followed_by(asked[0].reply.text, complaint), slot=slot, fresh=True))
    try:
        return _read(asked[1].reply, form), asked
    except UnreadableReplyError:
        return None, asked


def _read(reply: ReplyText, form: Form) -> Verdict:
    if reply.cut:
        # What stands in its beginning may be a verdict that the response wrote, and the judge was quoting.
        raise UnreadableReplyError("it was cut off at the limit of its length; be brief")
    return read_verdict(reply.text, form)


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all of `work` at once; the first that fails cancels the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(item) for item in work]
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures
    return [task.result() for task in tasks]


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
