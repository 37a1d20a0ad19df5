"""What is kept of a job, who is told, and what is taken out first."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hud.errors import StoreError
from hud.eval import Job, Run, Taskset
from hud.eval.session import JobSession
from hud.plugins.events import OpenSink, Redact
from hud.plugins.hookspecs import hookimpl
from hud.store.folder import jobs_folder
from hud.store.reader import JobFile
from hud.testing import isolated_host
from hud.types import AgentStep, MCPToolCall, MCPToolResult, Task, ToolStep

pytestmark = pytest.mark.anyio


async def adds(run: Run) -> str:
    run.record(AgentStep(content=f"the password is hunter2, {run.slug}"))
    return "3"


def rows(count: int = 1) -> list[Task]:
    return [Task(env="desk", id="add", slug=f"row-{i}") for i in range(count)]


class Censor:
    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.kinds: set[str] = set()

    @hookimpl
    def hud_redact(self, event: Redact) -> Mapping[str, Any] | None:
        self.kinds.add(event.kind)
        if self.broken and event.kind == "step" and event.record["kind"] == "agent":
            raise RuntimeError("the censor is ill")
        kept: dict[str, Any] = json.loads(json.dumps(event.record).replace("hunter2", "***"))
        return kept


async def test_records_are_redacted_before_they_are_written_or_sent(place: Any) -> None:
    got: list[Any] = []

    class Sink:
        async def job(self, record: Mapping[str, Any]) -> None:
            got.append(("job", dict(record)))

        async def rollout(self, record: Mapping[str, Any]) -> None:
            got.append(("rollout", dict(record)))

        async def close(self) -> None:
            got.append(("close", None))

    class Sinks:
        @hookimpl
        async def hud_open_sink(self, event: OpenSink) -> Any:
            return Sink()

    censor = Censor()
    with isolated_host(censor, Sinks()):
        job = await Taskset("t", rows()).run(adds, runtime=place)
    with JobFile(job.path or "") as file:
        text = json.dumps([file.job(), *file.records()])
    assert "hunter2" not in text
    assert "hunter2" not in json.dumps(got)
    assert "***" in json.dumps(got)
    assert [kind for kind, _ in got] == ["job", "rollout", "job", "close"]
    assert {"job", "step", "grade"} <= censor.kinds
    assert "***" in str(Job.load(job.id).runs[0].trace.steps[1])


async def test_known_secrets_are_masked_without_any_plugin(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", 'pass"phrase\\hidden')
    monkeypatch.setenv("HOME_TOWN", "Springfield")
    got: list[str] = []

    class Sink:
        async def job(self, record: Mapping[str, Any]) -> None: ...

        async def rollout(self, record: Mapping[str, Any]) -> None:
            got.append(json.dumps(record))

        async def close(self) -> None: ...

    class Sinks:
        @hookimpl
        async def hud_open_sink(self, event: OpenSink) -> Any:
            return Sink()

    async def leaks(run: Run) -> str:
        run.record(AgentStep(content=f"key={os.environ['ACME_API_KEY']} sk-ant-{'x' * 30} Springfield"))
        raise ValueError(f"refused: {os.environ['ACME_API_KEY']}")

    with isolated_host(Sinks()):
        job = await Taskset("t", rows()).run(leaks, runtime=place)
    kept = Job.load(job.id).runs[0]
    for text in (str(kept.trace.steps), str(kept.failure), got[0]):
        assert "phrase" not in text
        assert "sk-ant" not in text
        assert "[redacted]" in text
    assert "Springfield" in got[0]


async def test_redaction_fails_closed(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    with isolated_host(Censor(broken=True)), caplog.at_level(logging.ERROR):
        job = await Taskset("t", rows()).run(adds, runtime=place)
        kept = Job.load(job.id).runs[0]
    assert kept.reward == 1.0
    assert not any(isinstance(step, AgentStep) for step in kept.trace.steps)


async def test_a_sink_that_fails_disturbs_no_job(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def job(self, record: Mapping[str, Any]) -> None:
            raise OSError("no network")

        async def rollout(self, record: Mapping[str, Any]) -> None:
            raise OSError("no network")

        async def close(self) -> None:
            raise OSError("no network")

    class Sinks:
        @hookimpl
        async def hud_open_sink(self, event: OpenSink) -> Any:
            return Broken()

    with isolated_host(Sinks()):
        job = await Taskset("t", rows(2)).run(adds, runtime=place)
    assert job.reward == 1.0
    assert "a sink failed" in caplog.text


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
async def test_a_folder_that_cannot_be_written_gives_way_to_the_users_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    assert jobs_folder(shut) == tmp_path / "state" / "hud" / "jobs"
    assert "cannot be written" in capsys.readouterr().err


def test_a_file_in_the_way_gives_way_to_the_users_own_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".hud").write_text("not a folder")
    assert jobs_folder(tmp_path) == tmp_path / "state" / "hud" / "jobs"
    assert jobs_folder(tmp_path) == tmp_path / "state" / "hud" / "jobs"
    assert capsys.readouterr().err.count("cannot be written") == 1, "said once"


def test_kept_jobs_stay_out_of_git(tmp_path: Path) -> None:
    jobs_folder(tmp_path)
    assert (tmp_path / ".hud" / ".gitignore").read_text() == "*\n"


async def test_two_jobs_in_one_folder_keep_apart(place: Any) -> None:
    first, second = await asyncio.gather(
        Taskset("a", rows(5)).run(adds, runtime=place, job=Job("ab1")),
        Taskset("b", rows(5)).run(adds, runtime=place, job=Job("ab2")),
    )
    assert len(Job.load(first.id).runs) == len(Job.load(second.id).runs) == 5
    with pytest.raises(StoreError, match="beginning of several"):
        Job.load("ab")
    with pytest.raises(StoreError, match="no job ''"):
        Job.load("")


async def test_the_id_of_a_running_job_cannot_be_taken(place: Any) -> None:
    gate = asyncio.Event()

    async def waits(run: Run) -> str:
        await gate.wait()
        return "3"

    first = asyncio.ensure_future(Taskset("a", rows()).run(waits, runtime=place, job=Job("same")))
    while not place.open:
        await asyncio.sleep(0.001)
    with pytest.raises(StoreError):
        await Taskset("b", rows()).run(adds, runtime=place, job=Job("same"))
    gate.set()
    assert (await first).reward == 1.0


def test_an_unknown_job_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no job 'abc'"):
        Job.load("abc")


async def test_what_an_agent_records_is_kept_whatever_it_is(place: Any) -> None:
    class Odd:
        def __repr__(self) -> str:
            return "<odd>"

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no name")

    async def records(run: Run) -> str:
        circle: list[Any] = []
        circle.append(circle)
        deep: list[Any] = []
        for _ in range(3000):
            deep = [deep]
        run.record(AgentStep(extra={"nan": float("nan"), "set": {1}, "odd": Odd(), "surrogate": "\ud800"}))
        run.record(AgentStep(raw={"deep": [[[1.5, float("inf")]]], "huge": 10**5000, "long": "x" * 5000}))
        run.record(AgentStep(raw={"circle": circle}))
        run.record(AgentStep(raw={"deep": deep}))
        run.record(AgentStep(raw={"mute": Mute()}))
        run.record(
            ToolStep(call=MCPToolCall(name="\udcff"), result=MCPToolResult([]), error="no file \udcff")
        )
        if run.slug == "row-1":
            raise OSError("no file \udcff")
        return "3\udcff"

    job = await Taskset("t", rows(2)).run(records, runtime=place)
    assert job.ended_because is None
    assert job.path is not None
    for kept in Job.load(job.path).runs:
        assert len([step for step in kept.trace.steps if step.source != "task"]) == 6
        assert "odd" in str(kept.trace.steps)
        json.dumps(kept.trace.model_dump(mode="json"), ensure_ascii=False).encode()


KILLED = """
import asyncio, os, sys
from collections.abc import AsyncIterator
from hud.environment import Environment
from hud.eval import LocalRuntime, Taskset

