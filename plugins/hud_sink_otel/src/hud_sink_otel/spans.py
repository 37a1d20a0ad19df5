"""A record of the job's file as spans.

Names and attributes are those of OpenTelemetry's semantic conventions for generative AI where these have one
(`gen_ai.*`, `error.type`), `hud.*` for the rest.
Source: OpenTelemetry semantic conventions 1.43, "GenAI spans", "GenAI agent spans", "GenAI events", read 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from hud import __version__
from hud_sink_otel import content as texts
from hud_sink_otel.ids import context, given_span_id, span_id, trace_id

PHASES = ("place", "connect", "start", "act", "grade", "release")
PROVIDERS = {
    "claude": "anthropic",
    "anthropic": "anthropic",
    "gpt": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "chatgpt": "openai",
    "codex": "openai",
    "openai": "openai",
    "gemini": "gcp.gemini",
    "deepseek": "deepseek",
    "grok": "x_ai",
    "mistral": "mistral_ai",
}
"""What a model's name begins with, and the convention's name of who provides it."""

Attributes = dict[str, Any]


class TraceMaker:
    """Makes one job's spans. Called from one thread."""

    def __init__(self, job_id: str, *, opened_at: float, content: bool, per_rollout: bool) -> None:
        self._job_id = job_id
        self._content = content
        self._per_rollout = per_rollout
        # A job that is resumed has a span for each time it ran.
        self._job = context(trace_id(job_id), span_id(job_id, "job", opened_at))
        self._opened_at = opened_at
        self._begun: Mapping[str, Any] = {}
        self._resource = Resource.create(_resource())
        self._scope = InstrumentationScope("hud", __version__)

    def begin(self, record: Mapping[str, Any]) -> None:
        """Note what the job was asked to do."""
        self._begun = record

    def job_span(self, record: Mapping[str, Any]) -> ReadableSpan:
        """Make the job's own span, from how it ended."""
        begun = self._begun
        options = begun.get("options") or {}
        inputs = begun.get("inputs") or {}
        attributes: Attributes = {
            "hud.job.id": self._job_id,
            "hud.job.name": record.get("name"),
            "hud.job.source": begun.get("source"),
            "hud.job.rows": begun.get("rows"),
            "hud.job.group": begun.get("group"),
            "hud.job.tags": options.get("tags"),
            "hud.job.seed": options.get("seed"),
            "hud.job.runs": record.get("run_count"),
            "hud.job.errors": record.get("error_count"),
            "hud.job.mean_reward": record.get("mean_reward"),
            "hud.job.cancelled": record.get("cancelled"),
            "hud.job.ended_because": record.get("ended_because"),
            "hud.source.digest": (inputs.get("source") or {}).get("digest"),
            "gen_ai.agent.name": begun.get("agent"),
        }
        attributes |= {
            f"hud.version.{dist}": number for dist, number in (inputs.get("versions") or {}).items()
        }
        problem = record.get("ended_because") if record.get("cancelled") else None
        return self._span(
            f"job {record.get('name')}",
            self._job,
            None,
            (self._opened_at, record.get("ended_at")),
            attributes,
            status=_error(problem) if problem else _OK,
        )

    def rollout_spans(self, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """Make a rollout's spans: its own, its earlier tries, phases, calls, and what `@hud.instrument` kept."""
        return [*_Rollout(self, record).spans()]

    def rollout_context(self, run_id: str) -> tuple[SpanContext, SpanContext | None, Sequence[Link]]:
        """Return the context of a rollout's span, its parent's, and its links."""
        if self._per_rollout:
            return context(trace_id(run_id), span_id(run_id)), None, [Link(self._job)]
        return context(self._job.trace_id, span_id(run_id)), self._job, ()

    @property
    def with_content(self) -> bool:
        """Whether messages are sent."""
        return self._content

    def _span(
        self,
        name: str,
        own: SpanContext,
        parent: SpanContext | None,
        times: tuple[float | None, float | None],
        attributes: Attributes,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status | None = None,
        events: Sequence[Event] = (),
        links: Sequence[Link] = (),
    ) -> ReadableSpan:
        begun = times[0] if times[0] is not None else (times[1] or 0.0)
        ended = max(times[1] if times[1] is not None else begun, begun)
        return ReadableSpan(
            name,
            context=own,
            parent=parent,
            resource=self._resource,
            attributes={key: value for key, value in attributes.items() if value is not None and value != []},
            events=events,
            links=links,
            kind=kind,
            status=status if status is not None else _OK,
            start_time=_ns(begun),
            end_time=_ns(ended),
            instrumentation_scope=self._scope,
        )

    span = _span


class _Rollout:
    """The spans of one rollout's record."""

    def __init__(self, maker: TraceMaker, record: Mapping[str, Any]) -> None:
        self._maker = maker
        self._record = record
        self._run_id = str(record["run_id"])
        self._own, self._parent, self._links = maker.rollout_context(self._run_id)
        self._starts: dict[str, float] = record.get("phases_at") or {}
        self._seconds: dict[str, float] = record.get("phases_s") or {}

    def spans(self) -> Iterator[ReadableSpan]:
        record = self._record
        for attempt in record.get("attempts") or ():
            yield from self._attempt(attempt)
        yield from self._phases(self._starts, self._seconds, ())
        yield from self._steps(record.get("steps") or (), self._phase("act"), ("step",))
        extra = record.get("extra") or {}
        yield from self._host_calls(extra.get("host_calls") or ())
        yield from self._instrumented(extra.get("spans") or ())
        yield self._whole(extra)

    def _whole(self, extra: Mapping[str, Any]) -> ReadableSpan:
        record = self._record
        task = record.get("task") or {}
        failure = record.get("failure")
        usage = record.get("usage") or {}
        environment = record.get("environment") or {}
        attributes: Attributes = {
            "hud.run.id": self._run_id,
            "hud.job.id": record.get("job_id"),
            "hud.group.id": record.get("group_id"),
            "hud.run.index": record.get("index"),
            "hud.task.slug": record.get("slug"),
            "hud.task.id": task.get("id"),
            "hud.task.args": texts.shown(task["args"], 2000) if task.get("args") else None,
            "hud.environment.name": environment.get("name") or task.get("env"),
            "hud.environment.version": environment.get("version") or None,
            "hud.runtime": _without_query(record.get("runtime")),
            "hud.reward": record.get("reward"),
            "hud.status": record.get("status"),
            "hud.stop_reason": record.get("stop_reason"),
            "hud.attempts": len(record.get("attempts") or ()) + 1,
            "hud.spans.dropped": extra.get("spans_dropped"),
            "gen_ai.conversation.id": self._run_id,
            "gen_ai.agent.name": record.get("agent"),
            **_usage(usage),
            **({"error.type": failure["type"], "hud.failure.kind": failure["kind"]} if failure else {}),
        }
        return self._maker.span(
            f"rollout {record.get('slug')}",
            self._own,
            self._parent,
            (record.get("started_at"), record.get("ended_at")),
            attributes,
            status=_error(failure["message"]) if failure else _OK,
            events=[*self._verdicts(), *_exceptions(failure, record.get("ended_at"))],
            links=self._links,
        )

    def _verdicts(self) -> Iterator[Event]:
        """Yield an event for the grade and one for each of its parts, as the conventions tell of evaluations."""
        grade = self._record.get("grade")
        if not grade:
            return
        at = _ns(self._starts.get("grade", 0.0) + self._seconds.get("grade", 0.0)) or None
        task = self._record.get("task") or {}
        yield _verdict(str(task.get("id", "grade")), self._record.get("reward"), grade.get("content"), at)
        for part in grade.get("subscores") or ():
            if isinstance(part, Mapping):
                score = part.get("value", part.get("score"))
                yield _verdict(str(part.get("name", "part")), score, part.get("content"), at)

    def _attempt(self, attempt: Mapping[str, Any]) -> Iterator[ReadableSpan]:
        """Yield an earlier try that infrastructure ended, with its phases."""
        number = attempt.get("attempt")
        starts, seconds = attempt.get("phases_at") or {}, attempt.get("phases_s") or {}
        if not starts:
            return
        failure = attempt.get("failure") or {}
        own = context(self._own.trace_id, span_id(self._run_id, "attempt", number))
        ended = max(starts[phase] + seconds.get(phase, 0.0) for phase in starts)
        yield from self._phases(starts, seconds, ("attempt", number), parent=own)
        yield self._maker.span(
            f"attempt {number}",
            own,
            self._own,
            (min(starts.values()), ended),
            {
                "hud.attempt": number,
                "error.type": failure.get("type"),
                "hud.failure.kind": failure.get("kind"),
            },
            status=_error(failure.get("message", "lost")),
            events=[*_exceptions(failure, ended)],
        )

    def _phases(
        self,
        starts: Mapping[str, float],
        seconds: Mapping[str, float],
        path: tuple[object, ...],
        parent: SpanContext | None = None,
    ) -> Iterator[ReadableSpan]:
        failure: Mapping[str, Any] = {} if path else self._record.get("failure") or {}
        for phase in PHASES:
            if phase not in starts:
                continue
            attributes: Attributes = {"hud.phase": phase}
            name = phase
            if phase == "act":
                name = f"invoke_agent {self._record.get('agent')}"
                attributes |= self._invocation() if not path else {}
            failed = failure.get("phase") == phase
            if failed:
                attributes["error.type"] = failure["type"]
            yield self._maker.span(
                name,
                self._phase(phase, *path),
                parent or self._own,
                (starts[phase], starts[phase] + seconds.get(phase, 0.0)),
                attributes,
                status=_error(failure["message"]) if failed else _OK,
            )

    def _invocation(self) -> Attributes:
        record = self._record
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": record.get("agent"),
            "gen_ai.conversation.id": self._run_id,
            **_usage(record.get("usage") or {}),
        }
        if self._maker.with_content:
            calls: Iterator[Mapping[str, Any]] = (s.get("task_call") or {} for s in record.get("steps") or ())
            setup = next((call for call in calls if call), {})
            prompt = (setup.get("result") or {}).get("prompt")
            if prompt is not None:
                attributes["gen_ai.input.messages"] = texts.prompt_messages(prompt)
            if record.get("content") is not None:
                attributes["gen_ai.output.messages"] = texts.answer_messages(record["content"])
        return attributes

    def _steps(
        self, steps: Sequence[Mapping[str, Any]], parent: SpanContext, path: tuple[object, ...]
    ) -> Iterator[ReadableSpan]:
        for number, step in enumerate(steps):
            own = context(self._own.trace_id, span_id(self._run_id, *path, number))
            kind = _kind(step)
            times = (step.get("started_at"), step.get("ended_at"))
            if kind == "agent":
                yield self._model_call(step, own, parent, times)
            elif kind == "tool":
                yield self._tool_call(step, own, parent, times)
            elif kind == "subagent":
                nested = step.get("subagent") or {}
                yield from self._steps(nested.get("steps") or (), own, (*path, number))
                name = (step.get("extra") or {}).get("name") or "subagent"
                yield self._maker.span(
                    f"invoke_agent {name}",
                    own,
                    parent,
                    times,
                    {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": str(name)},
                    status=_error(step.get("error")) if step.get("error") else _OK,
                )
            elif step.get("error"):
                yield self._maker.span(
                    str(step.get("source", "step")), own, parent, times, {}, status=_error(step["error"])
                )

    def _model_call(
        self,
        step: Mapping[str, Any],
        own: SpanContext,
        parent: SpanContext,
        times: tuple[float | None, float | None],
    ) -> ReadableSpan:
        model = step.get("model")
        finish = step.get("finish_reason") or step.get("stop_reason")
        attributes: Attributes = {
            **_of_model("chat", model),
            "gen_ai.conversation.id": self._run_id,
            "gen_ai.response.finish_reasons": [str(finish)] if finish else None,
            "hud.step": step.get("step_id"),
            **_usage(step.get("usage") or {}),
        }
        if self._maker.with_content:
            attributes["gen_ai.output.messages"] = texts.output_messages(step)
        if step.get("error"):
            attributes["error.type"] = "_OTHER"
        return self._maker.span(
            f"chat {model}" if model else "chat",
            own,
            parent,
            times,
            attributes,
            kind=SpanKind.CLIENT,
            status=_error(step["error"]) if step.get("error") else _OK,
        )

    def _tool_call(
        self,
        step: Mapping[str, Any],
        own: SpanContext,
        parent: SpanContext,
        times: tuple[float | None, float | None],
    ) -> ReadableSpan:
        call, result = step.get("call") or {}, step.get("result") or {}
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.get("name"),
            "gen_ai.tool.call.id": call.get("id") or None,
            "gen_ai.tool.type": "function",
            "hud.step": step.get("step_id"),
        }
        if self._maker.with_content:
            attributes["gen_ai.tool.call.arguments"] = texts.shown(call.get("arguments"))
            attributes["gen_ai.tool.call.result"] = texts.result_text(result)
        failed = bool(result.get("isError")) or step.get("error")
        if failed:
            attributes["error.type"] = "tool_error"
        return self._maker.span(
            f"execute_tool {call.get('name')}",
            own,
            parent,
            times,
            attributes,
            status=_error(step.get("error") or "the tool answered with an error") if failed else _OK,
        )

    def _host_calls(self, calls: Sequence[Mapping[str, Any]]) -> Iterator[ReadableSpan]:
        """Yield the model calls that the environment's graders and simulated users made."""
        for number, call in enumerate(calls):
            begun = call.get("started_at") or 0.0
            attributes: Attributes = {
                **_of_model("chat", call.get("model")),
                "gen_ai.conversation.id": self._run_id,
                "hud.host_call": True,
                "hud.cached": call.get("cached"),
                "error.type": "_OTHER" if call.get("error") else None,
                **_usage(call.get("usage") or {}),
            }
            yield self._maker.span(
                f"chat {call.get('model')}",
                context(self._own.trace_id, span_id(self._run_id, "host", number)),
                self._phase_at(begun, of=("grade", "start")),
                (begun, call.get("ended_at")),
                attributes,
                kind=SpanKind.CLIENT,
                status=_error(call["error"]) if call.get("error") else _OK,
            )

    def _instrumented(self, spans: Sequence[Mapping[str, Any]]) -> Iterator[ReadableSpan]:
        """Yield what `@hud.instrument` kept, on the agent's side and on the environment's."""
        known = {number for span in spans if (number := given_span_id(span.get("span_id")))}
        for place, span in enumerate(spans):
            number = given_span_id(span.get("span_id")) or span_id(self._run_id, "span", place)
            parent = given_span_id(span.get("parent_span_id"))
            begun = span.get("started_at") or 0.0
            side = span.get("side")
            of = ("start", "grade", "release") if side == "environment" else ("act",)
            within = context(self._own.trace_id, parent) if parent in known else self._phase_at(begun, of=of)
            attributes: Attributes = {
                "hud.side": side or "agent",
                "hud.args": texts.shown(span["args"], 8000) if "args" in span else None,
                "hud.result": texts.shown(span["result"], 8000) if "result" in span else None,
            }
            error = span.get("error")
            if error:
                attributes["error.type"] = str(error).partition(":")[0]
            yield self._maker.span(
                str(span.get("name")),
                context(self._own.trace_id, number),
                within,
                (begun, span.get("ended_at")),
                attributes,
                status=_error(error) if error else _OK,
            )

    def _phase(self, phase: str, *path: object) -> SpanContext:
        return context(self._own.trace_id, span_id(self._run_id, *path, "phase", phase))

    def _phase_at(self, at: float, *, of: Sequence[str]) -> SpanContext:
        """Return the phase that was under way, the latest of `of` that had begun; the rollout itself before all."""
        begun = [(self._starts[phase], phase) for phase in of if self._starts.get(phase, at + 1.0) <= at]
        return self._phase(max(begun)[1]) if begun else self._own


