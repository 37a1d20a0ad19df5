"""What keeping a trajectory costs: a step on the loop and at rest, a summary, reading steps, a file of a million."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from hud.eval import Job, Run, Task
from hud.store.reader import JobFile
from hud.store.writer import JobWriter
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep, Usage
from tests.benchmarks.row import Row

STEPS = 10_000
SAID = (
    "the build failed because a header is missing so let me look at the include path of the target first and then run "
    "it again with more output to see which file it was that could not be found by the compiler in the second stage"
)
WORDS = SAID.split()


def steps(count: int, seed: int = 0) -> list[AgentStep | ToolStep]:
    """Return turns of an agent that calls a shell, and the results: about 400 characters each as JSON."""
    found: list[AgentStep | ToolStep] = []
    for number in range(seed, seed + count):
        said = " ".join(WORDS[(number * 7 + k * (number % 11 + 1)) % len(WORDS)] for k in range(18))
        call = MCPToolCall(
            name="bash", arguments={"command": f"make -C part{number} all"}, id=f"call-{number}"
        )
        if number % 2 == 0:
            usage = Usage(prompt_tokens=1000 + number, completion_tokens=40, cost_usd=0.001)
            found.append(AgentStep(content=said, tool_calls=[call], model="model-1", usage=usage))
        else:
            found.append(ToolStep(call=call, result=MCPToolResult([{"type": "text", "text": said}])))
    return found


def record(run_id: str, index: int, taken: list[Any]) -> dict[str, Any]:
    """Return a finished rollout."""
    return {
        "run_id": run_id,
        "index": index,
        "slug": f"row-{index % 100}",
        "task": {"env": "bench", "id": "say"},
        "agent": "agent",
        "reward": 1.0,
        "grade": {"score": 1.0},
        "status": "completed",
        "steps": taken,
    }


async def recording_us(folder: Path, taken: list[Any]) -> float:
    """Record steps into a rollout in flight, as the engine does, and return microseconds of the loop for each."""
    writer = JobWriter(folder, "recording")
    writer.job({"job_id": "recording"})
    run = Run(task=Task(env="bench", id="say"))
    writer.started({**record(run.trace_id, 0, []), "attempt": 1})
    run.trace.listener = lambda step: writer.step(run.trace_id, step)
    begun = time.perf_counter()
    for step in taken:
        run.record(step)
    spent = time.perf_counter() - begun
    await writer.finished(record(run.trace_id, 0, list(run.trace.steps)))
    await writer.close()
    return spent / len(taken) * 1e6


def buffered_line_us(folder: Path, taken: list[Any]) -> float:
    """The floor: a line of JSON for each step into a buffered file."""
    lines = [step.model_dump(mode="json", exclude_none=True) for step in taken]
    begun = time.perf_counter()
    with (folder / "floor.jsonl").open("w") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")
    return (time.perf_counter() - begun) / len(taken) * 1e6


async def made(folder: Path, name: str, rollouts: int, per_rollout: int) -> Path:
    """Write a job of so many rollouts and steps."""
    writer = JobWriter(folder, name)
    writer.job({"job_id": name, "name": name})
    for begin in range(0, rollouts, 50):
        batch = range(begin, min(begin + 50, rollouts))
        ends = (record(f"{name}-{n}", n, steps(per_rollout, n * per_rollout)) for n in batch)
        await asyncio.gather(*map(writer.finished, ends))
    await writer.close()
    return writer.path


def best_ms(work: Any, times: int = 5) -> float:
    """Return the best of several times, in milliseconds."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append((time.perf_counter() - begun) * 1e3)
    return min(found)


def summarised(path: Path) -> None:
    """Open a job and read its sums."""
    with JobFile(path) as file:
        file.job()
        file.summary()


def read_whole(path: Path) -> None:
    """Read every step of a job."""
    with JobFile(path) as file:
        for light in file.runs():
            if sum(1 for _ in file.steps(light["run_id"])) != light["steps"]:
                raise RuntimeError("steps are missing")


def filtered(path: Path, run_id: str) -> None:
    """Open a job, find the failed rollouts, page its rollouts, and page the steps of one."""
    with JobFile(path) as file:
        file.summary()
        file.runs(state="finished", slug="row-7")
        page = file.runs(after=100, limit=50)
        file.outlines(page[0]["run_id"], first=2, limit=50)
        next(iter(file.steps(run_id, first=2)))


def measure() -> list[Row]:
    """Return the cost of recording, of rest, and of reading."""
    with tempfile.TemporaryDirectory(prefix="hud-bench-") as name:
        folder = Path(name)
        taken = steps(STEPS)
        floor = buffered_line_us(folder, taken)
        bare = len((folder / "floor.jsonl").read_bytes()) / STEPS
        ours = asyncio.run(recording_us(folder, taken))
        size = (folder / "recording.db").stat().st_size / STEPS
        path = asyncio.run(made(folder, "many", 100, STEPS // 100))
        lines = best_ms(lambda: [json.loads(line) for line in (folder / "floor.jsonl").open()], 3)
        large = asyncio.run(made(folder, "large", 10_000, 4))
        small_ms, large_ms = best_ms(lambda: summarised(path)), best_ms(lambda: summarised(large))
        load_ms = best_ms(lambda: Job.load(large).reward)
        whole_ms = best_ms(lambda: read_whole(path), 3)
        page_ms = best_ms(lambda: filtered(large, "large-7000"))
    return [
        Row("recording a step, on the loop", ours, floor, "us", "a buffered line of JSON", target="15"),
        Row("a step at rest", size, bare, "B", "its line of JSON", target="100"),
        Row("a job's summary, 10,000 rollouts", large_ms, small_ms, "ms", "of 100 rollouts", target="5"),
        Row("the same by `Job.load(...).reward`", load_ms, None, "ms", target="5"),
        Row(
            "opened, filtered, paged: 10,000 rollouts", page_ms, None, "ms", target="1,000 of 1,000,000 steps"
        ),
        Row("all of 10,000 steps", whole_ms, lines, "ms", "parsing their lines", target="100"),
    ]