env = Environment(name="desk")

@env.template()
async def add(a: int = 1):
    yield "x"
    yield 1.0

async def agent(run):
    return ""

async def main():
    async for run in Taskset("t", (add(a=i) for i in range(100000))).stream(agent, runtime=LocalRuntime(env)):
        print(run.trace_id, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_what_was_reported_survives_a_kill(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(KILLED)
    child = subprocess.Popen([sys.executable, "main.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    reported = [child.stdout.readline().strip() for _ in range(50)]
    child.kill()
    reported += child.stdout.read().split()
    child.stdout.close()
    child.wait()
    (path,) = (p for p in (tmp_path / ".hud" / "jobs").iterdir() if p.suffix == ".db")
    kept = Job.load(path)
    last = reported[-1] if len(reported[-1]) == 32 else reported[-2]
    ids = [run.trace_id for run in kept.runs]
    assert set(reported[: reported.index(last) + 1]) <= set(ids)
    assert len(ids) == len(set(ids))
    assert kept.ended_at is None


@pytest.mark.slow
async def test_a_blocked_loop_is_reported_with_its_stack_and_ended_at_its_bound(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hud.eval.watchdog.Watchdog.__init__.__kwdefaults__", {"blocked_s": 0.05})
    monkeypatch.setattr("hud.eval.options.Options.hard_bound_s", property(lambda self: 0.3))
    import threading

    freed = threading.Event()
    stacks: list[str] = []

    def wedged(stack: str) -> None:
        stacks.append(stack)
        freed.set()

    async def blocks(run: Run) -> str:
        deadline = time.monotonic() + 30
        while not freed.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)
        return "3"

    session = JobSession(Taskset("t", rows()), blocks, keep_runs=True, runtime=place, on_wedged=wedged)
    await session.run()
    assert len(stacks) == 1
    assert "in blocks" in stacks[0]
    assert "event loop has been blocked" in caplog.text
    assert "in blocks" in caplog.text


async def test_a_record_says_what_shaped_the_result(tmp_path: Path) -> None:
    source = tmp_path / "env.py"
    source.write_text(
        "from hud.environment import Environment\n"
        "env = Environment('small', version='2.1.0')\n"
        "@env.template()\n"
        "async def add(a: int = 1):\n"
        "    answer = yield f'{a} + 1?'\n"
        "    yield float(answer == str(a + 1))\n"
    )

    async def says_two(run: Run) -> str:
        return "2"

    said: list[Mapping[str, Any]] = []

    class Sink:
        async def job(self, record: Mapping[str, Any]) -> None:
            said.append(record)

        async def rollout(self, record: Mapping[str, Any]) -> None:
            said.append(record)

        async def close(self) -> None: ...

    class Sinks:
        @hookimpl
        async def hud_open_sink(self, event: OpenSink) -> Any:
            return Sink()

    with isolated_host(Sinks()):
        job = await Taskset.from_file(source).run(says_two, jobs_dir=tmp_path / "jobs")
    begun, rollout, _ended = said
    assert list(begun["inputs"]["source"]["files"]) == ["env.py"]
    assert begun["inputs"]["rows"]["count"] == 1
    assert begun["inputs"]["versions"]["hud-core"]
    assert rollout["environment"]["name"] == "small"
    assert rollout["environment"]["version"] == "2.1.0"
    assert set(rollout["phases_at"]) == {"place", "connect", "start", "act", "grade", "release"}
    assert list(rollout["phases_at"].values()) == sorted(rollout["phases_at"].values())
    kept = Job.load(job.path or "").runs[0]
    assert (kept.phases_at, kept.environment) == (rollout["phases_at"], rollout["environment"])
