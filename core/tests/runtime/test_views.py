"""What a rollout writes over its project is its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hud.errors import RuntimeStartError
from hud.runtime import zygote_table
from hud.runtime.local import LocalRuntime
from hud.runtime.view import COPY_LIMIT_BYTES, copy_project, enter_view
from hud.wire.client import connect

from .conftest import TELLER, Project, row, told

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="zygotes are for Linux"),
]


async def test_two_rollouts_write_the_same_file_and_neither_sees_the_other(project: Project) -> None:
    project.write("lower", "data.txt")
    runtime = LocalRuntime(project.file)
    look = "(Path('data.txt').read_text(), sorted(p.name for p in Path().iterdir() if p.suffix == '.txt'))"
    async with (
        runtime(row()) as one,
        runtime(row()) as two,
        connect(one) as first,
        connect(two) as second,
    ):
        for client, name in ((first, "one"), (second, "two")):
            wrote = f"(Path('data.txt').write_text('{name}'), Path('{name}.txt').write_text('new'))"
            await client.start_task("tell", {"what": wrote})
        assert (await first.start_task("tell", {"what": look}))[
            "prompt"
        ] == "('one', ['data.txt', 'one.txt'])"
        assert (await second.start_task("tell", {"what": look}))[
            "prompt"
        ] == "('two', ['data.txt', 'two.txt'])"
    assert (project.folder / "data.txt").read_text() == "lower"
    assert {path.name for path in project.folder.iterdir()} - {"__pycache__"} == {"data.txt", "env.py"}


async def test_absolute_paths_lead_into_the_view_too(project: Project) -> None:
    runtime = LocalRuntime(project.file)
    path = project.folder / "made.txt"
    assert (
        await told(runtime, f"(Path({str(path)!r}).write_text('x'), os.path.exists('made.txt'))[1]") == "True"
    )
    assert not path.exists()


async def test_the_view_covers_the_folder_of_hud_toml(project: Project) -> None:
    project.write("", "hud.toml")
    source = project.write(TELLER, "envs/deep/env.py")
    wrote = "(Path('../../shared.txt').write_text('x'), os.getcwd())[1]"
    assert await told(LocalRuntime(source), wrote) == str(source.parent)
    assert not (project.folder / "shared.txt").exists()


async def test_a_shared_view_is_the_project_itself(project: Project) -> None:
    await told(LocalRuntime(project.file, view="shared"), "Path('made.txt').write_text('x')")
    assert (project.folder / "made.txt").read_text() == "x"


async def test_a_folder_of_the_project_can_be_renamed(project: Project) -> None:
    project.write("x", "plain/inner/file.txt")
    move = "(os.rename if os.getuid() == 0 else __import__('shutil').move)('plain', 'moved')"
    look = f"({move}, sorted(os.listdir('moved')))[1]"
    assert await told(LocalRuntime(project.file), look) == "['inner']"
    assert (project.folder / "plain/inner/file.txt").exists()


async def test_a_workspace_can_be_renamed_whoever_serves(project: Project) -> None:
    project.write("x", "ws/inner/file.txt")
    project.write(
        project.file.read_text()
        + """
class Folder:
    name = "folder"
    root = Path("ws")
    async def start(self): return []
    async def stop(self): pass

