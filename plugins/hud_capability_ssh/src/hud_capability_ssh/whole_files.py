"""The client's side of `transfers`: whole files in and out over one channel."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hud_capability_ssh.errors import SSHConnectionError
from hud_capability_ssh.transfers import PIECE, SUBSYSTEM

if TYPE_CHECKING:
    import asyncssh

    from hud_capability_ssh.client import SSHClient


WORDS = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "permission denied",
    errno.ENOTDIR: "not a folder",
    errno.EISDIR: "is a folder",
}
"""As they are told of the files of other servers."""


class WholeFiles:
    """One request at a time; a channel that was left in the middle of one is not used again."""

    def __init__(self, client: SSHClient) -> None:
        self._client = client
        self._conn: asyncssh.SSHClientConnection | None = None
        self._reader: asyncssh.SSHReader[bytes] | None = None
        self._writer: asyncssh.SSHWriter[bytes] | None = None
        self._busy = asyncio.Lock()

    async def read(self, path: str, most: int) -> bytes:
        """Return a file's content; `OSError` 27 where it is more than `most` bytes."""
        async with self._channel() as (reader, writer):
            answer = await _asked(reader, writer, path, {"read": path, "most": most})
            return await reader.readexactly(answer["size"]) if answer["size"] else b""

    async def write(self, path: str, content: bytes) -> None:
        """Write a file, making its folder where it is missing."""
        async with self._channel() as (reader, writer):
            _send(writer, {"write": path, "size": len(content)})
            view = memoryview(content)
            for at in range(0, len(view), PIECE):
                writer.write(cast("bytes", view[at : at + PIECE]))  # copied by the library, at once
                await writer.drain()
            await _answer(reader, path)

    async def download(self, path: str, local: Path) -> None:
        """Copy a file to here."""
        async with self._channel() as (reader, writer):
            left = (await _asked(reader, writer, path, {"read": path}))["size"]
            with local.open("wb") as file:
                while left:
                    data = await reader.read(min(left, 2 * PIECE))
                    if not data:
                        raise asyncio.IncompleteReadError(b"", left)
                    file.write(data)
                    left -= len(data)

    async def upload(self, local: Path, path: str) -> None:
        """Copy a file from here."""
        with local.open("rb") as file:
            size = left = os.fstat(file.fileno()).st_size
            async with self._channel() as (reader, writer):
                _send(writer, {"write": path, "size": size})
                while left:
                    data = file.read(min(left, PIECE))
                    if not data:
                        raise OSError(5, "it became shorter while it was copied", str(local))
                    writer.write(data)
                    left -= len(data)
                    await writer.drain()
                await _answer(reader, path)

    @asynccontextmanager
    async def _channel(
        self,
    ) -> AsyncIterator[tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]]:
        import asyncssh

        async with self._busy:
            conn = await self._client.connection()
            if self._conn is not conn or self._writer is None or self._writer.is_closing():
                self._writer, self._reader, _ = await conn.open_session(subsystem=SUBSYSTEM, encoding=None)
                self._conn = conn
            reader, writer = self._reader, self._writer
            assert reader is not None
            assert writer is not None
            self._writer = None
            try:
                yield reader, writer
            except Refused as refused:
                self._writer = writer
                raise refused.error from None
            except (asyncio.IncompleteReadError, BrokenPipeError, asyncssh.Error) as error:
                writer.channel.abort()
                raise SSHConnectionError("the connection broke in the middle of a file") from error
            except BaseException:
                writer.channel.abort()
                raise
            self._writer = writer


class Refused(Exception):  # noqa: N818 - never seen outside
    """The request was answered in full, with an error."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def _send(writer: asyncssh.SSHWriter[bytes], request: dict[str, Any]) -> None:
    writer.write(json.dumps(request).encode() + b"\n")


async def _asked(
    reader: asyncssh.SSHReader[bytes],
    writer: asyncssh.SSHWriter[bytes],
    path: str,
    request: dict[str, Any],
) -> dict[str, Any]:
    _send(writer, request)
    return await _answer(reader, path)


async def _answer(reader: asyncssh.SSHReader[bytes], path: str) -> dict[str, Any]:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    answer: dict[str, Any] = json.loads(line)
    if "failed" in answer:
        raise Refused(OSError(5, str(answer["failed"]), path))
    if "errno" in answer:
        number = int(answer["errno"])
        raise Refused(OSError(number, WORDS.get(number) or os.strerror(number), path))
    return answer
