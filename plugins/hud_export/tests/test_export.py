"""A job as other tools read it: nothing lost, nothing made up, no secret."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hud.environment import Environment
from hud.errors import StoreError, UsageError
from hud.eval import Job, LocalRuntime, Run, Task, Taskset
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep, Usage
from hud_export import FORMATS, export_job

HUD = Path(sys.executable).with_name("hud")
SECRET = "sk-ant-" + "s3cret" * 6
IMAGE = base64.b64encode(b"\x89PNG\r\n" + b"pixels" * 2000).decode()


async def talks(run: Run) -> str:
    calls = [MCPToolCall(name="bash", arguments={"command": f"echo {SECRET}"}, id="call-1")]
    usage = Usage(prompt_tokens=10, completion_tokens=5, cost_usd=0.25)
    run.record(AgentStep(content="Let me see.", reasoning="hm", tool_calls=calls, model="m-1", usage=usage))
    picture = {"type": "image", "data": IMAGE, "mimeType": "image/png"}
    run.record(ToolStep(call=calls[0], result=MCPToolResult([{"type": "text", "text": "ok"}, picture])))
    if run.args.get("word") == "bad":
        raise ValueError(f"gave up with {SECRET}")
    run.record(AgentStep(content="Done.", model="m-1", done=True))
    return str(run.args.get("word"))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Two rows of two rollouts, one of which no grader saw."""
    env = Environment("sky")
    env.source_file = None

    @env.template()
    async def say(word: str) -> Any:
        answer = yield f"Say {word}."
        if word == "bad":
            raise RuntimeError("the grader is broken")
        yield {"score": 0.5, "content": "half right", "info": {"said": answer}}

    rows = Taskset(
        "sky",
        [
            Task(env="sky", id="say", slug=slug, args={"word": word})
            for slug, word in (("moon/one", "moon"), ("bad", "bad"))
        ],
    )
    job = asyncio.run(rows.run(talks, runtime=LocalRuntime(env), group=2, jobs_dir=tmp_path))
    assert job.path is not None
    return job


def test_ids_of_kept_jobs_are_completed(job: Job, tmp_path: Path) -> None:
    assert job.path is not None
    kept = tmp_path / ".hud" / "jobs"
    kept.mkdir(parents=True)
    Path(job.path).rename(kept / Path(job.path).name)
    asked = {"_HUD_COMPLETE": "bash_complete", "COMP_WORDS": f"hud export {job.id[:4]}", "COMP_CWORD": "2"}
    done = subprocess.run(
        [str(HUD)], cwd=tmp_path, env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [f"plain,{job.id}"], done.stderr


def test_parquet_has_a_row_a_rollout_and_no_reward_where_there_was_none(job: Job, tmp_path: Path) -> None:
    table = pq.read_table(export_job(job.path or "", tmp_path / "job.parquet"))
    rows = table.to_pylist()
    assert [(row["slug"], row["reward"]) for row in rows] == [
        *[("moon/one", 0.5)] * 2,
        *[("bad", None)] * 2,
    ]
    assert rows[0]["job_id"] == job.id
    assert rows[0]["answer"] == "moon"
    assert json.loads(rows[0]["args"]) == {"word": "moon"}
    assert rows[2]["error"] == "gave up with [redacted]"
    steps = rows[0]["steps"]
    assert [step["kind"] for step in steps] == ["step", "agent", "tool", "agent", "step"]
    assert steps[1]["tokens"] == 15
    assert json.loads(steps[2]["record"])["result"]["content"][1]["data"] == IMAGE
    assert rows[0]["cost_usd"] == 0.25
    assert rows[0]["started_at"].tzinfo is not None


def test_lines_are_loaded_again(job: Job, tmp_path: Path) -> None:
    again = Job.load(export_job(job.path or "", tmp_path / "job.jsonl"))
    assert again.id == job.id
    assert [run.reward for run in again.runs] == [0.5, 0.5, None, None]
    assert [run.trace.steps for run in again.runs] == [
        run.trace.steps for run in Job.load(job.path or "").runs
    ]


def test_an_inspect_log_has_a_sample_a_rollout(job: Job, tmp_path: Path) -> None:
    with zipfile.ZipFile(export_job(job.path or "", tmp_path / "job.eval")) as log:
        names = set(log.namelist())
        header = json.loads(log.read("header.json"))
        sample = json.loads(log.read("samples/moon/one_epoch_2.json"))
        failed = json.loads(log.read("samples/bad_epoch_1.json"))
    assert {"_journal/start.json", "summaries.json", "header.json", "samples/bad_epoch_2.json"} <= names
    assert header["results"]["scores"][0]["metrics"]["mean"]["value"] == 0.5
    assert [message["role"] for message in sample["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert sample["scores"]["hud"]["value"] == 0.5
    assert failed["scores"] == {}
    assert failed["error"]["message"] == "gave up with [redacted]"


@pytest.mark.parametrize("format_name", FORMATS)
def test_no_secret_is_exported(job: Job, tmp_path: Path, format_name: str) -> None:
    target = export_job(job.path or "", tmp_path / f"out.{format_name}")
    data = target.read_bytes()
    if format_name == "eval":
        with zipfile.ZipFile(target) as log:
            data = b"".join(log.read(name) for name in log.namelist())
    if format_name == "parquet":
        data = json.dumps(pq.read_table(target).to_pylist(), default=str).encode()
    assert SECRET.encode() not in data
    assert b"[redacted]" in data


@pytest.mark.slow
def test_the_command_writes_what_its_file_is_named(job: Job, tmp_path: Path) -> None:
    def hud(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HUD, "export", *words], capture_output=True, text=True, timeout=100, check=False
        )

    path = str(job.path)
    done = hud(path, "-o", "out.parquet")
    assert done.returncode == 0, done.stderr
    assert pq.read_table("out.parquet").num_rows == 4
    again = hud(path, "-o", "out.parquet")
    assert again.returncode == 2
    assert "--force replaces it" in again.stderr
    assert hud(path, "-o", "out.parquet", "--force").returncode == 0
    lines = hud(path, "-o", "-")
    assert [json.loads(line)["kind"] for line in lines.stdout.splitlines()] == ["job", *["rollout"] * 4]
    assert "no job 'zzz'" in hud("zzz", "-o", "out.eval").stderr
    assert "--format jsonl|parquet|eval" in hud(path, "-o", "out.txt").stderr


def test_what_cannot_be_written_leaves_nothing(job: Job, tmp_path: Path) -> None:
    for name in FORMATS:
        with pytest.raises(StoreError, match="cannot be written"):
            export_job(job.path or "", tmp_path / "gone" / f"out.{name}")
    with pytest.raises(UsageError, match="no format 'xml'"):
        export_job(job.path or "", tmp_path / "out.xml", format_name="xml")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))] == []


