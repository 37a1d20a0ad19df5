"""An environment's life: hooks, backings, sessions, and what code of a task can see."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from hud.capabilities import Capability
from hud.environment import Environment, current, on_service_loop, serving
from hud.environment.runner import TaskRunner
from hud.errors import (
    BadParamsError,
    EnvironmentFault,
    SandboxError,
    TemplateRaisedError,
    UsageError,
    WrongStateError,
)
from hud.testing.backing import UnconfinedWorkspace
from hud.testing.environments import play, session_of

pytestmark = pytest.mark.anyio

Play = AsyncGenerator[Any, Any]
REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


class Port:
    """A backing that serves one capability and remembers what was asked of it."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events
        self.thread: int | None = None

    async def start(self) -> Sequence[Capability]:
        self.thread = threading.get_ident()
        self.events.append(f"{self.name} up")
        return [Capability(self.name, "acme/1", "tcp://127.0.0.1:9")]

    async def stop(self) -> None:
        self.events.append(f"{self.name} down")

    async def ask(self) -> int:
        """What author code may call: it moves itself to the service's loop."""
        return await on_service_loop(self._ask())

    async def _ask(self) -> int:
        return threading.get_ident()


async def test_hooks_and_backings_start_in_order_and_end_reversed() -> None:
    events: list[str] = []
    env = Environment("ordered")

    @env.initialize
    async def first() -> None:
        events.append("first up")

    env.use(Port("a", events))

    @env.initialize
    async def second() -> None:
        events.append(f"second up, sees {env.capability('a').protocol}")

    @env.shutdown
    async def third() -> None:
        events.append("third down")

    env.use(Port("b", events))

    @env.shutdown
    async def fourth() -> None:
        events.append("fourth down")

    async with serving(env) as service:
        assert [c.name for c in service.bindings()] == ["a", "b"]
        events.append("served")
    assert events == [
        "first up",
        "a up",
        "second up, sees acme/1",
        "b up",
        "served",
        "fourth down",
        "b down",
        "third down",
        "a down",
    ]
    assert env.capabilities == []


async def test_author_code_and_backings_live_in_different_threads() -> None:
    env = Environment("threads")
    port = env.use(Port("a", []))
    here = threading.get_ident()

    @env.template()
    async def task() -> Play:
        yield f"{threading.get_ident()} {await port.ask()}"
        yield 1.0

    async with session_of(env) as session:
        author, service = map(int, (await session.start("task", {}))["prompt"].split())
    assert service == here == port.thread
    assert author != here


async def test_one_context_from_first_yield_to_cleanup_and_none_shared_between_sessions() -> None:
    env = Environment("contexts")
    seen: list[str] = []

    @env.initialize
    async def up() -> None:
        REQUEST.set("from initialize")

    @env.template()
    async def task(name: str) -> Play:
        seen.append(REQUEST.get())
        REQUEST.set(name)
        try:
            yield name
            seen.append(REQUEST.get())
            yield 1.0
        finally:
            seen.append(REQUEST.get())

    @env.teardown
    async def after() -> None:
        seen.append(f"teardown {REQUEST.get()}")

    async with serving(env) as service:
        one, two = service.open_session("1"), service.open_session("2")
        await one.start("task", {"name": "one"})
        await two.start("task", {"name": "two"})
        await one.grade("")
        await two.cancel()
    assert seen == [
        "from initialize",
        "from initialize",
        "one",
        "one",
        "teardown one",
        "two",
        "teardown two",
    ]


async def test_a_cancel_scope_around_the_yields_works() -> None:
    env = Environment("scopes")

    @env.template()
    async def task() -> Play:
        async with asyncio.timeout(30):
            yield "x"
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            yield 1.0

    assert (await play(env, "task"))["score"] == 1.0


async def test_an_authors_timeout_around_a_yield_reaches_the_author() -> None:
    env = Environment("hurried")

    @env.template()
    async def strict() -> Play:
        async with asyncio.timeout(0.05):
            yield "be quick"
        yield 1.0

    @env.template()
    async def lenient() -> Play:
        try:
            async with asyncio.timeout(0.05):
                answer = yield "be quick"
        except TimeoutError:
            answer = None
        yield 0.0 if answer is None else 1.0

    async with session_of(env) as session:
        await session.start("strict", {})
        await asyncio.sleep(0.1)
        with pytest.raises(TemplateRaisedError, match="TimeoutError"):
            await session.grade("late")
        await session.start("lenient", {})
        assert (await session.grade("in time"))["score"] == 1.0
        await session.start("lenient", {})
        await asyncio.sleep(0.1)
        assert (await session.grade("late"))["score"] == 0.0


