"""`hud task`: rows by hand, in a fresh environment and in a served one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Hud = Callable[..., subprocess.CompletedProcess[str]]
HUD = Path(sys.executable).with_name("hud")


@pytest.fixture
def served(letters: Path) -> Iterator[str]:
    """The url of a served environment that needs no token."""
    with subprocess.Popen(
        [str(HUD), "serve", "--port", "0", "--no-auth"], cwd=letters, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield f"tcp://127.0.0.1:{server.stdout.readline().strip().partition('=')[2]}"
        server.terminate()


@pytest.mark.slow
def test_tasks_are_listed(hud: Hud, letters: Path) -> None:
    done = hud("task", "list", "--source", "tasks.py")
    assert done.stdout.splitlines()[0].split("\t") == ["berry", "count", '{"word": "berry"}']
    assert hud("task", "list", "-s", "tasks.py", "-q").stdout.split() == ["berry", "cherry", "plum"]
    assert json.loads(hud("task", "list", "-s", "tasks.py", "--json").stdout)[2] == {
        "slug": "plum",
        "env": "letters",
        "id": "count",
        "args": {"word": "plum"},
    }


@pytest.mark.slow
def test_a_task_is_started_and_its_prompt_printed(hud: Hud, letters: Path) -> None:
    assert hud("task", "start", "berry", "-s", "tasks.py").stdout == "How many r in berry?\n"
    done = hud("task", "start", "count", "-s", "env.py", "-a", '{"word": "abba", "letter": "b"}')
    assert done.stdout == "How many b in abba?\n", done.stderr


@pytest.mark.slow
def test_an_answer_is_graded(hud: Hud, letters: Path) -> None:
    assert hud("task", "grade", "berry", "-s", "tasks.py", "--answer", "2").stdout == "1\n"
    assert hud("task", "grade", "berry", "-s", "tasks.py", "--answer", "3").stdout == "0\n"
    done = hud("task", "grade", "berry", "-s", "tasks.py", "--answer-file", "-", "--json", stdin="2")
    assert json.loads(done.stdout)["score"] == 1.0
    (letters / "answer").write_text("2", encoding="utf-8")
    assert hud("task", "grade", "berry", "-s", "tasks.py", "--answer-file", "answer").stdout == "1\n"


@pytest.mark.slow
def test_a_started_task_stays_parked_and_is_graded(hud: Hud, served: str) -> None:
    started = json.loads(
        hud("task", "start", "count", "-u", served, "-a", '{"word": "abba", "letter": "b"}', "--json").stdout
    )
    assert started["prompt"] == "How many b in abba?"
    assert started["session_id"]
    # The arguments are those it was started with, so only the parked task can say 1 here.
    assert hud("task", "grade", "count", "-u", served, "--answer", "2").stdout == "1\n"
    assert (
        hud("task", "grade", "count", "-u", served, "--answer", "3").stdout == "1\n"
    )  # started anew: strawberry


def test_what_is_not_there_is_said(hud: Hud, letters: Path) -> None:
    done = hud("task", "start", "bery", "-s", "tasks.py")
    assert done.returncode == 2
    assert "bery" in done.stderr
    assert "Traceback" not in done.stderr
    done = hud("task", "start", "count", "-s", "env.py", "-a", "[1]")
    assert done.returncode == 2
    assert "must be a JSON object" in done.stderr


@pytest.mark.slow
def test_an_address_where_nobody_listens_is_one_line(hud: Hud, letters: Path) -> None:
    done = hud("task", "start", "count", "-u", "unix:///nowhere.sock", "--json", env={**os.environ})
    assert done.returncode in (1, 2)
    assert "nowhere.sock" in json.loads(done.stdout)["message"]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_templates_of_a_served_environment_are_listed(hud: Hud, served: str) -> None:
    assert hud("task", "list", "--url", served).stdout == "count\n"
    (entry,) = json.loads(hud("task", "list", "--url", served, "--json").stdout)
    assert (entry["id"], list(entry["args"]["properties"])) == ("count", ["word", "letter"])
