"""What core itself provides keeps the public contracts: no kit is private."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hud.graders import Grader, contains_all
from hud.runtime.contract import Features
from hud.runtime.local import LocalRuntime
from hud.runtime.subprocess import SubprocessRuntime
from hud.testing.agent import AgentContract
from hud.testing.grader import Graded, GraderContract
from hud.testing.processes import descendants
from hud.testing.runtime import MakeProvider, RuntimeContract


@pytest.mark.slow
class TestLocalRuntime(RuntimeContract):
    features = Features()

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return LocalRuntime


@pytest.mark.slow
class TestSubprocessRuntime(RuntimeContract):
    features = SubprocessRuntime.features

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return SubprocessRuntime


class Words(Grader):
    """A grader on core's text helpers."""

    name = "words"

    @classmethod
    async def compute_score(cls, *, answer: str, words: Sequence[str]) -> float:
        if not words:
            raise ValueError("no words")
        return contains_all(answer, words)


class TestGrader(GraderContract):
    grader = Words

    @pytest.fixture
    def cases(self) -> list[Graded]:
        return [
            Graded({"answer": "moon and stars", "words": ["moon", "stars"]}, 1.0),
            Graded({"answer": "moon", "words": ["moon", "stars"]}, 0.0),
            Graded({"answer": "moon", "words": []}, fails=True),
        ]


class TestNoop(AgentContract):
    echoes = False

    @pytest.fixture
    def agent(self) -> Any:
        from hud.agents import NoopAgent

        return NoopAgent()


class TestPlainFunction(AgentContract):
    @pytest.fixture
    def agent(self) -> Any:
        async def says(run: Any) -> str:
            return str(run.prompt_text).rpartition(" ")[2].rstrip(".")

        return says


def test_descendants_are_seen_and_only_while_they_live(tmp_path: Path) -> None:
    import subprocess
    import sys

    before = set(descendants())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert any(name.startswith(f"{process.pid} ") for name in set(descendants()) - before)
        process.communicate(b"\n")
    assert not any(name.startswith(f"{process.pid} ") for name in descendants())
