"""How verbs are called: notify, first, fold, collect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import pytest

from hud.errors import PluginHookError
from hud.plugins import (
    Doctor,
    Finding,
    HookSpecs,
    JobFinished,
    JobStarted,
    OpenSink,
    Redact,
    RolloutFinished,
    SelectRuntime,
    dispatch,
    hookimpl,
)
from hud.plugins.plugin import Implementation, Plugin
from hud.testing.plugins import isolated_host

STARTED = JobStarted(job_id="j", name="n", rows=1, group=1)
FINISHED = JobFinished(
    job_id="j", name="n", graded=1, errors=0, cancelled=False, mean_reward=1.0, duration_s=0.1
)
ROLLOUT = RolloutFinished(
    job_id="j",
    run_id="r",
    group_id="g",
    slug="s",
    env="e",
    agent="a",
    attempts=1,
    reward=None,
    error=None,
    status="completed",
    phases_s={},
)


def implementation(function: Callable[..., Any], name: str = "acme") -> Implementation:
    return Implementation(Plugin(name, "acme-dist", "1.0", name), "hud_test", function, takes_event=True)


class Ears(HookSpecs):
    """Hears every notification; written against the specs, so type checkers check it."""

    def __init__(self, heard: list[str], name: str = "") -> None:
        self.heard = heard
        self.name = name

    @hookimpl
    async def hud_job_started(self, event: JobStarted) -> None:
        self.heard.append(f"{self.name}started {event.job_id}")

    @hookimpl
    async def hud_job_finished(self, event: JobFinished) -> None:
        await asyncio.sleep(0)
        self.heard.append(f"{self.name}finished {event.job_id}")


class SyncEars:
    """Implements an asynchronous hook by a plain function, which is allowed, and one without the event."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    @hookimpl
    def hud_job_started(self, event: JobStarted) -> None:
        self.heard.append(f"sync {event.name}")

    @hookimpl
    def hud_job_finished(self) -> None:
        self.heard.append("finished")


@pytest.mark.anyio
async def test_notify_reaches_plugins_of_both_colours() -> None:
    heard: list[str] = []
    with isolated_host(Ears(heard), SyncEars(heard)) as host:
        await host.job_started(STARTED)
        await host.job_finished(FINISHED)
    assert sorted(heard) == ["finished", "finished j", "started j", "sync n"]


@pytest.mark.anyio
async def test_a_listeners_failure_is_reported_counted_and_spreads_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []

    class Failing:
        @hookimpl
        async def hud_job_started(self, event: JobStarted) -> None:
            raise OSError("disk full")

    class Exiting:
        @hookimpl
        def hud_job_started(self, event: JobStarted) -> None:
            raise SystemExit(4)

    with isolated_host(Failing(), Ears(heard), Exiting()) as host, caplog.at_level(logging.WARNING):
        await host.job_started(STARTED)
        await host.job_started(STARTED)
        failures = {(f.plugin, f.hook): (f.error, f.count) for f in host.failures}
        titles = [f.title for f in host.findings()]
    assert heard == ["started j", "started j"]
    assert failures == {
        ("Failing@this process", "hud_job_started"): ("OSError: disk full", 2),
        ("Exiting@this process", "hud_job_started"): ("SystemExit: 4", 2),
    }
    assert (
        "hud_job_started of plugin Failing@this process failed (2 so far): OSError: disk full" in caplog.text
    )
    assert "hud_job_started of plugin Failing@this process failed 2 times" in titles


@pytest.mark.anyio
async def test_listeners_run_at_once_each_under_its_deadline() -> None:
    met = asyncio.Barrier(2)
    reported: list[str] = []

    async def meets(event: Any) -> None:
        await met.wait()

    async def hangs(event: Any) -> None:
        await asyncio.Event().wait()

    await dispatch.notify(
        [implementation(meets), implementation(meets), implementation(hangs, "slow")],
        None,
        lambda one, error: reported.append(f"{one.plugin.name}: {error}"),
        deadline_s=0.2,
    )
    assert met.n_waiting == 0
    assert reported == ["slow: took longer than 0.2 s and was cancelled"]


@pytest.mark.anyio
async def test_cancellation_passes_through_a_started_event() -> None:
    entered = asyncio.Event()

    async def hangs(event: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(dispatch.notify([implementation(hangs)], None, lambda *_: None))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["natively", "natively twice", "by a scope", "before it began"])
async def test_a_finished_event_arrives_exactly_once_also_when_cancelled(how: str) -> None:
    heard: list[str] = []
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        @hookimpl
        async def hud_rollout_finished(self, event: RolloutFinished) -> None:
            entered.set()
            await go_on.wait()
            heard.append(event.run_id)

    with isolated_host(Slow()) as host:
        scope = anyio.CancelScope()

        async def rollout() -> None:
            with scope:
                try:
                    if how == "before it began":
                        await asyncio.Event().wait()
                finally:
                    await host.rollout_finished(ROLLOUT)
                await anyio.lowlevel.checkpoint()
                heard.append("went on")

        task = asyncio.create_task(rollout())
        if how == "before it began":
            await asyncio.sleep(0)
            task.cancel()
        await entered.wait()
        if how == "by a scope":
            scope.cancel()
        elif how.startswith("natively"):
            task.cancel()
            if how.endswith("twice"):
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        if how == "by a scope":
            await task
        else:
            with pytest.raises(asyncio.CancelledError):
                await task
    assert heard == ["r"]


