"""Grading by another task: in the same environment over the same connection, or in another one of its own.

In order: the agent is done; its own task is graded, which ends the agent's processes; the artefacts it declares are
carried into the verifier's workspace; the verifier is started, gets the whole first reply as its answer, and its
reward is the run's. Both placements are held until the end.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hud.environment.artifacts import TASK as FETCH
from hud.errors import BadParamsError, RuntimeFault, TasksetError, UnsupportedConfigError
from hud.eval.artifacts import Carried, collect, deliver, shell_of

if TYPE_CHECKING:
    from hud.eval.deadlines import Phase
    from hud.eval.phases import Attempt
    from hud.types.task import Task

T = TypeVar("T")

PLACED_AGAIN = 2
"""So often a verifier's placement is tried again, before the agent's work is lost with the attempt."""


async def verify(attempt: Attempt, verifier: Task, frame: Mapping[str, Any]) -> Mapping[str, Any]:
    """Grade `frame`, the reply to the agent's own task, by `verifier`; returns the verifier's reply.

    Raises:
        TasksetError: the verifier has a verifier.
        UnsupportedConfigError: it runs where nothing can be verified, or has no workspace for the artefacts.
    """
    run = attempt.run
    if verifier.verifier is not None:
        raise TasksetError(f"task {run.slug!r}: its verifier has a verifier of its own")
    if run.task.shares_verifier_runtime:
        client = attempt.client
    else:
        carried = await _carried(attempt)
        client = await _placed(attempt, verifier, carried)
    attempt.owing.append(client)
    await _within(attempt, "start", client.start_task(verifier.id, verifier.args))
    reply: Mapping[str, Any] = await _within(
        attempt, "grade", client.grade({"answer": frame}, key=run.attempt_key)
    )
    attempt.owing.remove(client)
    return reply


async def _within(attempt: Attempt, phase: Phase, work: Awaitable[T], seconds: float | None = None) -> T:
    """Await a verifier's phase under the deadline of that name; it is told apart from the agent's in the record."""
    return await attempt.within(phase, work, seconds, told_as=f"verifier.{phase}")


async def _carried(attempt: Attempt) -> Carried | None:
    """Take the artefacts of the agent's task out of its workspace; None where it declares none."""
    return await attempt.within("grade", _carry_out(attempt), told_as="verifier.carry")


async def _carry_out(attempt: Attempt) -> Carried | None:
    run, client = attempt.run, attempt.client
    try:
        reply = await client.start_task(FETCH, {"template": run.task.id})
    except BadParamsError:
        return None  # an environment of another make; it declares no artefacts
    patterns = [str(pattern) for pattern in reply.get("artifacts") or ()]
    if not patterns:
        await client.cancel()
        return None
    attempt.owing.append(client)
    shell = await shell_of(client)
    if shell is None:
        raise UnsupportedConfigError(
            f"template {run.task.id!r} declares artefacts ({', '.join(patterns)}), but environment {run.task.env!r} "
            "has no shell to take them from"
        )
    folder = _folder()
    attempt.stack.push_async_callback(asyncio.to_thread, folder.cleanup)
    carried = await collect(shell, patterns, Path(folder.name))
    await client.grade(None)  # closes the workspace again
    attempt.owing.remove(client)
    run.trace.extra["artifacts"] = carried.described()
    return carried


def _folder() -> tempfile.TemporaryDirectory[str]:
    roomy = "/var/tmp"  # noqa: S108 - /tmp is often memory
    return tempfile.TemporaryDirectory(prefix="hud-artifacts-", dir=roomy if Path(roomy).is_dir() else None)


async def _placed(attempt: Attempt, verifier: Task, carried: Carried | None) -> Any:
    """Place and connect the verifier's environment beside the agent's, with the artefacts in its workspace."""
    if attempt.place_row is None:
        raise UnsupportedConfigError(f"verifier {verifier.slug!r} runs elsewhere, but nothing says where")
    provider = await attempt.place_row(verifier)
    if not callable(provider):
        raise UnsupportedConfigError(
            f"{type(provider).__name__} drives whole rollouts, so it cannot place verifier {verifier.slug!r}; "
            "give the verifier a runtime_config, or its environment a route in hud.toml"
        )
    for tried in range(PLACED_AGAIN + 1):
        held = AsyncExitStack()
        try:
            client = await _connected(attempt, held, provider, verifier)
            if carried is not None and carried.files:
                await attempt.within("grade", _carry_in(client, verifier, carried), told_as="verifier.carry")
        except RuntimeFault as error:
            await attempt.within("release", held.aclose(), told_as="verifier.release")
            if tried == PLACED_AGAIN or not getattr(error, "retryable", True):
                raise
        except BaseException:
            attempt.stack.push_async_exit(held)
            raise
        else:
            attempt.stack.push_async_exit(held)
            return client
    raise AssertionError


async def _connected(attempt: Attempt, held: AsyncExitStack, provider: Any, verifier: Task) -> Any:
    runtime = await _within(attempt, "place", held.enter_async_context(provider(verifier)))
    entering = held.enter_async_context(attempt.connector(runtime, verifier, attempt.run))
    asked = runtime.params.get("ready_timeout")
    bound = attempt.deadlines.connect
    return await _within(attempt, "connect", entering, bound if asked is None else max(bound, float(asked)))


async def _carry_in(client: Any, verifier: Task, carried: Carried) -> None:
    shell = await shell_of(client)
    if shell is None:
        raise UnsupportedConfigError(
            f"environment {verifier.env!r} of verifier {verifier.slug!r} has no shell to carry artefacts into; give it "
            "one, as env.workspace(...)"
        )
    await deliver(shell, carried)
