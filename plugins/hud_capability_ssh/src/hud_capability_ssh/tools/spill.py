"""Long output: head and tail for the model, the whole in a file that it can read."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hud_capability_ssh.errors import CommandFailedError, SSHConnectionError

if TYPE_CHECKING:
    from hud_capability_ssh.client import SSHClient

SHOWN = 64 * 1024
FOLDER = "output"
"""Below the workspace's folder for temporary files."""


class Spill:
    """Numbers the files it writes, one for each output that was cut."""

    def __init__(self, client: SSHClient) -> None:
        self._client = client
        self._count = 0

    async def shown(self, output: str, limit: int = SHOWN) -> str:
        """Return `output`, or its first and last half of `limit` bytes and the name of the file with all of it."""
        raw = output.encode("utf-8", "replace")
        if len(raw) <= limit:
            return output
        self._count += 1
        try:
            path = f"{await self._client.temporary_folder()}/{FOLDER}/{self._count}.txt"
            kept = f"all of it is in {path}"
            await self._client.write_bytes(path, raw)
        except (OSError, SSHConnectionError, CommandFailedError) as error:
            kept = f"it could not be kept in a file ({error})"
        half = limit // 2
        head = raw[:half].decode("utf-8", "ignore")
        tail = raw[-half:].decode("utf-8", "ignore")
        # Cut between lines where one ends near.
        with contextlib.suppress(ValueError):
            head = head[: head.rindex("\n", len(head) - 2000) + 1]
        with contextlib.suppress(ValueError):
            tail = tail[tail.index("\n", 0, 2000) + 1 :]
        left_out = len(raw) - len(head.encode()) - len(tail.encode())
        return f"{head}\n[... {left_out} of {len(raw)} bytes left out; {kept} ...]\n{tail}"


def printable(text: str) -> str:
    """Return text with the control characters that terminals act on written out; line breaks and tabs stay."""
    return text.translate(_CONTROLS) if any(map(_CONTROLS.__contains__, set(map(ord, text)))) else text


_CONTROLS = {code: f"\\x{code:02x}" for code in [*range(9), 11, 12, *range(14, 32), 127]}
