"""The author's loop: outlives what is raised in it, and hands calls over in order."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from hud.environment.author import AuthorLoop, run_beside
from hud.environment.mailbox import Mailbox


@pytest.fixture
def author() -> Iterator[AuthorLoop]:
    made = AuthorLoop.in_thread()
    yield made
    made.stop()
    made.ended.result(10)


def test_calls_from_many_threads_run_each_once_and_in_the_order_of_their_thread(author: AuthorLoop) -> None:
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def post(thread: int) -> None:
        for i in range(2000):
            author.mailbox.post(seen.append, (thread, i))

    threads = [threading.Thread(target=post, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    author.mailbox.post(done.set)
    assert done.wait(30)
    assert len(seen) == 8000
    for n in range(4):
        assert [i for thread, i in seen if thread == n] == list(range(2000))


def test_a_call_that_raises_does_not_keep_the_next_from_running(
    author: AuthorLoop, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()
    author.mailbox.post(int, "no number")
    author.mailbox.post(done.set)
    assert done.wait(10)
    assert "no number" in caplog.text


def test_a_batch_costs_one_wakeup() -> None:
    class Counting(asyncio.SelectorEventLoop):
        wakeups = 0

        def call_soon_threadsafe(self, *args: object, **kwargs: object) -> asyncio.Handle:
            self.wakeups += 1
            return super().call_soon_threadsafe(*args, **kwargs)  # type: ignore[arg-type]

    loop = Counting()
    seen: list[int] = []
    mailbox = Mailbox(loop)
    for i in range(100):
        assert mailbox.post(seen.append, i)
    assert loop.wakeups == 1
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == list(range(100))
    loop.close()
    assert not mailbox.post(seen.append, 0)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_it_turns_on_after_an_exit_in_a_task(
    author: AuthorLoop, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        raise kind

    tasks: list[asyncio.Task[None]] = []
    again = threading.Event()
    author.mailbox.post(lambda: tasks.append(author.loop.create_task(leave())))
    author.mailbox.post(again.set)
    assert again.wait(10)
    author.mailbox.post(author.loop.call_later, 0, again.clear)
    while again.is_set():
        author.loop.call_soon_threadsafe(lambda: None)
    assert kind.__name__ in caplog.text
    assert isinstance(tasks[0].exception(), kind)


def test_author_code_on_the_main_thread_and_the_service_beside() -> None:
    threads: dict[str, int] = {}

    async def main(author: AuthorLoop) -> str:
        threads["service"] = threading.get_ident()
        ran: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def on_author() -> None:
            threads["author"] = threading.get_ident()
            loop.call_soon_threadsafe(ran.set_result, None)

        author.mailbox.post(on_author)
        await ran
        return "done"

    assert run_beside(main) == "done"
    assert threads["author"] == threading.get_ident() != threads["service"]


def test_what_the_service_raises_is_raised() -> None:
    async def main(author: AuthorLoop) -> None:
        raise LookupError("no port")

    with pytest.raises(LookupError, match="no port"):
        run_beside(main)


WEDGED = """
import asyncio, threading, time
from hud.environment.author import run_beside
blocks = threading.Event()
def block():
    blocks.set()
    time.sleep(3600)
async def main(author):
    author.mailbox.post(block)
    await asyncio.to_thread(blocks.wait)
run_beside(main, wedged_after_s=0.1)
"""


@pytest.mark.slow
def test_a_process_whose_author_blocks_ends_all_the_same_and_says_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WEDGED], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "author code blocks its thread" in done.stderr
    assert "in block" in done.stderr


UVLOOP = """
import asyncio, uvloop
uvloop.install()
from hud.environment import Environment, serving
from hud.testing.environments import session_of
env = Environment("uv")
@env.template()
async def task(how: str = "fine"):
    async def leave():
        raise SystemExit(3)
    answer = yield type(asyncio.get_running_loop()).__module__
    if how == "exits":
        await asyncio.create_task(leave())
    yield float(answer == "x")
async def main():
    async with session_of(env) as session:
        assert "uvloop" in (await session.start("task", {}))["prompt"]
        assert (await session.grade("x"))["score"] == 1.0
        await session.start("task", {"how": "exits"})
        try:
            await session.grade("x")
        except Exception as error:
            assert "SystemExit" in str(error), error
        await session.start("task", {})
        await session.cancel()
        await session.start("task", {})
        assert (await session.grade("x"))["score"] == 1.0
asyncio.run(main())
"""


def test_it_works_on_uvloop() -> None:
    pytest.importorskip("uvloop")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UVLOOP],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
