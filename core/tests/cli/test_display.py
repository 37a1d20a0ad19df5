"""What a job looks like while it runs, and the table it ends with."""

from __future__ import annotations

import io
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

import pytest

from hud.cli.grid import grid
from hud.cli.progress import LINE_EVERY_S, Lines, progress_bar, run_line, summary_line
from hud.cli.table import ROWS, closing_table, columns, duration
from hud.cli.tally import Tally
from hud.eval.failures import Failure
from hud.eval.run import Run
from hud.eval.stats import JobSummary
from hud.types import Grade, Task

HUD = Path(sys.executable).with_name("hud")


def _run(
    slug: str, reward: float | None = None, *, seconds: float = 1.0, error: str | None = None, at: int = 0
) -> Run:
    run = Run(task=Task(env="e", id="t", slug=slug), index=at)
    run.phases_s = {"act": seconds}
    if reward is not None:
        run.grade = Grade(reward=reward)
    if error is not None:
        run.fail(Failure("task", "grade", "KeyError", error, "grader", traceback="  File 'env.py', line 3"))
    return run


def _summary(*runs: Run) -> JobSummary:
    summary = JobSummary()
    for run in runs:
        summary.add(run)
    return summary


def test_the_table_has_a_line_for_each_task_and_one_for_all() -> None:
    runs = [
        _run("b", 1.0, at=2),
        _run("b", 0.0, at=3),
        _run("a", 0.5, seconds=3),
        _run("a", error="no", at=1),
    ]
    text = closing_table(_summary(*runs), group=2, seconds=4.2, width=100)
    assert [line.split() for line in text.splitlines()] == [
        ["task", "runs", "mean", "s.e.", "pass@1", "pass@2", "errors", "time"],
        ["a", "2", "0.500", "-", "0.000", "-", "1", "2.00", "s"],
        ["b", "2", "0.500", "0.500", "0.500", "1.000", "0", "1.00", "s"],
        ["all", "(2", "tasks)", "4", "0.500", "0.000", "0.250", "1.000", "1", "4.20", "s"],
    ]


def test_printing_a_summary_gives_the_same_table() -> None:
    summary = _summary(
        _run("a", 1.0), _run("a", 0.0, at=1), _run("b", 0.5, at=2), _run("b", error="no", at=3)
    )
    ours = str(summary).splitlines()
    theirs = closing_table(summary, group=2, seconds=4.2).splitlines()
    assert [line.split() for line in ours[:-1]] == [line.split() for line in theirs[:-1]]
    assert ours[-1].split()[:-1] == theirs[-1].split()[:-2], "how long the whole job took is not known"


def test_a_long_table_is_cut_to_the_lowest() -> None:
    runs = [_run(f"task-{i}", i / 1000) for i in range(1000)]
    lines = closing_table(_summary(*runs), group=1, seconds=1, width=80).splitlines()
    assert len(lines) == ROWS + 3
    assert lines[1].startswith("task-0 ")
    assert lines[ROWS].startswith(f"task-{ROWS - 1} ")
    assert lines[-1] == f"({1000 - ROWS} more tasks with higher rewards; --json lists all)"


