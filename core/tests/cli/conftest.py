"""A folder to work in, and the program `hud` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HUD = Path(sys.executable).with_name("hud")

ENV = """
from hud.environment import Environment

env = Environment(name="letters")


@env.template()
async def count(word: str = "strawberry", letter: str = "r"):
    answer = yield f"How many {letter} in {word}?"
    yield 1.0 if str(answer) == str(word.count(letter)) else 0.0


@count.solution
async def _(run, word="strawberry", letter="r"):
    return str(word.count(letter))
"""

TASKS = """
from env import count
from hud.eval import Taskset

TASKS = Taskset("letters", [count(word=word).model_copy(update={"slug": word}) for word in ("berry", "cherry", "plum")])
"""

Hud = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A project with three tasks."""
    (tmp_path / "env.py").write_text(ENV, encoding="utf-8")
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def hud(tmp_path: Path) -> Hud:
    """Run `hud` with words in the test's folder and return how it ended."""

    def run(
        *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(HUD), *words],
            check=False,
            cwd=cwd or tmp_path,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / ".state"), **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run
