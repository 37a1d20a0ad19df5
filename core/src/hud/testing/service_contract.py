"""What every `Service` keeps, whoever implements it: the wire relies on each of these."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from hud.errors import (
    AuthoringError,
    BadParamsError,
    HudError,
    RewardError,
    TemplateRaisedError,
    WrongStateError,
)
from hud.wire.service import Service, ServiceSession

Templates = Mapping[str, Callable[..., AsyncGenerator[Any, Any]]]


class Recorder:
    """What templates of the contract did, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.silent = False

    async def noted(self, event: str) -> None:
        """Wait until `event` was noted; templates may run on another thread's loop, so this looks."""
        async with asyncio.timeout(30):
            while event not in self.events:  # noqa: ASYNC110 - an asyncio.Event belongs to one loop
                await asyncio.sleep(0.01)


def contract_templates(record: Recorder) -> Templates:
    """Return the templates a `ServiceContract` serves; they note in `record` what ran."""

    async def echo(word: str, times: int = 1) -> AsyncGenerator[Any, Any]:
        """Say a word."""
        record.events.append(f"start {word}")
        try:
            answer = yield f"say {word} {times} times"
            record.events.append(f"answer {answer}")
            yield 1.0 if answer == word else 0.0
        finally:
            record.events.append(f"end {word}")

    async def hangs_in_start() -> AsyncGenerator[Any, Any]:
        record.events.append("hanging")
        await asyncio.Event().wait()
        yield "never"
        yield 0.0

    async def hangs_in_grade() -> AsyncGenerator[Any, Any]:
        yield "prompt"
        record.events.append("hanging")
        await asyncio.Event().wait()
        yield 0.0

    async def hangs_in_cleanup() -> AsyncGenerator[Any, Any]:
        yield "prompt"
        yield 0.5
        record.events.append("hanging")
        await asyncio.Event().wait()

    async def never_yields(nothing: bool = True) -> AsyncGenerator[Any, Any]:
        if not nothing:
            yield "prompt"

    async def yields_once() -> AsyncGenerator[Any, Any]:
        yield "prompt"

    async def yields_thrice() -> AsyncGenerator[Any, Any]:
        yield "prompt"
        yield 1.0
        yield 2.0

    async def raises_in_start() -> AsyncGenerator[Any, Any]:
        if not record.silent:
            raise RuntimeError("in the start")
        yield "prompt"

    async def raises_in_grade() -> AsyncGenerator[Any, Any]:
        yield "prompt"
        raise LookupError("in the grade")

    async def rewards(kind: str) -> AsyncGenerator[Any, Any]:
        yield "prompt"
        yield {"nan": float("nan"), "text": "1.0", "none": None, "infinite": float("inf"), "huge": 10**400}[
            kind
        ]

    async def true_reward() -> AsyncGenerator[Any, Any]:
        yield "prompt"
        yield True

    served = (
        echo,
        hangs_in_start,
        hangs_in_grade,
        hangs_in_cleanup,
        never_yields,
        yields_once,
        yields_thrice,
        raises_in_start,
        raises_in_grade,
        rewards,
        true_reward,
    )
    return {template.__name__: template for template in served}


async def started_and_graded(session: ServiceSession, task_id: str) -> dict[str, Any]:
    """Run a task to its score."""
    await session.start(task_id, {})
    return await session.grade("x")


