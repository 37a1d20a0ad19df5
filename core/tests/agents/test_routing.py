"""A name becomes a place that serves it, offline; prices are known or unknown, never 0."""

from pathlib import Path
from typing import Any

import pytest

from hud.agents.arguments import complaint
from hud.agents.dialects import DIALECTS
from hud.agents.functions import function_tool
from hud.agents.prices import cost_of, price_of, usage_of
from hud.agents.routing import NO_KEY, resolve, resolve_plain
from hud.errors import ConfigError
from hud.settings.hudtoml import Price
from hud.types import MCPToolResult, Usage

VARIABLES = [v for d in DIALECTS.values() for v in (*d.credentials, *d.variables)]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No keys, no files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*VARIABLES, "HUD_API_KEY", "HUD_GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)


def test_an_address_goes_before_a_key_and_a_key_before_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"ANTHROPIC_API_KEY.*HUD_API_KEY.*ANTHROPIC_BASE_URL.*export"):
        resolve("claude-x", "anthropic")
    monkeypatch.setenv("HUD_API_KEY", "h")
    assert resolve("claude-x", "anthropic").how == "gateway"
    assert resolve("claude-x", "anthropic").base_url == "https://inference.hud.ai"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "own")
    assert (resolve("claude-x", "anthropic").how, resolve("claude-x", "anthropic").api_key) == (
        "own key",
        "own",
    )
    assert resolve("claude-x", "anthropic", gateway=True).api_key == "h"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://mine")
    assert (resolve("claude-x", "anthropic").how, resolve("claude-x", "anthropic").base_url) == (
        "base_url",
        "http://mine",
    )
    assert resolve("claude-x", "anthropic", base_url="http://other").base_url == "http://other"
    assert resolve("claude-x", "anthropic", api_key="given").api_key == "given"


def test_a_server_of_ones_own_needs_no_key() -> None:
    assert resolve("m", "openai-chat", base_url="http://x/v1").api_key == NO_KEY


def test_keys_are_read_from_env_files_and_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=s3cret\n")
    route = resolve("gpt-5", "openai-chat")
    assert route.api_key == "s3cret"
    assert route.credential == "OPENAI_API_KEY"
    assert "s3cret" not in repr(route)


@pytest.mark.parametrize(
    ("dialect", "base", "url"),
    [
        ("anthropic", "http://h", "http://h/v1/messages"),
        ("anthropic", "http://h/v1/", "http://h/v1/messages"),
        ("openai-chat", "http://h/v1", "http://h/v1/chat/completions"),
        ("openai-responses", "http://h/v1", "http://h/v1/responses"),
        ("gemini", "http://h/v1beta", "http://h/v1beta/models/m:generateContent"),
    ],
)
def test_each_dialect_has_its_path(dialect: str, base: str, url: str) -> None:
    assert resolve("m", dialect, base_url=base).url == url


def test_plain_calls_are_written_as_the_model_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_plain("claude-x", base_url="http://h").dialect.name == "anthropic"
    assert resolve_plain("claude-x", base_url="http://h/v1").dialect.name == "openai-chat"
    assert resolve_plain("other", base_url="http://h").dialect.name == "openai-chat"
    monkeypatch.setenv("GEMINI_API_KEY", "g")
    route = resolve_plain("gemini-2.5-flash")
    assert (route.dialect.name, route.credential) == ("openai-chat", "GEMINI_API_KEY")
    assert route.url.endswith("/v1beta/openai/chat/completions")


def test_an_unknown_price_is_unknown_and_makes_sums_unknown() -> None:
    assert price_of("nobody-knows") is None
    assert usage_of("nobody-knows", prompt=5, output=5).cost_usd is None
    assert Usage(1, 1, cost_usd=0.5).plus(usage_of("nobody-knows", prompt=5, output=5)).cost_usd is None
    assert price_of("gpt-5-minimal") is None


def test_dates_and_prefixes_do_not_matter_and_hud_toml_wins(tmp_path: Path) -> None:
    assert price_of("anthropic/claude-sonnet-4-5-20250929") == price_of("claude-sonnet-4-5")
    assert price_of("gpt-4o-2024-08-06") == price_of("gpt-4o")
    (tmp_path / "hud.toml").write_text('[prices."claude-sonnet-4-5"]\ninput = 1.0\noutput = 2.0\n')
    found = price_of("claude-sonnet-4-5")
    assert found is not None
    assert (found.input, found.output) == (1.0, 2.0)


def test_cached_and_written_parts_have_their_own_price() -> None:
    price = Price(10.0, 100.0, 1.0, 12.0)
    assert cost_of(price, prompt=1_000_000, output=0) == pytest.approx(10.0)
    assert cost_of(price, prompt=1_000_000, output=10_000, cached=500_000, written=100_000) == pytest.approx(
        4.0 + 0.5 + 1.2 + 1.0
    )


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "kind": {"enum": ["a", "b"]},
        "many": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["n"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"n": 1, "kind": "a", "many": [{"x": 1}, {"x": 2.5}], "either": None}, None),
        ({"n": 2.0}, None),
        ({}, "missing argument 'n'"),
        ({"n": True}, "must be integer, not boolean"),
        ({"n": 1, "kind": "c"}, "one of 'a', 'b'"),
        ({"n": 1, "many": [{"x": "1"}]}, "'many[0].x' must be number"),
        ({"n": 1, "either": 3}, "must be string"),
        ({"n": 1, "knd": "a"}, "did you mean 'kind'"),
        ([], "must be object"),
    ],
)
def test_arguments_are_held_to_their_schema_in_words(value: Any, part: str | None) -> None:
    found = complaint(value, SCHEMA)
    assert (found is None) if part is None else (found is not None and part in found)


@pytest.mark.anyio
async def test_a_typed_function_is_a_tool() -> None:
    def search(query: str, limit: int = 3, tags: list[str] | None = None) -> list[str]:
        """Search the archive."""
        return [f"{query}{n}" for n in range(limit)] + (tags or [])

    async def fetch(url: str) -> MCPToolResult:
        """Fetch a page."""
        return MCPToolResult.of_text(url, error=True)

    tool = function_tool(search)
    assert (tool.name, tool.description) == ("search", "Search the archive.")
    assert tool.parameters["required"] == ["query"]
    assert tool.parameters["properties"]["limit"]["default"] == 3
    assert (await tool({"query": "a", "limit": 2, "tags": ["t"]})).text == '["a0", "a1", "t"]'
    wrong = await tool({"query": "a", "limit": "many"})
    assert wrong.isError
    assert "limit" in wrong.text
    assert (await function_tool(fetch)({"url": "u"})).isError
