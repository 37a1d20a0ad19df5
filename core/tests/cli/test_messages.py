"""What is told when something is wrong names the remedy, and the exit code says whether anything ran."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Hud = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runtime", "nosuch"], "no installed plugin provides the runtime 'nosuch'"),
        (["--runtime", "modal"], "hud-runtime-modal, which has no release yet"),
        (["--runtime", "tcp://127.0.0.1"], "needs host and port: tcp://host:port"),
        (["--runtime", "tcp://127.0.0.1:x?token=abc"], "'tcp://127.0.0.1:x' cannot be read"),
    ],
)
def test_a_runtime_that_cannot_be_means_nothing_was_started(
    hud: Hud, letters: Path, words: list[str], said: str
) -> None:
    done = hud("eval", "tasks.py", "oracle", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (letters / ".hud").exists()


def test_close_names_are_told_once(hud: Hud, letters: Path) -> None:
    (letters / "one.py").write_text("from env import count\nTASKS = [count()]\n", encoding="utf-8")
    done = hud("eval", "one.py", "oracle", "--task-ids", "cuont")
    assert "(close: count)" in done.stderr


def test_a_file_without_a_function_is_no_agent(hud: Hud, letters: Path) -> None:
    (letters / "mine.py").write_text("async def shout(run):\n    return ''\n", encoding="utf-8")
    done = hud("eval", "tasks.py", "mine.py")
    assert done.returncode == 2
    assert "mine.py:FUNCTION" in done.stderr


@pytest.mark.slow
def test_an_agent_that_is_not_async_is_told_how_to_be(hud: Hud, letters: Path) -> None:
    (letters / "mine.py").write_text("def shout(run):\n    return '3'\n", encoding="utf-8")
    done = hud("eval", "tasks.py", "mine.py:shout", "--limit", "1")
    assert done.returncode == 1
    assert "`async def shout(run)`" in done.stderr


@pytest.mark.slow
def test_agents_that_failed_are_counted_beside_the_table(hud: Hud, letters: Path) -> None:
    (letters / "mine.py").write_text("async def fails(run):\n    raise ValueError('x')\n", encoding="utf-8")
    done = hud("eval", "tasks.py", "mine.py:fails")
    assert "the agent failed in 3 of the graded rollouts" in done.stderr
    assert "the agent failed" not in hud("eval", "tasks.py", "oracle").stderr


@pytest.mark.parametrize("group", ["models", "task", "plugins"])
def test_a_group_without_a_command_shows_its_help(hud: Hud, group: str) -> None:
    done = hud(group)
    assert done.returncode == 2
    assert (done.stderr + done.stdout).startswith(f"Usage: hud {group}")
    assert "Error" not in done.stderr


@pytest.mark.slow
def test_ids_of_rollouts_are_shown_for_their_logs(hud: Hud, letters: Path) -> None:
    text = (letters / "env.py").read_text(encoding="utf-8")
    (letters / "env.py").write_text(
        text.replace("    yield 1.0", "    print('seen')\n    yield 1.0"), encoding="utf-8"
    )
    done = hud("eval", "tasks.py", "oracle", "-v", "--limit", "1")
    line = next(line for line in done.stderr.splitlines() if line.startswith("berry: 1.000"))
    run = line.rpartition("[")[2].rstrip("]")
    assert hud("logs", run).stdout == "seen\n"
    job = next((letters / ".hud" / "jobs").glob("*.db")).stem
    told = hud("logs", job)
    assert told.returncode == 2
    assert f"is a job; its rollouts that wrote something: {run}" in told.stderr
    assert "`hud eval -v` shows the ids" in hud("logs", "zzzz").stderr
    assert hud("logs", f"{job[:8]}/berry").stdout == "seen\n"
    assert hud("replay", f"{job[:8]}/berry").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["jobs", "trace", "logs", "replay"])
@pytest.mark.parametrize("name", ["/", "/tmp", "/tmp/x", "[*", "*", "", "zz"])
def test_a_name_of_nothing_is_a_mistake_and_no_fault(
    hud: Hud, letters: Path, command: str, name: str
) -> None:
    assert hud("eval", "tasks.py", "noop", "--limit", "1").returncode == 0
    refused = hud(command, name)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: no ")
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_a_job_outside_of_this_folder_is_named_by_its_whole_path(hud: Hud, letters: Path) -> None:
    below = letters / "below"
    below.mkdir()
    done = hud("eval", "../tasks.py", "oracle", "--limit", "1", cwd=below)
    assert done.returncode == 0, done.stderr
    path = done.stderr.strip().splitlines()[-1].rpartition(": ")[2]
    assert ".." not in path
    assert (below / path).is_file()


@pytest.mark.slow
def test_an_unknown_key_of_a_row_names_the_close_one(hud: Hud, letters: Path) -> None:
    row = {"env": "letters", "id": "count", "arg": {"word": "bee"}}
    (letters / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = hud("eval", "rows.jsonl", "oracle")
    assert done.returncode == 2
    assert "rows.jsonl has 1 faulty row:" in done.stderr
    assert "rows.jsonl:1: arg: unknown key (did you mean 'args'?)" in done.stderr
    del row["arg"]
    (letters / "rows.jsonl").write_text(json.dumps({**row, "zzz": 1}) + "\n", encoding="utf-8")
    assert "known: env, id, args" in hud("eval", "rows.jsonl", "oracle").stderr


def test_a_task_that_is_not_there_is_told_in_whole_sentences(hud: Hud, letters: Path) -> None:
    done = hud("task", "start", "zzzzzz", "-s", "tasks.py", env=dict(os.environ))
    assert "'zzzzzz'; `hud task list` lists the tasks" in done.stderr


@pytest.mark.slow
def test_doing_nothing_scores_nothing_in_the_text_template(hud: Hud, tmp_path: Path) -> None:
    assert hud("init", "quiz", "--template", "text").returncode == 0
    done = hud("eval", "tasks.py", "noop", "--json", cwd=tmp_path / "quiz")
    assert json.loads(done.stdout)["mean_reward"] == 0.0


@pytest.mark.slow
def test_steps_of_a_debugged_rollout_are_json_throughout(hud: Hud, letters: Path) -> None:
    done = hud("eval", "tasks.py", "oracle", "--debug", "--limit", "1")
    steps = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert steps[0]["task_call"]["result"]["prompt"] == "How many r in berry?"
