"""The contract of a capability whose client is a `Shell`: commands, files and sessions of a workspace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hud.capability.interfaces import Shell
from hud.testing.capability import CapabilityContract, MakeBacking
from hud.testing.contract import asynchronous


class ShellContract(CapabilityContract):
    """Inherit it as `CapabilityContract`; the client must also keep what `hud.capability.interfaces.Shell` says."""

    @asynccontextmanager
    async def shell(self, make_backing: MakeBacking, folder: Path) -> AsyncIterator[Shell]:
        """Serve a backing and open its shell."""
        async with self.served(make_backing(folder)) as client:
            opened = await client.open(self.offered(client).name)
            assert isinstance(opened, Shell), f"{type(opened).__name__} is no Shell"
            yield opened

    @asynchronous
    async def test_a_command_tells_output_and_status(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            result = await shell.run("echo out; echo err >&2; exit 3")
            assert (result.stdout, result.stderr) == ("out\n", "err\n")
            assert (result.exit_status, result.how, result.ok) == (3, "exited", False)
            assert (await shell.run(["echo", "two  words", "$HOME"])).stdout == "two  words $HOME\n"

    @asynchronous
    async def test_a_command_that_is_not_there_is_told_from_one_that_fails(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            assert (await shell.run("no-such-command-at-all")).exit_status == 127

    @asynchronous
    async def test_a_signal_is_named(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            result = await shell.run("kill -SEGV $$")
            assert result.how in ("signalled", "killed"), result
            assert result.exit_status is None
            assert "SEGV" in str(result.signal)

    @asynchronous
    async def test_a_timeout_ends_the_whole_command_and_keeps_what_it_printed(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            result = await shell.run("echo begun; sleep 300 & sleep 300", timeout_s=1)
            assert result.how == "timeout"
            assert result.stdout == "begun\n"
            assert (await shell.run("echo fine")).stdout == "fine\n"

    @asynchronous
    async def test_folder_variables_and_input_reach_the_command(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            await shell.run("mkdir -p sub")
            result = await shell.run("pwd; echo $WORD; cat", cwd="sub", env={"WORD": "moon"}, input="typed")
            folder, word, typed = result.stdout.splitlines()
            assert folder == f"{shell.cwd.rstrip('/')}/sub"
            assert (word, typed) == ("moon", "typed")

    @asynchronous
    async def test_files_keep_their_bytes(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        content = bytes(range(256)) * 4096
        async with self.shell(make_backing, tmp_path) as shell:
            await shell.write_bytes("deep/er/file.bin", content)
            assert await shell.read_bytes("deep/er/file.bin") == content
            await shell.write_text("text", "grüße\n")
            assert await shell.read_text("text") == "grüße\n"
            assert (await shell.run("cat text")).stdout == "grüße\n"
            assert await shell.listdir() == ["deep", "text"]

    @asynchronous
    async def test_files_that_are_not_there_are_the_systems_errors(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            await shell.run("mkdir folder")
            with pytest.raises(FileNotFoundError):
                await shell.read_bytes("nothing")
            with pytest.raises(IsADirectoryError):
                await shell.read_bytes("folder")

    @asynchronous
    async def test_a_session_stays_what_it_was(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            session = await shell.session()
            await session.run("mkdir -p inside; cd inside; export WORD=moon; word() { echo $WORD; }")
            assert (await session.run("word; basename $PWD")).stdout == "moon\ninside\n"
            assert (await session.run("false")).exit_status == 1
            assert (await session.run("sleep 300", timeout_s=1)).how == "timeout"
            assert (await session.run("echo again")).stdout == "again\n"
            await session.restart()
            assert (await session.run("echo ${WORD-unset}")).stdout == "unset\n"
            await session.close()
            await session.close()

    @asynchronous
    async def test_commands_run_side_by_side(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            # Each waits for the other's file, so that they end only if both run at once.
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(
                        shell.run(
                            f"touch {mine}; until [ -e {other} ]; do sleep 0.01; done; echo {mine}",
                            timeout_s=30,
                        )
                    )
                    for mine, other in (("a", "b"), ("b", "a"))
                ]
            assert [task.result().stdout for task in running] == ["a\n", "b\n"]

    @asynchronous
    async def test_a_flood_of_output_is_bounded(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.shell(make_backing, tmp_path) as shell:
            result = await shell.run(
                "head -c 200000000 /dev/zero | tr '\\0' 'x'; echo; echo end", timeout_s=60
            )
            assert result.truncated
            assert len(result.stdout) <= 32 * 1024 * 1024
            assert result.stdout.endswith("end\n")
