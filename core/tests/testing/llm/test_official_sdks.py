"""The official SDKs talk to the simulators as to the providers."""

import json
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as gtypes

from hud.testing.llm import Ask, Call, Fault, ModelServer, RateLimit, Turn, first, script

pytestmark = pytest.mark.anyio

LISTING = Turn(text="I look.", reasoning="Files first.", calls=[Call("bash", {"command": "ls -la /"})])
DONE = Turn("All done, nothing else to do here.")
PARAMETERS = {"type": "object", "properties": {"command": {"type": "string"}}}


def claude(server: ModelServer, retries: int = 0) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=server.url, api_key="x", max_retries=retries)


def gpt(server: ModelServer, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.openai_url, api_key="x", max_retries=retries)


def google(server: ModelServer) -> genai.Client:
    return genai.Client(api_key="x", http_options=gtypes.HttpOptions(base_url=server.url))


async def test_anthropic_streams_thinking_text_and_a_native_call_then_ends() -> None:
    async with ModelServer(script(LISTING, DONE)) as server, claude(server) as client:
        messages: list[Any] = [{"role": "user", "content": "What is in /?"}]
        tools: list[Any] = [{"type": "bash_20250124", "name": "bash"}]
        async with client.messages.stream(
            model="claude-sonnet-5", max_tokens=100, messages=messages, tools=tools
        ) as stream:
            reply = await stream.get_final_message()
        assert [block.type for block in reply.content] == ["thinking", "text", "tool_use"]
        call: Any = reply.content[2]
        assert call.name == "bash"
        assert call.input == {"command": "ls -la /"}
        assert reply.stop_reason == "tool_use"
        messages += [
            {"role": "assistant", "content": [block.model_dump() for block in reply.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "bin"}]},
        ]
        last = await client.messages.create(
            model="claude-sonnet-5", max_tokens=100, messages=messages, tools=tools
        )
        assert [getattr(block, "text", None) for block in last.content] == [DONE.text]
        assert last.stop_reason == "end_turn"
        assert [result.text for result in server.asks[1].results] == ["bin"]


async def test_anthropic_reports_what_a_cache_breakpoint_saved() -> None:
    async with ModelServer(DONE) as server, claude(server) as client:
        cached: Any = {"type": "text", "text": "word " * 400, "cache_control": {"type": "ephemeral"}}
        usages = []
        for question in ("one?", "two?"):
            content: Any = [cached, {"type": "text", "text": question}]
            reply = await client.messages.create(
                model="m", max_tokens=10, messages=[{"role": "user", "content": content}]
            )
            usages.append(reply.usage.cache_read_input_tokens)
        assert usages[0] == 0
        assert usages[1] is not None
        assert usages[1] > 400


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
async def test_openai_responses_calls_a_function_and_a_native_shell(stream: bool) -> None:
    turn = Turn(
        reasoning="hm",
        calls=[Call("add", {"a": 1, "b": 2}), Call("shell", {"commands": ["ls"]})],
    )
    async with ModelServer(script(turn, DONE)) as server, gpt(server) as client:
        tools: list[Any] = [
            {"type": "function", "name": "add", "parameters": PARAMETERS, "strict": False},
            {"type": "shell", "environment": {"type": "local"}},
        ]
        if stream:
            async with client.responses.stream(model="gpt-5.4", input="go", tools=tools) as events:
                response: Any = await events.get_final_response()
        else:
            response = await client.responses.create(model="gpt-5.4", input="go", tools=tools)
        reasoning, function, shell = response.output
        assert reasoning.summary[0].text == "hm"
        assert json.loads(function.arguments) == {"a": 1, "b": 2}
        assert shell.type == "shell_call"
        assert shell.action.commands == ["ls"]
        outputs: list[Any] = [
            {"type": "function_call_output", "call_id": function.call_id, "output": "3"},
            {
                "type": "shell_call_output",
                "call_id": shell.call_id,
                "output": [{"stdout": "bin", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
            },
        ]
        last = await client.responses.create(
            model="gpt-5.4", input=outputs, previous_response_id=response.id, tools=tools
        )
        assert last.output_text == DONE.text
        assert [result.text for result in server.asks[1].results] == ["3", "bin"]
        assert server.asks[1].prompt == "go"


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_completions_answer_with_calls_logprobs_and_token_ids(stream: bool) -> None:
    async with ModelServer(script(LISTING, DONE)) as server, gpt(server) as client:
        tools: list[Any] = [{"type": "function", "function": {"name": "bash", "parameters": PARAMETERS}}]
        messages: list[Any] = [{"role": "user", "content": "What is in /?"}]
        if stream:
            async with client.chat.completions.stream(model="m", messages=messages, tools=tools) as events:
                completion: Any = await events.get_final_completion()
        else:
            completion = await client.chat.completions.create(
                model="m",
                messages=messages,
                tools=tools,
                logprobs=True,
                extra_body={"return_token_ids": True},
            )
            assert len(completion.choices[0].token_ids) == len(completion.choices[0].logprobs.content)
            assert len(completion.prompt_token_ids) == completion.usage.prompt_tokens
        message = completion.choices[0].message
        assert completion.choices[0].finish_reason == "tool_calls"
        assert json.loads(message.tool_calls[0].function.arguments) == {"command": "ls -la /"}
        said: Any = {"role": "assistant", "tool_calls": [call.model_dump() for call in message.tool_calls]}
        result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "bin"}
        last = await client.chat.completions.create(model="m", messages=[*messages, said, result])
        assert last.choices[0].message.content == DONE.text


@pytest.mark.parametrize("stream", [False, True])
async def test_gemini_thinks_calls_and_ends(stream: bool) -> None:
    async with ModelServer(script(LISTING, DONE)) as server:
        client = google(server)
        declaration: Any = {"name": "bash", "parametersJsonSchema": PARAMETERS}
        config = gtypes.GenerateContentConfig(tools=[gtypes.Tool(function_declarations=[declaration])])
        contents: list[Any] = [gtypes.Content(role="user", parts=[gtypes.Part(text="What is in /?")])]
        parts: list[Any] = []
        if stream:
            async for piece in await client.aio.models.generate_content_stream(
                model="gemini-3-pro", contents=contents, config=config
            ):
                assert piece.candidates
                assert piece.candidates[0].content
                parts += piece.candidates[0].content.parts or []
        else:
            reply = await client.aio.models.generate_content(
                model="gemini-3-pro", contents=contents, config=config
            )
            assert reply.candidates
            assert reply.candidates[0].content
            parts = reply.candidates[0].content.parts or []
            assert reply.usage_metadata
            assert reply.usage_metadata.prompt_token_count == server.asks[0].prompt_tokens
        call = next(part.function_call for part in parts if part.function_call)
        assert call.name == "bash"
        assert call.args == {"command": "ls -la /"}
        assert any(part.thought for part in parts)
        answer = gtypes.Part.from_function_response(name="bash", response={"output": "bin"})
        contents += [gtypes.Content(role="model", parts=parts), gtypes.Content(role="user", parts=[answer])]
        last = await client.aio.models.generate_content(model="gemini-3-pro", contents=contents)
        assert last.text == DONE.text
        await client.aio.aclose()


@pytest.mark.slow
async def test_a_refused_call_carries_status_and_retry_after_and_the_sdk_retries() -> None:
    faults = first(Fault.of_status(429, retry_after_s=0.01), Fault.of_status(529), Fault.of_status(500))
    async with ModelServer(DONE, faults=faults) as server, claude(server) as client:
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
        assert refused.value.response.headers["retry-after"] == "0.01"
        patient = client.with_options(max_retries=3)
        reply = await patient.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        )
        assert reply.stop_reason == "end_turn"
        assert server.statuses == {429: 1, 529: 1, 500: 1, 200: 1}


