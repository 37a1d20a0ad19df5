"""docs/examples/coding, as its page says: solved by its oracle, and not by doing nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "coding"

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


def evaluated(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "hud.cli.main", "eval", "tasks.py", *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture
def example(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLE, tmp_path / "coding", ignore=shutil.ignore_patterns(".hud", "ws", "__pycache__"))
    return tmp_path / "coding"


def test_the_reference_solutions_solve_every_bug(example: Path) -> None:
    told = evaluated(example, "oracle", "--group", "2")
    assert (told["run_count"], told["mean_reward"], told["error_count"]) == (14, 1.0, 0)


def test_doing_nothing_scores_nothing(example: Path) -> None:
    told = evaluated(example, "noop")
    assert (told["run_count"], told["mean_reward"], told["error_count"]) == (7, 0.0, 0)


def test_an_agent_that_ends_the_tests_early_scores_nothing(example: Path) -> None:
    (example / "cheat.py").write_text(
        "async def agent(run):\n"
        "    shell = await run.client.open('ssh')\n"
        "    for name in await shell.listdir('shelf'):\n"
        "        if name.endswith('.py'):\n"
        "            await shell.write_text(f'shelf/{name}', 'import os\\nos._exit(0)\\n')\n"
        "    for name in ('unittest.py', 'json.py', 'secrets.py', 'sitecustomize.py'):\n"
        "        await shell.write_text(name, 'import os\\nos._exit(0)\\n')\n"
    )
    told = evaluated(example, "cheat.py:agent")
    assert (told["mean_reward"], told["error_count"]) == (0.0, 0)


def test_the_image_leaves_the_solutions_out() -> None:
    ignored = (EXAMPLE / "Dockerfile.hud.dockerignore").read_text().split()
    assert {"solutions.py", "solved"} <= set(ignored)
    assert "solved" not in (EXAMPLE / "Dockerfile.hud").read_text()
