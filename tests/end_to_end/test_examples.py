"""The examples of the documentation, solved by their own solutions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
HUD = Path(sys.executable).with_name("hud")
SOURCES = sorted(path for name in ("tasks.py", "tasks.jsonl") for path in EXAMPLES.glob(f"*/{name}"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_the_oracle_solves_it(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / source.parent.name
    shutil.copytree(source.parent, folder, ignore=shutil.ignore_patterns(".hud", "__pycache__"))
    done = subprocess.run(
        [str(HUD), "eval", source.name, "oracle", "--json"],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["mean_reward"] == 1.0
    assert told["run_count"] >= 1


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_doing_nothing_does_not_solve_it(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / source.parent.name
    shutil.copytree(source.parent, folder, ignore=shutil.ignore_patterns(".hud", "__pycache__"))
    done = subprocess.run(
        [str(HUD), "eval", source.name, "noop", "--json"],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert all(run["reward"] is not None and run["reward"] < 1 for run in json.loads(done.stdout)["runs"])


def test_the_demo_ends_with_the_table_of_results(tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns(".hud", "__pycache__"))
    variables = {**os.environ, "PATH": f"{HUD.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(folder / "demo")],
        check=False,
        env=variables,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["example", "tasks", "rollouts", "mean", "errors", "time"]
    assert sorted(row.split()[0] for row in rows) == sorted({path.parent.name for path in SOURCES})
    assert {row.split()[3] for row in rows} == {"1.000"}