def _kind(step: Mapping[str, Any]) -> str:
    """Return what a step is; those within a subagent's are told apart by their fields alone."""
    if "kind" in step:
        return str(step["kind"])
    marks = {"call": "tool", "subagent": "subagent", "tool_calls": "agent"}
    return next((kind for mark, kind in marks.items() if mark in step), "step")


_OK = Status(StatusCode.UNSET)


def _error(message: object) -> Status:
    return Status(StatusCode.ERROR, str(message)[:2000])


def _ns(seconds: float | None) -> int:
    return int((seconds or 0.0) * 1e9)


def _of_model(operation: str, model: object) -> Attributes:
    name = str(model) if model else None
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _provider(name or ""),
        "gen_ai.request.model": name,
        "gen_ai.response.model": name,
    }


def _provider(model: str) -> str:
    names = [part for part in model.lower().replace("/", " ").split() if part]
    found = (provider for name in names for start, provider in PROVIDERS.items() if name.startswith(start))
    return next(found, "_OTHER")


def _usage(usage: Mapping[str, Any]) -> Attributes:
    if not usage:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
        "gen_ai.usage.cache_read.input_tokens": usage.get("cached_tokens") or None,
        "hud.usage.cost_usd": usage.get("cost_usd"),
    }


def _verdict(name: str, score: object, explanation: object, at: int | None) -> Event:
    attributes: Attributes = {"gen_ai.evaluation.name": name}
    if isinstance(score, (int, float)):
        attributes["gen_ai.evaluation.score.value"] = float(score)
    if explanation:
        attributes["gen_ai.evaluation.explanation"] = texts.shown(explanation, 4000)
    return Event("gen_ai.evaluation.result", attributes=attributes, timestamp=at)


def _exceptions(failure: Mapping[str, Any] | None, at: float | None) -> Iterator[Event]:
    if not failure:
        return
    attributes: Attributes = {
        "exception.type": failure.get("type"),
        "exception.message": str(failure.get("message", ""))[:4000],
        "exception.stacktrace": failure.get("traceback"),
    }
    kept = {key: value for key, value in attributes.items() if value is not None}
    yield Event("exception", attributes=kept, timestamp=_ns(at))


def _resource() -> Attributes:
    import os

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return {SERVICE_VERSION: __version__} if named else {SERVICE_NAME: "hud", SERVICE_VERSION: __version__}


def _without_query(url: object) -> str | None:
    """Return an address without what follows a question mark: a token, perhaps."""
    return None if not url else str(url).partition("?")[0]
