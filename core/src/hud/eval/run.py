"""One live rollout as an agent sees it, and as it is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hud.agents.reserving import FREE
from hud.errors import HudError, PromptError
from hud.eval.failures import Failure, classify
from hud.eval.ids import new_id
from hud.telemetry import INFO_KEY, take_in
from hud.types.grade import Grade
from hud.types.messages import PromptMessage, read
from hud.types.task import Task
from hud.types.trace import Step, TaskCall, Trace

if TYPE_CHECKING:
    from types import TracebackType

    from hud.agents.reserving import Reservation
    from hud.eval.leftbehind import LeftBehind
    from hud.eval.limits import Meter
    from hud.types import RuntimeConfig

StepT = TypeVar("StepT", bound=Step)


class Run:
    """A task that was started: the prompt, the way to the environment, and what comes of it.

    An agent reads `prompt`, `prompt_text` or `prompt_messages`, opens capabilities with `await
    run.client.open("ssh")`, records what it does with `run.record(step)`, and sets `run.trace.content` (or
    returns its answer). `async with Run(client, "task-id", args) as run` starts and grades by hand: the
    block's end grades (also when it raised), a cancellation cancels the task instead.
    """

    __slots__ = (
        "__weakref__",
        "_client",
        "agent_name",
        "attempts",
        "bindings",
        "connections",
        "environment",
        "failure",
        "given_back",
        "grade",
        "group_id",
        "index",
        "job_id",
        "left_behind",
        "meter",
        "phases_at",
        "phases_s",
        "problems",
        "prompt",
        "runtime",
        "runtime_config",
        "started_at",
        "task",
        "trace",
    )

    def __init__(
        self,
        client: Any = None,
        task_id: str = "",
        args: Mapping[str, Any] | None = None,
        *,
        task: Task | None = None,
        job_id: str = "",
        group_id: str = "",
        trace_id: str | None = None,
        trace: Trace | None = None,
        agent_name: str = "",
        index: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self._client = client
        self.task: Task = task if task is not None else Task(env="", id=task_id, args=dict(args or {}))
        self.prompt: Any = None
        self.bindings: dict[str, Any] = {}
        self.grade: Grade = Grade.ungraded()
        self.trace: Trace = trace or Trace(trace_id=trace_id or new_id())
        self.job_id: str = job_id
        self.group_id: str = group_id
        self.runtime: str | None = None
        """The address the environment was served on."""
        self.runtime_config: RuntimeConfig | None = self.task.runtime_config
        self.connections: list[Any] = []
        self.agent_name: str = agent_name
        self.index: int = index
        """The place in its job: rows in order, each row's group together."""
        self.attempts: list[dict[str, Any]] = []
        """Earlier tries of this rollout that infrastructure ended: `{attempt, failure, phases_s}`."""
        self.failure: Failure | None = None
        """What ended the rollout early, also where it was graded all the same; None when all went well."""
        self.problems: list[Failure] = []
        """What went wrong beside the result: a teardown that failed, a plugin, a program left behind."""
        self.environment: dict[str, Any] = {}
        """`name` and `version` of the environment that served it, and its protocol, as its hello said."""
        self.phases_s: dict[str, float] = {}
        self.phases_at: dict[str, float] = {}
        """When each phase of the current try began, in seconds since the epoch."""
        self.left_behind: LeftBehind | None = None
        """What its agent left in its workspaces, where the job keeps that or puts it back."""
        self.given_back: bool = False
        """Whether the job's budget ended it before its agent had done anything: it counts as never started."""
        self.started_at: float = time.time()
        self.meter: Meter | None = meter
        if meter is not None:
            self.trace.listener = meter.charge

    @classmethod
    def failed(cls, error: BaseException | str, *, task: Task | None = None, **options: Any) -> Self:
        """Make a run that ended in `error` before anything was placed."""
        run = cls(task=task, **options)
        exc = error if isinstance(error, BaseException) else HudError(error)
        run.fail(classify(exc, "place"))
        return run

    @property
    def client(self) -> Any:
        """The connection to the environment; raises `HudError` outside the rollout."""
        if self._client is None:
            raise HudError(
                f"run {self.trace_id} of {self.slug!r} is not connected: it has ended, or not begun"
            )
        return self._client

    @property
    def slug(self) -> str:
        """The row's name within its taskset."""
        return self.task.slug

    @property
    def task_id(self) -> str:
        """The template's id."""
        return self.task.id

    @property
    def args(self) -> dict[str, Any]:
        """The row's arguments."""
        return self.task.args

    @property
    def trace_id(self) -> str:
        """The rollout's id; the same over all attempts."""
        return self.trace.trace_id

    run_id = trace_id

    @property
    def attempt(self) -> int:
        """The number of the current try, from 1."""
        return len(self.attempts) + 1

    @property
    def attempt_key(self) -> str:
        """Names this try: the same key never grades twice."""
        return f"{self.trace_id}.{self.attempt}"

    @property
    def reward(self) -> float | None:
        """What the grader said, or None where none said a finite number; `grade.require()` raises instead."""
        return self.grade.reward

    @property
    def evaluation(self) -> dict[str, Any]:
        """The grader's reply without each subscore's details."""
        return self.grade.evaluation

    @property
    def error(self) -> str | None:
        """What ended the rollout early, as a line of text."""
        return str(self.failure) if self.failure is not None else self.trace.error

    @property
    def prompt_messages(self) -> list[PromptMessage]:
        """The prompt as messages; a system message becomes a user's, as models accept only those."""
        return prompt_messages(self.prompt)

    @property
    def prompt_text(self) -> str:
        """The prompt's text, messages joined by empty lines."""
        return "\n\n".join(message.text for message in self.prompt_messages)

    def record(self, step: StepT) -> StepT:
        """Keep `step`; raises `LimitError` where it passes a limit (the step is kept all the same)."""
        return self.trace.record(step)

    def check_limits(self, *, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Raise `LimitError` where spending that much more would pass a limit; costs nothing without limits."""
        if self.meter is not None:
            self.meter.check(tokens=tokens, cost_usd=cost_usd)

    @property
    def has_budget(self) -> bool:
        """Whether the job has a budget to reserve from."""
        return self.meter is not None and self.meter.purse is not None

    async def reserve(
        self, *, model: str, prompt_tokens: int, output_tokens: int | None = None, shrinks: bool = False
    ) -> Reservation:
        """Hold what a call may cost at most in the job's budget: `with await run.reserve(...) as held:`.

        A harness that calls models by itself does this before each call and `held.settle(usage)` after it. With
        `shrinks` the budget may grant a shorter reply than `output_tokens`, told in `held.output_tokens`.

        Raises:
            BudgetExhaustedError: the budget cannot pay for the call.
        """
        if self.meter is None:
            return FREE
        return await self.meter.reserve(
            model=model, prompt_tokens=prompt_tokens, output_tokens=output_tokens, shrinks=shrinks
        )

    def fail(self, failure: Failure) -> None:
        """Note what ended the rollout early."""
        self.failure = failure
        self.trace.extra["error"] = str(failure)
        self.trace.status = "cancelled" if failure.kind == "cancelled" else "error"

    def begin(self, reply: Mapping[str, Any]) -> None:
        """Take in the reply to `tasks.start`."""
        if "prompt" not in reply:
            raise PromptError(f"the environment's reply to start has no prompt: {sorted(reply)}")
        self.prompt = reply["prompt"]
        self.bindings = dict(reply.get("bindings") or {})
        call = TaskCall("setup", self.task.id, self.task.args, dict(reply))
        self.trace.record(Step(source="task", task_call=call))

    def finish(self, reply: Mapping[str, Any], task_id: str | None = None, answer: Any = None) -> None:
        """Take in the reply to `tasks.grade`, of the row's verifier where `task_id` names it.

        Raises:
            RewardError: its score is no finite number; the run stays ungraded.
        """
        if task_id is None:
            task_id, answer = self.task.id, self.trace.content
        reply = self.without_spans(reply)
        self.note_evaluation(task_id, answer, reply)
        self.grade = Grade.from_dict(reply)

    def without_spans(self, reply: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a grade's reply without the environment's spans, which go to the trace."""
        info = reply.get("info")
        if not isinstance(info, Mapping) or INFO_KEY not in info:
            return reply
        take_in(self.trace, info[INFO_KEY])
        return {**reply, "info": {key: value for key, value in info.items() if key != INFO_KEY}}

    def note_evaluation(self, task_id: str, answer: Any, reply: Mapping[str, Any]) -> None:
        """Record that a task was graded."""
        call = TaskCall("evaluate", task_id, {"answer": answer}, dict(reply))
        self.trace.record(Step(source="task", task_call=call))

    def attach(self, client: Any) -> None:
        """Give the run its connection, or take it away with None."""
        self._client = client

    async def __aenter__(self) -> Self:
        self.begin(await self.client.start_task(self.task.id, self.task.args))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is not None and not isinstance(exc, Exception):
            cancelled = isinstance(exc, asyncio.CancelledError)
            self.trace.status = "cancelled" if cancelled else "error"
            await self.client.cancel()
            return
        if exc is not None:
            self.fail(classify(exc, "act"))
        self.finish(await self.client.grade({"answer": self.answer}, key=self.attempt_key))

    @property
    def answer(self) -> Any:
        """What is sent to the grader: the trace's content, an empty text where the agent gave none."""
        return "" if self.trace.content is None else self.trace.content

    def __repr__(self) -> str:
        shown = self.error or f"reward={self.reward}"
        return f"<Run {self.trace_id[:8]} {self.slug!r} {shown}>"


def prompt_messages(prompt: Any) -> list[PromptMessage]:
    """Return a prompt (text, one message or a list of them) as messages.

    Raises:
        PromptError: a message has no role or no content; names its place in the list.
    """
    if prompt is None:
        return []
    if isinstance(prompt, str):
        return [PromptMessage("user", prompt)]
    items = prompt if isinstance(prompt, (list, tuple)) else [prompt]
    return [_message(item, place) for place, item in enumerate(items)]


def _message(item: Any, place: int) -> PromptMessage:
    if isinstance(item, str):
        return PromptMessage("user", item)
    content = read(item, "content")
    if content is None:
        raise PromptError(f"prompt message {place} has no content: {type(item).__name__}")
    role = read(item, "role", "user")
    if not isinstance(content, str):
        blocks = content if isinstance(content, (list, tuple)) else [content]
        content = [_block(block) for block in blocks]
    return PromptMessage("assistant" if role == "assistant" else "user", content)


def _block(block: Any) -> dict[str, Any]:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    if isinstance(block, Mapping):
        return dict(block)
    dumped: dict[str, Any] = block.model_dump(mode="json", exclude_none=True)
    return dumped
