"""How verbs are called: notify, first, fold, collect, each with one rule for failures.

pluggy finds and orders the implementations; it cannot await them, so the calling is done here.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hud.errors import PluginHookError

if TYPE_CHECKING:
    from hud.plugins.plugin import Implementation

DEADLINE_S = 5.0

logger = logging.getLogger("hud.plugins")

Report = Callable[["Implementation", BaseException], None]


async def notify(
    implementations: Sequence[Implementation],
    event: Any,
    report: Report,
    *,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Call all at once, each under a deadline; failures are reported, cancellation propagates."""
    if not implementations:
        return
    import asyncio

    async with asyncio.TaskGroup() as group:
        for implementation in implementations:
            group.create_task(_guarded(implementation, event, report, deadline_s))


async def notify_finally(
    implementations: Sequence[Implementation],
    event: Any,
    report: Report,
    *,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Notify even while the caller is cancelled; the cancellation is raised once all were told.

    Each implementation runs once. The whole takes at most `deadline_s` and a little.
    """
    if implementations:
        from hud.cleanup import shielded

        await shielded(notify(implementations, event, report, deadline_s=deadline_s))


async def first(implementations: Sequence[Implementation], event: Any) -> Any | None:
    """Call in order, awaiting each, until one answers something other than None.

    Raises:
        PluginHookError: one raised; the others are not asked, since a guess would be wrong.
    """
    for implementation in implementations:
        try:
            answer = implementation(event)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            raise PluginHookError(
                f"{implementation.hook} of plugin {implementation.plugin.name!r} "
                f"({implementation.plugin.title}) raised {_described(error)}"
            ) from error
        if answer is not None:
            return answer
    return None


def fold(
    implementations: Sequence[Implementation],
    event: Any,
    record: Any,
    replaced: Callable[[Any, Any], Any],
    report: Report,
) -> Any | None:
    """Pass `record` through all in order; None drops it, and so does an exception.

    `replaced(event, record)` makes the event the next implementation receives.
    """
    for implementation in implementations:
        try:
            record = implementation(event)
        except Exception as error:  # noqa: BLE001 - redaction fails closed, and the failure is reported
            report(implementation, error)
            return None
        if record is None:
            return None
        event = replaced(event, record)
    return record


async def collect(
    implementations: Sequence[Implementation],
    event: Any,
    report: Report,
    *,
    deadline_s: float = DEADLINE_S,
) -> list[tuple[Implementation, Any]]:
    """Call in order, each under a deadline, and return the answers that are not None."""
    answers: list[tuple[Implementation, Any]] = []
    if not implementations:
        return answers
    for implementation in implementations:
        answer = await _guarded(implementation, event, report, deadline_s)
        if answer is not None:
            answers.append((implementation, answer))
    return answers


async def _guarded(
    implementation: Implementation, event: Any, report: Report, deadline_s: float
) -> Any | None:
    import asyncio

    bound = asyncio.timeout(deadline_s)
    try:
        async with bound:
            answer = implementation(event)
            if inspect.isawaitable(answer):
                answer = await answer
            return answer
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a listener's failure is reported, not spread
        if isinstance(error, TimeoutError) and bound.expired():
            error = TimeoutError(f"took longer than {deadline_s:g} s and was cancelled")
        report(implementation, error)
    return None


def _described(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
