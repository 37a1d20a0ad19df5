"""What went wrong in a rollout, in one shape: who failed, in which phase, and whether a retry can help."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hud.errors import (
    AgentFault,
    EnvironmentFault,
    GraderError,
    HudError,
    HudProtocolError,
    LimitError,
    NotAuthorizedError,
    PhaseTimeoutError,
    PluginError,
    ProviderError,
    RuntimeFault,
    SandboxError,
    UsageError,
    WireError,
)
from hud.values import Value

if TYPE_CHECKING:
    from types import TracebackType

Kind = Literal["infrastructure", "agent", "task", "limit", "usage", "cancelled"]

_HUD = str(Path(__file__).resolve().parent.parent)
_LONGEST = 16_000


@dataclass(slots=True, frozen=True)
class Failure(Value):
    """One failure of a rollout.

    `kind` decides what follows: infrastructure is retried with a fresh placement, what an agent achieved
    before it failed (or reached a limit) is graded, a task's failure is reported and never read as a reward.
    `type` is the error's class, `failed_part` who failed, `traceback` the author's own frames.
    """

    kind: Kind
    phase: str
    type: str
    message: str
    failed_part: str
    retryable: bool = False
    hints: list[str] = field(default_factory=list)
    traceback: str | None = None

    def __str__(self) -> str:
        where = f"{self.phase}: " if self.phase else ""
        return f"{where}{self.type}: {self.message}"


def classify(exc: BaseException, phase: str) -> Failure:
    """Read an exception that ended `phase`."""
    kind, part, retryable = _judge(exc, phase)
    return Failure(
        kind=kind,
        phase=phase,
        type=_type_name(exc),
        message=_message(exc),
        failed_part=part,
        retryable=retryable,
        hints=list(exc.hints) if isinstance(exc, HudError) else [],
        traceback=_author_traceback(exc),
    )


def _judge(exc: BaseException, phase: str) -> tuple[Kind, str, bool]:
    if isinstance(exc, asyncio.CancelledError):
        return "cancelled", "user", False
    if isinstance(exc, PhaseTimeoutError):
        return _judge_timeout(exc.phase)
    if isinstance(exc, LimitError):
        return "limit", exc.failed_part, False
    if isinstance(exc, HudProtocolError):
        return _judge_reply(exc, phase)
    if isinstance(exc, (WireError, RuntimeFault, SandboxError)):
        return "infrastructure", exc.failed_part, exc.retryable
    if isinstance(exc, ProviderError) and exc.retryable:
        return "infrastructure", exc.failed_part, True
    if isinstance(exc, (UsageError, PluginError)):
        return "usage", exc.failed_part, False
    if isinstance(exc, AgentFault):
        return "agent", exc.failed_part, False
    if isinstance(exc, (EnvironmentFault, GraderError)):
        return "task", exc.failed_part, False
    return {
        "place": ("infrastructure", "runtime", True),
        "connect": ("infrastructure", "wire", True),
        "start": ("task", "environment", False),
        "act": ("agent", "agent", False),
        "grade": ("task", "grader", False),
    }.get(phase, ("infrastructure", "runtime", False))  # type: ignore[return-value]


def _judge_timeout(phase: str) -> tuple[Kind, str, bool]:
    if phase in ("place", "connect"):
        return "infrastructure", "runtime", True
    if phase == "act":
        return "agent", "agent", False
    if phase in ("start", "grade"):
        return "task", "environment" if phase == "start" else "grader", False
    return "infrastructure", "runtime", False


_GRADER = frozenset({"GraderError", "RewardError"})


def _judge_reply(exc: HudProtocolError, phase: str) -> tuple[Kind, str, bool]:
    """Read an error frame: what the environment's own code raised is the task's failure."""
    if phase == "act":
        return "agent", "agent", False
    if exc.retryable or exc.code == -32002:
        return "infrastructure", "wire", True
    if exc.code == -32000:
        of_grader = phase == "grade" and exc.data.get("type") in _GRADER
        return "task", "grader" if of_grader else "environment", False
    if exc.code == -32602:
        return "task", "environment", False
    return "infrastructure", "wire", not isinstance(exc, NotAuthorizedError) and phase == "connect"


def _type_name(exc: BaseException) -> str:
    if isinstance(exc, HudProtocolError):
        return str(exc.data.get("type") or type(exc).__name__)
    return type(exc).__name__


def _message(exc: BaseException) -> str:
    text = exc.message if isinstance(exc, HudProtocolError) else str(exc)
    text = text or f"{type(exc).__name__} with no message"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _author_traceback(exc: BaseException) -> str | None:
    """Return the frames below ours: the agent's, the provider's, or the author's as the environment sent them."""
    sent = getattr(exc, "author_traceback", "") or (
        exc.data.get("traceback") if isinstance(exc, HudProtocolError) else None
    )
    if sent:
        return str(sent)[-_LONGEST:]
    if isinstance(exc, HudError) or exc.__traceback__ is None:
        return None
    frames = _below_ours(exc.__traceback__)
    if frames is None:
        return None
    return "".join(traceback.format_exception(type(exc), exc, frames))[-_LONGEST:]


def _below_ours(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_HUD):
        tb = tb.tb_next
    return tb
