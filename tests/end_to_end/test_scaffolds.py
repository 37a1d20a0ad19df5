"""Every template of `hud init`, as generated: the oracle solves it, doing nothing does not, its own tests pass."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hud.cli.scaffold import BUILT_IN, Scaffold

pytestmark = pytest.mark.slow

HUD = str(Path(sys.executable).with_name("hud"))


def _hud(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HUD, *words], check=False, cwd=folder, capture_output=True, text=True, timeout=110)


def _made(tmp_path: Path, scaffold: Scaffold) -> Path:
    for dist in scaffold.needs:
        if importlib.util.find_spec(dist.replace("-", "_")) is None:
            pytest.skip(f"{dist} is not installed")
    done = _hud(tmp_path, "init", "fresh", "--template", scaffold.name)
    assert done.returncode == 0, done.stderr
    return tmp_path / "fresh"


@pytest.mark.parametrize("scaffold", BUILT_IN, ids=lambda scaffold: scaffold.name)
def test_the_oracle_solves_every_task(tmp_path: Path, scaffold: Scaffold) -> None:
    done = _hud(_made(tmp_path, scaffold), "eval", "tasks.py", "oracle", "--json", "--fail-under", "1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["run_count"] >= 1
    assert told["mean_reward"] == 1.0


@pytest.mark.parametrize("scaffold", BUILT_IN, ids=lambda scaffold: scaffold.name)
def test_its_own_tests_pass(tmp_path: Path, scaffold: Scaffold) -> None:
    folder = _made(tmp_path, scaffold)
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        check=False,
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
