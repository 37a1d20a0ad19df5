"""What type checkers see: lazy names with their signatures, and hooks with their colours."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def mypy(folder: Path, source: str) -> str:
    (folder / "checked.py").write_text(textwrap.dedent(source), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--cache-dir",
            str(folder / "cache"),
            "checked.py",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout


def test_lazy_names_and_hooks_are_checked(tmp_path: Path) -> None:
    told = mypy(
        tmp_path,
        """
        from collections.abc import Mapping
        from typing import Any

        from hud import Environment, Task
        from hud.agents import create_agent
        from hud.eval import LocalRuntime, Taskset
        from hud.eval import DokcerRuntime  # line 8
        from hud.graders import Grader, combine
        from hud.plugins import HookSpecs, JobStarted, Redact, RuntimeKind, hookimpl

        reveal_type(Environment("sky"))  # line 12
        reveal_type(LocalRuntime("env.py"))
        LocalRuntime(3, view=4)  # line 14
        Task(env="a", id=5)  # line 15


        class Wrong(HookSpecs):
            @hookimpl
            async def hud_redact(self, event: Redact) -> Mapping[str, Any] | None:  # line 20
                return None

            @hookimpl
            async def hud_job_started(self, event: Redact) -> None:  # line 24
                pass

            @hookimpl
            def hud_runtimes(self) -> list[str]:  # line 28
                return []


        RuntimeKind(name="x", targte="y")  # line 32
        """,
    )
    assert 'checked.py:12: note: Revealed type is "hud.environment.env.Environment"' in told
    assert 'checked.py:13: note: Revealed type is "hud.runtime.local.LocalRuntime"' in told
    assert 'checked.py:8: error: Module "hud.eval" has no attribute "DokcerRuntime"' in told
    assert 'maybe "DockerRuntime"' in told
    for line in (14, 15, 20, 24, 28, 32):
        assert f"checked.py:{line}: error:" in told, f"line {line} is not complained of:\n{told}"
