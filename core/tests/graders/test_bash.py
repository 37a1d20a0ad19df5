"""BashGrader on a real shell: what is a score, and what is a failure to decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from hud.environment import Environment
from hud.errors import GraderError
from hud.graders import BashGrader
from hud.testing.backing import UnconfinedWorkspace
from hud.testing.environments import play, session_of

pytestmark = pytest.mark.anyio

Play = AsyncGenerator[Any, Any]


async def score(workspace: UnconfinedWorkspace | None = None, **options: Any) -> dict[str, Any]:
    """Grade with BashGrader in an environment with one workspace; return the subscore that travels."""
    env = Environment("bash")
    env.use(workspace or UnconfinedWorkspace())

    @env.template()
    async def task() -> Play:
        yield "x"
        yield await BashGrader.grade(**options)

    subscore: dict[str, Any] = (await play(env, "task"))["subscores"][0]
    return subscore


async def test_exit_status_zero_is_1_and_any_other_is_0() -> None:
    good = await score(command="echo out; echo err >&2")
    assert good["value"] == 1.0
    assert good["name"] == "BashGrader"
    assert good["info"]["exit_code"] == 0
    assert good["info"]["stdout"] == "out\n"
    assert good["info"]["stderr"] == "err\n"
    bad = await score(command="exit 3")
    assert bad["value"] == 0.0
    assert bad["info"]["exit_code"] == 3
    assert (await score(command=["test", "-d", "."]))["value"] == 1.0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sleep 60", r"did not end within 0\.2 s"),
        ("no-such-program --flag", "there is no program 'no-such-program'"),
        (["no-such-program"], "there is no program 'no-such-program'"),
        ("kill -9 $$", "was killed by SIGKILL"),
        ("kill -TERM $$", "was killed by SIGTERM"),
    ],
)
async def test_what_could_not_decide_is_an_error_and_told_apart(command: Any, said: str) -> None:
    with pytest.raises(GraderError, match=said):
        await score(command=command, timeout_seconds=0.2 if "sleep" in command else 60)


async def test_what_the_agent_broke_is_a_zero() -> None:
    assert (await score(command="kill -SEGV $$"))["value"] == 0.0
    assert (await score(command="./solve.sh"))["value"] == 0.0


async def test_hidden_files_exist_for_the_command_alone(tmp_path: Path) -> None:
    expected = tmp_path / "expected.txt"
    expected.write_text("42\n")
    root = tmp_path / "ws"
    root.mkdir()
    (root / "answer.txt").write_text("42\n")
    workspace = UnconfinedWorkspace(root)
    graded = await score(
        workspace,
        command="cmp answer.txt hidden/want && cmp answer.txt other",
        files={"hidden/want": expected, "other": "42\n"},
    )
    assert graded["value"] == 1.0
    assert not (root / "hidden" / "want").exists()


async def test_paths_of_the_folder_here_are_translated(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    workspace = UnconfinedWorkspace(root, guest_root="/workspace")
    env = Environment("paths")
    env.use(workspace)

    @env.template()
    async def task() -> Play:
        yield "x"
        (root / "sub").mkdir()
        yield await BashGrader.grade(command=f"echo {root}/sub {root}x {root}", cwd=root / "sub")

    info = (await play(env, "task"))["subscores"][0]["info"]
    assert info["stdout"] == f"/workspace/sub {root}x /workspace\n"


async def test_long_output_is_cut() -> None:
    info = (await score(command="head -c 1000000 /dev/zero | tr '\\0' x"))["info"]
    assert len(info["stdout"]) < 17_000
    assert "characters left out" in info["stdout"]


async def test_without_a_workspace_it_is_a_typed_error() -> None:
    env = Environment("bare")

    @env.template()
    async def task() -> Play:
        yield "x"
        yield await BashGrader.grade(command="true")

    with pytest.raises(GraderError, match=r"has no workspace to grade in; declare one with env\.workspace"):
        await play(env, "task")
    with pytest.raises(GraderError, match="within a template"):
        await BashGrader.grade(command="true")


async def test_of_several_workspaces_one_must_be_named(tmp_path: Path) -> None:
    env = Environment("two")
    env.use(UnconfinedWorkspace(tmp_path / "a", name="a"))
    env.use(UnconfinedWorkspace(tmp_path / "b", name="b"))
    asked: list[str | None] = []

    @env.template()
    async def task(workspace: str | None = None) -> Play:
        asked.append(workspace)
        yield "x"
        yield await BashGrader.grade(command="touch mark", workspace=workspace)

    with pytest.raises(GraderError, match=r"several workspaces \('a', 'b'\); choose with workspace="):
        await play(env, "task")
    with pytest.raises(GraderError, match="no workspace 'c'; it has: 'a', 'b'"):
        await play(env, "task", workspace="c")
    assert (await play(env, "task", workspace="b"))["score"] == 1.0
    assert (tmp_path / "b" / "mark").exists()
    assert not (tmp_path / "a" / "mark").exists()


async def test_a_workspace_can_be_given_outside_of_a_template(tmp_path: Path) -> None:
    workspace = UnconfinedWorkspace(tmp_path)
    await workspace.start()
    assert (await BashGrader.grade(command="true", workspace=workspace)).value == 1.0
    await workspace.stop()


async def test_cancelling_a_grade_ends_its_command(tmp_path: Path) -> None:
    env = Environment("cancel")
    env.use(UnconfinedWorkspace(tmp_path))

    @env.template()
    async def task() -> Play:
        yield "x"
        yield await BashGrader.grade(command="echo $$ > pid; sleep 600")

    async with session_of(env) as session:
        await session.start("task", {})
        grade = asyncio.ensure_future(session.grade(""))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.02)
        await session.cancel()
        await asyncio.wait([grade])
        assert grade.exception() is not None
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists() or "sleep" not in Path(f"/proc/{pid}/cmdline").read_text()
