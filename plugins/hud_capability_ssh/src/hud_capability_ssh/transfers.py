"""Whole files over one channel, as our own client asks for them: content as it is, one round trip for a file.

Sftp cuts files into packets of its own inside those of ssh, each copied several times on both sides. Here a request is
a line of JSON, `{"read": path, "most": bytes}` or `{"write": path, "size": bytes}`, with the content
behind the latter. An answer is a line of JSON, `{"size": bytes}` with the content of a read behind it,
`{"errno": n}`, or `{"failed": text}` where the sandbox cannot be had. Requests are served in order.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import asyncssh

from hud.errors import SandboxError

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Sandbox
    from hud_capability_ssh.server import Served

SUBSYSTEM = "files@hud"
"""A subsystem of ours (RFC 4250, section 4.6.1 allows names with a domain)."""
PIECE = 256 << 10
LONGEST_LINE = 64 << 10
LARGEST = 1 << 50
WITHOUT_SIZE = 1 << 20
"""How much is read of a file that says it holds nothing, as those of some kernel file systems do."""


async def serve(
    reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes], workspace: Served
) -> None:
    """Answer requests until the client ends the channel, or goes away in the middle."""
    channel: Any = writer.channel
    channel.set_write_buffer_limits(high=4 * PIECE)
    try:
        await _answer_all(reader, writer, workspace)
        channel.exit(0)
    except (OSError, asyncssh.Error):
        # What it raises would end the whole connection.
        channel.abort()


async def _answer_all(
    reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes], workspace: Served
) -> None:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n") or len(line) > LONGEST_LINE:
            return
        try:
            request = json.loads(line)
            reading = "read" in request
            path = str(request["read" if reading else "write"])
            size = int(request.get("most" if reading else "size", LARGEST))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return
        if not 0 <= size <= LARGEST:
            return
        if reading:
            await _read(writer, workspace, path, size)
        elif not await _write(reader, writer, workspace, path, size):
            return


async def _inside(workspace: Served) -> Sandbox:
    await workspace.client_came_in()
    return await workspace.running()


async def _read(writer: asyncssh.SSHWriter[bytes], workspace: Served, path: str, most: int) -> None:
    try:
        sandbox = await _inside(workspace)
        fd = await sandbox.open(path)
    except (OSError, SandboxError, UnicodeError) as error:
        _tell(writer, _complaint(error))
        return
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            _tell(writer, {"errno": errno.EISDIR})
            return
        if found.st_size > most:
            _tell(writer, {"errno": errno.EFBIG, "size": found.st_size})
            return
        first = os.pread(fd, min(found.st_size, PIECE) or WITHOUT_SIZE, 0)
        size = max(found.st_size, len(first))
        _tell(writer, {"size": size})
        sent = 0
        while first:
            first = first[: size - sent]
            writer.write(first)
            sent += len(first)
            await writer.drain()
            first = os.pread(fd, PIECE, sent) if sent < size else b""
        if sent < size:
            # It became shorter meanwhile: what follows could not be told from content.
            writer.channel.abort()
    finally:
        os.close(fd)


async def _write(
    reader: asyncssh.SSHReader[bytes],
    writer: asyncssh.SSHWriter[bytes],
    workspace: Served,
    path: str,
    size: int,
) -> bool:
    """Write one file; False where the client went away in the middle."""
    fd = -1
    failed: OSError | SandboxError | UnicodeError | None = None
    try:
        try:
            sandbox = await _inside(workspace)
            if size > sandbox.spec.limits.disk:
                raise OSError(errno.EFBIG, "more than the workspace's disk")
            fd = await _opened(sandbox, path)
        except (OSError, SandboxError, UnicodeError) as error:
            failed = error
        left = size
        while left:
            data = memoryview(await reader.read(min(left, 2 * PIECE)))
            if not data:
                return False
            left -= len(data)
            while failed is None and data:
                try:
                    data = data[os.write(fd, data) :]
                except OSError as error:
                    failed = error
    finally:
        if fd >= 0:
            os.close(fd)
    _tell(writer, {"size": size} if failed is None else _complaint(failed))
    return True


async def _opened(sandbox: Sandbox, path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return await sandbox.open(path, flags)
    except FileNotFoundError:
        at = path if path.startswith("/") else f"{sandbox.spec.guest_path}/{path}"
        await sandbox.change("makedirs", os.fsencode(os.path.dirname(at)), 0o777, True)  # noqa: PTH120 - inside
        return await sandbox.open(path, flags)


def _complaint(error: OSError | SandboxError | UnicodeError) -> dict[str, Any]:
    if isinstance(error, UnicodeError):
        return {"errno": errno.EINVAL}
    if isinstance(error, OSError) and error.errno is not None:
        return {"errno": error.errno}
    return {"failed": str(error)}


def _tell(writer: asyncssh.SSHWriter[bytes], answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
