"""Spans of your own functions, kept with the rollout they ran in."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from uuid import uuid4

from hud.values import plain

if TYPE_CHECKING:
    from hud.types.trace import Trace

P = ParamSpec("P")
R = TypeVar("R")

MAX_SPANS = 10_000
"""Spans kept per rollout; later ones are counted, not kept."""

_trace: ContextVar[Trace | None] = ContextVar("hud_trace", default=None)
_parent: ContextVar[str | None] = ContextVar("hud_span", default=None)


def record_spans_in(trace: Trace) -> None:
    """Keep the spans of this task from now on, and of tasks it starts, in `trace.extra["spans"]`."""
    _trace.set(trace)


def get_current_trace_id() -> str | None:
    """Return the id of the rollout this code runs in, or None outside one."""
    trace = _trace.get()
    return None if trace is None else trace.trace_id


@overload
def instrument(func: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def instrument(
    func: None = None, *, name: str | None = None, record_args: bool = True, record_result: bool = True
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def instrument(
    func: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    record_args: bool = True,
    record_result: bool = True,
) -> Any:
    """Record each call of `func` (sync or async) as a span of the current rollout; outside one, only call it.

    A span has `name`, `span_id`, `parent_span_id`, `started_at`, `ended_at` (seconds since the epoch), and as
    asked for `args`, `result`; `error` where the function raised.
    """
    if func is None:
        return functools.partial(instrument, name=name, record_args=record_args, record_result=record_result)
    label = name or func.__qualname__
    signature = inspect.signature(func) if record_args else None

    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def in_span_async(*args: Any, **kwargs: Any) -> Any:
            trace = _trace.get()
            if trace is None:
                return await func(*args, **kwargs)
            with _span(trace, label, signature, args, kwargs) as span:
                result = await func(*args, **kwargs)
                if record_result:
                    span["result"] = _shown(result)
                return result

        return in_span_async

    @functools.wraps(func)
    def in_span(*args: Any, **kwargs: Any) -> Any:
        trace = _trace.get()
        if trace is None:
            return func(*args, **kwargs)
        with _span(trace, label, signature, args, kwargs) as span:
            result = func(*args, **kwargs)
            if record_result:
                span["result"] = _shown(result)
            return result

    return in_span


def flush(timeout: float = 10.0) -> bool:
    """Return True: spans are kept with their rollout as they end, so none waits to be sent."""
    return timeout >= 0


@contextmanager
def _span(
    trace: Trace,
    name: str,
    signature: inspect.Signature | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    span: dict[str, Any] = {"name": name, "span_id": uuid4().hex[:16], "parent_span_id": _parent.get()}
    if signature is not None:
        bound = signature.bind_partial(*args, **kwargs).arguments
        span["args"] = {key: _shown(value) for key, value in bound.items()}
    token = _parent.set(span["span_id"])
    span["started_at"] = time.time()
    try:
        yield span
    except BaseException as exc:
        span["error"] = f"{type(exc).__name__}: {exc}"
        raise
    finally:
        span["ended_at"] = max(time.time(), span["started_at"])
        _parent.reset(token)
        _keep(trace, span)


def _keep(trace: Trace, span: dict[str, Any]) -> None:
    spans = trace.extra.setdefault("spans", [])
    if len(spans) < MAX_SPANS:
        spans.append(span)
    else:
        trace.extra["spans_dropped"] = trace.extra.get("spans_dropped", 0) + 1


_JSON = (str, int, float, bool, type(None), list, dict)


def _shown(value: Any) -> Any:
    """Return `value` for the record: JSON's types as they are, anything else as its `repr`, cut at 2,000 characters."""
    value = plain(value)
    if isinstance(value, str):
        return value if len(value) <= 2000 else value[:2000] + "…"
    if isinstance(value, (list, dict)):
        text = repr(value)
        return value if len(text) <= 2000 else text[:2000] + "…"
    return value if isinstance(value, _JSON) else repr(value)[:2000]
