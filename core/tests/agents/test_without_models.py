"""Agents that need no model: oracle, noop, replay, human; and how agents are named and configured."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hud.agents import Agent, AgentConfig, HumanAgent, NoopAgent, OracleAgent, ReplayAgent, create_agent
from hud.agents.names import agent_named
from hud.capability.tool import Tool
from hud.environment import Environment
from hud.errors import ConfigError, PluginNotInstalledError, UsageError
from hud.eval import Run, Taskset
from hud.plugins.hookspecs import hookimpl
from hud.plugins.kinds import AgentKind, CapabilityKind
from hud.testing import isolated_host
from hud.types import AgentStep, Capability, MCPToolCall, MCPToolResult, Task, ToolStep

pytestmark = pytest.mark.anyio

ENV = """
from hud.environment import Environment

env = Environment(name="desk")


@env.template()
async def add(a: int = 1, b: int = 2):
    answer = yield f"What is {a} + {b}?"
    yield float(answer == str(a + b))


@env.template()
async def unsolved():
    yield "x"
    yield 0.0
"""
SOLUTION = """

@add.solution
async def _(run, a, b):
    return str(a + b)
"""


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def live() -> Environment:
    env = Environment(name="desk")

    @env.template()
    async def add(a: int = 1, b: int = 2) -> AsyncIterator[Any]:
        answer = yield f"What is {a} + {b}?"
        yield float(answer == str(a + b))

    @add.solution
    async def _(run: Run, a: int, b: int) -> str:
        return str(a + b)

    return env


async def test_the_oracle_solves_what_the_environment_declares(live: Environment) -> None:
    taskset = Taskset("t", [live.tasks["add"](a=a) for a in range(3)])
    assert (await taskset.run(OracleAgent())).reward == 1.0


async def test_noop_scores_nothing_and_calls_nothing(live: Environment) -> None:
    job = await Taskset("t", [live.tasks["add"]()]).run(NoopAgent())
    assert job.reward == 0.0
    assert [step.source for step in job.runs[0].trace.steps] == ["task", "task"]
    assert job.agent == "noop"


def test_the_oracle_finds_a_solution_in_the_rows_own_file(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV + SOLUTION)
    row = Task(env="desk", id="add", source=tmp_path / "env.py")
    assert OracleAgent().solution_of(row).template.id == "add"


def test_the_oracle_finds_a_solution_in_the_source_given(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV + SOLUTION)
    row = Task(env="desk", id="add")
    assert OracleAgent(tmp_path / "env.py").solution_of(row).template.id == "add"
    assert OracleAgent(tmp_path).solution_of(row).template.id == "add"


def test_the_oracle_finds_a_solution_kept_out_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "solutions.py").write_text("from env import add\n" + SOLUTION)
    row = Task(env="desk", id="add", source=tmp_path / "env.py")
    assert OracleAgent().solution_of(row).template.id == "add"


def test_an_absent_solution_is_told_with_the_places_looked_at(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    row = Task(env="desk", id="unsolved", source=tmp_path / "env.py")
    with pytest.raises(UsageError) as caught:
        OracleAgent(tmp_path / "env.py").solution_of(row)
    text = str(caught.value)
    assert str(tmp_path / "env.py") in text
    assert "@unsolved.solution" in text
    assert "--source PATH" in text
    with pytest.raises(UsageError, match="does not say where it was declared"):
        OracleAgent().solution_of(Task(env="desk", id="unsolved"))


async def test_an_absent_solution_fails_the_rollout_and_nothing_else(live: Environment) -> None:
    @live.template()
    async def unsolved() -> AsyncIterator[Any]:
        yield "x"
        yield 0.0

    job = await Taskset("t", [live.tasks["unsolved"](), live.tasks["add"]()]).run(OracleAgent())
    first, second = job.runs
    assert first.failure is not None
    assert (first.failure.kind, first.failure.type) == ("usage", "UsageError")
    assert second.reward == 1.0


class Pad:
    """A capability's client: a pad one can write on."""

    families: ClassVar[tuple[str, ...]] = ("pad",)
    written: ClassVar[list[str]] = []

    @classmethod
    async def connect(cls, capability: Capability, opener: Any = None) -> Pad:
        return cls()

    async def close(self) -> None: ...


def pad_tools(client: Pad, capability: Capability) -> list[Tool]:
    async def write(arguments: Mapping[str, Any]) -> MCPToolResult:
        client.written.append(arguments["text"])
        return MCPToolResult.of_text(f"{len(client.written)} lines")

    return [Tool("write", "Write a line.", {"type": "object"}, write)]


class PadPlugin:
    @hookimpl
    def hud_capabilities(self) -> list[CapabilityKind]:
        home = Pad.__module__
        return [
            CapabilityKind(name="pad", protocols=("pad/1",), client=f"{home}:Pad", tools=f"{home}:pad_tools")
        ]