async def test_code_of_a_task_finds_its_session() -> None:
    env = Environment("finds")
    port = env.use(Port("a", []))

    async def grader_of_somebody() -> float:
        session = current()
        assert session is not None
        assert session.env is env
        assert session.backings == (port,)
        assert session.host is None
        assert session.task.id == "task"
        assert session.task.args == {"n": 3}
        session.record(seen=True, n=1)
        session.record(n=2)
        return 1.0

    @env.template()
    async def task(n: int = 1) -> Play:
        yield "x"
        yield {"score": await asyncio.create_task(grader_of_somebody()), "info": {"own": 1}}

    assert (await play(env, "task", n=3))["info"] == {"seen": True, "n": 2, "own": 1}
    assert current() is None


async def test_agents_are_kept_out_while_grading_and_let_in_at_the_next_start() -> None:
    env = Environment("sealed")
    workspace = env.use(UnconfinedWorkspace())
    order: list[str] = []

    @env.template()
    async def task() -> Play:
        yield "x"
        order.extend(workspace.calls)
        yield 1.0

    @env.template(keep_agent_processes=True)
    async def server() -> Play:
        yield "x"
        yield 1.0

    async with session_of(env) as session:
        await session.start("task", {})
        pid = await workspace.start_as_agent("sleep 600")
        assert (await session.grade(""))["info"] == {"agent_processes": "ended"}
        assert order == ["start", "seal"]
        assert pid not in workspace.agent_pids
        await session.start("server", {})
        kept = await workspace.start_as_agent("sleep 600")
        assert (await session.grade(""))["info"] == {"agent_processes": "kept, confined"}
        assert kept in workspace.agent_pids
        assert workspace.calls == ["start", "seal", "unseal", "seal, processes kept"]
    assert workspace.agent_pids == set()
    assert not workspace.root.exists()


async def test_what_an_agent_runs_ends_with_its_task_on_a_placement_that_goes_on() -> None:
    env = Environment("shared")
    workspace = env.use(UnconfinedWorkspace())

    @env.template()
    async def task() -> Play:
        yield "x"
        yield 1.0

    @env.template(keep_agent_processes=True)
    async def server() -> Play:
        yield "x"
        yield 1.0

    async with serving(env) as service:
        first, second = service.open_session("one"), service.open_session("two")
        await first.start("task", {})
        cancelled = await workspace.start_as_agent("sleep 600")
        await first.cancel()
        await second.start("task", {})
        assert cancelled not in workspace.agent_pids
        await first.start("task", {})
        shared = await workspace.start_as_agent("sleep 600")
        await first.cancel()
        await first.close()
        assert shared in workspace.agent_pids, "the other session's agent is in the same place"
        await second.grade("")
        await second.start("server", {})
        kept = await workspace.start_as_agent("sleep 600")
        await second.grade("")
        assert kept in workspace.agent_pids
        await second.close()
        third = service.open_session("three")
        await third.start("task", {})
        assert kept not in workspace.agent_pids
        await third.close()


async def test_a_failing_seal_gives_no_score_and_ends_the_task() -> None:
    env = Environment("unsealable")
    events: list[str] = []

    class Leaky(UnconfinedWorkspace):
        async def seal(self, *, keep_agent_processes: bool) -> None:
            raise SandboxError("the sandbox does not answer")

    env.use(Leaky())

    @env.template()
    async def task() -> Play:
        try:
            yield "x"
            yield 1.0
        finally:
            events.append("closed")

    async with session_of(env) as session:
        await session.start("task", {})
        with pytest.raises(SandboxError, match="does not answer"):
            await session.grade("")
        assert not session.has_task
    assert events == ["closed"]


async def test_a_seal_that_never_ends_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hud.environment.service.SEAL_S", 0.05)
    env = Environment("stuck")

    class Stuck(UnconfinedWorkspace):
        async def seal(self, *, keep_agent_processes: bool) -> None:
            await asyncio.sleep(3600)

    env.use(Stuck(name="ws"))

    @env.template()
    async def task() -> Play:
        yield "x"
        yield 1.0

    async with session_of(env) as session:
        await session.start("task", {})
        with pytest.raises(SandboxError, match=r"seal of workspace 'ws' is not done after 0\.05 s"):
            await session.grade("")


