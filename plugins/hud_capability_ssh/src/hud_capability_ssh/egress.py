"""The ways out of a sandbox that an author allows: a filtering proxy on its loopback, and services by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hud.errors import SandboxError
from hud_capability_ssh.belongings import Folder
from hud_capability_ssh.loopback import join, listen_inside
from hud_capability_ssh.network import PORT

if TYPE_CHECKING:
    from hud_capability_ssh.peers import Peer
    from hud_capability_ssh.sandbox import Sandbox

START_S = 30.0


class FilteringProxy:
    """`proxy.py` in a process of its own, on a unix socket; started with the first connection that needs it."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = list(hosts)
        self._folder: Folder | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open one connection to it."""
        async with self._starting:
            if self._process is None:
                await self._start()
        assert self._folder is not None
        return await asyncio.open_unix_connection(str(self._folder.path / "s"))

    async def _start(self) -> None:
        import importlib.util

        if importlib.util.find_spec("proxy") is None:
            raise SandboxError(
                "an allow-list of hosts needs proxy.py: pip install 'hud-capability-ssh[egress]'"
            )
        self._folder = Folder("hud-egress-")
        at = self._folder.path / "s"
        # It inherits nothing of this process's environment but where to find programs and certificates.
        kept = {k: os.environ[k] for k in ("PATH", "LANG", "SSL_CERT_FILE", "PYTHONPATH") if k in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hud_capability_ssh.egress_process",
            str(at),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**kept, "HOME": str(self._folder.path), "HUD_EGRESS_HOSTS": json.dumps(self._hosts)},
            start_new_session=True,
        )
        async with asyncio.timeout(START_S):
            while True:
                if self._process.returncode is not None:
                    raise SandboxError(f"the filtering proxy ended with status {self._process.returncode}")
                try:
                    _, writer = await asyncio.open_unix_connection(str(at))
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return

    async def close(self) -> None:
        """End it. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                async with asyncio.timeout(3):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                await process.wait()
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if self._folder is not None:
            await asyncio.to_thread(self._folder.remove)
            self._folder = None


class Egress:
    """Opens a workspace's ways out in each of its sandboxes."""

    def __init__(self, hosts: Sequence[str], peers: Sequence[Peer]) -> None:
        self._peers = tuple(peers)
        self._proxy = FilteringProxy(hosts) if hosts else None

    async def open(self, sandbox: Sandbox) -> list[asyncio.Server]:
        """Listen inside; what is returned is closed with the sandbox."""
        opened = []
        if self._proxy is not None:
            opened.append((await listen_inside(sandbox, PORT, self._to_proxy))[1])
        opened += [(await listen_inside(sandbox, peer.port, _to_peer(peer)))[1] for peer in self._peers]
        return opened

    async def _to_proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._proxy is not None
        try:
            outer = await self._proxy.connect()
        except (OSError, SandboxError, TimeoutError) as error:
            writer.write(f"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\nhud: {error}\n".encode())
            writer.close()
            return
        await join(reader, writer, *outer)

    async def close(self) -> None:
        """End the proxy."""
        if self._proxy is not None:
            await self._proxy.close()


def _to_peer(peer: Peer) -> Any:
    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            outer = await asyncio.open_connection(*peer.address)
        except OSError:
            writer.close()
            return
        await join(reader, writer, *outer)

    return arrived
