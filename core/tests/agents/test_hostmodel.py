"""Host calls: keys, budget, limiter, cache and record stay on the orchestrator's side."""

from pathlib import Path
from typing import Any

import pytest

from hud.agents.callcache import FolderCache, MemoryCache, call_key
from hud.agents.hostmodel import HostCall, HostModel
from hud.errors import BadParamsError, BudgetExhaustedError, HudProtocolError
from hud.testing.llm import Fault, ModelServer, Turn, first

pytestmark = pytest.mark.anyio
BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def call(**more: Any) -> dict[str, Any]:
    return {"dialect": "openai-chat", "model": "m", "body": BODY, "deadline_s": 20.0, **more}


@pytest.mark.slow
async def test_the_providers_reply_is_given_back_and_the_call_is_recorded() -> None:
    calls: list[HostCall] = []
    async with (
        ModelServer(Turn("hello"), faults=first(Fault.of_status(429, retry_after_s=0.01)), key="k") as server,
        HostModel(base_url=server.openai_url, api_key="k", record=calls.append) as host,
    ):
        reply = await host.model(**call())
        assert reply["choices"][0]["message"]["content"] == "hello"
    [recorded] = calls
    assert recorded.usage.prompt_tokens > 0
    assert recorded.error is None
    assert recorded.ended_at >= recorded.started_at


async def test_models_that_are_not_allowed_and_unknown_dialects_are_refused() -> None:
    async with HostModel(models=["claude-*"], base_url="http://127.0.0.1:9") as host:
        with pytest.raises(BadParamsError, match=r"none of this job's host models: claude-\*"):
            await host.model(**call())
        with pytest.raises(BadParamsError, match="unknown dialect"):
            await host.model(**call(model="claude-x", dialect="klingon"))


async def test_a_budget_is_asked_before_a_call_is_paid_for() -> None:
    class Empty:
        def check(self, *, tokens: int = 0, cost_usd: float = 0.0) -> None:
            raise BudgetExhaustedError("the job used all of it")

    calls: list[HostCall] = []
    async with (
        ModelServer(Turn("x")) as server,
        HostModel(base_url=server.openai_url, budget=Empty(), record=calls.append) as host,
    ):
        with pytest.raises(HudProtocolError, match="used all of it") as refused:
            await host.model(**call())
        assert refused.value.code == -32002
        assert not server.asks
        assert calls[0].error


async def test_identical_questions_are_answered_from_the_cache_votes_apart(tmp_path: Path) -> None:
    for cache in (MemoryCache(), FolderCache(tmp_path)):
        calls: list[HostCall] = []
        async with (
            ModelServer(lambda ask: Turn(str(ask.number))) as server,
            HostModel(base_url=server.openai_url, cache=cache, record=calls.append) as host,
        ):
            said_by = [
                (await host.model(**call(body={**BODY, **notes})))["choices"][0]["message"]["content"]
                for notes in (
                    {},
                    {},
                    {"x_hud": {"slot": 1}},
                    {"x_hud": {"slot": 1}},
                    {"x_hud": {"cache": False}},
                )
            ]
            assert said_by == ["0", "0", "1", "1", "2"]
            assert [c.cached for c in calls] == [False, True, False, True, False]
            assert "x_hud" not in server.asks[1].body


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic"])
@pytest.mark.parametrize("poor", [Turn(refusal="no"), Turn("half", stop="length"), Turn()])
async def test_a_reply_that_was_refused_or_cut_is_not_kept(dialect: str, poor: Turn) -> None:
    replies = [poor, Turn("whole")]
    async with (
        ModelServer(lambda ask: replies[min(ask.number, 1)]) as server,
        HostModel(base_url=server.base_url("anthropic" if dialect == "anthropic" else "openai-chat"),
                  cache=MemoryCache()) as host,
    ):  # fmt: skip
        model = "claude-x" if dialect == "anthropic" else "m"
        body = {**BODY, "model": model, "max_tokens": 9}
        for asks in (1, 2, 2):
            await host.model(**call(dialect=dialect, model=model, body=body))
            assert len(server.asks) == asks


async def test_a_provider_that_refuses_is_told_with_its_status_and_without_the_key() -> None:
    async with ModelServer(Turn("x"), key="right") as server:
        async with HostModel(base_url=server.openai_url, api_key="wr0ng") as host:
            with pytest.raises(HudProtocolError) as refused:
                await host.model(**call())
        assert refused.value.data["status"] == 401
        assert not refused.value.data["retryable"]
        assert "wr0ng" not in str(refused.value)


async def test_an_account_without_money_is_told_at_once() -> None:
    broke = Fault.of_status(429, message="You exceeded your current quota: insufficient_quota")
    async with ModelServer(Turn("x"), faults=lambda _: broke) as server:
        async with HostModel(base_url=server.openai_url, api_key="k") as host:
            with pytest.raises(HudProtocolError) as refused:
                await host.model(**call())
        assert refused.value.data["status"] == 429
        assert server.statuses == {429: 1}


def test_a_cache_forgets_the_oldest_and_survives_broken_files(tmp_path: Path) -> None:
    memory = MemoryCache(limit=2)
    for name in "abc":
        memory.put(name, {"n": name})
    assert memory.get("a") is None
    assert memory.get("c") == {"n": "c"}
    folder = FolderCache(tmp_path)
    key = call_key("d", "m", {"b": 1, "a": 2})
    assert key == call_key("d", "m", {"a": 2, "b": 1}) != call_key("d", "m", {"a": 2, "b": 1}, slot=1)
    folder.put(key, {"x": 1})
    next(tmp_path.rglob("*.json")).write_text("{broken")
    assert folder.get(key) is None
