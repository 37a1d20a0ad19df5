"""Spans of your own functions, kept with the rollout they ran in."""

from __future__ import annotations

import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar, overload
from uuid import uuid4

from hud.values import plain

P = ParamSpec("P")
R = TypeVar("R")

MAX_SPANS = 10_000
"""Spans kept per rollout; later ones are counted, not kept."""

REPLY_SPANS = 1_000
REPLY_BYTES = 256 * 1024
"""Of these the environment's process tells the orchestrator so many, so much, with the grade."""


class SpanHolder(Protocol):
    """Where spans are kept: a rollout's trace, or what an environment's process keeps for the grade's reply."""

    trace_id: Any
    extra: dict[str, Any]


class EnvironmentSpans:
    """The spans of a template and its graders, until the grade's reply takes them to the rollout's trace."""

    __slots__ = ("extra", "trace_id")

    def __init__(self) -> None:
        self.trace_id: str | None = None
        self.extra: dict[str, Any] = {}

    def told(self) -> dict[str, Any] | None:
        """Return `{spans, dropped}` as JSON's types; None where there are none."""
        spans = self.extra.get("spans")
        if not spans:
            return None
        kept: list[dict[str, Any]] = []
        size = 0
        for span in spans[:REPLY_SPANS]:
            clean = {**span, **{part: _as_json(span[part]) for part in ("args", "result") if part in span}}
            size += len(json.dumps(clean))
            if size > REPLY_BYTES:
                break
            kept.append(clean)
        return {"spans": kept, "dropped": len(spans) - len(kept) + self.extra.get("spans_dropped", 0)}


INFO_KEY = "hud.spans"
"""Where the `info` of a grade has them on the wire."""

_trace: ContextVar[SpanHolder | None] = ContextVar("hud_trace", default=None)
_parent: ContextVar[str | None] = ContextVar("hud_span", default=None)


def record_spans_in(trace: SpanHolder) -> None:
    """Keep the spans of this task from now on, and of tasks it starts, in `trace.extra["spans"]`."""
    _trace.set(trace)


def take_in(trace: SpanHolder, told: Any) -> None:
    """Add the spans that an environment's reply told of to its rollout's trace, marked `side: environment`.

    The reply comes from elsewhere, so what is no span is passed over.
    """
    spans = told.get("spans") if isinstance(told, dict) else None
    for span in spans if isinstance(spans, list) else ():
        if isinstance(span, dict) and isinstance(span.get("name"), str):
            _keep(trace, {**span, "side": "environment"})
    dropped = told.get("dropped") if isinstance(told, dict) else None
    if isinstance(dropped, int) and dropped > 0:
        trace.extra["spans_dropped"] = trace.extra.get("spans_dropped", 0) + dropped


def get_current_trace_id() -> str | None:
    """Return the id of the rollout this code runs in; None outside one, and in an environment, which is not told."""
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
    trace: SpanHolder,
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


def _keep(trace: SpanHolder, span: dict[str, Any]) -> None:
    spans = trace.extra.setdefault("spans", [])
    if len(spans) < MAX_SPANS:
        spans.append(span)
    else:
        trace.extra["spans_dropped"] = trace.extra.get("spans_dropped", 0) + 1


def _as_json(value: Any) -> Any:
    """Return a value that JSON can hold: itself where it can."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)[:2000]
    return value


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
