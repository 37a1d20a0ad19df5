"""Shared by the judge's tests."""

import pytest

from hud.agents.callcache import MemoryCache
from hud_grader_llm import asking


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see another's cached replies, nor the machine's keys."""
    monkeypatch.setattr(asking, "_memory", MemoryCache())
    monkeypatch.setattr(asking, "_unstructured", set())
    for name in (
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "HUD_API_KEY",
        "ANTHROPIC_BASE_URL",
        "OPENAI_BASE_URL",
        "HUD_JUDGE_MODEL",
        "HUD_JUDGE_CACHE",
    ):
        monkeypatch.delenv(name, raising=False)
