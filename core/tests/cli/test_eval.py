"""`hud eval`: what runs, what is printed where, and the exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hud.cli import eval_config
from hud.cli.eval import evaluate
from hud.store.reader import JobFile

Hud = Callable[..., subprocess.CompletedProcess[str]]
HUD = Path(sys.executable).with_name("hud")

MIXED = """
from hud.environment import Environment
from hud.eval import Taskset

env = Environment(name="mixed")


@env.template()
async def good(text: str = "yes"):
    answer = yield f"Say {text}."
    yield 1.0 if answer == text else 0.0


@env.template()
async def half():
    yield "Whatever."
    yield 0.5


@env.template()
async def broken():
    yield "What?"
    raise KeyError("the grader looked for this")


@good.solution
async def _(run, text="yes"):
    return text


@half.solution
async def _(run):
    return ""


@broken.solution
async def _(run):
    return ""


TASKS = Taskset("mixed", [good(), half(), broken()])
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A project with a task that is solved, one that is half solved, and one whose grader raises."""
    (tmp_path / "mixed.py").write_text(MIXED, encoding="utf-8")
    return tmp_path


def _runs(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    return found


def test_every_row_runs_and_the_table_is_the_result(hud: Hud, letters: Path) -> None:
    done = hud("eval", "tasks.py", "oracle")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["task", "runs", "mean", "s.e.", "pass@1", "errors", "time"]
    assert [line.split()[:3] for line in lines[1:4]] == [
        [w, "1", "1.000"] for w in ("berry", "cherry", "plum")
    ]
    assert lines[4].startswith("all (3 tasks)")
    assert "job " in done.stderr
    assert list((letters / ".hud" / "jobs").glob("*.db"))


@pytest.mark.slow
def test_an_error_of_one_task_is_exit_1_and_shows_its_author_the_line(hud: Hud, mixed: Path) -> None:
    done = hud("eval", "mixed.py", "oracle")
    assert done.returncode == 1
    assert "the grader looked for this" in done.stderr
    assert "mixed.py" in done.stderr
    assert "hud/eval" not in done.stderr
    assert "Traceback" not in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("broken")).split()
    assert row == ["broken", "1", "-", "-", "-", "1", *row[6:]]


@pytest.mark.slow
def test_json_is_one_object_with_every_run(hud: Hud, mixed: Path) -> None:
    done = hud("eval", "mixed.py", "oracle", "--json", "--group", "2", "--name", "nightly")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert {key: told[key] for key in ("name", "source", "run_count", "error_count", "interrupted")} == {
        "name": "nightly",
        "source": "mixed.py",
        "run_count": 6,
        "error_count": 2,
        "interrupted": False,
    }
    assert told["mean_reward"] == 0.75
    assert told["elapsed_seconds"] > 0
    assert [run["slug"] for run in told["runs"]] == ["good", "good", "half", "half", "broken", "broken"]
    assert [run["reward"] for run in told["runs"]] == [1.0, 1.0, 0.5, 0.5, None, None]
    broken = told["runs"][-1]
    assert "the grader looked for this" in broken["error"]
    assert len({run["group_id"] for run in told["runs"]}) == 3
    assert len({run["trace_id"] for run in told["runs"]}) == 6


@pytest.mark.slow
def test_jsonl_is_a_line_for_each_run(hud: Hud, letters: Path) -> None:
    done = hud("eval", "tasks.py", "oracle", "--jsonl")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["slug"] for line in lines) == ["berry", "cherry", "plum"]
    assert "all (3 tasks)" in done.stderr


@pytest.mark.slow
def test_nothing_but_results_goes_to_stdout(hud: Hud, letters: Path) -> None:
    (letters / "noisy.py").write_text(
        "print('while it is imported')\nfrom env import count\nTASKS = [count()]\n", encoding="utf-8"
    )
    done = hud("eval", "noisy.py", "oracle", "--json", "-v")
    assert json.loads(done.stdout)["run_count"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--limit", "2"], ["berry", "cherry"]),
        (["--task-ids", "plum,berry"], ["berry", "plum"]),
        (["--task-ids", "plum", "--task-ids", "0"], ["berry", "plum"]),
        (["--task-ids", "*erry"], ["berry", "cherry"]),
        (["--task-ids", "count"], ["berry", "cherry", "plum"]),
        (["--all"], ["berry", "cherry", "plum"]),
        (["--full"], ["berry", "cherry", "plum"]),
    ],
)
def test_rows_are_chosen(hud: Hud, letters: Path, words: list[str], expected: list[str]) -> None:
    done = hud("eval", "tasks.py", "oracle", "--json", *words)
    assert [run["slug"] for run in _runs(done)] == expected


@pytest.mark.slow
def test_rows_of_a_generator_are_bounded_and_not_chosen(hud: Hud, letters: Path) -> None:
    (letters / "endless.py").write_text(
        "import itertools\nfrom env import count\nfrom hud.eval import Taskset\n\n"
        "ROWS = Taskset('endless', (count(word='r' * n) for n in itertools.count(1)))\n",
        encoding="utf-8",
    )
    assert len(_runs(hud("eval", "endless.py", "oracle", "--limit", "3", "--json"))) == 3
    done = hud("eval", "endless.py", "oracle", "--task-ids", "count")
    assert done.returncode == 2
    assert "bound them with --limit N" in done.stderr


@pytest.mark.slow
def test_one_row_is_made_of_a_template(hud: Hud, letters: Path) -> None:
    done = hud(
        "eval", "env.py", "oracle", "--task", "count", "--args", '{"word": "aab", "letter": "a"}', "--json"
    )
    assert done.returncode == 0, done.stderr
    (run,) = _runs(done)
    assert run["args"] == {"word": "aab", "letter": "a"}


@pytest.mark.slow
def test_a_low_mean_fails_where_asked(hud: Hud, mixed: Path) -> None:
    words = ("eval", "mixed.py", "oracle", "--task-ids", "good,half", "--fail-under")
    assert hud(*words, "0.7").returncode == 0
    done = hud(*words, "0.8")
    assert done.returncode == 1
    assert "0.750 is below --fail-under 0.8" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "missing SOURCE and AGENT"),
        (["tasks.py"], "missing AGENT"),
        (["absent.py", "oracle"], "absent.py"),
        (["tasks.py", "oracl"], "Did you mean oracle?"),
        (["tasks.py", "oracle", "--task-ids", "bery"], "close: berry"),
        (["tasks.py", "oracle", "--args", "{}"], "--args needs --task"),
        (["env.py", "oracle", "--task", "count", "--args", "{no"], "is not JSON"),
        (["env.py", "oracle", "--task", "cuont"], "no template 'cuont'"),
        (["env.py", "oracle", "--task", "count", "--args", '{"wrod": "x"}'], "wrod"),
        (["tasks.py", "oracle", "--config", "novalue"], "write it as key=value"),
        (["tasks.py", "oracle", "--deadline", "act=0"], "seconds above 0"),
        (["tasks.py", "oracle", "--deadline", "acting=3"], "deadlines are of place, connect"),
        (["tasks.py", "oracle", "--group", "0"], "0 is not in the range"),
        (["tasks.py", "oracle", "--runtime", "locall"], "locall"),
        (["tasks.py", "noop", "--source", "env.py"], "the agent is 'noop'"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    hud: Hud, letters: Path, words: list[str], said: str
) -> None:
    done = hud("eval", *words)
    assert done.returncode in (1, 2), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (letters / ".hud").exists()


def test_one_form_of_json_at_a_time(hud: Hud, letters: Path) -> None:
    done = hud("eval", "tasks.py", "oracle", "--json", "--jsonl")
    assert done.returncode == 2
    assert "exclude each other" in json.loads(done.stdout)["message"]


@pytest.mark.slow
def test_an_absent_plugin_says_how_to_install_it(hud: Hud, letters: Path) -> None:
    done = hud("eval", "tasks.py", "oracle", "--runtime", "modal", "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["error"] == "not_found"
    assert "hud-runtime-modal, which has no release yet" in told["message"]


def test_a_source_with_a_syntax_error_shows_the_line(hud: Hud, letters: Path) -> None:
    (letters / "bad.py").write_text("def broken(:\n", encoding="utf-8")
    done = hud("eval", "bad.py", "oracle")
    assert done.returncode == 2
    assert "def broken(:" in done.stderr
    assert "hud/cli" not in done.stderr


@pytest.mark.slow
def test_a_source_that_blocks_is_ended_at_the_deadline_and_shows_where(hud: Hud, letters: Path) -> None:
    (letters / "stuck.py").write_text(
        "import time\n\ndef wait():\n    time.sleep(3600)\n\nwait()\n", encoding="utf-8"
    )
    done = hud("eval", "stuck.py", "oracle", "--deadline", "place=0.5")
    assert done.returncode == 2
    assert "stuck.py is still being read after 0.5 s" in done.stderr
    assert "time.sleep(3600)" in done.stderr
    assert "hud/cli" not in done.stderr
    assert "click" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys\nsys.exit(3)\n", "exits while it is imported"),
        ("raise SystemExit\n", "exits while it is imported"),
        ("import absent_module\n", "No module named 'absent_module'"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import asyncio\nasyncio.run(asyncio.sleep(0))\nx = 1\n", "has no rows"),
    ],
)
def test_what_a_source_does_while_it_is_read(hud: Hud, letters: Path, body: str, said: str) -> None:
    (letters / "tasks.py").unlink()
    (letters / "odd.py").write_text(body, encoding="utf-8")
    done = hud("eval", "odd.py", "oracle")
    assert done.returncode == 2
    assert said in done.stderr
    assert "hud/cli" not in done.stderr


def test_templates_that_need_arguments_are_listed(hud: Hud, letters: Path) -> None:
    (letters / "tasks.py").unlink()
    (letters / "needy.py").write_text(
        "from hud.environment import Environment\nenv = Environment(name='n')\n"
        "@env.template()\nasync def add(a: int, b: int = 2):\n    yield 'x'\n    yield 1.0\n",
        encoding="utf-8",
    )
    done = hud("eval", "needy.py", "oracle")
    assert done.returncode == 2
    assert "add(a, b=2)" in done.stderr
    assert "--task add --args" in done.stderr


@pytest.mark.slow
def test_options_come_from_files(hud: Hud, letters: Path) -> None:
    (letters / "hud.toml").write_text(
        '[eval]\nsource = "tasks.py"\nagent = "noop"\ngroup = 2\n', encoding="utf-8"
    )
    (letters / ".hud_eval.toml").write_text('[eval]\nagent = "${WHO}"\n', encoding="utf-8")
    done = hud("eval", "--json", env={"WHO": "oracle"})
    told = json.loads(done.stdout)
    assert (told["agent"], told["run_count"], told["mean_reward"]) == ("oracle", 6, 1.0)
    told = json.loads(hud("eval", "tasks.py", "noop", "--group", "1", "--json", env={"WHO": "x"}).stdout)
    assert (told["agent"], told["run_count"]) == ("noop", 3)


def test_every_option_of_a_file_does_what_the_command_s_does(letters: Path) -> None:
    names = {parameter.name for parameter in evaluate.params}
    assert {eval_config.PARAMETERS.get(key, key) for key in eval_config.OPTIONS} - names == {"deadlines"}


@pytest.mark.slow
def test_tags_of_a_file_are_the_job_s(hud: Hud, letters: Path) -> None:
    (letters / "hud.toml").write_text('[eval]\ntag = ["nightly", "a"]\nall = true\n', encoding="utf-8")
    told = json.loads(hud("eval", "tasks.py", "oracle", "--json").stdout)
    assert (told["tags"], told["run_count"]) == (["nightly", "a"], 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[eval]\ngroup = 0\n", ".hud_eval.toml:2: Invalid value for '--group'"),
        ("[eval]\n\nkeep = 'some'\n", ".hud_eval.toml:3: Invalid value for '--keep'"),
        ("[eval]\ndeadlines = { act = 3, foo = 2 }\n", ".hud_eval.toml:2: --deadline foo=2"),
        (
            "[eval]\nsource = 'tasks.py'\ngruop = 3\n",
            ".hud_eval.toml:3: unknown option 'gruop' in [eval]; did you mean group?",
        ),
        ("[eval]\ngroup = 'three'\n", ".hud_eval.toml:2: group must be a whole number, not 'three'"),
        ("[eval]\nall = 1\n", "all must be true or false"),
        ("agent = 'oracle'\n", "put it under [eval]"),
        ("[eval]\nagent = '${NOT_SET_ANYWHERE}'\n", "NOT_SET_ANYWHERE"),
        ("[eval\n", ".hud_eval.toml"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(hud: Hud, letters: Path, text: str, said: str) -> None:
    (letters / ".hud_eval.toml").write_text(text, encoding="utf-8")
    done = hud("eval", "tasks.py", "oracle")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_dry_run_shows_rows_and_placements_and_runs_nothing(hud: Hud, letters: Path) -> None:
    done = hud("eval", "tasks.py", "oracle", "--dry-run", "--group", "3", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rollouts"] == 9
    assert [row["slug"] for row in told["rows"]] == ["berry", "cherry", "plum"]
    assert "LocalRuntime" in told["rows"][0]["runtime"]
    assert told["estimated_cost_usd"] == 0
    assert not (letters / ".hud").exists()


@pytest.mark.slow
def test_a_dry_run_estimates_from_what_like_rollouts_cost(hud: Hud, letters: Path) -> None:
    (letters / "mine.py").write_text(
        "from hud.types import AgentStep, Usage\n\n"
        "async def paid(run):\n"
        "    run.record(AgentStep(content='2', usage=Usage(prompt_tokens=9, completion_tokens=1, cost_usd=0.25)))\n"
        "    return '2'\n",
        encoding="utf-8",
    )
    words = ("eval", "tasks.py", "mine.py:paid", "--json")
    assert json.loads(hud(*words, "--dry-run").stdout)["estimated_cost_usd"] is None
    assert hud(*words).returncode == 0
    assert json.loads(hud(*words, "--dry-run", "--group", "2").stdout)["estimated_cost_usd"] == 1.5


@pytest.mark.slow
def test_an_agent_of_ones_own(hud: Hud, letters: Path) -> None:
    (letters / "mine.py").write_text("async def answer(run):\n    return '2'\n", encoding="utf-8")
    told = json.loads(hud("eval", "tasks.py", "mine.py:answer", "--json").stdout)
    assert [run["reward"] for run in told["runs"]] == [1.0, 1.0, 0.0]


@pytest.mark.slow
def test_solutions_may_lie_elsewhere(hud: Hud, letters: Path) -> None:
    text = (letters / "env.py").read_text(encoding="utf-8")
    body, _, solution = text.partition("@count.solution")
    (letters / "env.py").write_text(body, encoding="utf-8")
    away = letters / "answers"
    away.mkdir()
    (away / "them.py").write_text(
        f"from env import count, env\n\n@count.solution{solution}", encoding="utf-8"
    )
    done = hud("eval", "tasks.py", "oracle")
    assert done.returncode == 1
    assert "--source PATH" in done.stderr
    done = hud("eval", "tasks.py", "oracle", "--source", "answers/them.py", "--json")
    assert json.loads(done.stdout)["mean_reward"] == 1.0, done.stderr


@pytest.mark.slow
def test_breakpoints_work_in_a_debugged_rollout(hud: Hud, letters: Path) -> None:
    text = (letters / "env.py").read_text(encoding="utf-8")
    (letters / "env.py").write_text(
        text.replace("    yield 1.0", "    breakpoint()\n    yield 1.0"), encoding="utf-8"
    )
    done = hud("eval", "tasks.py", "oracle", "--debug", stdin="p f'answer is {answer}'\nc\n")
    assert done.returncode == 0, done.stderr
    assert "answer is 2" in done.stdout
    assert "berry: 1" in done.stdout
    assert "--debug runs berry alone" in done.stderr


@pytest.mark.slow
def test_what_a_rollout_wrote_is_kept_where_asked(hud: Hud, letters: Path) -> None:
    text = (letters / "env.py").read_text(encoding="utf-8")
    write = "    open('note.txt', 'w').write(word)\n    yield 1.0"
    (letters / "env.py").write_text(text.replace("    yield 1.0", write), encoding="utf-8")
    done = hud("eval", "tasks.py", "oracle", "--limit", "1", "--keep", "all")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "is kept in" in line]
    kept = Path(line.rpartition(" ")[2])
    try:
        assert [path.read_text() for path in kept.rglob("note.txt")] == ["berry"]
    finally:
        subprocess.run(["rm", "-rf", str(kept)], check=True)
    assert not (letters / "note.txt").exists()


@pytest.mark.slow
def test_the_project_s_own_plugin_takes_part(hud: Hud, letters: Path) -> None:
    (letters / "hudfile.py").write_text(
        "import sys\nfrom hud.plugins import hookimpl\n\n"
        "@hookimpl\ndef hud_job_finished(event):\n"
        "    print(f'told of {event.graded} graded', file=sys.stderr)\n",
        encoding="utf-8",
    )
    assert "told of 3 graded" in hud("eval", "tasks.py", "oracle").stderr
    (letters / "hudfile.py").write_text("raise RuntimeError('not for everybody')\n", encoding="utf-8")
    for words in (("--help",), ("task", "list", "-s", "tasks.py"), ("version",)):
        done = hud(*words)
        assert done.returncode == 0
        assert "not for everybody" not in done.stderr
    done = hud("eval", "tasks.py", "oracle")
    assert "not for everybody" in done.stderr


@pytest.mark.slow
def test_routes_of_the_project_decide_where_rows_run(hud: Hud, letters: Path) -> None:
    (letters / "hud.toml").write_text('[runtime.env."letters"]\nuse = "subprocess"\n', encoding="utf-8")
    told = json.loads(hud("eval", "tasks.py", "oracle", "--dry-run", "--json").stdout)
    assert {row["runtime"].partition("(")[0] for row in told["rows"]} == {"SubprocessRuntime"}
    assert json.loads(hud("eval", "tasks.py", "oracle", "--json").stdout)["mean_reward"] == 1.0


@pytest.mark.slow
def test_a_seed_makes_sampled_rows_the_same(hud: Hud, letters: Path) -> None:
    (letters / "sampled.py").write_text(
        "import random\nfrom env import count\n"
        "TASKS = [count(word=''.join(random.choices('abcr', k=12))) for _ in range(3)]\n",
        encoding="utf-8",
    )
    words = ("eval", "sampled.py", "oracle", "--json", "--seed", "7", "--tag", "nightly,small")
    first, second = json.loads(hud(*words).stdout), json.loads(hud(*words).stdout)
    assert [run["args"] for run in first["runs"]] == [run["args"] for run in second["runs"]]
    assert (first["seed"], first["tags"]) == (7, ["nightly", "small"])
    with JobFile(next((letters / ".hud" / "jobs").glob("*.db"))) as file:
        assert file.job()["options"]["seed"] == 7


@pytest.mark.slow
def test_what_an_environment_printed_is_found_again(hud: Hud, letters: Path) -> None:
    text = (letters / "env.py").read_text(encoding="utf-8")
    noisy = text.replace(
        "    yield 1.0", "    print('graded', word)\n    assert word != 'plum'\n    yield 1.0"
    )
    (letters / "env.py").write_text(noisy, encoding="utf-8")
    done = hud("eval", "tasks.py", "oracle", "--json")
    runs = {run["slug"]: run["trace_id"] for run in _runs(done)}
    assert f"hud logs {runs['plum'][:8]}" in done.stderr
    assert hud("logs", runs["plum"][:8]).stdout.startswith("graded plum\n")
    assert hud("logs", runs["berry"], "--lines", "1").stdout == "graded berry\n"
    missing = hud("logs", "ffffffff")
    assert missing.returncode == 2
    assert "no log of a rollout 'ffffffff'" in missing.stderr
    assert "| graded cherry" in hud("eval", "tasks.py", "oracle", "-vv").stderr


@pytest.mark.slow
def test_an_environment_that_printed_nothing_leaves_no_log(hud: Hud, letters: Path) -> None:
    hud("eval", "tasks.py", "oracle")
    assert [path.suffix for path in (letters / ".hud" / "jobs").iterdir()] == [".db"]


@pytest.mark.slow
def test_a_served_environment_is_evaluated_by_its_url(hud: Hud, letters: Path) -> None:
    with subprocess.Popen(
        [str(HUD), "serve", "--port", "0"],
        cwd=letters,
        env={**os.environ, "HUD_TOKEN": "s3cret"},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip().partition("=")[2]
        try:
            url = f"tcp://127.0.0.1:{port}?token=s3cret"
            done = hud("eval", "tasks.py", "oracle", "--runtime", url, "--json")
            assert json.loads(done.stdout)["mean_reward"] == 1.0, done.stderr
            assert b"s3cret" not in b"".join(p.read_bytes() for p in (letters / ".hud" / "jobs").iterdir())
            by_variable = hud(
                "eval",
                "tasks.py",
                "oracle",
                "--runtime",
                url.partition("?")[0],
                "--json",
                env={"HUD_TOKEN": "s3cret"},
            )
            assert json.loads(by_variable.stdout)["mean_reward"] == 1.0, by_variable.stderr
        finally:
            server.terminate()


@pytest.mark.slow
def test_results_may_be_written_into_the_project(letters: Path) -> None:
    """Nobody is told that a file of the project changed which is this job's own output."""
    code = (
        "import sys; from hud.runtime.project import Lower; Lower.LOOK_AGAIN_S = 0.0; "
        "from hud.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["eval", "tasks.py", "oracle", "--group", "8", "--jsonl", "-v", "--max-concurrent", "2"]
    with (letters / "out.txt").open("w") as out, (letters / "err.txt").open("w") as err:
        subprocess.run(
            [sys.executable, "-c", code, *words], check=True, cwd=letters, stdout=out, stderr=err, timeout=60
        )
    assert "changed while rollouts run" not in (letters / "err.txt").read_text(encoding="utf-8")
    assert len((letters / "out.txt").read_text(encoding="utf-8").splitlines()) == 24


@pytest.mark.slow
def test_what_a_process_printed_before_it_died_is_told(hud: Hud, letters: Path) -> None:
    (letters / "dies.py").write_text(
        "import os\nfrom hud.environment import Environment\n\nenv = Environment(name='dies')\n\n"
        "@env.template()\nasync def die():\n    yield 'x'\n    print('the last words')\n    os._exit(3)\n\n"
        "@env.template()\nasync def crash():\n    yield 'x'\n    os.kill(os.getpid(), 11)\n\n"
        "@die.solution\n@crash.solution\nasync def _(run):\n    return ''\n",
        encoding="utf-8",
    )
    done = hud("eval", "dies.py", "oracle", "--retries", "0")
    assert done.returncode == 1
    assert "exited with status 3; its last output:\n    the last words" in done.stderr
    assert "was killed by signal 11 (SIGSEGV); its last output:\n    Fatal Python error" in done.stderr
    assert re.search(r'File ".*/dies.py", line 15 in crash\n', done.stderr)
    assert "zygote.py" not in done.stderr, "the author's part of the stack alone"


@pytest.mark.slow
def test_two_jobs_in_one_folder(letters: Path) -> None:
    command = [str(HUD), "eval", "tasks.py", "oracle", "--json", "--group", "5"]
    jobs = [subprocess.Popen(command, cwd=letters, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(job.communicate(timeout=100)[0]) for job in jobs]
    assert [one["run_count"] for one in told] == [15, 15]
    assert [one["mean_reward"] for one in told] == [1.0, 1.0]
    assert len(list((letters / ".hud" / "jobs").glob("*.db"))) == 2


@pytest.mark.slow
def test_a_closed_pipe_ends_the_job_quietly(letters: Path) -> None:
    job = f"{HUD} eval tasks.py oracle --jsonl --group 200 --max-concurrent 2"
    script = f"{job} | head -n 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], check=False, cwd=letters, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.strip() == "141"
    assert "Traceback" not in done.stderr
    (path,) = (letters / ".hud" / "jobs").glob("*.db")
    with JobFile(path) as file:
        assert 1 <= len(file.finished()) < 600


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a read-only view of a folder")
def test_a_read_only_folder_keeps_results_elsewhere(letters: Path, tmp_path: Path) -> None:
    state = tmp_path.with_name(f"{tmp_path.name}-state")
    script = (
        f"mount --bind {letters} {letters} && mount -o remount,ro,bind {letters} && cd {letters} && "
        f"XDG_STATE_HOME={state} exec {HUD} eval tasks.py oracle --json"
    )
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script], check=False, capture_output=True, text=True, timeout=100
    )
    told = json.loads(done.stdout)
    assert told["mean_reward"] == 1.0, done.stderr
    assert str(state) in told["path"]
    assert done.stderr.count("cannot be written") == 1