async def test_replay_makes_the_recorded_calls_again(
    live: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, Pad.__module__, sys.modules[__name__])
    live.add_capability(Capability("pad", "pad/1", "tcp://127.0.0.1:9"))

    async def model(run: Run) -> str:
        run.record(AgentStep(content="I write it down"))
        call = MCPToolCall("write", {"text": "3"}, id="c1")
        run.record(ToolStep(call=call, result=MCPToolResult.of_text("1 lines")))
        call = MCPToolCall("erase", {}, id="c2")
        run.record(ToolStep(call=call, result=MCPToolResult.of_text("done")))
        return "3" if run.index % 2 == 0 else "wrong"

    with isolated_host(PadPlugin()):
        taskset = Taskset("t", [live.tasks["add"]()])
        recorded = await taskset.run(model, group=2)
        assert [run.reward for run in recorded.runs] == [1.0, 0.0]
        job = await taskset.run(ReplayAgent(recorded.id[:10]))
        assert job.reward == 1.0, "the best recorded rollout is repeated"
        worse = ReplayAgent(recorded.path, run_id=recorded.runs[1].trace_id)
        assert (await taskset.run(worse)).reward == 0.0
    assert Pad.written == ["3", "3"]
    tools = [step for step in job.runs[0].trace.steps if isinstance(step, ToolStep)]
    assert [step.result.text for step in tools] == ["1 lines", "there is no tool 'erase'; there are: write"]
    assert tools[0].extra == {}
    assert tools[1].extra["differs"].startswith("failed now, not then")
    told = job.runs[0].trace.extra["replay"]
    assert (told["of"], told["calls"], told["differences"]) == (recorded.runs[0].trace_id, 2, 1)
    assert (told["first"]["step"], told["first"]["tool"], told["first"]["recorded"]) == (3, "erase", "done")


async def test_replay_says_what_it_lacks(live: Environment) -> None:
    with pytest.raises(UsageError, match="replay needs the job"):
        ReplayAgent().record_for("add")
    recorded = await Taskset("t", [live.tasks["add"]()]).run(NoopAgent())
    with pytest.raises(UsageError, match=r"has no rollout of row 'sub'; it has \['add'\]"):
        ReplayAgent(recorded.id).record_for("sub")


async def test_a_person_is_asked_and_answers(live: Environment) -> None:
    shown = io.StringIO()
    agent = HumanAgent(input=io.StringIO("3\n"), output=shown)
    job = await Taskset("t", [live.tasks["add"]()]).run(agent)
    assert job.reward == 1.0
    assert "What is 1 + 2?" in shown.getvalue()


async def test_a_person_may_answer_in_several_lines_or_not_at_all(live: Environment) -> None:
    answers: list[Any] = []

    @live.template()
    async def poem() -> AsyncIterator[Any]:
        answer = yield "Write a poem."
        answers.append(answer)
        yield 1.0

    row = live.tasks["poem"]()
    agent = HumanAgent(multiline=True, input=io.StringIO("roses\nviolets\n.\nmore\n"), output=io.StringIO())
    await Taskset("t", [row]).run(agent)
    await Taskset("t", [row]).run(HumanAgent(input=io.StringIO(""), output=io.StringIO()))
    assert answers == ["roses\nviolets", ""]


async def test_a_person_is_shown_the_way_in(live: Environment) -> None:
    live.add_capability(
        Capability.ssh(url="ssh://203.0.113.5:2222", host_pubkey="k", client_key_path="/keys/id")
    )
    shown = io.StringIO()
    await Taskset("t", [live.tasks["add"]()]).run(HumanAgent(input=io.StringIO("3\n"), output=shown))
    assert "ssh -i /keys/id -p 2222 agent@203.0.113.5" in shown.getvalue()