@pytest.mark.slow
async def test_a_thousand_sessions_that_come_and_go_leave_nothing() -> None:
    env = Environment("busy")
    alive: set[int] = set()

    @env.template()
    async def task(n: int) -> Play:
        alive.add(n)
        try:
            await asyncio.sleep(0.001 * (n % 7))
            answer = yield f"prompt {n}"
            await asyncio.sleep(0.001 * (n % 5))
            yield float(answer == n)
        finally:
            alive.discard(n)

    async def one(n: int) -> None:
        session = service.open_session(str(n))
        start = asyncio.ensure_future(session.start("task", {"n": n}))
        if n % 3 == 0:
            await asyncio.sleep(0.001 * (n % 4))
            await session.cancel()
            await asyncio.wait([start])
            assert start.exception() is None or "was cancelled" in str(start.exception())
        else:
            assert await start == {"prompt": f"prompt {n}"}
            if n % 3 == 1:
                assert (await session.grade(n))["score"] == 1.0
        await session.close()
        assert session.late_errors == []

    async with serving(env) as service, asyncio.TaskGroup() as group:
        for n in range(1000):
            group.create_task(one(n))
    assert alive == set()
    assert service.late_errors == []


async def test_serving_twice_shares_one_start() -> None:
    env = Environment("shared")
    events: list[str] = []

    @env.initialize
    async def up() -> None:
        await asyncio.sleep(0)
        events.append("up")

    @env.shutdown
    async def down() -> None:
        events.append("down")

    async def use() -> None:
        async with serving(env) as service:
            session = service.open_session("s")
            await session.close()
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(use())
    assert events == ["up", "down"]
    await use()
    assert events == ["up", "down", "up", "down"]


async def test_serving_on_two_loops_at_once_is_refused() -> None:
    env = Environment("two-loops")

    async def elsewhere() -> None:
        async with serving(env):
            pass

    async with serving(env):
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())


def test_an_environment_can_be_served_on_one_loop_after_another() -> None:
    env = Environment("again")

    @env.template()
    async def task() -> Play:
        yield "x"
        yield 1.0

    for _ in range(2):
        assert asyncio.run(play(env, "task"))["score"] == 1.0


async def test_start_and_stop_by_hand() -> None:
    env = Environment("by-hand")
    events: list[str] = []
    env.use(Port("a", events))
    await env.start()
    await env.start()
    assert events == ["a up"]
    with pytest.warns(UserWarning, match="clients that are connected will not see it"):
        env.add_capability(Capability("late", "acme/1", "tcp://127.0.0.1:9"))
    await env.stop()
    await env.stop()
    assert events == ["a up", "a down"]


async def test_a_cancelled_start_in_the_callers_task_ends_the_template() -> None:
    env = Environment("caller")
    closed = threading.Event()
    began = threading.Event()

    @env.template()
    async def task() -> Play:
        began.set()
        try:
            await asyncio.sleep(3600)
            yield "never"
            yield 0.0
        finally:
            closed.set()

    async with session_of(env) as session:
        start = asyncio.ensure_future(session.start("task", {}))
        assert await asyncio.to_thread(began.wait, 10)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert await asyncio.to_thread(closed.wait, 10)
        assert not session.has_task


