"""Secrets planted in ten places of a job: in none of its file, its exports, its logs, what is printed."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hud.environment import Environment
from hud.eval import Job, LocalRuntime, Run, Taskset
from hud.store.payload import unpack
from hud.types import AgentStep, MCPToolCall, MCPToolResult, Task, ToolStep

pytestmark = pytest.mark.anyio

HUD = Path(sys.executable).with_name("hud")

PLACES = (
    "prompt",
    "answer",
    "step",
    "result",
    "error",
    "traceback",
    "args",
    "info",
    "blob",
    "config",
)
FORMS = {
    "sk-ant-api03-{}AAAAAAAAAAAAAAAAAAAAAAAAAAAA": "a provider's key",
    "ghp_{}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA": "a forge's token",
    'pass"phrase\\{}': "a variable's value",
}


def secret(form: str, place: str) -> str:
    return form.format(place.ljust(10, "x"))


@pytest.mark.parametrize("form", FORMS, ids=list(FORMS.values()))
async def test_a_secret_in_any_place_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    secrets = {place: secret(form, place) for place in PLACES}
    for place, value in secrets.items():
        monkeypatch.setenv(f"PLANTED_{place.upper()}_TOKEN", value)
    env = Environment("sky")
    env.source_file = None

    @env.template()
    async def say(word: str) -> Any:
        answer = yield f"Say {word}. {secrets['prompt']}"
        yield {"score": 1.0, "info": {"said": answer, secrets["info"]: [secrets["info"]]}}

    async def leaks(run: Run) -> str:
        picture = base64.b64encode(b"\x89PNG" + secrets["blob"].encode() * 500).decode()
        long = f"{'before ' * 2000}{secrets['step']}{' after' * 2000}"
        run.record(AgentStep(content=long, reasoning=secrets["step"], extra={"config": secrets["config"]}))
        call = MCPToolCall(name=secrets["result"], arguments={"command": secrets["result"]})
        blocks: list[dict[str, Any]] = [{"type": "text", "text": secrets["result"]}]
        small = base64.b64encode(b"\x89PNG" + secrets["blob"].encode()).decode()
        blocks += [{"type": "image", "data": data, "mimeType": "image/png"} for data in (picture, small)]
        blocks.append({"type": "resource", "uri": f"data:text/plain;base64,{small}"})
        blocks.append(
            {"type": "resource", "resource": {"uri": "a:b", "mimeType": "image/png", "blob": small}}
        )
        run.record(AgentStep(raw={"parts": [{"inline_data": {"mime_type": "image/png", "data": picture}}]}))
        run.record(ToolStep(call=call, result=MCPToolResult(blocks), error=secrets["error"]))
        if run.args["word"] == "raise":
            raise ValueError(f"{secrets['error']} {secrets['traceback']}")
        return secrets["answer"]

    leaks.config = {"key": secrets["config"]}  # type: ignore[attr-defined]
    rows = [
        Task(
            env="sky", id="say", slug="one", args={"word": secrets["args"]}, columns={"note": secrets["args"]}
        ),
        Task(env="sky", id="say", slug="two", args={"word": "raise"}),
    ]
    job = await Taskset("sky", rows).run(leaks, runtime=LocalRuntime(env), jobs_dir=tmp_path / "jobs")
    assert job.path is not None
    kept = everything(job.path)
    Job.load(job.path).export(tmp_path / "out.jsonl")
    kept["export"] = (tmp_path / "out.jsonl").read_bytes()
    told = capfd.readouterr()
    kept["printed"] = (told.out + told.err).encode()
    for place, value in secrets.items():
        forms = {value.encode(), json.dumps(value)[1:-1].encode(), base64.b64encode(value.encode())[4:-4]}
        for where, data in kept.items():
            for wanted in forms:
                assert wanted not in data, f"the {place}'s secret is in {where}"
    again = Job.load(job.path)
    assert [run.reward for run in again.runs] == [run.reward for run in job.runs]
    assert kept["export"].count(b"[redacted]") >= len(PLACES), "each place was reached"
    assert b"before before" in kept["export"], "the rest is kept"


PRINTS = """
import os, sys
from hud.environment import Environment

