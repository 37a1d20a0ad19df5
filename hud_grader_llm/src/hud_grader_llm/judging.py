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
from hud_grader_llm.question import Question
from hud_grader_llm.verdict import Form, UnreadableReplyError, Verdict, read_verdict

T = TypeVar("T")

AT_ONCE = 16
"""How many questions of one grade are open at the same time."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One reading of one question; `choice` is None where it could not be had, and `reason` says why."""

    choice: str | None
    reason: str
    asked: Sequence[Asked] = ()

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
    done: list[Vote] = await together(
        [_vote(asker, question, form, slot, undecided=undecided, slots=slots) for slot in range(votes)]
    )
    counts = Counter(vote.choice for vote in done if vote.choice is not None)
    if counts:
        choice, count = counts.most_common(1)[0]
        if count * 2 > votes:
            reason = next(vote.reason for vote in done if vote.choice == choice)
            return Decision(choice, reason, count / votes, done)
    said = "; ".join(vote.choice or vote.reason for vote in done)
    raise GraderError(
        f"the judge could not decide: {said}" if votes == 1 else f"no majority among {votes} votes: {said}"
    )


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
        except GraderError:
            if slot == 0:
                raise  # the first vote's failure is the judge's: the others would fail alike
            return Vote(None, "could not be asked")
    if verdict is None:
        return Vote(None, f"unreadable: {asked[-1].reply.text[:200]!r}", asked)
    if verdict.choice == undecided:
        return Vote(None, f"cannot decide: {verdict.reason}", asked)
    return Vote(verdict.choice, verdict.reason, asked)


async def _ask(asker: Asker, question: Question, form: Form, slot: int) -> tuple[Verdict | None, list[Asked]]:
    asked = [await asker.ask(question, slot=slot)]
    try:
        verdict = read_verdict(asked[0].reply.text, form)
    except UnreadableReplyError as error:
        cut = " (it was cut off: be brief)" if asked[0].reply.cut else ""
        complaint = (
            f"Your reply could not be read: {error}{cut}. Reply with one JSON object only: {form.example}"
        )
    else:
        asker.keep(asked[0])
        return verdict, asked
    asked.append(await asker.ask(question.followed_by(asked[0].reply.text, complaint), slot=slot, fresh=True))
    try:
        return read_verdict(asked[1].reply.text, form), asked
    except UnreadableReplyError:
        return None, asked


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
