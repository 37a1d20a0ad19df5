"""Declaring an environment: templates, rows, capabilities, solutions."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from hud.capabilities import Capability
from hud.environment import Environment, load_environment
from hud.errors import PluginError, TemplateTypeError
from hud.testing.backing import UnconfinedWorkspace
from hud.testing.environments import play, session_of
from hud.types import PromptMessage

Play = AsyncGenerator[Any, Any]


@pytest.fixture
def env() -> Environment:
    return Environment("declared")


def test_a_row_has_what_was_given_and_a_slug_made_of_it(env: Environment) -> None:
    @env.template(description="Count letters.")
    async def count(word: str, n: int = 1, **rest: Any) -> Play:
        """Not the description."""
        yield word, n, rest
        yield 1.0

    row = count("strawberry", extra={"tags": {1}})
    assert row.env == "declared"
    assert row.id == "count"
    assert row.args == {"word": "strawberry", "extra": {"tags": [1]}}
    assert row.slug.startswith("count-")
    assert row.source is env
    assert count("a").slug != count("b").slug
    assert env.tasks["count"].entry["description"] == "Count letters."
    assert env.templates is env.tasks


def test_a_template_without_a_description_has_none(env: Environment) -> None:
    @env.template()
    async def task() -> Play:
        """A docstring is for who reads the source."""
        yield "x"

    assert task.entry["description"] == ""
    assert task().slug == "task"


def test_wrong_arguments_of_a_row_are_a_type_error_that_names_the_template(env: Environment) -> None:
    @env.template()
    async def task(word: str) -> Play:
        yield word

    for args, named in (((), {}), (("a", "b"), {}), ((), {"wordy": "x"}), (("a",), {"word": "b"})):
        with pytest.raises(TypeError, match=r"template 'task' \(.*test_declaring\.py:\d+\)"):
            task(*args, **named)


def test_a_template_without_parentheses_is_explained(env: Environment) -> None:
    async def task() -> Play:
        yield "x"

    with pytest.raises(TypeError, match=r"write `@env\.template\(\)` with parentheses"):
        env.template(task)  # type: ignore[arg-type]


def test_a_deep_copy_of_a_row_stays_in_its_environment(env: Environment) -> None:
    @env.template()
    async def task(words: list[str]) -> Play:
        yield words

    row = task(["a"])
    copied = row.model_copy(deep=True)
    assert copied.source is env
    assert copied.args == row.args
    assert copied.args["words"] is not row.args["words"]


def test_two_templates_of_one_id_are_refused(env: Environment) -> None:
    async def task() -> Play:
        yield "x"

    env.template()(task)
    with pytest.raises(ValueError, match=r"already has one at .*test_declaring\.py:\d+"):
        env.template(id="task")(task)
    assert env.template(id="other")(task).id == "other"


def test_a_decorated_template_keeps_its_signature(env: Environment) -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @env.template()
    @logged
    async def task(word: str) -> Play:
        yield word

    assert list(task.arguments.parameters) == ["word"]
    assert task("x").args == {"word": "x"}


@pytest.mark.parametrize("kind", ["initialize", "shutdown", "teardown"])
def test_a_hook_that_is_not_async_is_refused(env: Environment, kind: str) -> None:
    with pytest.raises(TypeError, match="async def"):
        getattr(env, kind)(lambda: None)
    with pytest.raises(TypeError, match="no parentheses"):
        getattr(env, kind)(None)


def test_capabilities_are_replaced_by_name_and_checked(env: Environment) -> None:
    shell = Capability.ssh(url="ssh://host:22", host_pubkey="key")
    env.add_capability(shell)
    env.add_capability(Capability.ssh(url="ssh://other:22", host_pubkey="key"))
    assert [c.url for c in env.capabilities] == ["ssh://other:22"]
    assert env.capability("shell").url == "ssh://other:22"
    with pytest.raises(KeyError, match="no capability 'screen'; it has: shell"):
        env.capability("screen")
    with pytest.raises(TypeError, match="expected a Capability"):
        env.add_capability({"name": "x"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'x' has no url"):
        env.add_capability(Capability("x", "acme/1", ""))


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_name_is_a_text(name: Any) -> None:
    with pytest.raises(ValueError, match=f"an environment needs a name, a text, not {name!r}"):
        Environment(name)


def test_the_scaffold_of_the_guide_can_be_declared() -> None:
    env = Environment(
        name="...", capabilities=[Capability.ssh(name="shell", url="<url>", host_pubkey="<key>")]
    )
    assert env.capability("shell").url == "<url>"


def test_a_second_backing_of_one_name_is_refused(env: Environment, tmp_path: Path) -> None:
    first = env.use(UnconfinedWorkspace(tmp_path))
    assert env.backings == [first]
    with pytest.raises(ValueError, match="already has a capability 'shell'"):
        env.use(UnconfinedWorkspace(tmp_path))
    with pytest.raises(TypeError, match="no backing"):
        env.use(object())


def test_a_workspace_without_its_plugin_says_how_to_get_it(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hud.testing.plugins import isolated_host

    with isolated_host(), pytest.raises(PluginError, match="hud-capability-gui"):
        env.desktop()
    assert env.backings == []


def test_where_it_was_declared_is_known(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text(
        "from hud import Environment\n\ndef made(name):\n    return Environment(name)\n"
    )
    (tmp_path / "env.py").write_text(
        "from hud import Environment\nfrom lib import made\n\nenv = Environment('own')\nother = made('by-a-factory')\n"
    )
    for name in ("own", "by-a-factory"):
        assert load_environment(tmp_path / "env.py", name=name).source_file == tmp_path / "env.py"
    assert Environment("of a function").source_file is None, "no other process would find it"
    namespace: dict[str, Any] = {}
    exec("from hud import Environment\nenv = Environment('cell')", namespace)
    assert namespace["env"].source_file is None


@pytest.mark.anyio
async def test_messages_and_images_make_a_prompt(env: Environment) -> None:
    image = {"type": "image", "data": "aGk=", "mimeType": "image/png"}

    @env.template()
    async def chat() -> Play:
        yield {
            "prompt": [
                "plain",
                PromptMessage("system", "be brief"),
                {"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]},
                {"role": "assistant", "content": image},
            ],
            "bindings": {"robot": {"token": "t"}},
        }
        yield 1.0

    async with session_of(env) as session:
        assert await session.start("chat", {}) == {
            "prompt": [
                {"role": "user", "content": "plain"},
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]},
                {"role": "assistant", "content": image},
            ],
            "bindings": {"robot": {"token": "t"}},
        }


@pytest.mark.anyio
async def test_a_prompt_is_a_copy(env: Environment) -> None:
    messages: list[Any] = [{"role": "user", "content": "before"}]

    @env.template()
    async def task() -> Play:
        yield messages
        messages.clear()
        yield 1.0

    async with session_of(env) as session:
        reply = await session.start("task", {})
        await session.grade("")
        assert reply["prompt"] == [{"role": "user", "content": "before"}]


@pytest.mark.anyio
async def test_a_solution_receives_the_arguments_it_names(env: Environment) -> None:
    @env.template()
    async def add(a: int, b: int = 2, note: str = "") -> Play:
        answer = yield f"{a}+{b} {note}"
        yield float(answer == a + b)

    @add.solution
    async def _(run: Any, a: int, b: int) -> int:
        return a + b

    assert add.reference is not None
    assert await add.reference(None, {"a": "3"}) == 5
    assert (await play(env, "add", 5, a=3))["score"] == 1.0
    assert "solution" not in str(add.entry)

    @add.solution
    async def everything(run: Any, **args: Any) -> Any:
        return args

    assert await add.reference(None, {"a": 1}) == {"a": 1, "b": 2, "note": ""}

    @add.solution
    async def nothing(run: Any) -> str:
        return f"from {run}"

    assert await add.reference("run", {"a": 1}) == "from run"


def test_a_solution_that_is_not_async_is_refused(env: Environment) -> None:
    @env.template()
    async def task() -> Play:
        yield "x"

    with pytest.raises(TemplateTypeError, match=r"solution of template 'task' .* must be `async def`"):
        task.solution(lambda run: "x")