env.use(Folder())
"""
    )
    look = "(os.rename('ws/inner', 'ws/moved'), os.listdir('ws'), os.listdir('ws/moved'))[1:]"
    assert await told(LocalRuntime(project.file), look) == "(['moved'], ['file.txt'])"
    assert (project.folder / "ws/inner/file.txt").exists()


async def test_job_files_are_masked(project: Project) -> None:
    project.write("secret", ".hud/jobs/one.jsonl")
    assert await told(LocalRuntime(project.file), "os.path.exists('.hud')") == "False"
    made = "(os.mkdir('.hud'), os.listdir('.hud'))[1]"
    assert await told(LocalRuntime(project.file), made) == "[]"
    assert (project.folder / ".hud/jobs/one.jsonl").exists()


async def test_odd_paths_are_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "a:b,c=d \\e 'f'\n"
    folder.mkdir()
    (folder / "env.py").write_text(TELLER)
    process_view = await told(LocalRuntime(folder / "env.py"), "Path('x').write_text('y')")
    assert process_view == "1"
    assert not (folder / "x").exists()
    zygote_table.end_all()


async def test_sockets_stay_reachable_when_they_lie_inside_the_project(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if len(str(tmp_path)) > 38:
        short = Path(f"/tmp/hud-test-{os.getpid()}")
        short.mkdir()
    else:
        short = tmp_path
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        (short / "env.py").write_text(TELLER)
        assert await told(LocalRuntime(short / "env.py"), "(Path('x').write_text('y'), 1)[1]") == "1"
        assert not (short / "x").exists()
    finally:
        zygote_table.end_all()
        monkeypatch.undo()
        await gone_soon(short / "hud")
        if short != tmp_path:
            subprocess.run(["rm", "-rf", str(short)], check=True)


async def gone_soon(folder: Path) -> None:
    from .conftest import eventually

    await eventually(lambda: not list(folder.iterdir()), f"{folder} is empty")


async def test_a_project_that_is_read_only_works(project: Project) -> None:
    project.folder.chmod(0o555)
    project.file.chmod(0o444)
    try:
        look = "(os.getcwd(), len(os.listdir()))[1] > 0"
        assert await told(LocalRuntime(project.file), look) == "True"
    finally:
        project.folder.chmod(0o755)


async def test_a_project_on_a_read_only_file_system_works(project: Project) -> None:
    if os.getuid() != 0:
        pytest.skip("only root mounts")
    subprocess.run(["mount", "--bind", str(project.folder), str(project.folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(project.folder)], check=True)
        wrote = "(Path('x').write_text('y'), Path('x').read_text())[1]"
        assert await told(LocalRuntime(project.file), wrote) == "y"
        zygote_table.end_all()
    finally:
        subprocess.run(["umount", str(project.folder)], check=True)


async def test_what_was_written_is_kept_on_request(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    await told(LocalRuntime(project.file, keep="failed"), "Path('good.txt').write_text('x')")
    assert "kept" not in capfd.readouterr().err
    with pytest.raises(LookupError):
        await failing_after(LocalRuntime(project.file, keep="failed"), "Path('bad.txt').write_text('x')")
    failed = Path(capfd.readouterr().err.rpartition(" in ")[2].strip())
    await told(LocalRuntime(project.file, keep="all"), "Path('all.txt').write_text('x')")
    everything = Path(capfd.readouterr().err.rpartition(" in ")[2].strip())
    try:
        assert (failed / "upper/bad.txt").read_text() == "x"
        assert (everything / "upper/all.txt").read_text() == "x"
    finally:
        from hud.runtime import folders

        folders.remove(failed)
        folders.remove(everything)


async def failing_after(runtime: LocalRuntime, expression: str) -> None:
    async with runtime(row()) as placed, connect(placed) as client:
        await client.start_task("tell", {"what": expression})
        raise LookupError(expression)


async def test_a_file_edited_under_running_rollouts_is_reported_once(
    project: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hud.runtime.project.Lower.LOOK_AGAIN_S", 0.0)
    project.write("before", "data.csv")
    runtime = LocalRuntime(project.file)
    async with runtime(row()):
        project.write("after, and longer", "data.csv")
        for _ in range(2):
            await told(runtime, "1")
    assert capfd.readouterr().err.count("data.csv changed while rollouts run") == 1


@pytest.mark.slow
async def test_fifty_thousand_files_and_two_gigabytes_are_not_copied(project: Project) -> None:
    for i in range(100):
        folder = project.folder / f"many/{i}"
        folder.mkdir(parents=True)
        for j in range(500):
            (folder / str(j)).touch()
    with (project.folder / "big").open("wb") as file:
        file.truncate(2 << 30)
    async with LocalRuntime(project.file)(row()) as placed, connect(placed) as client:
        wrote = "(Path('many/7/7').write_text('mine'), sum(1 for _ in Path('many').rglob('*')))[1]"
        assert (await client.start_task("tell", {"what": wrote}))["prompt"] == "50100"
        upper = [folder for folder in placed.params["process"].written if folder.exists()]
        written = [path for folder in upper for path in (folder / "upper").rglob("*") if path.is_file()]
        assert [path.name for path in written] == ["7"]
    assert (project.folder / "many/7/7").read_text() == ""


# Where there is no overlay.


def test_a_copy_leaves_out_what_is_large_and_not_source(project: Project, tmp_path: Path) -> None:
    for name in ("a.txt", ".git/objects/x", ".venv/lib/y", "node_modules/z", "deep/er/file", "deep/.hud/job"):
        project.write(name, name)
    (project.folder / "link").symlink_to("a.txt")
    copy_project(project.folder, tmp_path / "copy", allowance=1 << 20)
    copied = sorted(
        str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*") if not p.is_dir()
    )
    assert copied == ["a.txt", "deep/er/file", "env.py", "link"]
    assert (tmp_path / "copy/link").is_symlink()


def test_a_project_too_large_to_copy_names_the_way_out(project: Project, tmp_path: Path) -> None:
    with (project.folder / "big").open("wb") as file:
        file.truncate(COPY_LIMIT_BYTES + 1)
    view = {
        "engine": "private",
        "root": str(project.folder),
        "uppers": [str(tmp_path / "upper")],
        "roots": [],
        "visible": [],
    }
    with pytest.raises(RuntimeStartError, match='view="shared"') as caught:
        enter_view(view, own_mounts=False)
    assert "more than 200 MB" in str(caught.value)
    assert not (tmp_path / "upper/copy").exists()


def test_without_mounts_the_copy_lies_elsewhere(project: Project, tmp_path: Path) -> None:
    view = {
        "engine": "private",
        "root": str(project.folder),
        "uppers": [str(tmp_path / "upper")],
        "roots": [],
        "visible": [],
    }
    engine, root = enter_view(view, own_mounts=False)
    assert engine in ("copy", "reflink")
    assert (root / "env.py").read_text() == project.file.read_text()
    (root / "env.py").write_text("changed")
    assert project.file.read_text() != "changed"
