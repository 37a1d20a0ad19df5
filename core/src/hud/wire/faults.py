"""Exceptions as error frames, and error frames as exceptions."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import hud.errors as errors
from hud.errors import HudError, HudProtocolError
from hud.wire.frames import BAD_PARAMS, NOT_AUTHORIZED, OVER_LIMIT, TASK_FAILED, WRONG_STATE, error_fragment

_MESSAGE_CHARACTERS = 16_000


def describe(exc: BaseException) -> str:
    """Return an exception's text, or its type where it says nothing."""
    text = str(exc) if isinstance(exc, HudError) else f"{type(exc).__name__}: {exc}".removesuffix(": ")
    text = text or type(exc).__name__
    return text if len(text) <= _MESSAGE_CHARACTERS else text[:_MESSAGE_CHARACTERS] + " …"


def failure_fragment(exc: BaseException, phase: str, *, debug: bool = False) -> bytes:
    """Return the error part of a reply for what `phase` raised, with `data {type, phase, retryable}`."""
    if isinstance(exc, HudProtocolError):
        code, message = exc.code, exc.message
    else:
        code, message = TASK_FAILED, describe(exc)
    data: dict[str, Any] = {
        "type": type(exc).__name__,
        "phase": phase,
        "retryable": bool(getattr(exc, "retryable", False)),
    }
    theirs: str = getattr(exc, "author_traceback", "")  # a grader's error has one too
    if debug and theirs:
        data["traceback"] = theirs
    elif debug:
        data["traceback"] = "".join(traceback.format_exception(exc))[-64_000:]
    return error_fragment(code, message, data)


def bad_params(message: str) -> errors.BadParamsError:
    """Make the error for parameters that are wrong (-32602)."""
    return errors.BadParamsError(BAD_PARAMS, message)


def wrong_state(message: str) -> errors.WrongStateError:
    """Make the error for a request that cannot be answered now (-32600)."""
    return errors.WrongStateError(WRONG_STATE, message)


def refusal(code: int, message: str, phase: str, kind: str = "") -> bytes:
    """Return the error part of a reply to a request that is refused before it does anything."""
    return error_fragment(
        code,
        message,
        {"type": kind or _TYPES.get(code, "HudProtocolError"), "phase": phase, "retryable": False},
    )


_TYPES = {
    WRONG_STATE: "WrongStateError",
    BAD_PARAMS: "BadParamsError",
    NOT_AUTHORIZED: "NotAuthorizedError",
    OVER_LIMIT: "LimitReachedError",
}


def raised_from(error: Any) -> HudProtocolError:
    """Return the exception for an error object of the peer.

    It is a `HudProtocolError` with its code, message and data; where `data.type` names one of our error types it
    is an instance of that as well, so that `except GraderError` works on either side of the wire.
    """
    if not isinstance(error, dict):
        return HudProtocolError(-32603, f"the peer's error is no object: {error!r:.200}")
    code = error.get("code")
    code = code if isinstance(code, int) else -32603
    message = error.get("message")
    message = message if isinstance(message, str) else repr(error)[:500]
    data = error.get("data")
    data = data if isinstance(data, dict) else {}
    known = _CODES.get(code)
    if known is not None:
        return known(code, message, data)
    kind = data.get("type")
    cls = _remote(kind) if isinstance(kind, str) else None
    if cls is None:
        return HudProtocolError(code, message, data)
    return cls(code, message, data)


_CODES: Mapping[int, type[HudProtocolError]] = {
    WRONG_STATE: errors.WrongStateError,
    BAD_PARAMS: errors.BadParamsError,
    NOT_AUTHORIZED: errors.NotAuthorizedError,
    OVER_LIMIT: errors.LimitReachedError,
}
_NEVER_REMOTE = (errors.UsageError, errors.PluginError, errors.WireError, errors.AgentFault)


@lru_cache(maxsize=256)  # the names come from the peer
def _known(kind: str) -> type[HudError] | None:
    cls = getattr(errors, kind, None)
    if not (isinstance(cls, type) and issubclass(cls, HudError)) or issubclass(cls, _NEVER_REMOTE):
        return None
    return cls


def _remote(kind: str) -> type[HudProtocolError] | None:
    cls = _known(kind) if len(kind) < 64 else None
    return None if cls is None else _joined(cls.__name__)


@cache
def _joined(name: str) -> type[HudProtocolError]:
    """Make the class that is both the error named and a protocol error."""
    cls: type[HudError] = getattr(errors, name)

    def __init__(  # noqa: N807
        self: Any, code: int, message: str, data: dict[str, Any] | None = None
    ) -> None:
        HudProtocolError.__init__(self, code, message, data)
        for name, default in _FIELDS.items():
            if not hasattr(self, name):
                setattr(self, name, self.data.get(name, default))
        self.author_traceback = str(self.data.get("traceback", ""))

    def __reduce__(self: Any) -> tuple[Any, ...]:  # noqa: N807
        return raised_from, ({"code": self.code, "message": self.message, "data": self.data},)

    return type(
        cls.__name__,
        (cls, HudProtocolError),
        {
            "__init__": __init__,
            "__str__": lambda self: self.message,
            "__reduce__": __reduce__,
            "__module__": cls.__module__,
            "__doc__": cls.__doc__,
        },
    )


_FIELDS: Mapping[str, Any] = {"phase": "", "seconds": 0.0, "limit": "", "status": None, "retry_after_s": None}
