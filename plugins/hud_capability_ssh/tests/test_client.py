"""Commands, files and connections through the client."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from hud.capability.interfaces import Shell
from hud.types import Capability
from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.errors import CommandFailedError, SSHConnectionError
from hud_capability_ssh.workspace import Workspace

pytestmark = pytest.mark.anyio


async def test_is_a_shell(client: SSHClient) -> None:
    assert isinstance(client, Shell)


async def test_returns_output_and_status_apart(client: SSHClient) -> None:
    result = await client.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_status, result.how) == ("out\n", "err\n", 3, "exited")


async def test_check_raises_with_the_result(client: SSHClient) -> None:
    with pytest.raises(CommandFailedError, match="exited with 4") as caught:
        await client.run("exit 4", check=True)
    assert caught.value.result.exit_status == 4


async def test_input_directory_and_variables_reach_the_command(client: SSHClient) -> None:
    result = await client.run("cat; pwd; echo $COLOR", input="typed\n", cwd="/tmp", env={"COLOR": "red"})
    assert result.stdout == "typed\n/tmp\nred\n"


async def test_words_are_not_taken_apart_again(client: SSHClient) -> None:
    assert (await client.run(["printf", "%s|", "a b", "$HOME", "'"])).stdout == "a b|$HOME|'|"


@pytest.mark.slow
async def test_a_timeout_returns_what_was_printed_and_kills_all_it_started(client: SSHClient) -> None:
    result = await client.run(
        "echo early; (setsid nohup sleep 7777 &) ; trap '' TERM INT HUP; sleep 7777", timeout_s=0.5
    )
    assert (result.how, result.stdout, result.exit_status) == ("timeout", "early\n", None)
    assert (await client.run("pgrep -f 'sleep 777[7]'")).exit_status == 1


async def test_a_background_process_that_holds_the_output_does_not_hold_the_command(
    client: SSHClient,
) -> None:
    result = await client.run("sleep 60 & echo started", timeout_s=20)
    assert (result.how, result.stdout) == ("exited", "started\n")
    assert (await client.run("until pgrep -xc sleep; do :; done")).stdout.endswith("1\n")


@pytest.fixture(params=["whole", "sftp"])
async def files(request: pytest.FixtureRequest, capability: Capability) -> AsyncIterator[SSHClient]:
    """A client that moves files our own way, and one that takes the server for any other."""
    params = {**capability.params, "whole_files": request.param == "whole"}
    made = await SSHClient.connect(replace(capability, params=params))
    yield made
    await made.close()


async def test_tells_apart_how_commands_end(client: SSHClient) -> None:
    assert (await client.run("no-such-program")).how == "not_found"
    killed = await client.run("kill -9 $$")
    assert (killed.how, killed.exit_status) == ("killed", None)
    assert (await client.run("kill -TERM $$")).how == "signalled"


async def test_output_is_bounded_and_keeps_both_ends(capability: Capability) -> None:
    params = {**capability.params, "output_bytes": 10_000}
    client = await SSHClient.connect(replace(capability, params=params))
    result = await client.run("echo first; yes | head -c 20000000; echo last")
    await client.close()
    assert result.truncated
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert len(result.stdout) < 11_000


async def test_binary_output_and_odd_bytes_come_through(files: SSHClient) -> None:
    content = bytes(range(256)) * 5000
    await files.write_bytes("deep/er/blob", content)
    assert await files.read_bytes("deep/er/blob") == content
    assert (await files.run("sha256sum < deep/er/blob | cut -c1-8; printf 'a\\0b\\377'")).stdout.endswith(
        "a\0b\ufffd"
    )


@pytest.mark.slow
async def test_uploads_and_downloads_files_and_folders(files: SSHClient, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "big").write_bytes(os.urandom(9_000_000))
    await files.upload(tmp_path / "tree", "copy")
    await files.run(
        "ln -s /etc/passwd copy/out; ln -s sparse copy/link; truncate -s 5000000 copy/sparse; echo x >> copy/sparse",
        check=True,
    )
    await files.download("copy", tmp_path / "back")
    back = tmp_path / "back"
    assert (back / "sub" / "big").read_bytes() == (tmp_path / "tree" / "sub" / "big").read_bytes()
    assert (back / "sparse").read_bytes() == bytes(5_000_000) + b"x\n"
    assert (back / "link").is_symlink(), "a link is copied as a link, never what it points to"
    assert not (back / "out").exists()
    await files.download("copy/sub/big", tmp_path / "one")
    assert (tmp_path / "one").stat().st_size == 9_000_000
    (tmp_path / "into").mkdir()
    await files.download("copy/sub/big", tmp_path / "into")
    assert (tmp_path / "into" / "big").stat().st_size == 9_000_000
    await files.upload(tmp_path / "one", "copy/sub")
    assert (await files.run("stat -c %s copy/sub/one")).stdout == "9000000\n"
    with pytest.raises(FileNotFoundError):
        await files.download("copy/absent", tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


async def test_many_files_at_once(files: SSHClient) -> None:
    contents = {f"many/{number}": os.urandom(300_000 + number) for number in range(12)}
    await asyncio.gather(*(files.write_bytes(path, content) for path, content in contents.items()))
    assert await asyncio.gather(*(files.read_bytes(path) for path in contents)) == list(contents.values())


@pytest.mark.slow
async def test_a_file_given_up_in_the_middle_does_not_disturb_the_next(files: SSHClient) -> None:
    await files.run("head -c 30000000 /dev/zero > large; echo small > small", check=True)
    for _ in range(5):
        reading = asyncio.ensure_future(files.read_bytes("large"))
        await files.run("true")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert await files.read_text("small") == "small\n"
    with pytest.raises(TimeoutError):
        await files.read_bytes("large", timeout_s=0.001)
    assert await files.read_text("small") == "small\n"


async def test_a_file_that_shrinks_while_it_is_read_is_an_error_or_what_it_was(client: SSHClient) -> None:
    await client.run("head -c 60000000 /dev/zero > changing; echo small > small", check=True)
    for _ in range(3):
        shrinking = asyncio.ensure_future(
            client.run("truncate -s 10 changing; truncate -s 60000000 changing")
        )
        with contextlib.suppress(SSHConnectionError):
            assert len(await client.read_bytes("changing")) in (10, 60_000_000)
        await shrinking
        assert await client.read_text("small") == "small\n"


async def test_more_than_the_disk_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws", limits={"disk": "1m"})
    (capability,) = await workspace.start()
    client = await SSHClient.connect(capability)
    try:
        with pytest.raises(OSError, match="too large"):
            await client.write_bytes("large", bytes(2_000_000))
        await client.write_bytes("small", bytes(1000))
        assert await client.read_bytes("small") == bytes(1000)
    finally:
        await client.close()
        await workspace.stop()


async def test_file_errors_are_the_systems(files: SSHClient) -> None:
    await files.run("mkdir folder; echo x > secret; chmod 000 secret; mkfifo pipe")
    with pytest.raises(FileNotFoundError):
        await files.read_bytes("absent")
    with pytest.raises(IsADirectoryError):
        await files.read_bytes("folder")
    with pytest.raises(PermissionError):
        await files.read_bytes("secret")
    with pytest.raises(OSError, match="pipe"):
        await files.read_bytes("pipe")


async def test_an_odd_name_is_a_name(files: SSHClient) -> None:
    await files.write_text("a 'b'\n$c", "content")
    assert await files.listdir() == ["a 'b'\n$c"]
    assert await files.read_text("a 'b'\n$c") == "content"


async def test_refuses_a_server_with_another_host_key(capability: Capability) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    impostor = replace(capability, params={**capability.params, "host_pubkey": other})
    with pytest.raises(SSHConnectionError, match=r"[Hh]ost key"):
        await SSHClient.connect(impostor)


async def test_a_client_with_another_key_is_refused(capability: Capability) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    stranger = replace(capability, params={**capability.params, "client_key": other})
    with pytest.raises(SSHConnectionError, match="denied"):
        await SSHClient.connect(stranger)


async def test_reconnects_without_losing_the_sandbox(client: SSHClient, workspace: Workspace) -> None:
    await client.run(
        "nohup sleep 500 > /dev/null 2>&1 & until pgrep -x sleep; do :; done; echo kept > /tmp/state"
    )
    client.conn.abort()
    await client.conn.wait_closed()
    assert (await client.run("cat /tmp/state; pgrep -c sleep")).stdout == "kept\n1\n"


async def test_a_command_of_a_megabyte_runs(client: SSHClient) -> None:
    long = "x" * 1_000_000
    result = await client.run(f"word={long}; echo ${{#word}}")
    assert result.stdout == "1000000\n"


async def test_cancelling_ends_the_command(client: SSHClient) -> None:
    running = asyncio.ensure_future(client.run("echo go > began; sleep 4321"))
    while "began" not in await client.listdir():
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gone = await client.run(
        "for i in $(seq 100); do pgrep -f 'sleep 432[1]' || exit 0; sleep 0.1; done; exit 1"
    )
    assert gone.exit_status == 0


async def test_streams(client: SSHClient) -> None:
    process = await client.create_process("while read line; do echo got $line; done")
    process.stdin.write("one\n")
    assert await process.stdout.readline() == "got one\n"
    process.stdin.write_eof()
    assert (await process.wait()).exit_status == 0


async def test_a_nul_is_refused_and_ends_nothing(client: SSHClient) -> None:
    await client.run("sleep 300 > /dev/null 2>&1 &", check=True)
    assert (await client.run("echo a\0b")).exit_status == 126
    assert (await client.run("pwd", cwd="a\0b")).exit_status == 126
    assert (await client.run("env", env={"A": "a\0b"})).exit_status == 126
    for refused in (client.read_bytes("a\0b"), client.write_bytes("a\0b", b""), client.listdir("a\0b")):
        with pytest.raises(OSError, match="Invalid argument"):
            await refused
    assert (await client.run("pgrep -x sleep")).ok


@pytest.mark.parametrize(
    "request_line",
    [
        b'{"write": "a", "size": -5}',
        b'{"write": "a", "size": 1e400}',
        b'{"write": "a", "size": 99999999999999999999999}',
        b'{"read": "a", "most": "x"}',
        b"[]",
        b"7",
        b"[" * 60_000,
        b"x" * 70_000,
    ],
)
async def test_a_wrong_request_for_a_file_ends_its_channel_only(
    client: SSHClient, request_line: bytes
) -> None:
    writer, reader, _ = await client.conn.open_session(subsystem="files@hud", encoding=None)
    writer.write(request_line + b"\n" + bytes(1 << 20))
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    assert not client.conn.is_closed()
    assert (await client.run("ls")).stdout == ""


async def test_a_read_of_four_gigabytes_takes_no_such_room(client: SSHClient) -> None:
    await client.run("truncate -s 200M holes", check=True)
    async with (await client.sftp()).open("/workspace/holes", "rb", block_size=0) as file:
        content = await file.read(200 << 20)
    assert 0 < len(content) <= 4 << 20