async def test_rollouts_ask_a_person_one_at_a_time(live: Environment) -> None:
    """Each answer goes to the question that was shown last, however many rollouts wait for the person."""

    class Person(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
            a, b = re.findall(r"What is (\d+) \+ (\d+)", shown.getvalue())[-1]
            return f"{int(a) + int(b)}\n"

    shown = io.StringIO()
    rows = [live.tasks["add"](a=a) for a in range(8)]
    job = await Taskset("t", rows).run(HumanAgent(input=Person(), output=shown), max_concurrent=8)
    assert job.reward == 1.0
    assert len(re.findall("answer: ", shown.getvalue())) == 8


async def test_without_a_terminal_a_person_cannot_be_asked(
    live: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("3\n"))
    job = await Taskset("t", [live.tasks["add"]()]).run(HumanAgent())
    assert job.runs[0].failure is not None
    assert "needs a terminal" in job.runs[0].failure.message


async def test_a_cancelled_question_waits_for_no_key(live: Environment) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Silent(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
            loop.call_soon_threadsafe(asked.set)
            gate.wait(30)
            return ""

    import threading

    gate = threading.Event()
    agent = HumanAgent(input=Silent(), output=io.StringIO())
    running = asyncio.ensure_future(Taskset("t", [live.tasks["add"]()]).run(agent))
    await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.set()


class CarefulConfig(AgentConfig):
    max_steps: int = 10
    temperature: float = 0.0


class Careful(Agent[CarefulConfig]):
    config_cls = CarefulConfig

    async def __call__(self, run: Run) -> str:
        run.trace.extra["max_steps"] = self.config.max_steps
        return "3"


def test_a_configuration_is_checked_dumped_and_loaded() -> None:
    agent = Careful({"max_steps": 5, "checkpoint_name": "m-1"})
    assert (agent.config.max_steps, agent.config.model, agent.config.temperature) == (5, "m-1", 0.0)
    assert Careful.load(agent.dump()).config == agent.config
    assert Careful(CarefulConfig(max_steps=3)).config.max_steps == 3
    with pytest.raises(ConfigError, match=r"Careful: unknown key 'maxsteps' \(known: .*max_steps"):
        _ = Careful({"maxsteps": 5}).config
    with pytest.raises(ConfigError, match="max_steps='many'"):
        _ = Careful({"max_steps": "many"}).config


async def test_a_rows_agent_config_holds_for_that_row_alone(live: Environment) -> None:
    agent = Careful({"max_steps": 5})
    rows = [live.tasks["add"](a=a) for a in (1, 2)]
    rows[1].agent_config = {"max_steps": 7}
    job = await Taskset("t", rows).run(agent)
    assert [run.trace.extra["max_steps"] for run in job.runs] == [5, 7]
    assert agent.config.max_steps == 5
    rows[1].agent_config = {"colour": "red"}
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        await Taskset("t", rows).run(agent)


async def test_plain_agents_refuse_what_they_do_not_know(live: Environment) -> None:
    rows = [live.tasks["add"]()]
    rows[0].agent_config = {"temperature": 1}
    with pytest.raises(ConfigError, match="NoopAgent does not know"):
        await Taskset("t", rows).run(NoopAgent())
    rows[0].agent_config = {"max_steps": 3}
    assert (await Taskset("t", rows).run(NoopAgent())).reward == 0.0


class Models:
    @hookimpl
    def hud_agents(self) -> list[AgentKind]:
        return [AgentKind(name="careful", target=f"{Careful.__module__}:Careful", models=("m-*",))]


def test_agents_are_named_by_kind_model_or_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, Careful.__module__, sys.modules[__name__])
    (tmp_path / "mine.py").write_text(
        "async def agent(run): return '3'\nclass Mine:\n    def __init__(self, depth=1): self.depth = depth\n"
        "    async def __call__(self, run): return '3'\nnumber = 3\n"
    )
    with isolated_host(Models()):
        assert isinstance(agent_named("noop"), NoopAgent)
        assert agent_named("oracle", source="env.py").source == "env.py"
        assert agent_named("careful", max_steps=3).config.max_steps == 3
        assert agent_named("m-large").config.model == "m-large"
        assert create_agent("m-large", temperature=0.5).config.temperature == 0.5
        assert agent_named("mine.py:agent").__name__ == "agent"
        assert agent_named("mine:Mine", depth=4).depth == 4
        with pytest.raises(UsageError, match="mine has no 'agnet'; it has agent"):
            agent_named("mine:agnet")
        with pytest.raises(UsageError, match="is a int, no async callable"):
            agent_named("mine:number")
        with pytest.raises(UsageError, match="takes no configuration"):
            agent_named("mine:agent", depth=1)
        with pytest.raises(UsageError, match="no module 'nowhere'"):
            agent_named("nowhere:agent")
        with pytest.raises(UsageError, match="NoopAgent has no setting 'depth'; it takes none"):
            agent_named("noop", depth=1)


def test_an_unknown_agent_is_told_with_what_was_looked_for() -> None:
    with isolated_host(), pytest.raises(UsageError) as caught:
        agent_named("orcale")
    text = str(caught.value)
    assert "no agent 'orcale'" in text
    assert "human, noop, oracle, replay" in text
    assert "MODULE:NAME" in text
    assert "Did you mean oracle" in text
    assert "base_url=" in text


@pytest.mark.parametrize("name", ["claud-sonnet-4-5", "gtp-5"])
def test_a_mistyped_model_is_told_with_close_names(name: str) -> None:
    with pytest.raises(UsageError, match=r"Did you mean (claude-sonnet-4-5|gpt-5)\b"):
        agent_named(name)


def test_a_models_tag_is_taken_for_no_broken_module() -> None:
    with pytest.raises(UsageError, match=r"no module 'llama3' here or installed.*base_url=") as caught:
        agent_named("llama3:8b")
    assert type(caught.value) is UsageError


@pytest.mark.parametrize("name", ["claude", "claude-sonnet-4-5"])
def test_an_absent_plugins_agent_has_its_install_line(name: str) -> None:
    with isolated_host(), pytest.raises(PluginNotInstalledError, match="pip install hud-agent-claude"):
        agent_named(name)
