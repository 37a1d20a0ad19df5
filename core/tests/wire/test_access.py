"""Who may talk to a server: tokens, unix permissions, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from hud.clients import connect
from hud.errors import ConfigError, NotAuthorizedError, WireError
from hud.runtime.contract import Runtime
from hud.testing.rawclient import RawClient
from hud.wire import auth, tls
from hud.wire.server import Server, start_server

if TYPE_CHECKING:
    from .conftest import Echo, World

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[Server]]
TOKEN = "a" * 64


@pytest.mark.parametrize(
    "method", ["tasks.list", "tasks.start", "tasks.grade", "tasks.cancel", "bye", "ping", "no.such"]
)
async def test_nothing_is_answered_before_the_token(serve: Serve, method: str) -> None:
    async with serve(token=TOKEN) as server, await RawClient.dial(server.url) as client:
        error = await client.error(method, {"id": "echo", "answer": 1})
        assert error["code"] == -32001
        assert "fake" not in json.dumps(error)
        assert await client.ended()


@pytest.mark.parametrize(
    "given", [{}, {"token": ""}, {"token": "b" * 64}, {"token": TOKEN[:-1]}, {"token": 5}, {"token": None}]
)
@pytest.mark.parametrize("method", ["hello", "tunnel.open"])
async def test_a_wrong_token_is_refused_before_anything_else_is_looked_at(
    serve: Serve, echo: Echo, method: str, given: dict[str, Any]
) -> None:
    async with serve(token=TOKEN) as server, await RawClient.dial(server.url) as client:
        error = await client.error(method, {**given, "session_id": 5, "capability": "echo"})
        assert error["code"] == -32001
        assert error["data"]["type"] == "NotAuthorizedError"
        assert TOKEN not in json.dumps(error)
        assert await client.ended()
        assert echo.connections == 0
        assert len(server.sessions) == 0


async def test_the_right_token_opens_everything(serve: Serve, echo: Echo) -> None:
    async with serve(token=TOKEN) as server:
        async with await RawClient.dial(server.url) as client:
            assert "token" in (await client.result("hello", {"token": TOKEN}))["features"]
            await client.result("tasks.start", {"id": "echo"})
            assert (await client.result("tasks.grade", {"answer": "x"}))["score"] == 1.0
            await client.result("hello")  # a heartbeat needs it no more
            assert (await client.error("hello", {"token": "wrong"}))["code"] == -32001
        async with await RawClient.dial(server.url) as stream:
            assert (await stream.result("tunnel.open", {"token": TOKEN, "capability": "echo"})) == {
                "capability": "echo"
            }


async def test_a_session_id_alone_resumes_nothing(serve: Serve) -> None:
    async with serve(token=TOKEN) as server:
        async with await RawClient.dial(server.url) as client:
            session_id = (await client.result("hello", {"token": TOKEN}))["session_id"]
            await client.result("tasks.start", {"id": "echo"})
        async with await RawClient.dial(server.url) as thief:
            assert (await thief.error("hello", {"session_id": session_id}))["code"] == -32001
        async with await RawClient.dial(server.url) as thief:
            await thief.result("hello", {"token": TOKEN})
            assert (await thief.error("tasks.grade", {"answer": "x"}))["code"] == -32600, (
                "adoption is off with a token"
            )
        async with await RawClient.dial(server.url) as owner:
            await owner.result("hello", {"token": TOKEN, "session_id": session_id})
            assert (await owner.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_little_is_read_before_the_token(serve: Serve) -> None:
    async with serve(token=TOKEN) as server, await RawClient.dial(server.url) as client:
        await client.send(b'{"id": 1, "method": "hello", "params": {"x": "' + b"a" * 70_000)
        frame = await client.receive()
        assert frame is not None
        assert frame["error"]["code"] == -32600
        assert "65536" in frame["error"]["message"]
        assert await client.ended()


async def test_an_attempt_without_a_token_does_not_move_the_deadline(serve: Serve) -> None:
    async with serve(token=TOKEN, handshake_s=0.2) as server, await RawClient.dial(server.url) as client:
        frame = await client.receive()
        assert frame is not None
        assert "0.2 s" in frame["error"]["message"]


async def test_tokens_and_session_ids_reach_no_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(token=TOKEN) as server:
        async with await RawClient.dial(server.url) as client:
            session_id = (await client.result("hello", {"token": TOKEN}))["session_id"]
            await client.result("tasks.start", {"id": "fails"})
            await client.error("tasks.grade", {"answer": 1, "key": "secret-key"})
        async with await RawClient.dial(server.url) as client:
            await client.error("hello", {"token": "wrong" + TOKEN, "session_id": session_id})
    for secret in (TOKEN, session_id, "secret-key"):
        assert secret not in caplog.text


async def test_the_client_says_why_it_was_refused_and_does_not_try_again(serve: Serve) -> None:
    async with serve(token=TOKEN) as server:
        begun = time.monotonic()
        with pytest.raises(NotAuthorizedError):
            async with connect(Runtime(server.url, {"token": "wrong"}), ready_timeout=60):
                pass
        assert time.monotonic() - begun < 30
        with pytest.raises(NotAuthorizedError):
            async with connect(server.url):
                pass
        for runtime in (Runtime(server.url, {"token": TOKEN}), f"{server.url}?token={TOKEN}"):
            async with connect(runtime) as client:
                assert await client.list_tasks()


def test_tokens_are_long_and_fresh() -> None:
    assert len({auth.new_token() for _ in range(10)}) == 10
    assert len(auth.new_token()) == 64
    assert auth.matches(b"abc", "abc")
    for wrong in ("abd", "ab", "", None, 3, b"abc", "abc\ud800"):
        assert not auth.matches(b"abc", wrong)


def test_a_delivered_token_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    monkeypatch.setenv("HUD_TOKEN_FILE", str(file))
    monkeypatch.setenv("HUD_TOKEN", "from-variable")
    assert auth.take_delivered_token() == "from-file"
    assert not file.exists()
    assert "HUD_TOKEN" not in os.environ
    assert "HUD_TOKEN_FILE" not in os.environ
    assert auth.take_delivered_token() is None
    monkeypatch.setenv("HUD_TOKEN", "from-variable")
    assert auth.take_delivered_token() == "from-variable"
    monkeypatch.setenv("HUD_TOKEN_FILE", str(file))
    with pytest.raises(ConfigError, match="HUD_TOKEN_FILE"):
        auth.take_delivered_token()


async def test_a_unix_socket_is_its_owners_alone(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serve(unix_path=path) as server:
        assert server.url == f"unix://{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with await RawClient.dial(server.url) as client:
            await client.result("hello")
        async with connect(server.url) as known:
            await known.start_task("echo")
            assert (await known.grade("x"))["score"] == 1.0
        if os.geteuid() == 0:
            tmp_path.chmod(0o755)
            for folder in tmp_path.parents:
                if folder.stat().st_uid == 0 and folder != Path("/") and str(folder).startswith("/tmp/"):
                    folder.chmod(0o755)
            code = "import os,socket,sys; os.setuid(65534); s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code, str(path)], capture_output=True, check=False
            )
            assert b"PermissionError" in done.stderr
    assert not path.exists()


async def test_a_dead_servers_socket_file_is_replaced_and_a_live_ones_is_not(
    world: World, serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serve(unix_path=path):
        with pytest.raises(ConfigError, match="listens"):
            await start_server(world.service, unix_path=path)
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        await start_server(world.service, unix_path=path)
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match="107"):
        await start_server(world.service, unix_path=tmp_path / ("x" * 200))


async def test_a_port_in_use_is_named(world: World, serve: Serve) -> None:
    async with serve() as server:
        with pytest.raises(ConfigError, match=str(server.port)):
            await start_server(world.service, port=server.port)
    with pytest.raises(ConfigError, match=r"no\.such\.host\.invalid"):
        await start_server(world.service, host="no.such.host.invalid")


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        self.chain = folder / "chain.pem"
        self.key = folder / "key.pem"
        self.ca = folder / "ca.pem"
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(str(self.chain), append=number > 0)
        issued.private_key_pem.write_to_path(str(self.key))
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.pin = hashlib.sha256(
            ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
        ).hexdigest()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


async def test_tls_with_an_authority_or_a_pin(serve: Serve, certificates: Certificates) -> None:
    context = tls.server_context(certificates.chain, certificates.key)
    async with serve(tls=context, token=TOKEN) as server:
        assert server.url.startswith("tls://")
        assert tls.fingerprint(certificates.chain.read_text()) == certificates.pin
        for trusted in (
            {"ca": str(certificates.ca)},
            {"ca": certificates.ca.read_text()},
            {"pin": certificates.pin},
            {"pin": ":".join(certificates.pin.upper()[i : i + 2] for i in range(0, 64, 2))},
            {"ca": str(certificates.ca), "pin": certificates.pin},
        ):
            async with connect(Runtime(server.url, {"token": TOKEN, **trusted})) as client:
                await client.start_task("echo", {"word": "tls"})
                assert (await client.grade("tls", key="k"))["score"] == 1.0


@pytest.mark.parametrize(
    "params", [{}, {"pin": "0" * 64}, {"ca": "other"}], ids=["nothing", "another pin", "another CA"]
)
async def test_an_untrusted_certificate_is_refused_before_the_token_is_sent(
    certificates: Certificates, tmp_path: Path, params: dict[str, str]
) -> None:
    seen: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            seen.append(await reader.read(1000))
        writer.close()

    if params.get("ca"):
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        params = {"ca": str(tmp_path / "other.pem")}
    context = tls.server_context(certificates.chain, certificates.key)
    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(WireError, match="not trusted"):
            async with connect(
                Runtime(f"tls://127.0.0.1:{port}", {"token": TOKEN, **params}), ready_timeout=30
            ):
                pass
    assert not any(seen)


async def test_plain_text_to_a_tls_server_disturbs_nobody(serve: Serve, certificates: Certificates) -> None:
    context = tls.server_context(certificates.chain, certificates.key)
    async with serve(tls=context) as server:
        async with await RawClient.dial(server.url.replace("tls:", "tcp:")) as client:
            await client.send(b'{"id": 1, "method": "hello"}\n' * 10)
            assert await client.reader.read() == b"" or True
        async with connect(Runtime(server.url, {"pin": certificates.pin})) as known:
            assert await known.list_tasks()


async def test_garbage_over_tls_gets_its_error_frame(serve: Serve, certificates: Certificates) -> None:
    context = tls.server_context(certificates.chain, certificates.key)
    trusting = ssl.create_default_context(cafile=str(certificates.ca))
    async with serve(tls=context) as server, await RawClient.dial(server.url, tls=trusting) as client:
        await client.send(b"garbage\n")
        frame = await client.receive()
        assert frame is not None
        assert frame["error"]["code"] == -32700
        assert await client.ended()


async def test_a_bad_certificate_or_authority_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.pem"):
        tls.server_context(tmp_path / "nothing.pem")
    with pytest.raises(ConfigError, match="ca"):
        tls.client_context({"ca": str(tmp_path / "nothing.pem")})
