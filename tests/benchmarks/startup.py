"""What it costs to begin: `import hud`, an environment declared, `hud --version`, `hud --help`, the first plugin."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.row import Row

TIMES = 15
DECLARE = """
from hud import Environment
env = Environment("sky")
@env.template()
async def say(word: str = "moon"):
    answer = yield f"Say {word}."
    yield 1.0 if answer == word else 0.0
"""
MEASURED = """
import sys
{code}
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(len(sys.modules), int(peak.split()[1]) / 1024)
"""


def measure() -> list[Row]:
    """Return milliseconds, modules and MiB; every command is timed in turn with its floor, so load hits both."""
    python = [sys.executable, "-c"]
    hud = str(Path(sys.executable).with_name("hud"))
    commands = {
        "pass": [*python, "pass"],
        "asyncio": [*python, "import asyncio"],
        "pydantic": [*python, "import pydantic"],
        "import": [*python, "import hud"],
        "declare": [*python, DECLARE],
        "eval": [*python, "from hud.eval import Taskset, LocalRuntime"],
        "plugin": [*python, "from hud.plugins import current_host; current_host().plugins()"],
        "metadata": [*python, "from importlib.metadata import entry_points; list(entry_points(group='hud'))"],
        "version": [hud, "--version"],
        "help": [hud, "--help"],
    }
    with tempfile.TemporaryDirectory(prefix="hud-bench-") as folder:
        took = _interleaved(commands, Path(folder))
        modules, memory = _size(DECLARE, Path(folder))
        floor_modules, floor_memory = _size("pass", Path(folder))
        _, bare_import_memory = _size("import hud", Path(folder))
    over = {name: seconds - took["pass"] for name, seconds in took.items()}
    asyncio_ms, pydantic_ms = over["asyncio"] * 1e3, over["pydantic"] * 1e3
    return [
        Row(
            "`import hud`, over bare python",
            over["import"] * 1e3,
            asyncio_ms,
            "ms",
            "import asyncio",
            target="15 ms",
        ),
        Row(
            "`from hud import Environment`, one declared, over bare python",
            over["declare"] * 1e3,
            asyncio_ms + pydantic_ms,
            "ms",
            "import asyncio + pydantic",
            target="65 ms",
        ),
        Row("the same, modules", float(modules), float(floor_modules), "", "bare python"),
        Row("the same, memory over bare python", memory - floor_memory, None, "MiB", target="25 MiB"),
        Row("`import hud`, memory over bare python", bare_import_memory - floor_memory, None, "MiB"),
        Row(
            "`from hud.eval import ...`, over bare python",
            over["eval"] * 1e3,
            asyncio_ms,
            "ms",
            "import asyncio",
        ),
        Row(
            "every plugin found and declared",
            over["plugin"] * 1e3,
            over["metadata"] * 1e3,
            "ms",
            "importlib.metadata's scan",
        ),
        Row(
            "`hud --version`",
            took["version"] * 1e3,
            took["pass"] * 1e3,
            "ms",
            "python -c pass",
            target="100 ms",
        ),
        Row("`hud --help`", took["help"] * 1e3, took["pass"] * 1e3, "ms", "python -c pass", target="100 ms"),
    ]


def _interleaved(commands: dict[str, list[str]], folder: Path) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(TIMES + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=_environ())
            if turn:  # the first turn writes bytecode
                took[name].append(time.perf_counter() - began)
    return {name: statistics.median(samples) for name, samples in took.items()}


def _size(code: str, folder: Path) -> tuple[int, float]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(code=code)],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env=_environ(),
    )
    modules, memory = done.stdout.split()
    return int(modules), float(memory)


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HUD_")}
