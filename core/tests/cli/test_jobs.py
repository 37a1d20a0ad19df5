"""`hud jobs` and `hud trace`, through the front door."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HUD = Path(sys.executable).with_name("hud")
Hud = Callable[..., subprocess.CompletedProcess[str]]

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[1;1H\x9b31m over\x08\x7f\u202eevil\u2066"
OURS = re.compile(r"\x1b\[[0-9;]*m")

WICKED = f"""
from hud.environment import Environment
from hud.eval import Taskset
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep, Usage

env = Environment(name="wicked", version="3.1")
BAD = {ESCAPES!r}


@env.template()
async def tell(n: int = 0):
    answer = yield f"Prompt {{BAD}} {{n}}"
    if n == 1:
        raise ValueError(f"broke {{BAD}}")
    yield {{"score": 0.5, "content": f"verdict {{BAD}}", "subscores": [
        {{"name": f"part {{BAD}}", "value": 0.5, "weight": 2.0}}], "info": {{"fact": BAD}}}}


TASKS = Taskset("wicked", [tell(n=n).model_copy(update={{"slug": f"row-{{n}}"}}) for n in range(2)])


async def agent(run):
    image = {{"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}}
    call = MCPToolCall("bash", {{"command": f"echo {{BAD}}", "lines": "one\\ntwo"}}, id="c1")
    run.record(AgentStep(content=f"I say {{BAD}}", reasoning=f"I think {{BAD}}", model="m-1", tool_calls=[call],
                         usage=Usage(prompt_tokens=1200, completion_tokens=34, cost_usd=0.5)))
    text = {{"type": "text", "text": f"output {{BAD}}\\n" + "x\\n" * 200}}
    run.record(ToolStep(call=call, result=MCPToolResult([text, image])))
    return f"answer {{BAD}}"
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A job whose agent, environment and grader all wrote escape sequences: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("wicked")
    (folder / "tasks.py").write_text(WICKED, encoding="utf-8")
    words = ["tasks.py", "tasks:agent", "--json", "--tag", "night", "--name", "wicked job"]
    env = {**os.environ, "XDG_STATE_HOME": str(folder / ".state")}
    done = subprocess.run(
        [HUD, "eval", *words], check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=100
    )
    return folder, json.loads(done.stdout)


@pytest.fixture
def wicked(ended: tuple[Path, dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """A copy of that job in the test's folder."""
    folder, job = ended
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return {**job, "path": str(tmp_path / ".hud" / "jobs" / f"{job['job_id']}.db")}


def on_terminal(folder: Path, *words: str, **variables: str) -> tuple[int, str]:
    """Run `hud` with a terminal for stdout and stderr; return its code and what the terminal was sent."""
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm", "XDG_STATE_HOME": str(folder / ".state"), **variables}
    child = subprocess.Popen(
        [str(HUD), *words], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    got = b""
    try:
        while chunk := os.read(ours, 65536):
            got += chunk
    except OSError:
        pass  # Linux's way to say that the other side has closed
    finally:
        os.close(ours)
    return child.wait(60), got.decode()


def without_ours(text: str) -> str:
    """Return what is left once our colours and a terminal's own line ends are taken out."""
    return OURS.sub("", text).replace("\r\n", "\n")


HARMFUL = ("\x1b", "\x07", "\x08", "\x7f", "\x9b", "\u202e", "\u2066", "\r")


def test_jobs_are_listed_with_their_numbers(wicked: dict[str, Any], hud: Hud) -> None:
    listed = hud("jobs")
    head, row = listed.stdout.splitlines()
    assert head.split() == [
        "job",
        "name",
        "agent",
        "source",
        "runs",
        "mean",
        "errors",
        "cost",
        "state",
        "age",
    ]
    assert row.startswith(wicked["job_id"][:8])
    for cell in ("wicked job", "tasks.py", "2/2", "0.500", "$1.00", "finished"):
        assert cell in row
    [line] = json.loads(hud("jobs", "--json").stdout)["jobs"]
    assert line["job_id"] == wicked["job_id"]
    assert (line["run_count"], line["error_count"], line["mean_reward"]) == (2, 1, 0.5)
    assert (line["cost_usd"], line["tokens"], line["state"]) == (1.0, 2468, "finished")


@pytest.mark.slow
def test_jobs_are_found_by_tag_name_and_state(wicked: dict[str, Any], hud: Hud, letters: Path) -> None:
    hud("eval", "tasks.py", "oracle", "--name", "second")
    assert len(hud("jobs", "-q").stdout.split()) == 2
    assert hud("jobs", "-q", "--tag", "night").stdout.split() == [wicked["job_id"]]
    assert hud("jobs", "list", "-q", "--name", "wick*").stdout.split() == [wicked["job_id"]]
    assert hud("jobs", "-q", "--state", "running").stdout == ""
    assert hud("jobs", "--state", "running").stderr == "no job here is as asked for; `hud jobs` lists all\n"
    assert hud("jobs", "-q", "-n", "1").stdout.split() != [wicked["job_id"]]


def test_a_folder_without_jobs_says_how_to_begin_one(hud: Hud) -> None:
    listed = hud("jobs")
    assert (listed.returncode, listed.stdout) == (0, "")
    assert "hud eval" in listed.stderr


def test_a_job_is_shown_with_its_table_errors_and_what_it_was_asked(wicked: dict[str, Any], hud: Hud) -> None:
    shown = hud("jobs", wicked["job_id"][:6], "--runs").stdout
    assert "row-0" in shown
    assert "1 x task: " in shown
    assert "broke" in shown
    assert re.search(r"source\s+tasks\.py\s+sha256:", shown)
    assert "tags      night" in shown
    assert "hud-core" in shown
    assert wicked["runs"][0]["trace_id"][:8] in shown
    dump = json.loads(hud("jobs", "show", wicked["job_id"], "--json").stdout)
    assert dump["errors"][0]["runs"] == [wicked["runs"][1]["trace_id"]]
    assert dump["summary"]["mean"] == 0.5
    assert dump["job"]["inputs"]["versions"]["hud-core"]


@pytest.mark.slow
def test_a_trace_shows_everything_that_happened(wicked: dict[str, Any], hud: Hud) -> None:
    run = wicked["runs"][0]["trace_id"]
    shown = hud("trace", run[:10]).stdout
    order = [
        "run ",
        "prompt",
        "Prompt",
        "agent 1",
        "I think",
        "I say",
        "calls bash",
        "tool 2",
        "output",
        "answer",
        "grade",
        "part",
        "usage",
        "phases",
    ]
    places = [shown.index(word) for word in order]
    assert places == sorted(places)
    assert "environment wicked 3.1" in shown
    assert "1,200 + 34 tokens" in shown
    assert "[image image/png, 6 bytes]" in shown
    assert "lines more; --full shows them" in shown
    assert hud("trace", run, "--full").stdout.count("  x\n") > 150
    assert json.loads(hud("trace", run, "--json").stdout)["steps"][1]["model"] == "m-1"


@pytest.mark.slow
def test_the_words_of_huds_command_line_are_taken(wicked: dict[str, Any], hud: Hud) -> None:
    job, run = wicked["job_id"], wicked["runs"][0]["trace_id"]
    assert hud("trace", "get", run).stdout == hud("trace", run).stdout
    got, shown = (
        re.sub(r"begun \S+ \S+ ago", "begun", hud("jobs", word, job).stdout) for word in ("get", "show")
    )
    assert got == shown
    missing = hud("jobs", "get", "zz", "--json")
    assert missing.returncode == 2
    assert json.loads(missing.stderr or missing.stdout)["error"] == "not_found"
    stopped = [hud("jobs", word, job[:9], "--yes") for word in ("stop", "cancel")]
    assert stopped[0].stderr == stopped[1].stderr
    assert "No such" not in stopped[1].stderr
    named = hud("models", "list", "claude-haiku-4-5", "--all", "--quiet")
    assert named.stdout == "claude-haiku-4-5\n"


@pytest.mark.parametrize("form", ["{run}", "{run:.9}", "{job:.8}/{run:.8}", "{job}/row-1"])
def test_a_rollout_is_named_in_any_of_these_ways(wicked: dict[str, Any], hud: Hud, form: str) -> None:
    run = wicked["runs"][1]["trace_id"]
    shown = hud("trace", form.format(run=run, job=wicked["job_id"]))
    assert shown.returncode == 0, shown.stderr
    assert run in shown.stdout
    assert "ValueError" in shown.stdout


def test_a_name_that_fits_none_or_several_is_refused_with_what_there_is(
    wicked: dict[str, Any], hud: Hud
) -> None:
    for words, told in (
        (("trace", "zz"), "no rollout 'zz'"),
        (("trace", wicked["job_id"]), "is a job of several rollouts"),
        (("jobs", "zz"), "no job 'zz'"),
        (("jobs", "watch", "zz"), "no job 'zz'"),
    ):
        refused = hud(*words)
        assert refused.returncode != 0
        assert told in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_no_escape_sequence_of_an_agent_reaches_a_terminal(wicked: dict[str, Any], tmp_path: Path) -> None:
    runs = [run["trace_id"] for run in wicked["runs"]]
    commands = [
        ("trace", runs[0]),
        ("trace", "--full", runs[1]),
        ("jobs", wicked["job_id"], "--runs"),
        ("jobs",),
    ]
    for words in commands:
        code, got = on_terminal(tmp_path, *words)
        assert code == 0
        clean = without_ours(got)
        assert [mark for mark in HARMFUL if mark in clean] == [], words
    assert "␛]0;owned␇" in without_ours(on_terminal(tmp_path, "trace", runs[0])[1]), (
        "what was written is still seen"
    )


@pytest.mark.slow
def test_hud_eval_shows_an_error_without_its_escape_sequences(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(WICKED, encoding="utf-8")
    _, got = on_terminal(tmp_path, "eval", "tasks.py", "tasks:agent", "--json")
    assert "broke" in got
    assert "\x1b]0;" not in got
    assert "\x1b[2J" not in got
    assert "\x9b" not in got


@pytest.mark.slow
def test_colours_are_for_terminals_that_want_them(wicked: dict[str, Any], hud: Hud, tmp_path: Path) -> None:
    run = wicked["runs"][0]["trace_id"]
    assert "\x1b" in on_terminal(tmp_path, "trace", run)[1]
    assert "\x1b" not in on_terminal(tmp_path, "trace", run, NO_COLOR="1")[1]
    assert "\x1b" not in on_terminal(tmp_path, "trace", run, TERM="dumb")[1]
    assert "\x1b" not in hud("trace", run).stdout
    assert "\x1b" in hud("trace", run, env={"FORCE_COLOR": "1"}).stdout


@pytest.mark.slow
def test_ids_are_completed(wicked: dict[str, Any], hud: Hud) -> None:
    def completed(*words: str) -> str:
        line = " ".join(["hud", *words])
        return hud(
            env={"_HUD_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        ).stdout

    assert wicked["job_id"] in completed("jobs", wicked["job_id"][:3])
    assert wicked["job_id"] in completed("jobs", "show", wicked["job_id"][:3])
    assert "watch" in completed("jobs", "wa")
    assert wicked["job_id"] in completed("eval", "--resume", wicked["job_id"][:3])
    assert wicked["runs"][0]["trace_id"] in completed("trace", wicked["runs"][0]["trace_id"][:4])
    assert wicked["job_id"] not in completed("jobs", "stop", wicked["job_id"][:3]), "it does not run"


@pytest.mark.slow
def test_old_jobs_are_pruned_and_named_first(wicked: dict[str, Any], hud: Hud, tmp_path: Path) -> None:
    job = Path(wicked["path"])
    (job.with_suffix(".logs")).mkdir(exist_ok=True)
    (job.with_suffix(".logs") / "a.log").write_text("x")
    refused = hud("jobs", "prune")
    assert refused.returncode == 2
    assert "--older-than" in refused.stderr
    assert hud("jobs", "prune", "--older-than", "5 fortnights").returncode == 2
    assert "0 jobs removed" in hud("jobs", "prune", "--older-than", "1h", "--yes").stdout
    dry = hud("jobs", "prune", "--keep", "0", "--dry-run").stdout
    assert wicked["job_id"][:8] in dry
    assert "would be removed" in dry
    assert job.exists()
    for answer in ("n\n", ""):
        asked = hud("jobs", "prune", "--keep", "0", stdin=answer)
        assert asked.returncode == 2
        assert "--yes" in asked.stderr
    assert job.exists()
    removed = json.loads(hud("jobs", "prune", "--keep", "0", "--json").stdout)
    assert removed["removed"] == [wicked["job_id"]]
    assert list(job.parent.glob(f"{job.stem}*")) == []


@pytest.mark.slow
def test_a_job_of_the_folder_itself_says_so(letters: Path, hud: Hud) -> None:
    assert hud("eval", ".", "oracle", "--limit", "1").returncode == 0
    assert hud("jobs").stdout.splitlines()[1].split()[2:5] == ["oracle", ".", "1/1"]


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_listed_as_such(wicked: dict[str, Any], hud: Hud) -> None:
    broken = Path(wicked["path"]).with_name("broken.db")
    broken.write_bytes(b"SQLite format 3\0" + b"no" * 3000)
    listed = hud("jobs")
    assert listed.returncode == 0
    assert "unreadable" in listed.stdout
    assert wicked["job_id"][:8] in listed.stdout
    assert hud("jobs", "broken").returncode == 1


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_try_that_was_lost_begins_the_story_anew(tmp_path: Path) -> None:
    from hud.cli.trace import _events
    from hud.store.writer import JobWriter
    from hud.types import AgentStep

    writer = JobWriter(tmp_path, "ab" * 16)
    run_id = "cd" * 16
    run = {
        "run_id": run_id,
        "index": 0,
        "group_id": "g",
        "slug": "s",
        "task": {"env": "e", "id": "t"},
        "agent": "a",
    }
    writer.job({"job_id": "ab" * 16, "name": "n", "started_at": 1.0})
    writer.started({**run, "attempt": 1, "started_at": 1.0})
    writer.step(run_id, AgentStep(content="first"))
    assert writer.flush(30)
    events = _events(writer.path, run_id, follow=True)
    assert [next(events)[0], next(events)[1]["content"]] == ["start", "first"]
    failure = {"kind": "infrastructure", "phase": "act", "type": "ConnectionLostError", "message": "gone"}
    writer.attempt({**run, "attempt": 1, "failure": failure})
    writer.started({**run, "attempt": 2, "started_at": 1.0})
    writer.step(run_id, AgentStep(content="second"))
    assert writer.flush(30)
    kind, again = next(events)
    assert (kind, again["attempt"], again["attempts_before"][0]["failure"]["type"]) == (
        "start",
        2,
        "ConnectionLostError",
    )
    assert next(events)[1]["content"] == "second"
    await writer.close()
    assert next(events)[0] == "end", "nobody writes it any more"
