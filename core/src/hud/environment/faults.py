"""Whatever author code raised, as a typed error with the author's own traceback."""

from __future__ import annotations

import asyncio
import logging

from hud.environment.tracebacks import author_traceback, describe
from hud.errors import HudError, HudProtocolError, TemplateRaisedError, UsageError

log = logging.getLogger("hud.environment")

_TASK_FAILED = -32000
_OVER_LIMIT = -32002  # the orchestrator's budget, which a host call answers with

_REASONS: dict[type[BaseException], str] = {
    SystemExit: "; template code must not exit the process",
    KeyboardInterrupt: "; nobody interrupted it",
    asyncio.CancelledError: "; nobody cancelled it",
    GeneratorExit: "; nobody closed it",
}


def author_fault(raised: BaseException, where: str) -> HudError:
    """Return `raised` as a `HudError`, and write its traceback to the environment's log.

    An error of ours (a grader's, a prompt's) stays what it is and gets `author_traceback`; anything else becomes a
    `TemplateRaisedError` whose message is never empty, usage and protocol errors included: here they are the
    template's fault.
    """
    text = author_traceback(raised)
    if isinstance(raised, HudError) and not _is_about_a_request(raised):
        if not getattr(raised, "author_traceback", ""):
            raised.author_traceback = text  # type: ignore[attr-defined] # carried into data.traceback with --debug
        log.debug("%s: %s\n%s", where, raised, text)
        return raised
    reason = next((said for kind, said in _REASONS.items() if isinstance(raised, kind)), "")
    log.warning("%s raised\n%s", where, text)
    return TemplateRaisedError(f"{where} raised {describe(raised)}{reason}", text)


def _is_about_a_request(error: HudError) -> bool:
    """Whether a client would take `error` for what is wrong with its own request, or with the channel."""
    if isinstance(error, HudProtocolError):
        return error.code not in (_TASK_FAILED, _OVER_LIMIT)
    return isinstance(error, UsageError)