@pytest.mark.anyio
async def test_nobody_listening_makes_no_task() -> None:
    before = asyncio.all_tasks()
    with isolated_host() as host:
        telling: list[Awaitable[Any]] = [
            host.job_started(STARTED),
            host.job_finished(FINISHED),
            host.rollout_finished(ROLLOUT),
            host.open_sinks(OpenSink(job_id="j", name="n")),
            host.select_runtime(SelectRuntime(task=None)),
        ]
        for work in telling:
            # It ends in its first step: nothing is awaited, so nothing can have been scheduled.
            with pytest.raises(StopIteration):
                work.__await__().__next__()
        record = {"a": 1}
        assert host.redact(Redact(kind="step", record=record)) is record
    assert asyncio.all_tasks() == before


class Answers:
    """Answers what it was given to `hud_select_runtime`, keeping count."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    @hookimpl
    async def hud_select_runtime(self, event: SelectRuntime) -> Any | None:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.anyio
async def test_first_awaits_in_order_and_stops_at_the_first_answer() -> None:
    early, middle, late = Answers("early"), Answers("middle"), Answers(None)
    with isolated_host(early, middle, late) as host:  # the latest registered is asked first
        assert await host.select_runtime(SelectRuntime(task=None)) == "middle"
    assert (early.asked, middle.asked, late.asked) == (0, 1, 1)


@pytest.mark.anyio
async def test_first_names_the_plugin_that_raised_and_guesses_nothing() -> None:
    fallback = Answers("fallback")
    with (
        isolated_host(fallback, Answers(RuntimeError("no quota"))) as host,
        pytest.raises(
            PluginHookError, match=r"hud_select_runtime of plugin 'Answers'.*RuntimeError: no quota"
        ),
    ):
        await host.select_runtime(SelectRuntime(task=None))
    assert fallback.asked == 0


class Redacts:
    """Redacts by a function."""

    def __init__(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
        self.change = change

    @hookimpl
    def hud_redact(self, event: Redact) -> Mapping[str, Any] | None:
        assert event.kind == "step"
        return self.change(event.record)


def test_fold_passes_the_record_on_and_drops_it_at_none() -> None:
    with isolated_host(Redacts(lambda r: {**r, "second": 2}), Redacts(lambda r: {"first": 1})) as host:
        assert host.redact(Redact(kind="step", record={"secret": "x"})) == {"first": 1, "second": 2}
    with isolated_host(Redacts(lambda r: {"never": r}), Redacts(lambda r: None)) as host:
        assert host.redact(Redact(kind="step", record={})) is None


def test_redaction_fails_closed() -> None:
    def fails(record: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"leaked": record["missing"]}

    with isolated_host(Redacts(lambda r: {"never": r}), Redacts(fails)) as host:
        assert host.redact(Redact(kind="step", record={"secret": "x"})) is None
        assert [(f.hook, f.count) for f in host.failures] == [("hud_redact", 1)]


def test_tryfirst_and_trylast_order_within_a_hook() -> None:
    order: list[str] = []

    class Last:
        @hookimpl(trylast=True)
        def hud_redact(self, event: Redact) -> Mapping[str, Any]:
            order.append("last")
            return event.record

    class First:
        @hookimpl(tryfirst=True)
        def hud_redact(self, event: Redact) -> Mapping[str, Any]:
            order.append("first")
            return event.record

    def between(record: Mapping[str, Any]) -> Mapping[str, Any]:
        order.append("between")
        return record

    with isolated_host(First(), Redacts(between), Last()) as host:
        host.redact(Redact(kind="step", record={}))
    assert order == ["first", "between", "last"]


@pytest.mark.anyio
async def test_collect_keeps_answers_and_survives_failures() -> None:
    class Sinks:
        def __init__(self, sink: Any) -> None:
            self.sink = sink

        @hookimpl
        async def hud_open_sink(self, event: OpenSink) -> Any | None:
            if isinstance(self.sink, Exception):
                raise self.sink
            return self.sink

    with isolated_host(Sinks("a"), Sinks(OSError("down")), Sinks(None), Sinks("b")) as host:
        assert await host.open_sinks(OpenSink(job_id="j", name="n")) == ["b", "a"]
        assert [f.error for f in host.failures] == ["OSError: down"]


@pytest.mark.anyio
async def test_doctor_shows_a_failing_or_misshapen_answer_as_a_finding() -> None:
    class Doctors:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        @hookimpl
        def hud_doctor(self, event: Doctor) -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    fine = Finding(level="ok", title="daemon answers")
    with isolated_host(Doctors([fine]), Doctors(ValueError("odd")), Doctors(["text"])) as host:
        found = await host.doctor(Doctor(folder="."))
    assert fine in found
    assert sorted(f.detail for f in found if f.level == "error") == [
        "TypeError: answered ['text'], not Findings",
        "ValueError: odd",
    ]
