"""Rows: from code, from files, chosen, written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hud.agents import OracleAgent
from hud.environment import Environment
from hud.errors import PluginNotInstalledError, SourceError, TasksetError
from hud.eval import LocalRuntime, Run, Task, Taskset
from hud.plugins.hookspecs import hookimpl
from hud.plugins.kinds import TasksetFormatKind
from hud.testing import isolated_host
from hud.types import ComposeProject, RuntimeConfig

ENV = """
from hud.environment import Environment

env = Environment(name="desk")


@env.template()
async def add(a: int, b: int = 2):
    answer = yield f"What is {a} + {b}?"
    yield float(answer == str(a + b))


@env.template()
async def needs(path: str, deep: bool):
    yield "x"
    yield 1.0
"""


def row(slug: str, template: str = "add") -> Task:
    return Task(env="desk", id=template, slug=slug)


def test_rows_are_had_by_slug_and_in_order() -> None:
    taskset = Taskset("t", [row("one"), row("two")])
    assert [task.slug for task in taskset] == ["one", "two"]
    assert len(taskset) == 2
    assert taskset["two"].slug == "two"
    assert "one" in taskset
    assert [slug for slug, _ in taskset.items()] == ["one", "two"]
    with pytest.raises(KeyError, match=r"no row 'tow'; close: two"):
        taskset["tow"]


def test_two_rows_of_one_slug_are_refused() -> None:
    with pytest.raises(TasksetError, match="same slug: 'one'"):
        Taskset("t", [row("one"), row("one")])


def test_a_generator_that_was_not_called_is_told_so() -> None:
    def rows() -> Iterator[Task]:
        yield row("one")

    uncalled: Any = rows
    with pytest.raises(TasksetError, match=r"not function .*; call it: rows\(\)"):
        Taskset("t", uncalled)
    single: Any = row("one")
    with pytest.raises(TasksetError, match=r"not Task .*; put it into a list"):
        Taskset("t", single)


def test_rows_in_the_place_of_the_name_are_refused() -> None:
    rows: Any = [row("one")]
    with pytest.raises(
        TasksetError, match=r"name of a taskset must be text, not list: write Taskset\(NAME, ROWS\)"
    ):
        Taskset(rows)


def test_what_is_no_row_is_refused() -> None:
    nothing: Any = [row("one"), {"env": "desk"}]
    with pytest.raises(TasksetError, match="row 1: dict is no Task"):
        Taskset("t", nothing)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["b-2"], ["b-2"]),
        (["add"], ["a-1", "a-2"]),
        (["0", "3"], ["a-1", "c"]),
        ([1], ["a-2"]),
        (["a-*"], ["a-1", "a-2"]),
        (["?-2"], ["a-2", "b-2"]),
        (["c", "a-1"], ["a-1", "c"]),
        ("c", ["c"]),
    ],
)
def test_rows_are_chosen_by_slug_template_index_or_pattern(names: Any, chosen: list[str]) -> None:
    taskset = Taskset("t", [row("a-1"), row("a-2"), row("b-2", "other"), row("c", "third")])
    assert [task.slug for task in taskset.filter(names)] == chosen
    assert [task.slug for task in taskset.exclude(names)] == [s for s in taskset._tasks if s not in chosen]


def test_a_name_that_chooses_nothing_is_told_with_what_is_close() -> None:
    taskset = Taskset("t", [row("sum-small"), row("sum-large")])
    with pytest.raises(TasksetError, match=r"no row matches 'sum-smal' \(close: sum-small"):
        taskset.filter(["sum-smal"])
    with pytest.raises(TasksetError, match="'7'"):
        taskset.filter(["7"])


def test_environment_names_are_sorted_and_once_each() -> None:
    tasks = [Task(env="b", id="x"), Task(env="a", id="y"), Task(env="b", id="z")]
    assert Taskset("t", tasks).environment_names() == ["a", "b"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_rows_come_back_from_a_file_as_they_were(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "compose.yml").touch()
    tasks = [
        Task(env="desk", id="add", args={"a": 1, "text": "Grüße\n"}, columns={"level": 3}),
        Task(env="desk", id="add", slug="second", agent_config={"max_steps": 3}, validation=[{"x": 1}]),
        Task(env="desk", id="add", slug="checked", verifier=Task(env="court", id="check")),
        Task(
            env="desk",
            id="add",
            slug="composed",
            runtime_config=RuntimeConfig(compose=ComposeProject(tmp_path / "compose.yml", tmp_path)),
        ),
    ]
    path = Taskset("t", tasks).to_file(tmp_path / "out" / f"rows{suffix}")
    text = path.read_text()
    assert "null" not in text
    assert str(tmp_path) not in text, "paths are relative"
    assert "../compose.yml" in text
    read = Taskset.from_file(path)
    assert read.name == "rows"
    assert [task.model_dump() for task in read] == [task.model_dump() for task in tasks]


def test_rows_are_exported_as_csv(tmp_path: Path) -> None:
    tasks = [
        Task(env="desk", id="add", args={"a": 1}, slug="one", columns={"level": 3}),
        Task(env="desk", id="add", slug="two", columns={"tags": ["x", "y"]}),
    ]
    path = Taskset("t", tasks).to_file(tmp_path / "rows.csv")
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["slug", "env", "id", "args", "level", "tags"],
            ["one", "desk", "add", '{"a": 1}', "3", ""],
            ["two", "desk", "add", "{}", "", '["x", "y"]'],
        ]
    with pytest.raises(TasksetError, match=r"\.json, \.jsonl or \.csv"):
        Taskset("t", tasks).to_file(tmp_path / "rows.xlsx")


def test_an_object_with_tasks_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"name": "x", "tasks": [{"env": "desk", "id": "add"}]}))
    assert [task.slug for task in Taskset.from_file(path)] == ["add"]


def test_all_faulty_lines_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"env": "desk", "id": "add", "slug": "a"}\n'
        "\n"
        '{"env": "desk", "id": "add", \n'
        '{"env": "desk", "id": "add", "slug": "a"}\n'
        '{"env": "desk", "id": "add", "colour": "red", "slug": "b"}\n'
        '{"id": "add"}\n'
        '["desk"]\n'
        '{"env": "", "id": "add"}\n'
        '{"env": "desk", "id": "c", "verifier": {"env": "x", "id": "y", "verifier": {"env": "x", "id": "z"}}}\n'
        '{"env": "desk", "id": "d", "args": {"x": NaN}}\n'
        '{"env": "desk", "id": "e", "args": "a=1"}\n'
    )
    with pytest.raises(TasksetError) as caught:
        Taskset.from_file(path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("has 9 faulty rows:")
    for place, (line, said) in enumerate(
        [
            (3, "not JSON"),
            (4, "slug 'a' is already that of line 1"),
            (5, "colour"),
            (6, "env"),
            (7, "a row is an object, not"),
            (8, "env is empty"),
            (9, "verifier cannot have a verifier"),
            (10, "NaN is no number"),
            (11, "args"),
        ]
    ):
        told = next(found for found in lines[1:] if f"rows.jsonl:{line}:" in found)
        assert said in told, place


def test_a_json_list_names_the_lines_of_its_faulty_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(
        '[\n  {"env": "desk", "id": "add"},\n  {"env": "desk"},\n\n  {"env": 3,\n   "id": "x"}\n]\n'
    )
    with pytest.raises(TasksetError) as caught:
        Taskset.from_file(path)
    assert "rows.json:3: id" in str(caught.value)
    assert "rows.json:5: env" in str(caught.value)


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = ["  " + json.dumps({"env": "desk", "id": "add", "slug": f"r{i}"}) for i in range(20)]
    rows[15] = '  {"env": "desk", "id" "add"}'
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    with pytest.raises(TasksetError, match=r"rows\.json:17: not JSON .*\"id\" \"add\""):
        Taskset.from_file(path)


@pytest.mark.parametrize("text", ["", "3", '{"rows": []}', '"tasks"', "[" * 100_000, '{"a": ' * 50_000])
def test_a_file_that_is_no_list_of_rows_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(TasksetError, match=r"rows\.json"):
        Taskset.from_file(path)


def test_what_nothing_reads_is_told_with_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.xml").touch()
    with pytest.raises(TasksetError, match=r"nothing reads \.xml files; rows are read from \.py"):
        Taskset.from_file(tmp_path / "rows.xml")
    with pytest.raises(TasksetError, match="no such file"):
        Taskset.from_file(tmp_path / "gone.jsonl")


def load_rows(source: str) -> list[Task]:
    return [Task(env="desk", id="add", slug=f"{source}-{i}") for i in range(2)]


def test_a_plugin_reads_its_own_format(tmp_path: Path) -> None:
    class Formats:
        @hookimpl
        def hud_taskset_formats(self) -> list[TasksetFormatKind]:
            target = f"{__name__}:load_rows"
            return [
                TasksetFormatKind(name="acme", pattern="acme:", target=target),
                TasksetFormatKind(name="parquet", pattern="*.parquet", target=target),
            ]

    (tmp_path / "rows.parquet").touch()
    import sys

    sys.modules.setdefault(__name__, sys.modules[test_a_plugin_reads_its_own_format.__module__])
    with isolated_host(Formats()):
        taskset = Taskset.from_file("acme:letters")
        assert (taskset.name, len(taskset)) == ("letters", 2)
        assert len(Taskset.from_file(tmp_path / "rows.parquet")) == 2


def test_the_platforms_tasksets_need_its_plugin() -> None:
    with (
        isolated_host(),
        pytest.raises(PluginNotInstalledError, match="hud-runtime-hud, which has no release yet"),
    ):
        Taskset.from_api("letters")


def test_a_module_gives_its_public_rows_each_once(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "tasks.py").write_text(
        "from hud.eval import Task, Taskset\n"
        "from env import add\n"
        "one = add(1)\n"
        "more = [add(2), one]\n"
        "both = (add(3),)\n"
        "_hidden = add(4)\n"
        "plain = Task(env='desk', id='add', args={'a': 5})\n"
        "TASKS = Taskset('sums', [one, add(6)])\n"
        "other = [1, 2]\n"
    )
    taskset = Taskset.from_file(tmp_path / "tasks.py")
    assert taskset.name == "sums"
    assert [task.args["a"] for task in taskset] == [1, 2, 3, 5, 6]
    assert taskset["add-" + taskset[3].slug[4:]].source == tmp_path / "env.py"
    assert taskset[0].source.source_file == tmp_path / "env.py"
    assert [t.args["a"] for t in Taskset.from_file(tmp_path)] == [1, 2, 3, 5, 6], "a folder's tasks.py"
    assert [t.args["a"] for t in Taskset.from_file(f"{tmp_path}/tasks.py:more")] == [2, 1]
    with pytest.raises(TasksetError, match="is a list, no Task"):
        Taskset.from_file(f"{tmp_path}/tasks.py:other")
    with pytest.raises(TasksetError, match="has no 'nope'"):
        Taskset.from_file(f"{tmp_path}/tasks.py:nope")


def test_a_source_without_rows_gives_one_for_each_template_that_needs_nothing(tmp_path: Path) -> None:
    free = "\n@env.template()\nasync def free(x: int = 1):\n    yield 'x'\n    yield 1.0\n"
    (tmp_path / "env.py").write_text(ENV + free)
    assert [(task.id, task.args) for task in Taskset.from_file(tmp_path / "env.py")] == [("free", {})]


def test_a_sibling_tasks_file_is_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "tasks.py").write_text("from env import add\nTASKS = [add(1), add(2)]\n")
    assert len(Taskset.from_file(tmp_path / "env.py")) == 2
    assert "tasks.py" in capsys.readouterr().err


def test_templates_that_need_arguments_are_listed_with_them(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    with pytest.raises(TasksetError) as caught:
        Taskset.from_file(tmp_path / "env.py")
    text = str(caught.value)
    assert "add(a, b=2)" in text
    assert "needs(path, deep)" in text
    assert """--task add --args '{"a": "..."}'""" in text


def test_a_source_that_cannot_be_imported_shows_its_author_why(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(SourceError, match="nothing_of_this_name"):
        Taskset.from_file(tmp_path / "tasks.py")
    with pytest.raises(TasksetError, match="no such file"):
        Taskset.from_file(tmp_path / "gone.py")


def test_a_generator_in_a_module_stays_one(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "tasks.py").write_text(
        "import itertools\nfrom hud.eval import Taskset\nfrom env import add\n"
        "TASKS = Taskset('endless', (add(a) for a in itertools.count()))\n"
    )
    taskset = Taskset.from_file(tmp_path / "tasks.py")
    assert taskset.is_lazy
    assert taskset.name == "endless"


@pytest.mark.anyio
async def test_a_row_of_an_unknown_environment_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"env": "desk", "id": "add", "args": {"a": 1}}\n'
        '{"env": "desq", "id": "add", "slug": "x"}\n'
        '{"env": "desk", "id": "ad", "slug": "y"}\n'
    )

    async def agent(run: Run) -> str:
        raise AssertionError("nothing may start")

    with pytest.raises(TasksetError) as caught:
        await Taskset.from_file(path).run(agent)
    assert "rows.jsonl:2: no environment 'desq'" in str(caught.value)
    assert "it has desk" in str(caught.value)
    assert "rows.jsonl:3: environment 'desk' has no task 'ad' (it has add" in str(caught.value)


def test_rows_beside_an_env_file_know_where_they_are_declared(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"env": "desk", "id": "add", "args": {"a": 1}}\n')
    assert Taskset.from_file(tmp_path / "rows.jsonl")[0].source is None
    (tmp_path / "env.py").write_text(ENV)
    assert Taskset.from_file(tmp_path / "rows.jsonl")[0].source == tmp_path / "env.py"


@pytest.mark.anyio
async def test_an_environment_that_only_a_function_has_is_served_here() -> None:
    env = Environment(name="local")

    @env.template()
    async def add(a: int = 1) -> AsyncIterator[Any]:
        answer = yield f"{a} + 1"
        yield float(answer == str(a + 1))

    @add.solution
    async def _(run: Run, a: int = 1) -> str:
        return str(a + 1)

    job = await Taskset("t", [add(a=2)]).run(OracleAgent())
    assert (job.reward, job.runs[0].error) == (1.0, None)


@pytest.mark.slow
def test_environments_of_a_factory_have_processes_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text(
        "import os\nfrom hud.environment import Environment\n\n"
        "def made(name):\n    env = Environment(name=name)\n\n"
        "    @env.template()\n    async def where():\n        yield 'x'\n        yield float(os.getpid())\n\n"
        "    return env\n"
    )
    (tmp_path / "env.py").write_text("from lib import made\n\nenv = made('by-a-factory')\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("hud"), "eval", "env.py", "noop", "--group", "2", "--jsonl"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert len({json.loads(line)["reward"] for line in done.stdout.splitlines()}) == 2, done.stderr


@pytest.mark.anyio
async def test_a_placement_whose_source_is_missing_fails_each_rollout_and_leaves_nothing_to_give_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [row("one"), row("two")]
    job = await Taskset("t", rows).run(OracleAgent(), runtime=LocalRuntime("absent.py"))
    assert [run.failure.type for run in job.runs if run.failure] == ["SourceError", "SourceError"]
    assert "there is no such file" in (job.runs[0].error or "")
    assert caplog.text == ""