READS = """
import sys
from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
log = read_eval_log(sys.argv[1])
assert log.status == "success", log.status
assert log.eval.config.epochs == 2
assert log.results.scores[0].metrics["mean"].value == 0.5
moon = [sample for sample in log.samples if sample.id == "moon/one"]
assert [sample.epoch for sample in moon] == [1, 2]
assert [sample.scores["hud"].value for sample in moon] == [0.5, 0.5]
assert [message.role for message in moon[0].messages] == ["user", "assistant", "tool", "assistant"]
assert moon[0].messages[1].tool_calls[0].function == "bash"
assert moon[0].messages[2].content[1].type == "image"
assert sum(usage.total_tokens for usage in moon[0].model_usage.values()) == 15
bad = [sample for sample in log.samples if sample.id == "bad"]
assert all(sample.error is not None and not sample.scores for sample in bad)
assert read_eval_log_sample(sys.argv[1], id="moon/one", epoch=2).output.completion == "moon"
assert len(read_eval_log_sample_summaries(sys.argv[1])) == 4
assert read_eval_log(sys.argv[1], header_only=True).samples is None
print("read")
"""


@pytest.mark.slow
@pytest.mark.registry
@pytest.mark.timeout(900)
def test_inspect_reads_its_log(job: Job, tmp_path: Path) -> None:
    log = export_job(job.path or "", tmp_path / "job.eval")
    done = subprocess.run(
        [inspect_python(tmp_path), "-c", READS, str(log)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.endswith("read\n"), done.stderr


def inspect_python(folder: Path) -> str:
    """Return an interpreter that has inspect_ai: the one named in a variable, else of a new environment.

    Its requirements do not go together with ours, so it never shares an environment with them.
    """
    if named := os.environ.get("HUD_TEST_INSPECT_PYTHON"):
        return named
    uv = Path(sys.executable).with_name("uv")
    python = folder / "inspect" / "bin" / "python"
    subprocess.run(
        [uv, "venv", "-q", "--python", sys.executable, folder / "inspect"], check=True, timeout=100
    )
    wanted = "inspect-ai==0.3.285"
    subprocess.run([uv, "pip", "install", "-q", "--python", python, wanted], check=True, timeout=700)
    return str(python)