async def test_the_author_can_use_threads_and_subprocesses() -> None:
    env = Environment("works")

    @env.template()
    async def task() -> Play:
        process = await asyncio.create_subprocess_exec("echo", "hi", stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        name = await asyncio.to_thread(lambda: current().env.name)  # type: ignore[union-attr]
        yield f"{out.decode().strip()} {name}"
        yield 1.0

    async with session_of(env) as session:
        assert (await session.start("task", {}))["prompt"] == "hi works"


async def test_cancelling_waits_for_what_runs_on_the_services_loop() -> None:
    env = Environment("crossing")
    events: list[str] = []
    began = threading.Event()

    async def slow() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            events.append("ended there")

    @env.template()
    async def task() -> Play:
        try:
            await on_service_loop(slow())
        finally:
            events.append("ended here")
        yield "never"

    async with session_of(env) as session:
        start = asyncio.ensure_future(session.start("task", {}))
        assert await asyncio.to_thread(began.wait, 10)
        await session.cancel()
        await asyncio.wait([start])
        assert isinstance(start.exception(), EnvironmentFault)
    assert events == ["ended there", "ended here"]


async def test_what_raises_on_the_services_loop_raises_here() -> None:
    env = Environment("raises")

    async def fails() -> None:
        raise LookupError("there")

    @env.template()
    async def task() -> Play:
        try:
            await on_service_loop(fails())
        except LookupError as error:
            yield str(error)
        yield 1.0

    async with session_of(env) as session:
        assert (await session.start("task", {}))["prompt"] == "there"


async def test_host_calls_move_to_the_loop_of_the_connection() -> None:
    env = Environment("asks")
    here = asyncio.get_running_loop()

    class Host:
        async def model(
            self, *, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
        ) -> dict[str, Any]:
            assert asyncio.get_running_loop() is here
            return {"dialect": dialect, "model": model, "deadline_s": deadline_s, **body}

    @env.template()
    async def task() -> Play:
        session = current()
        assert session is not None
        assert session.host is not None
        yield "x"
        yield {
            "score": 1.0,
            "info": await session.host.model(dialect="d", model="m", body={"b": 1}, deadline_s=2.0),
        }

    async with serving(env) as service:
        session = service.open_session("s", Host())
        await session.start("task", {})
        assert (await session.grade(""))["info"] == {"dialect": "d", "model": "m", "deadline_s": 2.0, "b": 1}


async def test_a_session_that_has_ended_starts_nothing() -> None:
    env = Environment("ended")

    @env.template()
    async def task() -> Play:
        yield "x"
        yield 1.0

    async with serving(env) as service:
        session = service.open_session("s")
        await session.close()
        with pytest.raises(WrongStateError):
            await session.start("task", {})


async def test_a_runner_drives_one_template_by_hand() -> None:
    env = Environment("hand")

    @env.template()
    async def task(word: str) -> Play:
        answer = yield word
        yield float(answer == word)

    runner = TaskRunner(task, {"word": "w"})
    assert await runner.start() == {"prompt": "w"}
    assert (await runner.grade({"answer": "w"}))["score"] == 1.0
    with pytest.raises(WrongStateError):
        await runner.grade("w")
    other = TaskRunner(task, {"word": "w"})
    await other.start()
    await other.cancel()
    with pytest.raises(BadParamsError):
        await TaskRunner(task).start()


async def test_egress_asked_for_by_a_controller_is_refused_unless_a_backing_allows_it() -> None:
    env = Environment("egress")
    env.bind_connections([], session="s")
    with pytest.raises(RuntimeError, match="not started"):
        env.bind_connections([{"name": "x"}], session="s")
    async with serving(env):
        with pytest.raises(BadParamsError, match="connections: environment 'egress' allows none"):
            env.bind_connections([{"name": "x"}], session="s")
        with pytest.raises(BadParamsError, match="workspace_routes"):
            env.bind_workspace_routes([{"host": "example.com"}], session="s")
    env.release_session("s")


async def test_addresses_that_are_not_public_are_never_bound() -> None:
    bound: list[Any] = []

    class Open(Port):
        def bind_connections(self, connections: Sequence[Any], *, session: str) -> None:
            bound.extend(connections)

        def bind_workspace_routes(self, routes: Sequence[Any], *, session: str) -> None:
            bound.extend(routes)

        def release_session(self, session: str) -> None:
            bound.append(f"released {session}")

    env = Environment("open")
    env.use(Open("a", []))
    async with serving(env):
        for host in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "localhost", "db.internal"):
            with pytest.raises(BadParamsError, match="no public host"):
                env.bind_workspace_routes([{"host": host, "port": 80}], session="s")
        env.bind_connections([{"url": "https://api.example.com/v1"}], session="s")
        env.release_session("s")
    assert bound == [{"url": "https://api.example.com/v1"}, "released s"]


async def test_a_backing_that_fails_to_start_is_stopped() -> None:
    events: list[str] = []

    class Broken(Port):
        async def start(self) -> Sequence[Capability]:
            self.events.append("tried")
            raise SandboxError("no bubblewrap here")

    env = Environment("broken")
    env.use(Port("first", events))
    env.use(Broken("second", events))
    with pytest.raises(SandboxError, match="no bubblewrap"):
        async with serving(env):
            pass
    assert events == ["first up", "tried", "second down", "first down"]
    assert env.capabilities == []


async def test_a_teardown_hook_that_raises_is_reported_with_the_run() -> None:
    env = Environment("teardown")

    @env.template()
    async def task() -> Play:
        yield "x"
        yield 1.0

    @env.teardown
    async def after() -> None:
        raise OSError("socket still open")

    reply = await play(env, "task")
    assert reply["score"] == 1.0
    assert "socket still open" in reply["info"]["cleanup_errors"][0]
