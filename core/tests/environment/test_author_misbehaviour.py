"""Author code that does what it must not, in a process shared with others (G12): typed, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from hud.environment import Environment, serving
from hud.environment.service import EnvironmentService
from hud.errors import (
    AuthoringError,
    BadParamsError,
    EnvironmentFault,
    GraderError,
    HudError,
    HudProtocolError,
    NotAuthorizedError,
    PromptError,
    RewardError,
    TemplateRaisedError,
    UsageError,
    WrongStateError,
)
from hud.testing.environments import play, session_of

pytestmark = pytest.mark.anyio

Play = AsyncGenerator[Any, Any]


@pytest.fixture
def env() -> Environment:
    return Environment("troubled")


async def still_works(service: EnvironmentService) -> None:
    """Another session of the same service plays a whole task."""
    session = service.open_session("another")
    assert (await session.start("good", {}))["prompt"] == "hi"
    assert (await session.grade("x"))["score"] == 1.0
    await session.close()


def with_good(env: Environment) -> Environment:
    @env.template()
    async def good() -> Play:
        yield "hi"
        yield 1.0

    return env


RAISED: list[tuple[type[BaseException], str]] = [
    (ValueError, "ValueError"),
    (SystemExit, "SystemExit"),
    (KeyboardInterrupt, "KeyboardInterrupt"),
    (asyncio.CancelledError, "CancelledError"),
    (GeneratorExit, "GeneratorExit"),
    (StopAsyncIteration, "StopAsyncIteration"),
    (MemoryError, "MemoryError"),
    (RecursionError, "RecursionError"),
    (BaseException, "BaseException"),
]


@pytest.mark.parametrize(("kind", "name"), RAISED)
@pytest.mark.parametrize("phase", ["start", "grade"])
async def test_whatever_a_template_raises_is_typed(
    env: Environment, kind: type[BaseException], name: str, phase: str
) -> None:
    with_good(env)

    @env.template()
    async def bad() -> Play:
        if phase == "start":
            raise kind
        yield "prompt"
        raise kind

    async with serving(env) as service:
        session = service.open_session("s")
        if phase == "grade":
            await session.start("bad", {})
        with pytest.raises(TemplateRaisedError) as caught:
            await (session.start("bad", {}) if phase == "start" else session.grade("x"))
        assert name in str(caught.value)
        assert "template 'bad'" in str(caught.value)
        assert __file__ in str(caught.value)
        assert not session.has_task
        await still_works(service)


async def test_an_empty_message_says_where_it_was_raised(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"
        raise ValueError

    with pytest.raises(TemplateRaisedError, match=r"ValueError without a message at .*:\d+, in bad"):
        await play(env, "bad")


async def test_the_line_that_raised_is_named(env: Environment) -> None:
    def helper() -> None:
        json.loads("{")

    @env.template()
    async def bad() -> Play:
        yield "prompt"
        helper()

    with pytest.raises(
        TemplateRaisedError, match=rf"{__file__}:{helper.__code__.co_firstlineno + 1}\) raised"
    ):
        await play(env, "bad")


async def test_the_traceback_has_the_authors_frames_alone(env: Environment) -> None:
    def helper() -> None:
        raise ValueError("deep")

    @env.template()
    async def bad() -> Play:
        yield "prompt"
        helper()

    with pytest.raises(TemplateRaisedError) as caught:
        await play(env, "bad")
    text = caught.value.author_traceback
    assert text.count("File ") == 2
    assert "in helper" in text
    assert "drive.py" not in text
    assert "asyncio" not in text


async def test_an_error_whose_text_cannot_be_made_is_reported(env: Environment) -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @env.template()
    async def bad() -> Play:
        yield "prompt"
        raise BrokenError

    with pytest.raises(TemplateRaisedError, match="BrokenError"):
        await play(env, "bad")


async def test_yielding_never_is_an_authoring_error(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        return
        yield

    with pytest.raises(AuthoringError, match=r"template 'bad' \(.*\.py:\d+\).*without a yield"):
        await play(env, "bad")


async def test_yielding_once_is_an_authoring_error_and_no_score(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"

    with pytest.raises(AuthoringError, match="without yielding a reward"):
        await play(env, "bad")


async def test_yielding_three_times_is_an_authoring_error_that_names_the_line(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"
        yield 1.0
        yield 2.0

    line = env.tasks["bad"].line + 4
    with pytest.raises(AuthoringError, match=rf":{line}\) yielded a third time"):
        await play(env, "bad")


async def test_yielding_while_it_is_closed_is_an_authoring_error(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        try:
            yield "prompt"
            yield 1.0
            yield 2.0
        finally:
            yield "again"

    with pytest.raises(AuthoringError):
        await play(env, "bad")


def plain_function() -> None:
    return None


async def coroutine_function() -> None:
    return None


@pytest.mark.parametrize("function", [plain_function, coroutine_function, lambda: None, len])
def test_what_is_no_async_generator_is_refused_when_declared(
    env: Environment, function: Callable[..., Any]
) -> None:
    with pytest.raises(TypeError, match="no async generator function") as caught:
        env.template(id="bad")(function)
    assert isinstance(caught.value, AuthoringError)
    assert "bad" in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "path"),
    [
        (None, "NoneType"),
        (5, "int"),
        (b"bytes", "bytes"),
        ({"no": "prompt"}, "without `prompt`"),
        ({"prompt": "x", "extra": {"deep": [1, object()]}}, r"extra\.deep\[1\]"),
        ({"prompt": "x", "extra": float("nan")}, "extra"),
        ([{"role": "user"}], r"prompt\[0\]"),
        ([{"role": "robot", "content": "x"}], r"prompt\[0\]\.role"),
        (
            [{"role": "user", "content": [{"type": "image", "data": b"raw"}]}],
            r"prompt\[0\]\.content\[0\]\.data",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\]\.text"),
        ("lone \ud800 surrogate", "surrogate"),
    ],
)
async def test_a_prompt_that_cannot_be_sent_names_template_and_path(
    env: Environment, prompt: Any, path: str
) -> None:
    @env.template()
    async def bad() -> Play:
        yield prompt
        yield 1.0

    with pytest.raises(PromptError, match=path) as caught:
        await play(env, "bad")
    assert "template 'bad'" in str(caught.value)


async def test_a_prompt_longer_than_a_frame_names_its_largest_part(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        yield [{"role": "user", "content": "x" * 20_000_000}]
        yield 1.0

    with pytest.raises(
        PromptError, match=r"20,000,0\d\d bytes .* prompt\[0\]\.content \(20,000,000 characters\)"
    ):
        await play(env, "bad")


async def test_a_prompt_that_contains_itself_is_refused(env: Environment) -> None:
    loop: list[Any] = []
    loop.append(loop)

    @env.template()
    async def bad() -> Play:
        yield {"prompt": "x", "extra": loop}
        yield 1.0

    with pytest.raises(PromptError, match="contain itself"):
        await play(env, "bad")


async def test_a_grader_error_stays_what_it_is(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"
        raise GraderError("could not decide")

    with pytest.raises(GraderError, match="could not decide") as caught:
        await play(env, "bad")
    assert "in bad" in getattr(caught.value, "author_traceback", "")


@pytest.mark.parametrize(
    "raised",
    [
        UsageError("not ours"),
        WrongStateError(-32600, "not ours"),
        BadParamsError(-32602, "not ours"),
        NotAuthorizedError(-32001, "not ours"),
        HudProtocolError(-32603, "not ours"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_usage_error_of_template_code_is_the_templates(env: Environment, raised: HudError) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"
        raise raised

    with pytest.raises(TemplateRaisedError, match="not ours"):
        await play(env, "bad")


async def test_system_exit_of_a_subtask_does_not_end_the_loop(env: Environment) -> None:
    with_good(env)

    async def leave() -> None:
        raise SystemExit(3)

    @env.template()
    async def bad() -> Play:
        task = asyncio.ensure_future(leave())
        yield "prompt"
        await task
        yield 1.0

    async with serving(env) as service:
        session = service.open_session("s")
        await session.start("bad", {})
        await still_works(service)
        with pytest.raises(TemplateRaisedError, match="SystemExit: code 3"):
            await session.grade("x")
        await still_works(service)


@pytest.mark.slow
async def test_a_block_is_reported_with_its_stack_while_others_are_served(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    @env.template()
    async def bad() -> Play:
        go_on.wait(30)
        yield "prompt"
        yield 1.0

    async with serving(env) as service:
        session = service.open_session("s")
        start = asyncio.ensure_future(session.start("bad", {}))
        while not service.block_reports:
            await asyncio.sleep(0.05)
        assert service.bindings() == []
        assert "go_on.wait(30)" in service.block_reports[0]
        assert "blocked its event loop" in caplog.text
        go_on.set()
        assert (await start)["prompt"] == "prompt"


@pytest.mark.slow
async def test_cancel_returns_within_two_seconds_though_author_code_blocks(env: Environment) -> None:
    blocks, go_on = threading.Event(), threading.Event()

    @env.template()
    async def bad() -> Play:
        blocks.set()
        go_on.wait(30)
        yield "prompt"
        yield 1.0

    async with serving(env) as service:
        session = service.open_session("s")
        start = asyncio.ensure_future(session.start("bad", {}))
        assert await asyncio.to_thread(blocks.wait, 10)
        began = time.monotonic()
        await session.cancel()
        assert time.monotonic() - began < 10  # two seconds and a busy machine
        assert not session.has_task
        go_on.set()
        with pytest.raises(EnvironmentFault, match="cancelled"):
            await start


@pytest.mark.slow
async def test_swallowed_cancellation_is_repeated_then_abandoned_and_reported(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    with_good(env)
    seen: list[int] = []
    let_go = threading.Event()

    @env.template()
    async def bad() -> Play:
        while not let_go.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                seen.append(1)
        yield "prompt"
        yield 1.0

    async with serving(env) as service:
        session = service.open_session("s")
        start = asyncio.ensure_future(session.start("bad", {}))
        await asyncio.sleep(0.1)
        await session.cancel()
        with pytest.raises(HudError, match=r"cancelled|abandoned"):
            await start
        assert len(seen) == 3
        assert any("abandoned" in str(error) for error in session.late_errors)
        assert "asyncio.sleep(0.05)" in caplog.text
        await still_works(service)
        let_go.set()


async def test_cancelling_before_the_first_line_ran_ends_the_task(env: Environment) -> None:
    @env.template()
    async def quick() -> Play:
        yield "prompt"
        yield 1.0

    async with session_of(env) as session:
        for turns in range(6):
            start = asyncio.ensure_future(session.start("quick", {}))
            for _ in range(turns):
                await asyncio.sleep(0)
            await session.cancel()
            await asyncio.wait([start])  # begun and cancelled in one batch, or later: it ends in any case
            assert start.exception() is None or "cancelled" in str(start.exception())
        assert session.late_errors == []


async def test_a_cancelled_template_that_yields_all_the_same_gives_no_prompt(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        yield "prompt after all"
        yield 1.0

    async with session_of(env) as session:
        start = asyncio.ensure_future(session.start("bad", {}))
        await asyncio.sleep(0.05)
        await session.cancel()
        with pytest.raises(EnvironmentFault, match="cancelled"):
            await start
        assert not session.has_task


async def test_a_failing_cleanup_is_reported_with_the_score(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"
        yield 0.5
        raise ValueError("after the score")

    reply = await play(env, "bad")
    assert reply["score"] == 0.5
    assert "after the score" in reply["info"]["cleanup_errors"][0]


@pytest.mark.slow
async def test_a_hanging_cleanup_does_not_withhold_the_score(env: Environment) -> None:
    let_go = threading.Event()

    @env.template()
    async def slow() -> Play:
        yield "prompt"
        yield 0.5
        while not let_go.is_set():
            await asyncio.sleep(0.02)
        raise ValueError("too late")

    async with session_of(env) as session:
        await session.start("slow", {})
        reply = await session.grade("x")
        assert reply["score"] == 0.5
        assert "still running" in reply["info"]["cleanup"]
        let_go.set()
        while not session.late_errors:
            await asyncio.sleep(0.02)
        assert "too late" in str(session.late_errors[0])


async def test_the_score_is_fixed_at_the_second_yield(env: Environment) -> None:
    result: dict[str, Any] = {"score": 0.25}

    @env.template()
    async def sly() -> Play:
        yield "prompt"
        yield result
        result["score"] = 1.0

    assert (await play(env, "sly"))["score"] == 0.25


@pytest.mark.parametrize(
    "reward", [None, "1.0", float("nan"), float("inf"), 1j, 10**400, {}, {"score": "x"}, [1.0]]
)
async def test_a_reward_that_is_no_finite_number_is_typed(env: Environment, reward: Any) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"
        yield reward

    with pytest.raises(RewardError, match=r"template 'bad' \(.*:\d+\)"):
        await play(env, "bad")


async def test_a_grader_that_was_not_awaited_is_told_so(env: Environment) -> None:
    async def grade() -> float:
        return 1.0

    @env.template()
    async def bad() -> Play:
        yield "prompt"
        yield grade()

    with pytest.raises(RewardError, match=r"grade\(\.\.\.\) was not awaited: write `yield await"):
        await play(env, "bad")


async def test_nan_within_info_is_typed(env: Environment) -> None:
    @env.template()
    async def bad() -> Play:
        yield "prompt"
        yield {"score": 1.0, "info": {"loss": [0.1, float("nan")]}}

    with pytest.raises(RewardError, match=r"info\.loss\[1\]"):
        await play(env, "bad")


async def test_an_initialize_hook_that_raises_names_itself_and_stops_what_had_started(
    env: Environment,
) -> None:
    seen: list[str] = []

    @env.shutdown
    async def down() -> None:
        seen.append("down")

    @env.initialize
    async def broken() -> None:
        raise OSError("no disk")

    with pytest.raises(TemplateRaisedError, match=r"initialize hook 'broken' .* raised OSError: no disk"):
        async with serving(env):
            pass
    assert seen == ["down"]


async def test_a_failing_shutdown_hook_is_reported_and_the_others_run(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    @env.shutdown
    async def first() -> None:
        seen.append("first")

    @env.shutdown
    async def second() -> None:
        raise SystemExit("leaving")

    async with serving(env) as service:
        pass
    assert seen == ["first"]
    assert "leaving" in str(service.late_errors[0])
    assert "shutdown hook 'second'" in caplog.text
    assert caplog.text.count("Traceback") == 1  # the author's, and not ours beside it


async def test_tasks_that_author_code_left_behind_end_with_the_service(env: Environment) -> None:
    ended = threading.Event()

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    @env.template()
    async def leaves() -> Play:
        env.left = asyncio.ensure_future(background())  # type: ignore[attr-defined]
        yield "prompt"
        yield 1.0

    assert (await play(env, "leaves"))["score"] == 1.0
    assert ended.wait(5)


async def test_generators_are_closed_also_where_tasks_left_behind_exit_as_they_end(env: Environment) -> None:
    closed = threading.Event()

    async def exits() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise SystemExit

    async def numbers() -> Play:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    @env.template()
    async def leaves() -> Play:
        env.left = [asyncio.ensure_future(exits()) for _ in range(3)], numbers()  # type: ignore[attr-defined]
        await anext(env.left[1])  # type: ignore[attr-defined]
        yield "prompt"
        yield 1.0

    assert (await play(env, "leaves"))["score"] == 1.0
    assert closed.wait(5)


@pytest.mark.slow
async def test_a_thread_that_blocks_for_ever_does_not_hold_the_end(
    env: Environment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hud.environment.startup.BLOCKED_S", 0.2)
    monkeypatch.setattr("hud.environment.service.STOP_GRACE_S", 0.1)
    blocks, go_on = threading.Event(), threading.Event()

    @env.template()
    async def bad() -> Play:
        blocks.set()
        go_on.wait(60)
        yield "prompt"
        yield 1.0

    @env.shutdown
    async def down() -> None:
        return

    async with serving(env) as service:
        session = service.open_session("s")
        start = asyncio.ensure_future(session.start("bad", {}))
        assert await asyncio.to_thread(blocks.wait, 10)
    assert "left behind" in caplog.text
    assert "cannot run" in str(service.late_errors)
    with pytest.raises(HudError):
        await start
    go_on.set()
    service.author.ended.result(10)
