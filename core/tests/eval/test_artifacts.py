"""Files carried from a workspace: what matches, what is refused, and how much."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hud.capability.interfaces import CommandResult, Shell, ShellSession
from hud.errors import HudError, RuntimeFault
from hud.eval.artifacts import collect, deliver, matcher

pytestmark = pytest.mark.anyio


class FolderShell:
    """A shell on a folder of this machine, unconfined; its files as the protocol tells."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cwd = str(folder)
        self.truncates = False

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | bytes | None = None,  # noqa: A002 - the protocol's name
        check: bool = False,
    ) -> CommandResult:
        del timeout_s, cwd, env, input, check
        assert not isinstance(command, str)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        return CommandResult(
            " ".join(command), process.returncode, out.decode(), err.decode(), truncated=self.truncates
        )

    async def session(self) -> ShellSession:
        raise NotImplementedError

    async def read_bytes(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    async def read_text(self, path: str) -> str:
        return (self.folder / path).read_text()

    async def write_bytes(self, path: str, content: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    async def write_text(self, path: str, content: str) -> None:
        await self.write_bytes(path, content.encode())

    async def listdir(self, path: str = ".") -> list[str]:
        return sorted(entry.name for entry in (self.folder / path).iterdir())


@pytest.fixture
def shell(tmp_path: Path) -> FolderShell:
    folder = tmp_path / "ws"
    for name, content in (
        ("report.txt", "good"),
        ("out/a.csv", "1"),
        ("out/deep/b.csv", "22"),
        ("out/c.txt", "no"),
        ("odd name\nwith a line", "odd"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    made: Any = FolderShell(folder)
    assert isinstance(made, Shell)
    return FolderShell(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "carried").mkdir()
    return tmp_path / "carried"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("report.txt", ["report.txt", "report.txt/below"], ["a/report.txt", "report_txt"]),
        ("out/*.csv", ["out/a.csv"], ["out/deep/a.csv", "out/a.txt"]),
        ("out/**/*.csv", ["out/a.csv", "out/b/c/a.csv"], ["a.csv"]),
        ("**", ["a", "a/b/c"], []),
        (".", ["a", "a/b/c"], []),
        ("./out/", ["out/a", "out/b/c"], ["output"]),
        ("a?[0-9]", ["ab1"], ["ab", "a/1", "abc"]),
        ("[!a]x", ["bx"], ["ax", "/x"]),
    ],
)
async def test_patterns_say_which_files(pattern: str, yes: list[str], no: list[str]) -> None:
    match = matcher(pattern)
    assert [name for name in yes if not match(name)] == []
    assert [name for name in no if match(name)] == []


@pytest.mark.parametrize("pattern", ["", "/etc/passwd", "../x", "a/../../b"])
async def test_a_pattern_that_leads_out_is_refused(pattern: str) -> None:
    with pytest.raises(HudError, match="within the workspace"):
        matcher(pattern)


async def test_what_matches_is_carried_to_the_same_paths(
    shell: FolderShell, folder: Path, tmp_path: Path
) -> None:
    carried = await collect(shell, ["report.txt", "out/**/*.csv", "odd*"], folder)
    assert sorted(carried.files) == ["odd name\nwith a line", "out/a.csv", "out/deep/b.csv", "report.txt"]
    assert carried.size == len("good") + len("1") + len("22") + len("odd")
    (tmp_path / "other").mkdir()
    other = FolderShell(tmp_path / "other")
    await deliver(other, carried)
    assert (tmp_path / "other" / "out" / "deep" / "b.csv").read_text() == "22"
    assert not (tmp_path / "other" / "out" / "c.txt").exists()


async def test_links_pipes_and_sockets_are_named_and_never_opened(shell: FolderShell, folder: Path) -> None:
    ws = shell.folder
    (ws / "linked").symlink_to("/etc/passwd")
    (ws / "out" / "away").symlink_to("/etc")
    os.link(ws / "report.txt", ws / "hard.txt")
    os.mkfifo(ws / "pipe")
    carried = await collect(shell, ["**"], folder)
    assert set(carried.refused) == {"linked", "out/away", "hard.txt", "report.txt", "pipe"}
    assert "out/a.csv" in carried.files
    told = carried.described()
    assert told["refused_count"] == 5
    assert told["refused"]["pipe"] == "a link, a pipe or a device"


async def test_what_is_too_much_is_left(shell: FolderShell, folder: Path) -> None:
    with (shell.folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    carried = await collect(shell, ["**"], folder, bound=6)
    assert carried.size <= 6
    assert "over 6 bytes" in carried.refused["sparse"]
    assert any("with those before it" in why for why in carried.refused.values())
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == sorted(
        Path(name).name for name in carried.files
    )


async def test_a_listing_that_was_cut_is_an_error(shell: FolderShell, folder: Path) -> None:
    shell.truncates = True
    with pytest.raises(RuntimeFault, match="too many"):
        await collect(shell, ["**"], folder)