def test_a_narrow_terminal_shortens_names_only() -> None:
    text = columns([["task", "mean"], ["a-very-long-name-of-a-task", "0.123"]], width=20)
    assert text.splitlines()[1] == "a-very-long-…  0.123"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "0.00 s"),
        (9.994, "9.99 s"),
        (99.94, "99.9 s"),
        (125, "2:05"),
        (3600, "1:00:00"),
        (90061, "25:01:01"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_says_how_far_the_job_is() -> None:
    tally = Tally(expected=10, started=time.monotonic() - 2.0)
    for run in (_run("a", 1.0), _run("b", 0.0), _run("c", error="no")):
        tally.add(run)
    line = summary_line(tally, running=4)
    assert line.startswith("done 3/10  running 4  failed 1  mean 0.500")
    assert "/s  left " in line
    assert progress_bar(tally, 10) == "━━━╌╌╌╌╌╌╌  "
    assert progress_bar(Tally(), 10) == ""


def test_the_first_rollouts_to_end_took_all_the_time_until_then() -> None:
    tally = Tally(expected=40, started=time.monotonic() - 60.0)
    for _ in range(8):
        tally.add(_run("a", 1.0))
    assert 0.12 < tally.per_second < 0.14
    left = tally.seconds_left
    assert left is not None
    assert 220 < left < 260


@pytest.mark.slow
def test_a_terminal_that_has_no_such_letters_gets_a_plain_bar(letters: Path) -> None:
    terminal = Terminal(letters, "eval", "tasks.py", "oracle", env={"PYTHONIOENCODING": "ascii"})
    assert terminal.end() == 0, terminal.shown
    assert "==  done 3/3" in terminal.shown
    assert "\\u" not in terminal.shown


def test_an_endless_job_has_no_end_to_show() -> None:
    tally = Tally()
    tally.add(_run("a", 1.0))
    assert summary_line(tally, 1).startswith("done 1  running 1")
    assert "left" not in summary_line(tally, 1)


def test_each_kind_of_error_is_told_once_in_full() -> None:
    stream = io.StringIO()
    tally = Tally()
    lines = Lines(tally, stream=stream)
    lines.start()
    for slug in ("a", "b"):
        lines.update(_run(slug, error="no such key"), 1)
    lines.update(_run("c", 1.0), 1)
    told = stream.getvalue()
    assert told.count("no such key") == 1
    assert told.count("File 'env.py', line 3") == 1
    assert "c:" not in told


def test_nothing_breaks_into_a_question() -> None:
    stream = io.StringIO()
    lines = Lines(Tally(expected=2), stream=stream, timed=False)
    lines.start()
    lines._last -= 10 * LINE_EVERY_S
    lines.update(None, 1)
    lines.update(_run("a", 1.0), 1)
    assert stream.getvalue() == ""
    lines.update(_run("b", error="no"), 0)
    assert "b: error" in stream.getvalue()


def test_plain_lines_are_few() -> None:
    stream = io.StringIO()
    lines = Lines(Tally(expected=1000), stream=stream)
    lines.start()
    for i in range(1000):
        lines.update(_run(str(i), 1.0), 1)
    assert stream.getvalue() == ""
    lines._last -= LINE_EVERY_S
    lines.update(None, 3)
    assert stream.getvalue().startswith("done 0/1000  running 3")


def test_a_run_that_failed_and_was_graded_says_both() -> None:
    assert (
        run_line(_run("a", 0.5, error="gave up")) == "a: 0.500 in 1.00 s, although grade: KeyError: gave up"
    )


class Terminal:
    """`hud` on a pseudo-terminal of 100 columns."""

    def __init__(self, folder: Path, *words: str, env: Mapping[str, str] | None = None) -> None:
        self.leader, follower = pty.openpty()
        ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", str(HUD), *words],  # a terminal sends Ctrl-C to whom it controls
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
        os.close(follower)
        self.shown = ""

    def until(self, text: str) -> str:
        """Read until `text` was shown."""
        while text not in self.shown:
            self.shown += os.read(self.leader, 65536).decode(errors="replace")
        return self.shown

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self.leader, keys)

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while True:
            try:
                data = os.read(self.leader, 65536)
            except OSError:
                break
            if not data:
                break
            self.shown += data.decode(errors="replace")
        os.close(self.leader)
        return self.process.wait(timeout=60)


@pytest.mark.slow
def test_a_terminal_shows_a_live_line_and_gets_its_cursor_back(letters: Path) -> None:
    terminal = Terminal(letters, "eval", "tasks.py", "oracle", "--group", "4")
    assert terminal.end() == 0, terminal.shown
    assert "done 12/12  running 0  failed 0  mean 1.000" in terminal.shown
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")
    assert "all (3 tasks)" in terminal.shown.rpartition("\x1b[?25h")[2]


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_it_and_gives_the_cursor_back(letters: Path) -> None:
    (letters / "wait.py").write_text(
        "import asyncio\n\nasync def wait(run):\n    await asyncio.sleep(3600)\n", encoding="utf-8"
    )
    terminal = Terminal(letters, "eval", "tasks.py", "wait.py:wait")
    terminal.until("running 3")
    terminal.press(b"\x03")
    assert terminal.end() == 130
    assert "press Ctrl-C again within 3 s" in terminal.shown
    assert "interrupted after 0 of 3 rollouts; 3 more were cancelled" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "CancelledError" not in terminal.shown, "what was asked for is no error"
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")


@pytest.mark.slow
def test_a_person_does_one_task_after_the_other(letters: Path) -> None:
    terminal = Terminal(letters, "eval", "tasks.py", "human")
    answers = {"berry": b"2\n", "cherry": b"2\n", "plum": b"0\n"}
    for word, answer in answers.items():
        terminal.until(f"How many r in {word}?")
        terminal.press(answer)
    assert terminal.end() == 0, terminal.shown
    assert "done " not in terminal.shown, "no line of progress where somebody types"
    assert "all (3 tasks)     3  1.000" in terminal.shown


@pytest.mark.slow
@pytest.mark.parametrize("module", ["rich", "pydantic", "httpx", "importlib.metadata"])
def test_a_plain_evaluation_imports_nothing_it_does_not_need(letters: Path, module: str) -> None:
    code = f"import sys; from hud.cli.main import main; main(sys.argv[1:]); print({module!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "eval", "tasks.py", "oracle"],
        check=True,
        cwd=letters,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_a_grid_cuts_only_what_may_be_cut_and_nothing_in_a_pipe() -> None:
    head, rows = (
        ("id", "name", "state"),
        [["a1", "a very long name", "unreadable"], ["b2", "日本語", "finished"]],
    )
    narrow = grid(head, rows, flexible=(1,), width=24).splitlines()
    assert narrow[1] == "a1  a very …  unreadable"
    assert "a very long name" in grid(head, rows, flexible=(1,))
    assert "日本語" in grid(head, rows, flexible=(1,), width=24), "wide letters count as two columns"
