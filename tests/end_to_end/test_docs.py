"""The pages a newcomer follows, done as they say."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HUD = str(Path(sys.executable).with_name("hud"))


def _blocks(page: str) -> list[str]:
    """Return a page's Python blocks."""
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run(
        command, check=False, cwd=folder, env=variables, capture_output=True, text=True, timeout=110
    )


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_environment_of_the_page_is_solved_by_its_oracle(tmp_path: Path, page: str) -> None:
    env, tasks, *_ = _blocks(page)
    (tmp_path / "env.py").write_text(env, encoding="utf-8")
    (tmp_path / "tasks.py").write_text(tasks, encoding="utf-8")
    done = _run(tmp_path, HUD, "eval", "tasks.py", "oracle", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["run_count"], told["mean_reward"]) == (2, 1.0)


def test_the_readme_s_program_runs_in_a_notebook(tmp_path: Path) -> None:
    env, tasks, program = _blocks("README.md")
    for name, text in (("env.py", env), ("tasks.py", tasks), ("cell.ipy", program)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    ipython = str(Path(sys.executable).with_name("ipython"))
    done = _run(tmp_path, "env", f"IPYTHONDIR={tmp_path}/.ipython", ipython, "--no-banner", "cell.ipy")
    assert done.stdout.split() == ["1.0"], done.stdout + done.stderr


def test_the_quickstart_s_agent_and_program_run(tmp_path: Path) -> None:
    env, tasks, agent, program = _blocks("docs/quickstart.md")
    for name, text in (("env.py", env), ("tasks.py", tasks), ("mine.py", agent), ("program.py", program)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    told = json.loads(_run(tmp_path, HUD, "eval", "tasks.py", "mine.py:shout", "--json").stdout)
    assert (told["mean_reward"], told["error_count"]) == (0.0, 0)
    done = _run(tmp_path, sys.executable, "program.py")
    assert done.stdout.splitlines() == [
        "1.0",
        "count_letter [1.0, 1.0, 1.0]",
        "count_letter-46fc6215 [1.0, 1.0, 1.0]",
    ], done.stderr


def test_the_quickstart_shows_what_init_writes(tmp_path: Path) -> None:
    assert _run(tmp_path, HUD, "init", "my-env").returncode == 0
    written = (tmp_path / "my-env" / "env.py").read_text(encoding="utf-8")
    shown = _blocks("docs/quickstart.md")[0]
    for line in shown.splitlines():
        assert line in written.splitlines(), line


def test_options_of_the_guide_exist() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))["reference"]()
    for page in ("README.md", "docs/quickstart.md", "docs/cli.md"):
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / page).read_text(encoding="utf-8"))):
            assert option in reference or option == "--help", f"{page}: {option}"