class ServiceContract:
    """Subclass it, implement `serving`, and run it with pytest and anyio's plugin on asyncio."""

    def serving(self, templates: Templates) -> AbstractAsyncContextManager[Service]:
        """Serve `templates`, by the names they are given under."""
        raise NotImplementedError

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[ServiceSession, Recorder]]:
        """Open one session of a fresh service."""
        record = Recorder()
        async with self.serving(contract_templates(record)) as service:
            session = service.open_session("sess-one", None)
            try:
                yield session, record
            finally:
                await session.close()

    @pytest.mark.anyio
    async def test_lists_each_template_with_its_schema(self) -> None:
        async with self.serving(contract_templates(Recorder())) as service:
            entries = {entry["id"]: entry for entry in service.task_entries()}
            echo = entries["echo"]
            assert isinstance(echo["description"], str)
            assert set(echo["args"]["properties"]) == {"word", "times"}
            assert echo["args"].get("required") == ["word"]
            assert set(entries) == set(contract_templates(Recorder()))
            json.dumps(service.task_entries(), allow_nan=False)

    @pytest.mark.anyio
    async def test_gives_the_same_list_while_nothing_changes(self) -> None:
        async with self.serving(contract_templates(Recorder())) as service:
            assert service.task_entries() is service.task_entries()
            assert service.bindings() == service.bindings()

    @pytest.mark.anyio
    async def test_runs_a_task_from_prompt_to_score(self) -> None:
        async with self.session() as (session, record):
            assert (await session.start("echo", {"word": "moin", "times": 2}))["prompt"] == "say moin 2 times"
            assert session.has_task
            assert (await session.grade("moin"))["score"] == 1.0
            with pytest.raises(WrongStateError):
                await session.grade("moin")
            assert record.events == ["start moin", "answer moin", "end moin"]

    @pytest.mark.anyio
    async def test_takes_a_true_reward_as_a_number(self) -> None:
        async with self.session() as (session, _):
            await session.start("true_reward", {})
            score = (await session.grade(None))["score"]
            assert score == 1.0
            assert type(score) is float

    @pytest.mark.anyio
    async def test_replies_are_json(self) -> None:
        async with self.session() as (session, _):
            json.dumps(await session.start("echo", {"word": "x"}), allow_nan=False)
            json.dumps(await session.grade("x"), allow_nan=False)

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("task_id", "args", "named"),
        [("ecko", {}, "ecko"), ("echo", {}, "word"), ("echo", {"word": "x", "wrod": 1}, "wrod")],
    )
    async def test_refuses_wrong_params_before_any_author_code_runs(
        self, task_id: str, args: dict[str, Any], named: str
    ) -> None:
        async with self.session() as (session, record):
            with pytest.raises(BadParamsError, match=named) as caught:
                await session.start(task_id, args)
            assert caught.value.code == -32602
            assert record.events == []

    @pytest.mark.anyio
    async def test_a_refused_start_leaves_the_task_before_as_it_was(self) -> None:
        async with self.session() as (session, _):
            await session.start("echo", {"word": "kept"})
            with pytest.raises(BadParamsError):
                await session.start("no_such_task", {})
            assert session.has_task
            assert (await session.grade("kept"))["score"] == 1.0

    @pytest.mark.anyio
    async def test_a_start_ends_the_task_before(self) -> None:
        async with self.session() as (session, record):
            await session.start("echo", {"word": "a"})
            await session.start("echo", {"word": "b"})
            assert record.events.index("end a") < record.events.index("start b")
            assert (await session.grade("b"))["score"] == 1.0

    @pytest.mark.anyio
    async def test_refuses_to_grade_where_nothing_is_started(self) -> None:
        async with self.session() as (session, _):
            with pytest.raises(WrongStateError):
                await session.grade("x")
            await session.start("echo", {"word": "x"})
            await session.grade("x")
            with pytest.raises(WrongStateError):
                await session.grade("x")

    @pytest.mark.anyio
    @pytest.mark.parametrize(("task_id", "started"), [("hangs_in_start", False), ("hangs_in_grade", True)])
    async def test_cancel_interrupts_what_runs_within_two_seconds(self, task_id: str, started: bool) -> None:
        async with self.session() as (session, record):
            if started:
                await session.start(task_id, {})
                running = asyncio.ensure_future(session.grade("x"))
            else:
                running = asyncio.ensure_future(session.start(task_id, {}))
            await record.noted("hanging")
            begun = time.monotonic()
            await session.cancel()
            done, _ = await asyncio.wait({running}, timeout=10)
            assert done, "the interrupted call did not return"
            assert time.monotonic() - begun < 10
            if not running.cancelled():
                assert isinstance(running.exception(), (HudError, asyncio.CancelledError))
            assert not session.has_task

    @pytest.mark.anyio
    async def test_cancel_closes_a_suspended_task(self) -> None:
        async with self.session() as (session, record):
            await session.start("echo", {"word": "x"})
            await session.cancel()
            assert not session.has_task
            assert record.events == ["start x", "end x"]
            await session.cancel()
            await session.start("echo", {"word": "y"})
            assert (await session.grade("y"))["score"] == 1.0

    @pytest.mark.anyio
    async def test_close_ends_the_task(self) -> None:
        record = Recorder()
        async with self.serving(contract_templates(record)) as service:
            session = service.open_session("sess-one", None)
            await session.start("echo", {"word": "x"})
            await session.close()
            assert record.events[-1] == "end x"

    @pytest.mark.anyio
    async def test_a_grade_waits_two_seconds_for_cleanup_and_no_more(self) -> None:
        async with self.session() as (session, record):
            await session.start("hangs_in_cleanup", {})
            async with asyncio.timeout(20):
                assert (await session.grade("x"))["score"] == 0.5
            assert "hanging" in record.events

    @pytest.mark.anyio
    @pytest.mark.parametrize("task_id", ["never_yields", "yields_once", "yields_thrice"])
    async def test_a_template_that_breaks_the_contract_is_an_authoring_error(self, task_id: str) -> None:
        async with self.session() as (session, _):
            with pytest.raises(AuthoringError, match=task_id):
                await started_and_graded(session, task_id)
            assert not session.has_task

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("task_id", "said"), [("raises_in_start", "in the start"), ("raises_in_grade", "in the grade")]
    )
    async def test_what_a_template_raises_is_reported(self, task_id: str, said: str) -> None:
        async with self.session() as (session, _):
            with pytest.raises(TemplateRaisedError, match=said) as caught:
                await started_and_graded(session, task_id)
            assert said in caught.value.author_traceback
            assert not session.has_task

    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", ["nan", "text", "none", "infinite", "huge"])
    async def test_a_reward_that_is_no_finite_number_is_an_error(self, kind: str) -> None:
        async with self.session() as (session, _):
            await session.start("rewards", {"kind": kind})
            with pytest.raises(RewardError):
                await session.grade("x")
            assert not session.has_task

    @pytest.mark.anyio
    async def test_sessions_do_not_meet(self) -> None:
        async with self.serving(contract_templates(Recorder())) as service:
            one, two = service.open_session("sess-one", None), service.open_session("sess-two", None)
            hanging = asyncio.ensure_future(one.start("hangs_in_start", {}))
            await two.start("echo", {"word": "x"})
            assert (await two.grade("x"))["score"] == 1.0
            await one.close()
            await asyncio.wait({hanging}, timeout=10)
            assert hanging.done()
            assert hanging.cancelled() or hanging.exception() is not None
            await two.close()