env = Environment(name="talks")

@env.template()
async def say(word: str = "calm"):
    print("out", os.environ["INHERITED_TOKEN"], flush=True)
    print("err\\nghp_" + "A" * 40, file=sys.stderr, flush=True)
    answer = yield "Say dotenv-value-1."
    if word == "raise":
        raise ValueError(os.environ["INHERITED_TOKEN"])
    yield 1.0

TASKS = [say(word="calm"), say(word="raise")]
"""

TALKS = """
import asyncio, os

async def talks(run):
    print("agent", os.environ["INHERITED_TOKEN"])
    if "WAIT" in os.environ:
        await asyncio.sleep(60)
    raise OSError(f"dotenv-value-1 {os.environ['INHERITED_TOKEN']}")
"""

PLANTED = (b"inherited-value", b"dotenv-value-1", b"ghp_" + b"A" * 40)


@pytest.fixture
def talking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "env.py").write_text(PRINTS)
    (tmp_path / "agents.py").write_text(TALKS)
    (tmp_path / ".env").write_text("FROM_FILE_API_KEY=dotenv-value-1\n")
    monkeypatch.setenv("INHERITED_TOKEN", "inherited-value")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def began(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = (str(HUD), "eval", "env.py", "agents:talks", *words)
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def secrets_in(folder: Path, printed: bytes = b"") -> list[tuple[str, bytes]]:
    """Return what was planted and is found below a project's .hud, or was printed."""
    kept = {"printed": printed}
    for path in (folder / ".hud").rglob("*"):
        if path.is_file():
            kept |= everything(path) if path.suffix == ".db" else {path.name: path.read_bytes()}
    return [(where, wanted) for where, data in kept.items() for wanted in PLANTED if wanted in data]


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("output", [(), ("--json",), ("--jsonl", "-vv")], ids=" ".join)
def test_a_secret_that_is_printed_is_kept_nowhere(talking: Path, output: tuple[str, ...]) -> None:
    out, err = began(talking, *output).communicate()
    assert secrets_in(talking, out + err) == []
    assert b"agent [redacted]" in err
    logs = b"".join(path.read_bytes() for path in (talking / ".hud").rglob("*.log"))
    assert logs.count(b"out [redacted]\nerr\n[redacted]\n") == 2


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform != "linux", reason="a process that outlives the killed one")
def test_logs_of_a_killed_job_lose_their_secrets_too(talking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAIT", "1")
    job = began(talking)
    try:
        until(lambda: sum(b"ghp_" in log.read_bytes() for log in (talking / ".hud").rglob("*.log")) == 2)
        log = next((talking / ".hud").rglob("*.log"))
        shown = subprocess.run([HUD, "logs", log.stem], cwd=talking, capture_output=True, check=True).stdout
        assert shown == b"out [redacted]\nerr\n[redacted]\n"
    finally:
        job.kill()
        job.communicate()
    until(lambda: secrets_in(talking) == [])


def until(holds: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process writes the file


def everything(path: Path) -> dict[str, bytes]:
    """Return the bytes of a job's file, and what its compressed parts hold."""
    db = sqlite3.connect(path)
    try:
        blocks = b"\n".join(
            "\n".join(unpack(row[0])).encode() for row in db.execute("SELECT data FROM block")
        )
        blobs = b"\n".join(
            zlib.decompress(data) if packed else data
            for data, packed in db.execute("SELECT data, packed FROM blob")
        )
    finally:
        db.close()
    files = {part.name: part.read_bytes() for part in path.parent.rglob("*") if part.is_file()}
    return {**files, "the blocks": blocks, "the blobs": blobs}
