"""Arguments: schemas as pydantic would write them, and a check before any author code runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from hud.environment import DataFileArg, DataFilesArg, Environment, GradingArg, PromptArg, serving
from hud.environment.annotations import rule_for, with_json_retry
from hud.environment.arguments import Arguments
from hud.errors import AuthoringError, BadParamsError, TemplateTypeError
from hud.testing.environments import play, session_of

Play = AsyncGenerator[Any, Any]

PLAIN: list[Any] = [
    str,
    int,
    float,
    bool,
    list,
    dict,
    list[int],
    list[list[str]],
    dict[str, int],
    dict[str, Any],
    int | None,
    Optional[str],  # noqa: UP045 - the old form is an author's too
    str | int,
    list[int] | None,
    Literal["a", "b"],
    Literal["only"],
    Literal[1, 2, 3],
]


def test_a_row_with_a_misspelled_argument_names_the_close_one() -> None:
    env = Environment("letters")

    @env.template()
    async def count(word: str) -> Play:
        yield word
        yield 1.0

    misspelled: Any = {"wrod": "tea"}
    with pytest.raises(TypeError, match=r"unknown argument 'wrod' \(did you mean 'word'\?\); known: word"):
        count(**misspelled)
    with pytest.raises(TypeError, match="missing a required argument: 'word'"):
        count()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("annotation", PLAIN, ids=str)
def test_a_plain_schema_reads_as_pydantics(annotation: Any) -> None:
    rule = rule_for(annotation)
    assert rule is not None
    assert rule.schema == TypeAdapter(annotation).json_schema()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(annotation=st.sampled_from(PLAIN), value=JSON)
def test_what_the_plain_check_accepts_is_what_strict_pydantic_accepts(annotation: Any, value: Any) -> None:
    rule = rule_for(annotation)
    assert rule is not None
    try:
        wanted = TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        # JSON has one kind of number; 4.0 is an integer here.
        if "4.0" in str(value) or isinstance(value, float) or _has_float(value):
            return
        with pytest.raises(ValueError, match="expected"):
            rule.check(value, "x")
    else:
        if annotation == Literal[1, 2, 3] and isinstance(value, bool):
            return  # pydantic takes True for 1
        assert rule.check(value, "x") == wanted


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_float(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_float(item) for item in value)
    return isinstance(value, float)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(annotation=st.sampled_from([int, float, bool, list, dict, list[int], int | None]), value=JSON)
def test_a_text_of_json_is_worth_what_it_says(annotation: Any, value: Any) -> None:
    rule = rule_for(annotation)
    assert rule is not None
    check = with_json_retry(rule.check)
    try:
        wanted = rule.check(value, "x")
    except ValueError:
        if not isinstance(value, str):  # a text within a text is not read twice
            with pytest.raises(ValueError, match="expected"):
                check(json.dumps(value), "x")
    else:
        assert check(json.dumps(value), "x") == wanted


def make(function: Any) -> Arguments:
    return Arguments(function, "template 't' (env.py:1)")


async def everything(
    word: str,
    count: int = 3,
    *,
    ratio: float = 0.5,
    flag: bool = False,
    tags: list[str] | None = None,
    anything: Any = None,
) -> Play:
    yield word, count, ratio, flag, tags, anything
    yield 1.0


def test_the_schema_of_a_whole_signature() -> None:
    assert make(everything).schema == {
        "properties": {
            "word": {"title": "Word", "type": "string"},
            "count": {"default": 3, "title": "Count", "type": "integer"},
            "ratio": {"default": 0.5, "title": "Ratio", "type": "number"},
            "flag": {"default": False, "title": "Flag", "type": "boolean"},
            "tags": {
                "anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}],
                "default": None,
                "title": "Tags",
            },
            "anything": {"default": None, "title": "Anything"},
        },
        "type": "object",
        "required": ["word"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, r"missing argument 'word' \(string\)"),
        (
            {"word": "x", "wordy": 1},
            r"unknown argument 'wordy' \(did you mean 'word'\?\); known: word, count",
        ),
        ({"word": 5}, "word: expected string, not int 5"),
        ({"word": "x", "count": "many"}, "count: expected integer, not str 'many'"),
        ({"word": "x", "count": True}, "count: expected integer, not bool True"),
        ({"word": "x", "count": 1.5}, "count: expected integer"),
        ({"word": "x", "ratio": float("nan")}, "ratio: expected finite number"),
        ({"word": "x", "ratio": 10**400}, "ratio: expected number within a float's range"),
        ({"word": "x", "flag": 1}, "flag: expected boolean"),
        ({"word": "x", "tags": ["a", 1]}, r"tags: expected array or null"),
    ],
)
def test_a_refusal_names_the_argument_and_what_was_expected(args: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParamsError, match=message) as caught:
        make(everything).check(args)
    assert caught.value.code == -32602
    assert "template 't'" in str(caught.value)
    assert caught.value.data["field"] in ("word", "wordy", "count", "ratio", "flag", "tags")


def test_texts_are_read_as_json_where_they_do_not_fit() -> None:
    checked = make(everything).check({"word": "5", "count": "4", "flag": "true", "tags": '["a"]'})
    assert checked == {"word": "5", "count": 4, "flag": True, "tags": ["a"]}


def test_other_keywords_pass_where_the_template_takes_them() -> None:
    async def loose(word: str = "x", **rest: Any) -> Play:
        yield word, rest

    arguments = make(loose)
    assert arguments.schema["additionalProperties"] is True
    assert arguments.check({"more": [1]}) == {"more": [1]}


class Point(BaseModel):
    x: int
    y: int = 0


@dataclass
class Size:
    width: int


class Color(Enum):
    RED = "red"


def test_models_dataclasses_enums_and_paths_are_checked_by_pydantic() -> None:
    async def rich(point: Point, size: Size, color: Color = Color.RED, where: Path | None = None) -> Play:
        yield "x"

    arguments = make(rich)
    assert arguments.schema["properties"]["point"]["$ref"] == "#/$defs/Point"
    assert set(arguments.schema["$defs"]) == {"Point", "Size", "Color"}
    assert arguments.schema["properties"]["color"]["default"] == "red"
    checked = arguments.check({"point": {"x": "1"}, "size": '{"width": 4}', "color": "red", "where": "/tmp"})
    assert checked == {"point": Point(x=1), "size": Size(4), "color": Color.RED, "where": Path("/tmp")}
    with pytest.raises(BadParamsError, match=r"point\.x: .*valid integer.* not 'no'"):
        arguments.check({"point": {"x": "no"}, "size": {"width": 1}})
    json.dumps(arguments.schema)


def test_hints_are_part_of_the_schema() -> None:
    async def hinted(
        question: PromptArg, file: DataFileArg[str], files: DataFilesArg[str], criteria: GradingArg[str]
    ) -> Play:
        yield "x"

    properties = make(hinted).schema["properties"]
    assert {name: entry["x-hud-hint"] for name, entry in properties.items()} == {
        "question": "prompt",
        "file": "data-file",
        "files": "data-files",
        "criteria": "grading",
    }


def test_a_local_class_in_a_deferred_annotation_is_found() -> None:
    class Local(BaseModel):
        n: int

    async def local(item: Local) -> Play:
        yield Local(n=item.n)

    assert make(local).check({"item": {"n": 1}}) == {"item": Local(n=1)}


def test_an_annotation_that_cannot_be_resolved_is_an_authoring_error() -> None:
    async def broken(item: "Nowhere") -> Play:  # type: ignore[name-defined]  # noqa: F821, UP037
        yield item

    with pytest.raises(AuthoringError, match=r"'Nowhere' of argument 'item' cannot be resolved"):
        make(broken)


def test_an_annotation_pydantic_cannot_check_is_an_authoring_error() -> None:
    class Opaque:
        pass

    async def opaque(item: Opaque) -> Play:
        yield item

    with pytest.raises(AuthoringError, match="argument 'item'"):
        make(opaque)


def test_arguments_that_cannot_be_named_are_refused() -> None:
    async def spread(*words: str) -> Play:
        yield words

    with pytest.raises(TemplateTypeError, match=r"\*words"):
        make(spread)


@pytest.mark.anyio
async def test_a_refused_argument_runs_no_author_code() -> None:
    env = Environment("strict")
    ran: list[str] = []

    @env.template()
    async def task(n: int) -> Play:
        ran.append("ran")
        yield "x"
        yield 1.0

    async with session_of(env) as session:
        with pytest.raises(BadParamsError):
            await session.start("task", {"n": "x"})
        with pytest.raises(BadParamsError, match=r"no task 'tsk' \(did you mean 'task'\?\)"):
            await session.start("tsk", {})
    assert ran == []


@pytest.mark.anyio
async def test_a_template_without_a_schema_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    env = Environment("mixed")

    class Opaque:
        pass

    @env.template()
    async def broken(item: Opaque) -> Play:
        yield item
        yield 1.0

    @env.template()
    async def good(n: int = 1) -> Play:
        yield str(n)
        yield 1.0

    async with serving(env) as service:
        assert [entry["id"] for entry in service.task_entries()] == ["broken", "good"]
        assert "argument 'item'" in caplog.text
        session = service.open_session("s")
        with pytest.raises(AuthoringError, match="argument 'item'"):
            await session.start("broken", {"item": 1})
        assert await session.start("good", {}) == {"prompt": "1"}
        await session.close()


@pytest.mark.anyio
async def test_typed_answers_arrive_parsed_or_as_they_were() -> None:
    env = Environment("typed")
    seen: list[Any] = []

    @env.template(returns=Point, input={"type": "object"})
    async def point() -> Play:
        answer = yield "a point?"
        seen.append(answer)
        yield float(isinstance(answer.content, Point))

    assert (await play(env, "point", '{"x": 1}'))["score"] == 1.0
    assert (await play(env, "point", {"x": 2}))["score"] == 1.0
    assert (await play(env, "point", "no point"))["score"] == 0.0
    assert [answer.raw for answer in seen] == ['{"x": 1}', '{"x": 2}', "no point"]
    assert seen[0].content == Point(x=1)
    assert seen[2].content == "no point"
    entry = env.tasks["point"].entry
    assert entry["returns"] == Point.model_json_schema()
    assert entry["input"] == {"type": "object"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("returns", "raw", "content"), [(int, "7", 7), (str, "7", "7"), (list[int], "[1]", [1])]
)
async def test_typed_answers_of_plain_types(returns: Any, raw: str, content: Any) -> None:
    env = Environment("typed")

    @env.template(returns=returns)
    async def task() -> Play:
        answer = yield "?"
        yield float(answer.content == content)

    assert (await play(env, "task", raw))["score"] == 1.0


def test_declaring_and_plain_schemas_need_no_pydantic() -> None:
    code = """
import sys
from hud import Environment
env = Environment("light")
@env.template()
async def task(word: str = "x", n: int | None = None, tags: list[str] = []):
    yield "x"
    yield 1.0
row = task(word="y")
assert env.tasks["task"].arguments.check({"n": "4"}) == {"n": 4}
assert not {"pydantic", "asyncio"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
