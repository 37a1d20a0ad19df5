"""The `apply_patch` tool: both forms of patch, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hud.capability.tool import Tool
from hud.errors import HudError
from hud_capability_ssh.tools.arguments import ToolError, answering, schema, string, text
from hud_capability_ssh.tools.patch import Change, PatchError, applied, parsed

if TYPE_CHECKING:
    from hud_capability_ssh.client import SSHClient


def patch_tool(client: SSHClient) -> Tool:
    """Make the tool."""

    async def body(arguments: Mapping[str, Any]) -> str:
        plan = _Plan(client)
        try:
            changes = parsed(text(arguments, "patch"))
            for change in changes:
                await plan.add(change)
        except PatchError as error:
            raise ToolError(f"{error}; nothing was changed") from None
        await plan.carry_out()
        said = []
        for change in changes:
            moved = f" -> {change.target}" if change.target != change.path else ""
            said.append(f"{change.kind} {change.path}{moved}")
        return "\n".join(said)

    return Tool(
        name="apply_patch",
        description=(
            "Change several files at once, all or none. The patch is either `*** Begin Patch` ... `*** End Patch` with "
            "`*** Add File:`, `*** Update File:` (and `*** Move to:`), `*** Delete File:` sections, or a unified diff."
        ),
        parameters=schema(("patch",), patch=string("The patch's text.")),
        handler=answering(body),
        native="apply_patch",
        parallel=False,
    )


class _Plan:
    """What each file is to hold; None where it is to be gone. A file may be changed more than once."""

    def __init__(self, client: SSHClient) -> None:
        self._client = client
        self._before: dict[str, bytes | None] = {}
        self._after: dict[str, bytes | None] = {}
        self._moved: dict[str, str] = {}

    async def add(self, change: Change) -> None:
        """Take in one more change.

        Raises:
            PatchError: it does not fit what there is.
        """
        path, target = self._client.at(change.path), self._client.at(change.target)
        before = await self._content(path)
        if change.kind == "add" and before is not None:
            raise PatchError(f"{change.path} exists already; update it instead")
        created = all(not hunk.old for hunk in change.hunks)  # as `diff -N` writes a new file
        if before is None and (change.kind == "delete" or (change.kind == "update" and not created)):
            raise PatchError(f"{change.path} does not exist")
        after = applied(change, (before or b"").decode("utf-8", "surrogateescape"))
        if target != path:
            await self._content(target)
            self._after[path] = None
            self._moved[target] = self._moved.pop(path, path)
        self._after[target] = None if after is None else after.encode("utf-8", "surrogateescape")

    async def _content(self, path: str) -> bytes | None:
        if path not in self._after:
            try:
                self._before[path] = await self._client.read_bytes(path)
            except FileNotFoundError:
                self._before[path] = None
            self._after[path] = self._before[path]
        return self._after[path]

    async def carry_out(self) -> None:
        """Write it all, or put back what was there and raise."""
        done: list[str] = []
        try:
            for path, content in sorted(self._after.items(), key=lambda item: item[1] is None):
                done.append(path)
                await self._put(path, content, self._moved.get(path))
        except (OSError, HudError):
            for path in reversed(done):
                with suppress(OSError, HudError):
                    await self._put(path, self._before[path], None)
            raise

    async def _put(self, path: str, content: bytes | None, moved_from: str | None) -> None:
        if content is None:
            await self._client.run(["rm", "-f", "--", path], check=True)
            return
        await self._client.write_bytes(path, content)
        if moved_from is not None:
            await self._client.run(["chmod", "--reference", moved_from, "--", path], check=True)