async def test_a_cut_stream_is_seen_as_a_broken_connection() -> None:
    async with ModelServer(DONE, faults=first(Fault("cut", after=3))) as server, claude(server) as client:
        with pytest.raises((anthropic.APIConnectionError, Exception)) as broken:
            async with client.messages.stream(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
            ) as stream:
                await stream.get_final_message()
        assert "incomplete" in str(broken.value).lower() or "closed" in str(broken.value).lower()


async def test_broken_arguments_arrive_as_they_were_written() -> None:
    async with ModelServer(Turn(calls=[Call("f", '{"a": ')])) as server, gpt(server) as client:
        completion: Any = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}]
        )
        assert completion.choices[0].message.tool_calls[0].function.arguments == '{"a": '


async def test_a_rate_limit_lets_in_what_the_bucket_holds() -> None:
    clock = [0.0]
    limit = RateLimit(2.0, now=lambda: clock[0])
    async with ModelServer(DONE, limit=limit) as server, gpt(server) as client:

        async def call() -> Any:
            return await client.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": "x"}]
            )

        assert (await call()).headers["x-ratelimit-remaining-requests"] == "1"
        await call()
        with pytest.raises(openai.RateLimitError):
            await call()
        clock[0] = 0.6
        await call()
        assert server.statuses == {200: 3, 429: 1}


async def test_a_prompt_beyond_the_window_and_an_unanswered_call_are_refused() -> None:
    async with ModelServer(DONE, context_tokens=50) as server, claude(server) as client:
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            await client.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "x" * 400}]
            )
        dangling: list[Any] = [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": "and?"},
        ]
        with pytest.raises(anthropic.BadRequestError, match="tool_result"):
            await client.messages.create(model="m", max_tokens=9, messages=dangling)


async def test_a_rule_sees_what_was_asked() -> None:
    def echo(ask: Ask) -> Turn:
        return Turn(f"{ask.system}|{ask.prompt}|{ask.images}|{ask.turns_so_far}")

    async with ModelServer(echo, key="secret") as server, gpt(server) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        messages: list[Any] = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        ]
        reply = await client.with_options(api_key="secret").chat.completions.create(
            model="m", messages=messages
        )
        assert reply.choices[0].message.content == "be brief|look|1|0"
