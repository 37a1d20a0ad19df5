"""A conversation: each turn a rollout of the same task, over all that was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hud.errors import AgentFault, HudError, UsageError
from hud.eval.job import Job
from hud.eval.options import Options
from hud.eval.rollout import rollout

if TYPE_CHECKING:
    from hud.eval.phases import AgentCall
    from hud.eval.run import Run
    from hud.types.task import Task
    from hud.types.trace import Trace


class ChatTurnError(AgentFault, RuntimeError):
    """Raised when a turn failed; `run` is its rollout. The message is taken back, so that it can be sent again."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class Chat:
    """Turns of a task that takes `messages`: the list of what was said, as `{role, content}`.

    `messages` is public and may be edited between turns; `job` holds the turns' runs. Where `runtime` is None the
    place is found as for any row.
    """

    def __init__(
        self, task: Task, agent: AgentCall, /, *, runtime: Any = None, options: Options | None = None
    ) -> None:
        self.task = task
        self.agent = agent
        self.runtime = runtime
        self.messages: list[dict[str, Any]] = [dict(m) for m in task.args.get("messages") or ()]
        self.job: Job = Job(name=f"chat with {task.slug}")
        self._options = options or Options()

    async def send(self, message: str | Sequence[Mapping[str, Any]]) -> Trace:
        """Say `message` (text, or content blocks), run the task, and return the turn's trace.

        Raises:
            UsageError: nothing was said.
            ChatTurnError: the turn failed; nothing is added to `messages`.
        """
        if not message:
            raise UsageError("a turn needs a message: text, or a list of content blocks")
        content = message if isinstance(message, str) else [dict(block) for block in message]
        said: list[dict[str, Any]] = [*self.messages, {"role": "user", "content": content}]
        task = self.task.model_copy(update={"args": {**self.task.args, "messages": said}})
        run = await rollout(task, self.agent, runtime=self.runtime, job_id=self.job.id, options=self._options)
        run.index = len(self.job.runs)
        self.job.add(run)
        failure = run.failure
        if failure is not None:
            raise ChatTurnError(f"turn {run.index + 1} failed in {failure}", run)
        self.messages = [*said, {"role": "assistant", "content": _text(run)}]
        return run.trace


def _text(run: Run) -> Any:
    content = run.trace.content
    if content is None or isinstance(content, (str, list)):
        return content or ""
    if hasattr(content, "model_dump_json"):
        return content.model_dump_json()
    try:
        import json

        return json.dumps(content, ensure_ascii=False)
    except TypeError as exc:
        raise HudError(
            f"the agent's answer {type(content).__name__} cannot be said in a conversation"
        ) from exc
