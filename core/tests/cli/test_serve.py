"""`hud serve`: its announcement, its token, its end."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

HUD = Path(sys.executable).with_name("hud")


@contextmanager
def _serving(
    folder: Path, *words: str, program: Sequence[str] = (str(HUD), "serve"), **options: Any
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `hud serve` and yield it with its port, once it accepts connections."""
    with subprocess.Popen(
        [*program, "--port", "0", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().lstrip() or process.stdout.readline()
            assert line.startswith("HUD_SERVE_PORT="), process.stderr.read() if process.stderr else line
            yield process, int(line.partition("=")[2])
        finally:
            process.kill()
            process.communicate()


def _ask(port: int, *frames: dict[str, Any]) -> list[dict[str, Any]]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock, sock.makefile("rw") as channel:
        replies = []
        for number, frame in enumerate(frames):
            channel.write(json.dumps({"jsonrpc": "2.0", "id": number, **frame}) + "\n")
            channel.flush()
            replies.append(json.loads(channel.readline()))
        return replies


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 with its key in one file, and what a client checks it with."""
    authority = trustme.CA()
    file = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(file))
    checks = ssl.create_default_context()
    authority.configure_trust(checks)
    return file, checks


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [[str(HUD), "serve"], [sys.executable, "-m", "hud.environment.server", "env.py"]]
)
def test_it_speaks_tls_with_a_certificate(
    letters: Path, certificate: tuple[Path, ssl.SSLContext], program: list[str]
) -> None:
    file, checks = certificate
    with _serving(letters, "--tls-cert", str(file), program=program) as (_, port):
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        with plain, checks.wrap_socket(plain, server_hostname="127.0.0.1") as channel:
            channel.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "hello"}\n')
            assert json.loads(channel.makefile("r").readline())["result"]["env"]["name"] == "letters"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tls-cert", "none.pem"], "the TLS certificate none.pem or its key cannot be used"),
        (["--tls-key", "key.pem"], "a TLS key key.pem was given without its certificate"),
        (["--tls-cert", "c.pem", "--unix", "s"], "TLS is for TCP; s is a unix socket"),
    ],
)
def test_what_it_cannot_speak_tls_with_is_named(letters: Path, words: list[str], why: str) -> None:
    done = subprocess.run(
        [str(HUD), "serve", *words], cwd=letters, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_it_serves_once_it_has_announced(letters: Path) -> None:
    with _serving(letters) as (_, port):
        started, graded = _ask(
            port,
            {"method": "tasks.start", "params": {"id": "count", "args": {"word": "berry"}}},
            {"method": "tasks.grade", "params": {"answer": "2"}},
        )
    assert started["result"]["prompt"] == "How many r in berry?"
    assert graded["result"]["score"] == 1.0


def test_a_delivered_token_is_required_and_gone_from_the_environment(letters: Path) -> None:
    with (letters / "env.py").open("a", encoding="utf-8") as file:
        file.write("\nimport os\nassert 'HUD_TOKEN' not in os.environ\n")
    with _serving(letters, env={**os.environ, "HUD_TOKEN": "s3cret"}) as (_, port):
        refused, *_ = _ask(port, {"method": "hello", "params": {}})
        accepted, *_ = _ask(port, {"method": "hello", "params": {"token": "s3cret"}})
    assert refused["error"]["code"] == -32001
    assert accepted["result"]["env"]["name"] == "letters"


@pytest.mark.slow
def test_a_signal_ends_it_cleanly(letters: Path) -> None:
    (letters / "env.py").write_text(
        (letters / "env.py").read_text(encoding="utf-8")
        + "\n@env.shutdown\nasync def _down():\n    open('down', 'w').close()\n",
        encoding="utf-8",
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        (letters / "down").unlink(missing_ok=True)
        with _serving(letters) as (process, _):
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0
            assert "Traceback" not in errors
        assert (letters / "down").exists()


@pytest.mark.slow
def test_on_a_terminal_a_fresh_token_is_printed_once(letters: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [str(HUD), "serve", "--port", "0"], cwd=letters, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        shown = ""
        while "Ctrl-C" not in shown:
            shown += os.read(leader, 4096).decode()
        found = re.search(r"tcp://127\.0\.0\.1:(\d+)\?token=([0-9a-f]{64})", shown)
        assert found is not None, shown
        assert shown.count(found[2]) == 1
        refused, *_ = _ask(int(found[1]), {"method": "hello", "params": {}})
        accepted, *_ = _ask(int(found[1]), {"method": "hello", "params": {"token": found[2]}})
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    os.close(leader)
    assert refused["error"]["code"] == -32001
    assert accepted["result"]["session_id"]


def test_a_unix_socket(letters: Path) -> None:
    with _serving(letters, "--unix", "s"):

        async def hello() -> dict[str, Any]:
            reader, writer = await asyncio.open_unix_connection(str(letters / "s"))
            writer.write(b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{}}\n')
            reply: dict[str, Any] = json.loads(await reader.readline())
            writer.close()
            await writer.wait_closed()
            return reply

        assert asyncio.run(hello())["result"]["env"]["name"] == "letters"


def test_a_port_in_use_is_said_in_one_line(letters: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [str(HUD), "serve", "--port", port],
            check=False,
            cwd=letters,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_factory_takes_arguments(letters: Path) -> None:
    (letters / "made.py").write_text(
        "from hud.environment import Environment\n"
        "def make(name, size=1):\n"
        "    return Environment(name=f'{name}-{size + 1}')\n",
        encoding="utf-8",
    )
    with _serving(letters, "made:make", "--arg", "name=big", "--arg", "size=41") as (_, port):
        hello, *_ = _ask(port, {"method": "hello", "params": {}})
    assert hello["result"]["env"]["name"] == "big-42"


@pytest.mark.slow
def test_a_source_that_raises_shows_its_author_the_line(letters: Path) -> None:
    (letters / "env.py").write_text("import os\n\nvalue = {}['missing']\n", encoding="utf-8")
    done = subprocess.run(
        [str(HUD), "serve"], check=False, cwd=letters, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "env.py" in done.stderr
    assert "value = {}['missing']" in done.stderr
    assert "KeyError" in done.stderr
    assert "hud/cli" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_isolated_sessions_survive_one_that_ends_its_process(letters: Path) -> None:
    with (letters / "env.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n\n@env.template()\nasync def leave():\n    __import__('os')._exit(7)\n    yield 'never'\n"
        )
    with _serving(letters, "--isolate") as (process, port):
        (left,) = _ask(port, {"method": "tasks.start", "params": {"id": "leave"}})
        started, graded = _ask(
            port,
            {"method": "tasks.start", "params": {"id": "count", "args": {"word": "berry"}}},
            {"method": "tasks.grade", "params": {"answer": "2"}},
        )
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
    assert left["error"]["data"]["type"] == "RuntimeDiedError"
    assert "exited with status 7" in left["error"]["message"]
    assert started["result"]["prompt"] == "How many r in berry?"
    assert graded["result"]["score"] == 1.0
    assert "serving letters" in errors


def test_a_factory_with_arguments_cannot_be_isolated(letters: Path) -> None:
    done = subprocess.run(
        [str(HUD), "serve", "--isolate", "--arg", "a=1"],
        check=False,
        cwd=letters,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "--isolate" in done.stderr


def test_what_author_code_prints_is_kept_from_the_announcement(letters: Path) -> None:
    with (letters / "env.py").open("a", encoding="utf-8") as file:
        file.write("\nimport os\nprint('half a line', end='')\nos.system('echo from a child')\n")
    with _serving(letters) as (process, _):
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert output == ""
    assert "half a line" in errors
    assert "from a child" in errors
