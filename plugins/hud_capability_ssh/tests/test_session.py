"""The shell that stays."""

from __future__ import annotations

import asyncio

import pytest

from hud.capability.interfaces import ShellSession
from hud_capability_ssh.client import SSHClient

pytestmark = pytest.mark.anyio


async def test_keeps_directory_variables_functions_and_environments(client: SSHClient) -> None:
    session = await client.session()
    assert isinstance(session, ShellSession)
    await session.run(
        'cd /tmp; plain=1; export PATH=/tmp/venv/bin:$PATH; greet() { echo "hi $1"; }; alias x=y; set -- a b'
    )
    result = await session.run("pwd; echo $plain; greet you; echo ${PATH%%:*} $#")
    assert result.stdout.splitlines() == [
        "/tmp",
        "1",
        "hi you",
        "/tmp/venv/bin 2",
    ] or result.stdout.startswith("/tmp\n1\nhi you\n")
    assert session.cwd == "/tmp"
    await session.close()


async def test_output_is_exactly_the_commands(client: SSHClient) -> None:
    session = await client.session()
    for command, out, err in (
        ("printf 'no end'", "no end", ""),
        ("printf ''", "", ""),
        ("echo; echo >&2", "\n", "\n"),
        ("printf 'a\\0b'", "a\0b", ""),
        ("cat <<'X'\n$HOME\n'quoted'\nX", "$HOME\n'quoted'\n", ""),
        ("echo 'über' \"it's\"", "über it's\n", ""),
    ):
        result = await session.run(command)
        assert (result.stdout, result.stderr, result.exit_status) == (out, err, 0), command
    await session.close()


async def test_statuses_syntax_errors_and_signals(client: SSHClient) -> None:
    session = await client.session()
    assert (await session.run("(exit 42)")).exit_status == 42
    broken = await session.run("if true; then")
    assert broken.exit_status not in (0, None)
    assert "syntax error" in broken.stderr
    assert (await session.run("no-such-program")).how == "not_found"
    assert (await session.run("sh -c 'kill -9 $$'")).how == "killed"
    assert (await session.run("sh -c 'kill -SEGV $$'")).signal == "SIGSEGV"
    assert (await session.run("cat")).stdout == "", "a command has no input to wait for"
    assert session.restarts == 0
    await session.close()


@pytest.mark.slow
async def test_a_timeout_kills_what_the_command_started_and_keeps_the_shell(client: SSHClient) -> None:
    session = await client.session()
    await session.run("kept=yes; sleep 5001 > /dev/null 2>&1 &")
    await asyncio.sleep(0.05)  # younger than the tick the next command starts in
    result = await session.run("echo before; (setsid sleep 5002 &); sleep 5003", timeout_s=1)
    assert (result.how, result.stdout) == ("timeout", "before\n")
    after = await session.run("echo $kept; pgrep -f 'sleep 500[0-9]' -a | cut -d' ' -f2-")
    assert after.stdout == "yes\nsleep 5001\n"
    assert session.restarts == 0
    await session.close()


@pytest.mark.slow
async def test_a_shell_that_loops_by_itself_is_started_anew_in_its_folder(client: SSHClient) -> None:
    session = await client.session()
    await session.run("cd /tmp; lost=1")
    assert (await session.run("while :; do :; done", timeout_s=0.5)).how == "timeout"
    after = await session.run("pwd; echo [$lost]")
    assert after.stdout == "/tmp\n[]\n"
    assert session.restarts == 1
    await session.close()


async def test_exit_is_answered_and_the_next_command_works(client: SSHClient) -> None:
    session = await client.session()
    assert (await session.run("echo bye; exit 5")).exit_status == 5
    assert (await session.run("echo on")).stdout == "on\n"
    assert (await session.run("set -e; false; echo not reached")).stdout == ""
    assert (await session.run("echo on")).stdout == "on\n"
    await session.close()


async def test_restart_ends_what_the_shell_started(client: SSHClient) -> None:
    session = await client.session()
    await session.run("a=1; (setsid nohup sleep 5010 > /dev/null 2>&1 &)")
    await session.restart()
    assert (await session.run("echo [$a]")).stdout == "[]\n"
    gone = await client.run(
        "for i in $(seq 100); do pgrep -f 'sleep 501[0]' || exit 0; sleep 0.05; done; exit 1"
    )
    assert gone.exit_status == 0
    await session.close()


async def test_commands_of_one_session_take_turns_and_sessions_run_beside_each_other(
    client: SSHClient,
) -> None:
    one, two = await client.session(), await client.session()
    results = await asyncio.gather(
        *[one.run(f"echo {n}; sleep 0.01") for n in range(5)], two.run("echo other")
    )
    assert [r.stdout for r in results] == ["0\n", "1\n", "2\n", "3\n", "4\n", "other\n"]
    await one.close()
    await two.close()


async def test_much_output_is_cut_in_the_middle(client: SSHClient) -> None:
    client.output_bytes = 100_000
    session = await client.session()
    result = await session.run("seq 1000000")
    assert result.truncated
    assert result.stdout.startswith("1\n2\n")
    assert result.stdout.endswith("1000000\n")
    assert (await session.run("echo next")).stdout == "next\n"
    await session.close()


async def test_a_long_command_runs(client: SSHClient) -> None:
    session = await client.session()
    assert (await session.run(f"word={'x' * 300_000}; echo ${{#word}}")).stdout == "300000\n"
    await session.close()
