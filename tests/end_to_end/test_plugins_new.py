"""A third-party distribution of each kind, as `hud plugins new` writes it: installed, tested, used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KINDS = ["runtime", "capability", "grader", "agent", "format"]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = """
from hud.environment import Environment

env = Environment("sky")


@env.template()
async def say(word: str = "moon"):
    answer = yield f"Reply with the word {word}."
    yield 1.0 if answer == word else 0.0


@say.solution
async def _(run, word="moon"):
    return word
"""
USES = {
    "capability": """
import asyncio
from hud.environment import Environment
from hud.environment.serve import bind
from hud.eval import Runtime
from hud_capability_acme.backing import AcmeBacking
import hud

async def main():
    env = Environment("desk")
    notes = env.use(AcmeBacking())
    async with await bind(env) as server, hud.connect(Runtime(server.url)) as client:
        acme = await client.open("acme")
        await acme.write("first", "moon")
    print(notes.notes)

asyncio.run(main())
""",
    "grader": """
import asyncio
from hud.plugins import current_host
registry = current_host().registry
Grader = registry.load(registry.grader("acme"))
print(asyncio.run(Grader.grade(answer="the moon", words=["moon"])).value)
""",
    "format": """
import asyncio, pathlib
from hud.eval import LocalRuntime, Taskset
pathlib.Path("rows.acme").write_text("sky say word=moon\\nsky say word=stars\\n")
async def says(run):
    return run.prompt_text.split()[-1].rstrip(".")
job = asyncio.run(Taskset.from_file("rows.acme").run(says, runtime=LocalRuntime("env.py")))
print(len(job.runs), job.reward)
""",
}
EXPECTED = {"capability": "{'first': 'moon'}", "grader": "1.0", "format": "2 1.0"}


def run(*command: str, folder: Path, site: Path | None = None) -> str:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HUD_", "PYTEST_ADDOPTS"))}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if site is not None:
        environ["PYTHONPATH"] = str(site)
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_plugin_is_installed_tested_and_used(kind: str, tmp_path: Path) -> None:
    hud = [sys.executable, "-m", "hud.cli.main"]
    printed = run(*hud, "plugins", "new", kind, "acme", folder=tmp_path)
    dist = tmp_path / f"hud-{kind}-acme"
    assert printed.strip() == f"cd {dist.name} && pip install . pytest pytest-timeout && pytest"

    site = tmp_path / "site"
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", sys.executable]
    run(*uv, "--no-deps", "--no-build-isolation", "--target", str(site), str(dist), folder=tmp_path)
    assert (site / f"hud_{kind}_acme" / "plugin.py").is_file()

    tests = run(sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-q", folder=dist, site=site)
    assert re.search(r"^\d+ passed", tests, flags=re.MULTILINE), tests

    shown = json.loads(
        run(*hud, "plugins", "show", f"acme@hud-{kind}-acme", "--json", folder=tmp_path, site=site)
    )
    [plugin] = shown["plugins"]
    assert plugin["status"] == "loaded"
    assert [item["name"] for item in plugin["provides"]] == ["acme"]
    assert plugin["import_s"] < 0.2

    (tmp_path / "env.py").write_text(ENVIRONMENT, encoding="utf-8")
    if kind in USES:
        used = run(sys.executable, "-c", USES[kind], folder=tmp_path, site=site)
        assert used.splitlines()[-1] == EXPECTED[kind]
    else:
        options = ["acme"] if kind == "agent" else ["oracle", "--runtime", "acme"]
        told = json.loads(run(*hud, "eval", "env.py", *options, "--json", folder=tmp_path, site=site))
        assert told["mean_reward"] == 1.0, told


@pytest.mark.registry
def test_the_printed_line_works_in_a_fresh_environment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hud.cli.main", "plugins", "new", "grader", "acme", folder=tmp_path)
    dist = tmp_path / "hud-grader-acme"
    run(
        sys.executable,
        "-m",
        "uv",
        "venv",
        "-q",
        "--python",
        sys.executable,
        str(tmp_path / "venv"),
        folder=tmp_path,
    )
    python = str(tmp_path / "venv" / "bin" / "python")
    # Ours come from folders in the same command, and from nowhere else.
    wanted = [str(ROOT / "core"), str(dist), "pytest", "pytest-timeout"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    run(
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "-q",
        "--python",
        python,
        *constraints,
        *wanted,
        folder=tmp_path,
    )
    printed = run(python, "-m", "pytest", "-q", "-p", "pytest_timeout", folder=dist)
    assert "passed" in printed
